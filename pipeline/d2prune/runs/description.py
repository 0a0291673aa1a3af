"""How the runs of a work_dir differ: date, input, budget, and the parameters of the ranking."""

from collections.abc import Mapping, Sequence
from typing import Any

from d2prune import store
from d2prune.runs.finished import FinishedRun
from d2prune.runs.selections import Selection

_BUDGETS = ("fraction", "size", "min_score")


def describe_run(selection: Selection, run: FinishedRun) -> dict[str, Any]:
    """What a list of runs shows of one; JSON values.

    `budget` is what the run was given (`what`: fraction, size or min_score, and its `value`), and `kept`
    what it kept of `samples`. `gammas` are texts, forward and reverse.
    """
    select = run.select.params
    budget = find_budget(select)
    urls = list(run.urls.values())
    return {
        "name": selection.name,
        "ids": list(selection.run_ids),
        "fingerprint": selection.fingerprint,
        "finished": selection.finished,
        "output": store.redact(selection.output),
        "input": store.redact(common_location(urls)),
        "shards": len(run.embed.units),
        "samples": len(run),
        "kept": run.select.counters.get("kept"),
        "budget": {"what": budget[0], "value": budget[1]} if budget else None,
        "groups": select.get("groups"),
        "n_neighbors": run.graph.params.get("n_neighbors"),
        "gammas": list(run.gamma_texts),
        "method": run.method,
        "score": run.score_name,
        "dedup": run.dedup is not None,
    }


def find_budget(params: Mapping[str, Any]) -> tuple[str, float] | None:
    """Which budget the params of a selection set, and its value."""
    return next(((what, params[what]) for what in _BUDGETS if params.get(what) is not None), None)


def budget_text(params: Mapping[str, Any]) -> str:
    """That budget in a few characters."""
    what, value = find_budget(params) or ("", 0)
    return {"fraction": f"{100 * value:g}%", "size": f"{value:,}", "min_score": f">= {value:g}"}.get(
        what, "-"
    )


def common_location(urls: Sequence[str]) -> str:
    """The folder that holds all files, or the one file."""
    if len(urls) <= 1:
        return "".join(urls)
    first, last = min(urls), max(urls)
    common = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:common].rpartition("/")[0] or first[:common]
