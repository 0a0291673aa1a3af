"""Which output a stable one starts from: the latest of the same root and parameters.

`write/latest-<hash>.json` lists the latest outputs with some parameters below one root; the hash is
that of both. The output before is an input of the new one, so it is part of its identity.
"""

import dataclasses
import logging
from typing import Any

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.stage.planned import Planned
from d2prune.store import artifacts

log = logging.getLogger(__name__)

PREVIOUS = "previous"
_WRITE = "write"
_KEPT_RUNS = 16


def add_previous(config: RunConfig, planned: Planned) -> Planned:
    """Return a planned output with the one before as an input, if there is one; writes nothing.

    A selection that was written before is planned as it was then, so that a rerun is the same output:
    the latest one even if it is no longer complete.
    """
    runs = _read(config, planned)
    for age, run in enumerate(reversed(runs)):
        again = _after(planned, run[PREVIOUS])
        if again.fingerprint == run[_WRITE] and (age == 0 or again.find() is not None):
            return again
    if not runs:
        return planned
    latest = runs[-1][_WRITE]
    if artifacts.read_manifest(planned.folder, latest) is None:
        log.warning("write: the record of the last output, %s, is damaged or lost; all tars are new", latest)
        return planned
    return _after(planned, latest)


def record_latest(config: RunConfig, planned: Planned) -> None:
    """Record a complete output as the latest."""
    runs = _read(config, planned)
    mine = {PREVIOUS: planned.inputs.get(PREVIOUS), _WRITE: planned.fingerprint}
    if not runs or runs[-1] != mine:
        others = [run for run in runs if run[_WRITE] != planned.fingerprint]
        artifacts.write_json(_url(config, planned), {"runs": [*others, mine][-_KEPT_RUNS:]})


def _after(planned: Planned, previous: str | None) -> Planned:
    if previous is None:
        return planned
    return dataclasses.replace(planned, inputs={**planned.inputs, PREVIOUS: previous})


def _url(config: RunConfig, planned: Planned) -> str:
    root = config.output.rstrip("/").rpartition("/")[0]
    name = artifacts.fingerprint("latest", store.resolve(root), planned.params)
    return store.join(planned.folder, f"latest-{name}.json")


def _read(config: RunConfig, planned: Planned) -> list[dict[str, Any]]:
    url = _url(config, planned)
    try:
        return list(artifacts.read_json(url)["runs"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s: damaged, ignored (%s)", store.redact(url), error)
        return []
