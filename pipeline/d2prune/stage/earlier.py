"""The run that another one continues: what it was made from, and which settings differ."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest

COMPARED = ("embed", "rescore", "graph", "dedup", "rank", "select")
"""Stages whose parameters decide a selection."""


@dataclass(frozen=True)
class EarlierRun:
    """The run that another one continues.

    Attributes:
        run_id: as `d2prune runs` prints it.
        report: URL of the page whose folder holds the points up to it; empty: not known.
        manifests: stage -> its artifact, up to `select`; empty if one of them is gone.
    """

    run_id: str
    report: str = ""
    manifests: Mapping[str, Manifest] = field(default_factory=dict)

    @property
    def score_name(self) -> str:
        """The score that its difficulty was computed from; empty if that is not known."""
        return str(self.manifests["rank"].params.get("difficulty", "")) if self.manifests else ""


def make_run_id(identity: str) -> str:
    """The id of the run whose output has the fingerprint `identity`."""
    return identity[:16]


def changed_settings(before: Mapping[str, Manifest], now: Mapping[str, Manifest]) -> tuple[str, ...]:
    """The parameters that differ between two runs, such as `select.fraction: 0.3 -> 0.5`."""
    lines = []
    for stage in COMPARED:
        if (stage in before) != (stage in now):
            lines.append(
                f"{stage}: {'none' if stage not in before else 'run'} -> "
                f"{'none' if stage not in now else 'run'}"
            )
        elif stage in now:
            lines += _compare(stage, _plain(before[stage].params), _plain(now[stage].params))
    return tuple(lines)


def _compare(name: str, before: Any, now: Any) -> list[str]:
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*now, *(key for key in before if key not in now)]
        return [line for key in keys for line in _compare(f"{name}.{key}", before.get(key), now.get(key))]
    if isinstance(before, (dict, list)) or isinstance(now, (dict, list)):
        return [f"{name}: changed"]
    return [f"{name}: {_describe(before)} -> {_describe(now)}"]


def _plain(params: Mapping[str, Any]) -> Any:
    """Parameters as a manifest that was read has them: lists instead of tuples."""
    return json.loads(artifacts.canonical_json(dict(params)))


def _describe(value: Any) -> str:
    return "none" if value is None else str(value)
