"""Every test that guarantees.md and security.md name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["guarantees.md", "security.md"])
def test_the_tests_named_beside_a_promise_exist(page):
    missing, named = [], 0
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        folder = ROOT
        for name in re.findall(r"`([^`]*(?:\.py|/))`", cells[-2] if len(cells) > 2 else ""):
            path = ROOT / name if name.startswith("tests/") else folder / name
            folder, named = path.parent, named + 1
            if not path.exists():
                missing.append(f"{name}: {line[:60]}")
    assert not missing and named > 10
