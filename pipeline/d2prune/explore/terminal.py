"""`d2prune explain`: explanations as text for a terminal.

Captions, keys and uids are shortened to one line each.
"""

from collections.abc import Iterator, Sequence

from d2prune.console import print_line, printable
from d2prune.errors import UserError
from d2prune.explore.explain import Explanation, Neighbour, explain, read_ranking
from d2prune.explore.names import RejectedSample, find_samples
from d2prune.runs.finished import FinishedRun

_CAPTION_LENGTH = 100
_LONG_TEXT_LENGTH = 300
_MAX_NEIGHBOURS = 20
_MAX_SUPPRESSED = 5


def shorten(text: str, limit: int = _CAPTION_LENGTH) -> str:
    """One line of visible characters, with single spaces, shortened with an ellipsis."""
    head = text[: 4 * limit]
    line = printable(" ".join(head.split()))
    return line if len(line) <= limit and len(text) <= len(head) else line[: limit - 1] + "…"


def print_explanations(run: FinishedRun, names: Sequence[str]) -> int:
    """Print the explanation of every sample that a name matches; returns 0.

    Raises:
        UserError: a name matches nothing; raised after the other samples are printed.
    """
    matches = find_samples(run, names)
    ranking = read_ranking(run)
    blocks: list[list[str]] = []
    for name, match in matches.items():
        n_samples = len(match.positions) + len(match.rejected)
        if n_samples > 1:
            blocks.append([f"{shorten(name)}: {n_samples} samples"])
        blocks += [list(_format_rejected(rejected)) for rejected in match.rejected]
        blocks += [
            list(_format_explanation(run, explain(run, position, ranking))) for position in match.positions
        ]
    for number, lines in enumerate(blocks):
        for line in [""] * (number > 0) + lines:
            print_line(line)
    unknown = [name for name, match in matches.items() if not match.positions and not match.rejected]
    if unknown:
        suggestions = ", ".join(map(shorten, matches[unknown[0]].suggestions))
        similar = f"; similar uids: {suggestions}" if suggestions else ""
        more = f" (and {len(unknown) - 1} more names)" if len(unknown) > 1 else ""
        raise UserError(
            f"{shorten(unknown[0])}: found no such sample; expected a uid, the unique beginning of one, "
            f"a key or shard/key{similar}{more}"
        )
    return 0


def _format_rejected(sample: RejectedSample) -> Iterator[str]:
    yield f"{shorten(sample.shard)}/{shorten(sample.key)}  rejected: {sample.reason}"
    if sample.detail:
        yield f"  {shorten(sample.detail, _LONG_TEXT_LENGTH)}"


def _format_explanation(run: FinishedRun, explanation: Explanation) -> Iterator[str]:
    sample = explanation.sample
    yield f"{shorten(sample['uid'])}  {explanation.outcome}"
    yield f"  caption   {shorten(sample['caption'] or '', _LONG_TEXT_LENGTH)}"
    location = f"{shorten(sample['shard'])}, key {shorten(sample['key'])}"
    if sample["size"]:
        location += f", {sample['width']} x {sample['height']} px"
        location += f", {sample['size']:,} bytes at offset {sample['offset']:,}"
    yield f"  sample    {location}"
    if explanation.url:
        label = "tar  " if sample["size"] else "table"
        yield f"  {label}     {shorten(explanation.url, _LONG_TEXT_LENGTH)}"
    for name in run.fields:
        yield f"  {name:<8}  {shorten(str(sample[name]))}"
    if explanation.duplicates:
        yield f"  dropped   for it: {_format_duplicates(explanation)}"
    if explanation.rank is None:
        yield f"  rank      none; {_describe_exclusion(run, explanation)}"
        return
    kept_from = ""
    if explanation.kept_from is not None:
        kept_from = f"; kept from a fraction of {_round_up(explanation.kept_from)} upwards"
    yield f"  rank      {explanation.rank:,} of {explanation.ranked:,}{kept_from}"
    yield ""
    yield from _format_score(run, explanation)
    yield from _format_neighbours(explanation)


