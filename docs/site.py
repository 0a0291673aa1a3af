"""mkdocs hook: links to files outside docs/ lead to the repository, or are plain text while it has no URL."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def read_source() -> str | None:
    """The repository's URL; None while pyproject.toml, the one place that has it, has a placeholder."""
    url = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"])
    return None if "example.com" in url else url


def on_config(config: Any, **_: Any) -> Any:
    """Link the repository at the top of each page."""
    config["repo_url"], config["repo_name"] = read_source(), "d2prune"
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead `[text](../deploy/x.yaml)` to the repository: the site contains the docs, not the code."""
    source = read_source()
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def unlink(found: re.Match[str]) -> str:
        target = (folder / found[2].split("#")[0]).resolve()
        if target.is_relative_to(ROOT / "docs") or "://" in found[2] or found[2].startswith("#"):
            return found[0]
        place = target.relative_to(ROOT).as_posix()
        return f"[{found[1]}]({source}/blob/main/{place})" if source else found[1]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", unlink, markdown)
