"""What the docs say exists does."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from pipeline.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def options(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every key of the configuration with its description."""
    found = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= options(annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.description or ""
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_option_is_in_the_configuration_page():
    page = (ROOT / "docs" / "configuration.md").read_text()
    for name, description in options(RunConfig).items():
        assert f"| `{name}` |" in page and description in page, name
    named = set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE))
    assert named == set(options(RunConfig))


def test_the_readme_configuration_is_valid():
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    RunConfig.parse(yaml.safe_load(block), "README.md")
