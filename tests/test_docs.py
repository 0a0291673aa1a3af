"""What the docs say exists does."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

from pipeline.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_configuration_page_is_what_the_model_says():
    script = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))
    assert (ROOT / "docs" / "configuration.md").read_text() == script["page"]()


def test_the_readme_configuration_is_valid():
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    RunConfig.parse(yaml.safe_load(block), "README.md")
