"""The methods of the benchmark, as settings of `d2prune run`.

A method is named `NAME[:PARAMETER...][^PERCENT][@SCORE][+FEATURES]`:

    random  score  semdedup:COSINE  facility_location:K
    forward:K:GAMMA   d2:K:GAMMA   d2:K:GAMMA_FORWARD:GAMMA_REVERSE   info_max:K:ALPHA

SCORE is `s_clip_loss` in place of the CLIP score, FEATURES `image` or `text` in place of both. With
PERCENT, `score.offset` is minus that percentile of the pool's CLIP scores instead of minus the lowest.
Gammas are written as in the configuration, so `d2:5:4/median` is D2 with c = 4. `info_max` is
`d2prune.baselines.by_diversity.info_max` on the run's graph and CLIP score. `all` and `right` are
references that no filter can be: all pairs, and a random part of those whose caption is their own.
"""

from __future__ import annotations

import re
from typing import Any

from d2prune.errors import UserError

ALL, RIGHT, RANDOM = "all", "right", "random"
REFERENCES = (ALL, RIGHT)
UNSCORED = (ALL, RIGHT, RANDOM)
"""Methods whose subsets are the same under every teacher."""
PAPER = "d2:1:1"
"""The paper's settings for DataComp: one neighbour, gamma 1."""

_NAME = re.compile(
    r"(?P<head>[a-z0-9_]+(?::[^:^@+]+)*)(?:\^(?P<percent>[0-9]+))?(?:@(?P<score>[a-z_]+))?(?:\+(?P<features>image|text))?"
)
_ALPHA = re.compile(r"[0-9]+(\.[0-9]+)?")
_EXPECTED = "see the docstring of benchmarks.icons.methods"


def settings(method: str, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return what a method changes in the configuration: section -> option -> value.

    Args:
        method: its name.
        seed: of random sampling.

    Raises:
        UserError: no method has this name.
    """
    match = _NAME.fullmatch(method)
    if match is None:
        raise UserError(f"--methods {method}: {_EXPECTED}")
    name, *numbers = match["head"].split(":")
    found = _by_name(name, numbers, seed)
    if found is None:
        raise UserError(f"--methods {method}: {_EXPECTED}")
    if match["score"]:
        found["score"] = {"difficulty": match["score"]}
    if match["features"]:
        found["graph"]["features"] = match["features"]
    return found


def offset_percent(method: str) -> int | None:
    """Return the percentile of the scores that a method's offset takes to 0; None for the lowest."""
    match = _NAME.fullmatch(method)
    return int(match["percent"]) if match and match["percent"] else None


def info_max_alpha(method: str) -> float | None:
    """Return the weight of redundancy of InfoMax's objective; None for any other method."""
    name, *numbers = method.split(":")
    return float(numbers[-1]) if name == "info_max" else None


def _by_name(name: str, numbers: list[str], seed: int) -> dict[str, dict[str, Any]] | None:
    select: dict[str, Any]
    graph: dict[str, Any] = {"n_neighbors": 5}
    found = {"graph": graph}
    if name == RANDOM and not numbers:
        select = {"method": "random", "seed": seed}
    elif name == "score" and not numbers:
        select = {"method": "score"}
    elif name == "semdedup" and len(numbers) == 1:
        # SemDeDup compares images with all others of a cluster: many neighbours come near to that.
        graph |= {"n_neighbors": 15, "features": "image"}
        select = {"method": "score"}
        found["dedup"] = {"near": float(numbers[0])}
    elif name == "facility_location" and len(numbers) == 1:
        graph["n_neighbors"] = int(numbers[0])
        select = {"method": name}
    elif name == "info_max" and len(numbers) == 2 and _ALPHA.fullmatch(numbers[1]):
        graph["n_neighbors"] = int(numbers[0])
        select = {"method": "score"}
    elif name == "forward" and len(numbers) == 2:
        graph["n_neighbors"] = int(numbers[0])
        select = {"method": name, "gamma_forward": numbers[1]}
    elif name == "d2" and len(numbers) in (2, 3):
        graph["n_neighbors"] = int(numbers[0])
        select = {"method": name, "gamma_forward": numbers[1], "gamma_reverse": numbers[-1]}
    else:
        return None
    return found | {"select": select}
