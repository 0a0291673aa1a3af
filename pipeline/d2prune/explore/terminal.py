"""`d2prune explain`: the records of `explain` as text for a terminal.

Whatever a caption, key or uid holds, it is one line of printable characters: no escape sequence
reaches the terminal.
"""

import unicodedata
from collections.abc import Iterator, Sequence

from d2prune.errors import UserError
from d2prune.explore.explain import CUT_OFF, Explained, Neighbour, Rejected, explain, find, read_line
from d2prune.runs.finished import FinishedRun

_CAPTION = 100
_SHOWN = 20


def plain(text: str, limit: int = _CAPTION) -> str:
    """One line without control, formatting or unassigned characters, shortened with an ellipsis."""
    head = text[: 4 * limit]
    line = " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in head).split())
    return line if len(line) <= limit and len(text) <= len(head) else line[: limit - 1] + "…"


def print_explanations(run: FinishedRun, names: Sequence[str]) -> int:
    """Print what is known of each name; 0 where all are found.

    Raises:
        UserError: a name leads nowhere; said after the others were explained.
    """
    found = find(run, names)
    line = read_line(run)
    blocks = []
    for name, result in found.items():
        several = len(result.positions) + len(result.rejected)
        if several > 1:
            blocks.append(f"{plain(name)}: {several} samples")
        blocks += ["\n".join(_rejected(rejected)) for rejected in result.rejected]
        blocks += ["\n".join(lines(run, explain(run, position, line))) for position in result.positions]
    if blocks:
        print("\n\n".join(blocks))
    unknown = [
        (name, result.nearest)
        for name, result in found.items()
        if not result.positions and not result.rejected
    ]
    if unknown:
        name, nearest = unknown[0]
        also = f"; nearest: {', '.join(map(plain, nearest))}" if nearest else ""
        more = f" (and {len(unknown) - 1} more names)" if len(unknown) > 1 else ""
        raise UserError(f"{plain(name)}: no uid, unique beginning of one, or key in this run{also}{more}")
    return 0


def _rejected(sample: Rejected) -> Iterator[str]:
    yield f"{plain(sample.shard)}/{plain(sample.key)}  rejected: {sample.reason}"
    if sample.detail:
        yield f"  {plain(sample.detail, 300)}"


def lines(run: FinishedRun, of: Explained) -> Iterator[str]:
    """One sample's explanation."""
    row = of.sample
    yield f"{plain(row['uid'])}  {of.why}"
    yield f"  caption   {plain(row['caption'] or '', 300)}"
    place = f"{plain(row['shard'])}, key {plain(row['key'])}"
    if row["size"]:
        place += f", {row['width']} x {row['height']} px, {row['size']:,} bytes from {row['offset']:,}"
    yield f"  sample    {place}"
    if of.url:
        yield f"  {'tar  ' if row['size'] else 'table'}     {plain(of.url, 300)}"
    for name in run.fields:
        yield f"  {name:<8}  {plain(str(row[name]))}"
    if of.rank is None:
        yield f"  rank      none: its {run.select.params.get('drop_score') or 'score'} is among the lowest, cut off"
        return
    share = f"; a fraction of {_up(of.kept_from)} or more keeps it" if of.kept_from is not None else ""
    yield f"  rank      {of.rank:,} of {of.ranked:,}{share}"
    yield ""
    yield from _sum(run, of)
    yield from _neighbours(of)


def _sum(run: FinishedRun, of: Explained) -> Iterator[str]:
    """How the selection score came about."""
    row = of.sample
    # What lies below is raised to 0, and its own score is not kept.
    at_most = "at most " if row["difficulty"] == 0 else ""
    shifted = f"{plain(run.score_name, 30)} {at_most}{row['difficulty'] - run.offset:.4f} {run.offset:+.4g}"
    raised, lowered = sum(n.raised for n in of.neighbours), sum(n.lowered for n in of.neighbours)
    above = sum(n.lowered > 0 for n in of.neighbours)
    yield f"  {row['difficulty']:>9.4f}  difficulty ({shifted})"
    if of.method != "d2":
        yield f"  {row['selection_score']:>9.4f}  selection score by {of.method}"
        return
    yield f"  {raised:>+9.4f}  support of {len(of.neighbours)} neighbour{'s' * (len(of.neighbours) != 1)}"
    yield f"  {0.0 - lowered:>+9.4f}  taken by {above} of them, picked before it"
    line = f"; the lowest that was kept has {of.threshold:.4f}" if of.threshold is not None else ""
    yield f"  {row['selection_score']:>9.4f}  selection score{line}"
    if not of.reconciled:
        yield "             (the sum of the messages differs: scores and graph are not of one run)"


def _neighbours(of: Explained) -> Iterator[str]:
    if not of.neighbours:
        return
    yield ""
    yield "  neighbours, nearest first"
    yield "   distance  cosine  selection   gave it  took from it  lost to it  kept  uid and caption"
    for n in of.neighbours[:_SHOWN]:
        yield f"  {_row(n)}{'   <- suppressed it most' if of.suppressed_by is n else ''}"
    if len(of.neighbours) > _SHOWN:
        yield f"   and {len(of.neighbours) - _SHOWN} more"
    yield ""
    by = of.suppressed_by
    yield f"  suppressed by   {f'{plain(by.uid)}, by {by.lowered:.4f}' if by else 'nobody'}"
    taken = of.suppressed
    told = ", ".join(f"{plain(n.uid)} by {n.lowers:.4f}" for n in taken[:5]) + (
        " …" if len(taken) > 5 else ""
    )
    yield f"  it suppressed   {told or 'nobody'}"


def _row(n: Neighbour) -> str:
    score = f"{n.selection_score:>9.4f}" if n.selection_score is not None else f"{CUT_OFF:>9}"
    return (
        f"{n.distance:>9.4f}  {n.cosine:>6.3f}  {score}  {n.raised:>8.4f}  {n.lowered:>12.4f}  {n.lowers:>10.4f}  "
        f"{'yes' if n.kept else 'no':<4}  {plain(n.uid, 36)}  {plain(n.caption, 50)}"
    )


def _up(fraction: float | None) -> str:
    """A fraction rounded up to four digits: a budget of it keeps the sample."""
    return "-" if fraction is None else f"{-(-fraction * 10_000 // 1) / 10_000:.4f}"
