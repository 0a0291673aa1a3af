"""`d2prune sweep`: what other fractions, neighbourhoods and gammas would keep, from what a run stored.

Reads the scores of the embed artifact, a sample of its embeddings, and one graph per k; nothing is
embedded again. If there is no graph with some k, it is built from the stored embeddings, as an
artifact that later runs reuse. Rankings are computed in memory (about 60 bytes per sample and 12 per
directed edge) and not stored. N samples of the pool, S in the random sample, Q queries, M kept.
"""

import itertools
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.d2.api import compute_scores
from d2prune.d2.budget import size_of_fraction, top
from d2prune.d2.fixed_point import to_signed_fixed
from d2prune.d2.gamma import (
    FORWARD_MULTIPLE,
    REVERSE_MULTIPLE,
    check_gamma,
    median_sq_distance,
    resolve_gamma,
)
from d2prune.d2.near_duplicates import deduplicate
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.parts.files import DECISIONS, PAIR_SCORES
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from d2prune.rank.methods import random_scores
from d2prune.report.metrics import NEAR_DUPLICATE
from d2prune.runs.driver import run
from d2prune.runs.plan import RunPlan, plan_run
from d2prune.scores.column import add_offset, read_score, shift
from d2prune.sweep.measure import METHODS, Evaluator, Outcome, Setting, SweepMethod, recommend

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepGrid:
    """The values to combine; an empty field means the run's own value."""

    fractions: tuple[float, ...] = ()
    n_neighbors: tuple[int, ...] = ()
    gamma_forward: tuple[float | str, ...] = ()
    gamma_reverse: tuple[float | str, ...] = ()
    methods: tuple[SweepMethod, ...] = METHODS


@dataclass(frozen=True)
class SweepResult:
    """The outcomes of a sweep.

    Attributes:
        config: the run's.
        samples: size of the pool, which fractions refer to.
        score_name: the score that difficulty was computed from.
        outcomes: in the order of the grid.
        current: the run's own setting; None if its budget is not a fraction of the whole pool, or its
            method is not D2.
        recommended: the settings that `recommend` chooses, one per fraction.
        selection: fingerprint of the run's own selection; empty if the run has not got that far.
    """

    config: RunConfig
    samples: int
    score_name: str
    outcomes: tuple[Outcome, ...]
    current: Setting | None
    recommended: frozenset[Setting]
    selection: str = ""


@dataclass(frozen=True)
class _CutGraph:
    """A graph, and which samples are not ranked: cut off or dropped as duplicates, bool [N]."""

    graph: Graph
    cut_off_N: NDArray[np.bool_]


def run_sweep(
    config: RunConfig, grid: SweepGrid, flagged: Collection[str] = (), use_ray: bool = True
) -> SweepResult:
    """Evaluate every combination of `grid` on what the run of `config` has stored.

    Args:
        config: a run whose embed stage is complete.
        grid: the values to combine.
        flagged: uids to count among the dropped, such as known mismatches.
        use_ray: whether missing graphs are built on Ray; False: in this process.

    Raises:
        UserError: the pool is not embedded yet, or a value is out of range.
    """
    if config.select.groups is not None or config.select.fraction is None:
        log.info("sweep: fractions refer to the whole pool; the run's groups, size and min_score are ignored")
    grid = _complete_grid(grid, config)
    plan = plan_run(config)
    embed = plan["embed"].find()
    if embed is None:
        raise UserError(
            f"{store.redact(config.work_dir)}: found no embeddings for these settings; run "
            "`d2prune run --config ... --stop-after graph` first"
        )
    graphs = {k: _get_graph(config, k, use_ray) for k in sorted(set(grid.n_neighbors))}
    stages = {name: found for name in ("embed", "rescore") if (found := plan.find(name)) is not None}
    parts = Parts.of(config.work_dir, stages)
    numbers = range(parts.spans.n_parts)
    score_N = read_score(parts, numbers, config.score.difficulty, "score.difficulty")
    kept_by_run_N = _read_run_selection(config.work_dir, plan)
    evaluator = Evaluator(config, parts, score_N, graphs[max(graphs)].graph, flagged, kept_by_run_N)
    s_clip_loss_N = _read_s_clip_loss(config) if "s_clip_loss" in grid.methods else None
    outcomes = tuple(_evaluate_all(config, grid, graphs, score_N, s_clip_loss_N, evaluator))
    return SweepResult(
        config,
        len(parts),
        config.score.difficulty,
        outcomes,
        _current_setting(config),
        recommend(outcomes),
        own.fingerprint if (own := plan.find("select")) is not None else "",
    )


