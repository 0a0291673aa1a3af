"""Commands and configurations in README and docs, in the order of the page.

Pages follow one rule: an indented block or a fence of `sh` contains commands and nothing else, and
everything else is fenced with its language.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Generated, and compared with their source by test_pages.py.
_GENERATED = {"cli.md", "configuration.md"}
_PROGRAMS = "d2prune|make|python|pip|npm|ssh|git|aws|ray"


@dataclass(frozen=True)
class Step:
    """A command or a configuration.

    Attributes:
        page: path in the repository.
        line: line number in the page.
        text: the command, joined to one line, without its comment; or a configuration.
        kind: `command`, `yaml` or `json`.
    """

    page: str
    line: int
    text: str
    kind: str = "command"

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def steps(path: Path) -> list[Step]:
    """Commands, yaml and json in blocks, in spans and in the first column of tables of a page."""
    if path.name in _GENERATED:
        return []
    page = path.relative_to(ROOT).as_posix()
    return [Step(page, line, text, kind) for line, text, kind in _steps(path.read_text().splitlines())]


def commands() -> list[Step]:
    """Every command of every page."""
    return [step for path in PAGES for step in steps(path) if step.kind == "command"]


def _steps(lines: list[str]) -> Iterator[tuple[int, str, str]]:
    at, language, fenced, start = 0, None, [], 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if found := re.match(r"```(\w*)$", line):
            if language is None:
                language, fenced, start = found[1] or "none", [], number + 1
                continue
            if language in ("yaml", "json"):
                yield start, "\n".join(fenced), language
            elif language in ("sh", "bash", "console", "none"):
                yield from ((start + k, text, "command") for k, text in _joined(fenced))
            language = None
        elif language is not None:
            fenced.append(line)
        elif line.startswith(":::"):
            # Options of a mkdocstrings block.
            while at < len(lines) and lines[at].startswith("    "):
                at += 1
        elif line.startswith("    ") and line.strip():
            block = [line]
            while at < len(lines) and lines[at].startswith("    "):
                block.append(lines[at])
                at += 1
            yield from ((number + k, text, "command") for k, text in _joined(block))
        else:
            spans = re.findall(rf"`((?:{_PROGRAMS}) [^`]+)`", line)
            spans += [
                f"d2prune run --config run.yaml {text}" for text in re.findall(r"^\| `(--[^`]+)`", line)
            ]
            yield from ((number, text, "command") for text in spans if not _is_name(text))


def _joined(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Join lines that end with a backslash; remove comments."""
    whole, first = "", 0
    for number, line in enumerate(lines):
        text = re.sub(r"\s+#\s.*", "", line).strip()
        first = first if whole else number
        whole = f"{whole} {text}".strip()
        if whole.endswith("\\"):
            whole = whole[:-1].strip()
        elif whole:
            yield first, whole
            whole = ""


def _is_name(text: str) -> bool:
    """Whether a span only names a command, such as `d2prune explain`, or ends with `...`."""
    whole = text in ("d2prune models", "d2prune demo")
    return text.endswith("...") or (not whole and re.fullmatch(r"(d2prune|ray job) [a-z]+", text) is not None)
