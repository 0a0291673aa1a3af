"""The configurations of docs/howto/datacomp.md's table of DataComp's baselines."""

import re
from typing import Any

import yaml

from tests.docs.commands import ROOT

PAGE = ROOT / "docs/howto/datacomp.md"


def read_baselines() -> dict[str, dict[str, Any]]:
    """`baselines.py --name` -> the configuration beside it, over the common part."""
    text = PAGE.read_text()
    common = re.search(r"```yaml\n# baseline\.yaml\n(.*?)```", text, re.DOTALL)
    table = re.search(r"\| `baselines\.py --name` \|.*?\n\|---\|---\|\n(.*?)\n\n", text, re.DOTALL)
    assert common and table
    found = {}
    for line in table[1].splitlines():
        name, cell = re.fullmatch(r"\| `(.+?)` \| (.*) \|", line).groups()
        sections = [yaml.safe_load(code) for code in re.findall(r"`([^`]+)`", cell)]
        assert sections or cell == "as above"
        found[name] = yaml.safe_load(common[1]) | {key: part[key] for part in sections for key in part}
    return found