def _complete_grid(grid: SweepGrid, config: RunConfig) -> SweepGrid:
    """Fill empty fields with the run's own values, and check all of them."""
    fraction = (config.select.fraction,) if config.select.fraction is not None else (0.3,)
    complete = SweepGrid(
        grid.fractions or fraction,
        grid.n_neighbors or (config.graph.n_neighbors,),
        _check_gammas(
            "--gamma-forward", grid.gamma_forward or (config.select.gamma_forward,), FORWARD_MULTIPLE
        ),
        _check_gammas(
            "--gamma-reverse", grid.gamma_reverse or (config.select.gamma_reverse,), REVERSE_MULTIPLE
        ),
        grid.methods,
    )
    for k in complete.n_neighbors:
        if not 1 <= k <= 1024:
            raise UserError(f"--n-neighbors {k}: expected 1 to 1024")
    for value in complete.fractions:
        if not 0 < value <= 1:
            raise UserError(f"--fractions {value}: expected 0 < fraction <= 1")
    return complete


def _check_gammas(option: str, gammas: Sequence[float | str], multiple: float) -> tuple[float | str, ...]:
    return tuple(dict.fromkeys(check_gamma(option, gamma, multiple) for gamma in gammas))


def _current_setting(config: RunConfig) -> Setting | None:
    select = config.select
    if select.fraction is None or select.groups is not None or select.method != "d2":
        return None
    (forward,) = _check_gammas("select.gamma_forward", [select.gamma_forward], FORWARD_MULTIPLE)
    (reverse,) = _check_gammas("select.gamma_reverse", [select.gamma_reverse], REVERSE_MULTIPLE)
    return Setting("d2", config.graph.n_neighbors, forward, reverse, select.fraction)


def _get_graph(config: RunConfig, k: int, use_ray: bool) -> _CutGraph:
    """Read the graph with k neighbours; build it if it does not exist."""
    changed = config.model_copy(
        update={
            "graph": config.graph.model_copy(update={"n_neighbors": k}),
            # Every run first checks that its output is empty or its own, and apart from work_dir. The
            # run's own output would fail that check with another k; this folder passes, and a run that
            # stops before the ranking never creates it.
            "output": store.join(config.output.removesuffix("/").removesuffix("/{run_id}"), "sweep"),
        }
    )
    stage = "dedup" if config.dedup.applies else "graph"
    planned = plan_run(changed)[stage]
    manifest = planned.find()
    if manifest is None:
        log.info("sweep: found no graph with n_neighbors %d; building it from the stored embeddings", k)
        manifest = run(changed, stop_after=stage, use_ray=use_ray).manifests[stage]
    return _CutGraph(*read_graph(planned.folder, manifest.units))


def _read_run_selection(work_dir: str, plan: RunPlan) -> NDArray[np.bool_] | None:
    """Which samples the run itself keeps, bool [N]; None if it has not reached `select`."""
    embed, select = plan["embed"].find(), plan["select"].find()
    if embed is None or select is None:
        return None
    parts = Parts.of(work_dir, {"embed": embed, "select": select})
    kept = [table["kept"].to_numpy() for _, table in parts.read_all(DECISIONS, ["kept"])]
    return np.concatenate(kept).astype(bool) if kept else np.zeros(0, bool)


