"""`d2prune search`: samples found, as lines for a terminal."""

from d2prune.console import print_line, printable
from d2prune.search.searcher import Hits, Searcher

_CAPTION_LENGTH = 60


def print_found(searcher: Searcher, hits: Hits) -> None:
    """Print samples found: similarity, scores, uid, caption; then whether each was kept, and if not, why."""
    if not len(hits):
        print_line("no samples found")
        return
    print_line(
        f"{'similarity':>10}  {searcher.run.score_name[:12]:>12}  {'selection':>9}  {'uid':<32}  caption"
    )
    for found in searcher.describe(hits):
        selection = "-" if found.selection_score is None else f"{found.selection_score:.4f}"
        numbers = f"{found.similarity:>10.4f}  {found.score:>12.4f}  {selection:>9}"
        print_line(f"{numbers}  {printable(found.uid):<32}  {_shorten(found.caption)}")
        print_line(f"{'':>10}  {printable(found.outcome)}")


def _shorten(caption: str) -> str:
    line = printable(" ".join(caption[: 4 * _CAPTION_LENGTH].split()))
    return line if len(line) <= _CAPTION_LENGTH else line[: _CAPTION_LENGTH - 1] + "…"
