"""Links lead somewhere, configurations are valid, and generated pages are up to date."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from d2prune.config.model import RunConfig
from tests.docs.baselines import read_baselines
from tests.docs.commands import PAGES, ROOT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_configuration_page_is_up_to_date():
    script = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))
    assert (ROOT / "docs" / "configuration.md").read_text() == script["page"]()


def test_readme_configuration_is_valid():
    block = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    RunConfig.parse(yaml.safe_load(block), "README.md")


def test_command_line_page_is_up_to_date():
    script = runpy.run_path(str(ROOT / "docs" / "make_cli.py"))
    assert (ROOT / "docs" / "reference" / "cli.md").read_text() == script["page"]()


def test_figures_are_up_to_date(monkeypatch):
    script = runpy.run_path(str(ROOT / "docs" / "make_figures.py"))
    drawn = {}
    monkeypatch.setattr(Path, "write_text", lambda path, text, **_: drawn.update({path.name: text}))
    script["main"]()
    assert len(drawn) == 2
    for name, text in drawn.items():
        assert (ROOT / "docs" / "images" / name).read_text() == text


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not re.search(rf": {re.escape(page)}$", text, re.MULTILINE)} == set()


@pytest.mark.parametrize(
    ("page", "block"),
    [
        (page.relative_to(ROOT).as_posix(), block)
        for page in PAGES
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        if isinstance(values := yaml.safe_load(block), dict) and values.keys() & RunConfig.model_fields.keys()
    ],
)
def test_configurations_are_valid(page, block):
    """A block may leave out required keys; those it has are valid."""
    values = yaml.safe_load(block)
    required = {"input": "x", "work_dir": "y", "output": "z", "select": {"fraction": 0.3}}
    embed = values.get("embed", {})
    merged = {**required, **values, "embed": embed if "models" in embed else {"model": "demo", **embed}}
    RunConfig.parse(merged, page)


@pytest.mark.parametrize(("name", "values"), read_baselines().items())
def test_baselines_are_valid(name, values):
    RunConfig.parse(values, name)


def test_library_page_runs():
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/howto/library.md").read_text(), re.DOTALL):
        exec(block, names)
    assert (
        len(names["coreset"].indices) == 300
        and names["order"][:300].tolist() == names["coreset"].indices.tolist()
    )


def test_readme_library_example_runs():
    rng = np.random.default_rng(0)
    names: dict[str, object] = {
        "embeddings": rng.normal(size=(200, 16)).astype(np.float32),
        "difficulty": rng.random(200),
        "labels": rng.integers(0, 4, 200),
    }
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(block, names)
    assert len(names["coreset"].indices) == 60


@pytest.mark.parametrize("source", [None, "https://git.real.org/d2prune"])
def test_the_site_links_files_of_the_repository_once_it_has_a_url(source):
    hook = runpy.run_path(str(ROOT / "docs" / "site.py"))
    hook["on_page_markdown"].__globals__["read_source"] = lambda: source
    page = SimpleNamespace(file=SimpleNamespace(src_uri="howto/cluster.md"))
    text = "[a](../operations.md#x) [b](../../deploy/README.md) [c](https://host/x) [d](#here)"
    file = f"[b]({source}/blob/main/deploy/README.md)" if source else "b"
    assert hook["on_page_markdown"](text, page) == text.replace("[b](../../deploy/README.md)", file)
    assert hook["on_config"]({})["repo_url"] == source
