"""mkdocs hook: turn links to files outside docs/ into plain text."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace `[text](../deploy/x.yaml)` by its text: the site contains the docs, not the code."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def unlink(found: re.Match[str]) -> str:
        target = (folder / found[2].split("#")[0]).resolve()
        inside = target.is_relative_to(ROOT / "docs") or "://" in found[2] or found[2].startswith("#")
        return found[0] if inside else found[1]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", unlink, markdown)