def _evaluate_all(
    config: RunConfig,
    grid: SweepGrid,
    graphs: Mapping[int, _CutGraph],
    score_N: NDArray[np.float32],
    s_clip_loss_N: NDArray[np.float32] | None,
    evaluator: Evaluator,
) -> Iterator[Outcome]:
    """Rank the pool once per graph and pair of gammas, and measure every fraction of each ranking."""
    difficulty_N = shift(score_N, _find_offset(config, score_N))
    medians = {k: median_sq_distance(graph.graph.sq_distances) for k, graph in graphs.items()}
    widest = graphs[max(graphs)]
    for method, rank_N in _rank_baselines(config, grid, widest.graph, score_N, s_clip_loss_N):
        settings = [Setting(method, 0, 0.0, 0.0, fraction) for fraction in grid.fractions]
        yield from _keep_fractions(settings, rank_N, widest.cut_off_N, evaluator)
    if "d2" not in grid.methods:
        return
    for k, forward, reverse in itertools.product(grid.n_neighbors, grid.gamma_forward, grid.gamma_reverse):
        gammas = resolve_gamma(forward, medians[k]), resolve_gamma(reverse, medians[k])
        log.info("sweep: n_neighbors %d, gamma_forward %g, gamma_reverse %g", k, *gammas)
        started = time.perf_counter()
        _, selection_N = compute_scores(graphs[k].graph, difficulty_N, gammas, None)
        seconds = time.perf_counter() - started
        settings = [Setting("d2", k, forward, reverse, fraction) for fraction in grid.fractions]
        yield from _keep_fractions(settings, selection_N, graphs[k].cut_off_N, evaluator, gammas, seconds)


def _rank_baselines(
    config: RunConfig,
    grid: SweepGrid,
    widest: Graph,
    score_N: NDArray[np.float32],
    s_clip_loss_N: NDArray[np.float32] | None,
) -> Iterator[tuple[SweepMethod, NDArray[np.int64]]]:
    """Yield each baseline of the grid with its ranking of the pool, int64 [N], higher = kept earlier."""
    # With the offset and rounding of a run's own `select.method: score`.
    by_score_N = to_signed_fixed(add_offset(score_N, _find_offset(config, score_N)))
    for method in grid.methods:
        if method == "random":
            yield method, random_scores(config.select.seed, np.arange(len(score_N)))
        elif method == "score":
            yield method, by_score_N
        elif method == "s_clip_loss" and s_clip_loss_N is not None:
            yield method, to_signed_fixed(s_clip_loss_N)
        elif method == "semdedup":
            is_duplicate_N = deduplicate(widest, score_N, NEAR_DUPLICATE) >= 0
            reach = int(np.ptp(by_score_N)) + 1
            yield method, by_score_N - is_duplicate_N * reach


def _find_offset(config: RunConfig, score_N: NDArray[np.float32]) -> float:
    return -float(score_N.min()) if config.score.offset == "auto" else config.score.offset


def _read_s_clip_loss(config: RunConfig) -> NDArray[np.float32] | None:
    """Read s-CLIPLoss if a run in this work_dir has computed it, and it is not the difficulty itself."""
    name = "s_clip_loss"
    if config.score.difficulty == name:
        return None
    changed = config.model_copy(update={"score": config.score.model_copy(update={"difficulty": name})})
    for planned in (plan_run(config), plan_run(changed)):
        embed, rescore = planned.find("embed"), planned.find("rescore")
        if embed is not None and rescore is not None:
            parts = Parts.of(config.work_dir, {"embed": embed, "rescore": rescore})
            if name in parts.names(PAIR_SCORES):
                return read_score(parts, range(parts.spans.n_parts), name, "score.difficulty")
    return None


def _keep_fractions(
    settings: Sequence[Setting],
    selection_N: NDArray[np.int64],
    cut_off_N: NDArray[np.bool_],
    evaluator: Evaluator,
    gammas: tuple[float, float] = (0.0, 0.0),
    seconds: float = 0.0,
) -> Iterator[Outcome]:
    """Measure what settings that differ by their fraction keep of one ranking."""
    ranked = np.flatnonzero(~cut_off_N)
    for setting in settings:
        size = size_of_fraction(len(cut_off_N), setting.fraction)
        if size > len(ranked):
            found = f"--fractions {setting.fraction}: found {len(ranked)} ranked samples"
            raise UserError(f"{found}; expected at least {size}")
        kept_M = ranked[top(selection_N[ranked], size)]
        yield evaluator.evaluate(setting, gammas, kept_M, seconds)
