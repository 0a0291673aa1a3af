"""Which students are trained, in groups that answer one question each, most important first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.icons import methods
from benchmarks.icons.students import RECIPE, Job
from d2prune.d2.gamma import FORWARD_MULTIPLE, REVERSE_MULTIPLE

NOISE, TEACHER, FRACTION = 0.3, "base", 0.3
SAMPLES = RECIPE.steps * RECIPE.batch_size

MULTIPLES = (2, 3, 4, 5, 6, 8, 12)
THRESHOLDS = (0.97, 0.99, 0.995)


def d2(multiple: float, k: int = 5) -> str:
    """Return the name of D2 with one multiple for both passes."""
    return f"d2:{k}:{multiple:g}/median"


DEFAULT = f"d2:5:{FORWARD_MULTIPLE:g}/median:{REVERSE_MULTIPLE:g}/median"
WIDE = d2(5)
"""Messages reach further than by default: fewer near-copies, a lower mean score."""
OFFSET = "d2:5:5/median:8/median^5"
SEMDEDUP = "semdedup:0.995"
OFFSETS = (OFFSET, "d2:5:6/median:9/median^1")
"""The lowest 5 % or 1 % of the scores at 0, with a reverse pass of shorter reach."""
GAMMAS = (
    d2(5), d2(8), "d2:5:7/median:8/median", DEFAULT, "d2:5:5/median^50", *OFFSETS,
)  # fmt: skip
"""Read on the choosing split alone: the multiple of each pass, and the offset."""
MAIN = (methods.RANDOM, "score", DEFAULT, WIDE, SEMDEDUP, methods.PAPER)
MORE = (
    methods.RIGHT, methods.ALL, "score@s_clip_loss", "forward:5:5/median", d2(5, k=1), d2(5, k=15),
    f"{DEFAULT}@s_clip_loss", "facility_location:5", "info_max:5:0.01", "info_max:5:0.02",
)  # fmt: skip


def _jobs(
    names: Iterable[str], seeds: int, fraction: float = FRACTION, samples: int = SAMPLES,
    noise: float = NOISE, teacher: str = TEACHER,
) -> list[Job]:  # fmt: skip
    """Return jobs seed by seed, so that an interrupted run has results of every method."""
    ordered = list(names)
    return [
        Job(noise, TEACHER if name in methods.UNSCORED else teacher, name, fraction, seed, samples)
        for seed in range(seeds)
        for name in ordered
    ]


_THREE = (methods.RANDOM, "score", DEFAULT)
_COMPARED = ("score", DEFAULT, OFFSET, WIDE, SEMDEDUP, methods.RANDOM)
LENGTHS = (1, 4, 2, 0.5, 8)
"""Multiples of SAMPLES that students see."""
_PASSES = (
    ("5/median", "20/median"), ("5/median", "12/median"), ("3/median", "20/median"),
    ("1", "5/median"), ("5/median", "1"), ("5/median", "2/median"), ("2/median", "5/median"),
)  # fmt: skip

GROUPS: dict[str, Sequence[Job]] = {
    # Read on the choosing split alone: gamma's multiple and SemDeDup's threshold.
    "choice": _jobs([d2(c) for c in MULTIPLES] + [f"semdedup:{cosine:g}" for cosine in THRESHOLDS], 2),
    "main": _jobs(MAIN, 5),
    "tenth": _jobs((*_THREE, WIDE, d2(4), d2(8)), 3, fraction=0.1),
    "more": _jobs(MORE, 2),
    "half": _jobs((*_THREE, WIDE, OFFSET), 2, fraction=0.5),
    "gammas": [job for factor in (1, 4) for job in _jobs(("score", *GAMMAS), 2, samples=factor * SAMPLES)],
    "passes": _jobs([f"d2:5:{forward}:{reverse}" for forward, reverse in _PASSES], 2),
    "features": _jobs((f"{DEFAULT}+image", f"{DEFAULT}+text"), 2),
    "compute": [
        job for factor in LENGTHS[1:] for job in _jobs(_COMPARED, 2, samples=round(factor * SAMPLES))
    ],
    "teachers": [
        job
        for name in ("weak", "distant", "strong")
        for job in _jobs(("score", DEFAULT, WIDE, d2(3), methods.RANDOM, methods.RIGHT), 2, teacher=name)
    ],
    "noise": [job for noise in (0.0, 0.15, 0.45) for job in _jobs(_THREE, 2, noise=noise)],
}
"""Name of a group -> its students, in order."""
