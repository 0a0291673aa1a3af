"""Which settings of a sweep the explorer can compare with the run: those whose ranking a run has stored.

A ranking serves every fraction, so one run with a setting's k and gammas suffices.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from d2prune.errors import UserError
from d2prune.runs.finished import FinishedRun, open_selection
from d2prune.runs.selections import Selection, list_selections
from d2prune.sweep.evaluate import SweepResult
from d2prune.sweep.measure import Outcome

PORT = 8000
"""Port of the explorer that the links of a page lead to."""


def comparison_links(result: SweepResult) -> list[str]:
    """The URL of each outcome's comparison with the run, on this machine; empty: no run has its ranking."""
    if not result.selection:
        return [""] * len(result.outcomes)
    known = _open_all(result.config.work_dir)
    own = next((pair for pair in known if pair[0].fingerprint == result.selection), None)
    if own is None:
        return [""] * len(result.outcomes)
    return [_link(outcome, own, known) for outcome in result.outcomes]


def _open_all(work_dir: str) -> list[tuple[Selection, FinishedRun]]:
    found = []
    for selection in list_selections(work_dir):
        try:
            found.append((selection, open_selection(work_dir, selection.fingerprint)))
        except UserError:
            # Partly pruned; there may be another run with this ranking.
            continue
    return found


def _link(
    outcome: Outcome, own: tuple[Selection, FinishedRun], known: list[tuple[Selection, FinishedRun]]
) -> str:
    a, own_run = own
    fraction = outcome.setting.fraction
    # The run itself first, so that another fraction is called by its name.
    for b, run in [own, *known]:
        if not _has_ranking(run, outcome, own_run):
            continue
        params = run.select.params
        is_whole = params.get("groups") is None and params.get("fraction") == fraction
        if is_whole and b.fingerprint == a.fingerprint:
            return ""
        spec = b.name if is_whole else f"{b.name}@{fraction:g}"
        return f"http://127.0.0.1:{PORT}/#/compare?" + urlencode({"run": a.name, "a": a.name, "b": spec})
    return ""


def _has_ranking(run: FinishedRun, outcome: Outcome, own: FinishedRun) -> bool:
    """Whether a run ranked as an outcome's setting does, and otherwise as the run of the sweep."""
    gammas = ("gamma_forward", "gamma_reverse")
    return (
        outcome.setting.method == run.method == own.method == "d2"
        and run.embed.fingerprint == own.embed.fingerprint
        and run.graph.params.get("n_neighbors") == outcome.setting.n_neighbors
        and _without(run.graph.params, ("n_neighbors",)) == _without(own.graph.params, ("n_neighbors",))
        and run.gammas == outcome.gammas
        and _without(run.rank.params, gammas) == _without(own.rank.params, gammas)
    )


def _without(params: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name not in names}
