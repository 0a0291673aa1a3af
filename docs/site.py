"""What mkdocs cannot do: links to files outside docs/ become plain text."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """`[text](../pipeline/x.py)` -> text: a site holds the docs, not the code."""
    here = (ROOT / "docs" / page.file.src_uri).parent

    def plain(found: re.Match[str]) -> str:
        target = (here / found[2].split("#")[0]).resolve()
        inside = target.is_relative_to(ROOT / "docs") or "://" in found[2] or found[2].startswith("#")
        return found[0] if inside else found[1]

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", plain, markdown)
