"""What the docs say exists does."""

import argparse
import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml

from pipeline import cli
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


def test_the_command_line_page_is_what_the_parser_says():
    script = runpy.run_path(str(ROOT / "docs" / "make_cli.py"))
    assert (ROOT / "docs" / "reference" / "cli.md").read_text() == script["page"]()


def test_the_pictures_are_what_the_kernel_computes(monkeypatch):
    script = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))
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


def commands() -> list[tuple[str, str]]:
    """(page, command) for every command line that a page shows in an indented block."""
    return [
        (page.relative_to(ROOT).as_posix(), line.removeprefix("$ ").split(" #")[0])
        for page in PAGES
        if page.name != "cli.md"  # Usage, compared with the parser above.
        for line in re.findall(
            r"^ {4}((?:\$ )?(?:d2prune|make|python|ray job submit) [^\n]*)$",
            page.read_text().replace("\\\n", " "),
            re.MULTILINE,
        )
    ]


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_ones_that_exist(page, command):
    words = shlex.split(command)
    if words[0] == "ray":
        words = words[words.index("--") + 1 :]
    if words[:2] == ["python", "jobs/filter.py"]:
        words = ["d2prune", "run", *words[2:]]
    if words[0] == "d2prune":
        _check_ours(words[1:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif words[0] == "python":
        path = ROOT / (words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1])
        if path.is_relative_to(ROOT / "jobs") or path.is_relative_to(ROOT / "docs"):
            source = path.read_text()
            unknown = [option for option in words if option.startswith("--") and option[2:] not in source]
            assert not unknown


def _check_ours(words: list[str]) -> None:
    """The command line parses, and what it sets is a key of the configuration."""
    try:
        parsed = cli._parser().parse_args(words)
    except SystemExit as error:
        raise AssertionError(words) from error
    assert isinstance(parsed, argparse.Namespace)
    for change in getattr(parsed, "set", []):
        model: object = RunConfig
        for key in change.split("=")[0].split("."):
            assert key in model.model_fields, change
            model = model.model_fields[key].annotation


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
    """A block may leave out what is needed elsewhere; what it has is right."""
    values = yaml.safe_load(block)
    needed = {"input": "x", "work_dir": "y", "output": "z", "select": {"fraction": 0.3}}
    embed = values.get("embed", {})
    merged = {**needed, **values, "embed": embed if "models" in embed else {"model": "demo", **embed}}
    RunConfig.parse(merged, page)


def test_the_library_page_runs():
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/howto/library.md").read_text(), re.DOTALL):
        exec(block, names)
    assert len(names["coreset"].indices) == 300 and names["order"][:300].tolist() == names["coreset"].indices.tolist()