def _format_duplicates(explanation: Explanation) -> str:
    shown = [f"{shorten(uid)} ({reason})" for _, uid, reason in explanation.duplicates[:_MAX_SUPPRESSED]]
    more = len(explanation.duplicates) - len(shown)
    return ", ".join([*shown, *([f"and {more:,} more"] if more else [])])


def _describe_exclusion(run: FinishedRun, explanation: Explanation) -> str:
    """Why a sample was not ranked."""
    if explanation.keeper is not None:
        return f"{shorten(explanation.sample['suppressed_by'])} stays in its place"
    # Of the graph's parameters, as the cut-off comes before the graph.
    score = run.graph.params.get("drop_score") or "score"
    return f"removed by the cut-off, its {score} is among the lowest"


def _format_score(run: FinishedRun, explanation: Explanation) -> Iterator[str]:
    """The selection score as a sum."""
    sample, neighbours = explanation.sample, explanation.neighbours
    difficulty, selection = sample["difficulty"], sample["selection_score"]
    # A negative sum of score and offset is raised to 0, so a difficulty of 0 only bounds the score.
    at_most = "at most " if difficulty == 0 else ""
    score = f"{shorten(run.score_name, 30)} {at_most}{difficulty - run.offset:.4f} {run.offset:+.4g}"
    yield f"  {difficulty:>9.4f}  difficulty ({score})"
    if explanation.method != "d2":
        yield f"  {selection:>9.4f}  selection score by {explanation.method}"
        return
    support = sum(n.support_received for n in neighbours)
    suppression = sum(n.suppression_received for n in neighbours)
    suppressors = sum(n.suppression_received > 0 for n in neighbours)
    forward, reverse = run.gamma_texts
    threshold = f"; threshold {explanation.threshold:.4f}" if explanation.threshold is not None else ""
    yield f"  {support:>+9.4f}  support received from {_count(len(neighbours), 'neighbour')}, gamma {forward}"
    earlier = f"{_count(suppressors, 'neighbour')} picked earlier, gamma {reverse}"
    yield f"  {0.0 - suppression:>+9.4f}  suppression received from {earlier}"
    yield f"  {selection:>9.4f}  selection score{threshold}"
    if not explanation.reconciled:
        yield "             (differs from the sum of the messages: graph and scores are from different runs)"


def _format_neighbours(explanation: Explanation) -> Iterator[str]:
    if not explanation.neighbours:
        return
    yield ""
    yield "  neighbours, nearest first"
    yield (
        "   distance  cosine  selection   support  suppression received  suppression sent  kept  "
        "uid and caption"
    )
    for neighbour in explanation.neighbours[:_MAX_NEIGHBOURS]:
        mark = "   <- strongest suppressor" if explanation.suppressed_by is neighbour else ""
        yield f"  {_format_neighbour(neighbour)}{mark}"
    if len(explanation.neighbours) > _MAX_NEIGHBOURS:
        yield f"   and {len(explanation.neighbours) - _MAX_NEIGHBOURS} more"
    yield ""
    by = explanation.suppressed_by
    suppressed = ", ".join(
        f"{shorten(n.uid)} by {n.suppression_sent:.4f}" for n in explanation.suppressed[:_MAX_SUPPRESSED]
    )
    if len(explanation.suppressed) > _MAX_SUPPRESSED:
        suppressed += " …"
    suppressor = f"{shorten(by.uid)}, by {by.suppression_received:.4f}" if by else "none"
    yield f"  suppressed by   {suppressor}"
    yield f"  suppresses      {suppressed or 'none'}"


def _format_neighbour(n: Neighbour) -> str:
    score = f"{n.selection_score:>9.4f}" if n.selection_score is not None else f"{'-':>9}"
    return (
        f"{n.distance:>9.4f}  {n.cosine:>6.3f}  {score}  {n.support_received:>8.4f}  "
        f"{n.suppression_received:>20.4f}  {n.suppression_sent:>16.4f}  {'yes' if n.kept else 'no':<4}  "
        f"{shorten(n.uid, 36)}  {shorten(n.caption, 50)}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _round_up(fraction: float) -> str:
    """A fraction rounded up to four digits, so that a budget of the number shown keeps the sample."""
    return f"{-(-fraction * 10_000 // 1) / 10_000:.4f}"
