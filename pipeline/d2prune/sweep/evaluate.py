"""`d2prune sweep`: what other fractions, neighbourhoods and gammas would keep, from what a run stored.

Reads the scores of the embed artifact, a sample of its embeddings, and one graph per k; nothing is
embedded again. If there is no graph with some k, it is built from the stored embeddings, as an
artifact that later runs reuse. Rankings are computed in memory (about 60 bytes per sample and 12 per
directed edge) and not stored. N samples of the pool, S in the random sample, Q queries, M kept.
"""

import itertools
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.d2.api import compute_scores
from d2prune.d2.budget import size_of_fraction, top
from d2prune.d2.gamma import check_gamma, median_sq_distance, resolve_gamma
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.knn.features import features
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from d2prune.report import metrics
from d2prune.runs.driver import run
from d2prune.runs.plan import RunPlan, plan_run
from d2prune.scores.column import read_score, shift

log = logging.getLogger(__name__)

# As in the report, so that figures are comparable.
_SAMPLE_SIZE, _QUERIES = 10_000, 2_000
# Squared distance of unit vectors with the cosine from which two samples count as near-duplicates.
_NEAR_DUPLICATE_SQ = 2 - 2 * metrics.NEAR_DUPLICATE


@dataclass(frozen=True)
class SweepGrid:
    """The values to combine; an empty field means the run's own value."""

    fractions: tuple[float, ...] = ()
    n_neighbors: tuple[int, ...] = ()
    gamma_forward: tuple[float | str, ...] = ()
    gamma_reverse: tuple[float | str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One combination of values; gammas as `check_gamma` returns them."""

    n_neighbors: int
    gamma_forward: float | str
    gamma_reverse: float | str
    fraction: float


@dataclass(frozen=True)
class Outcome:
    """What a setting keeps.

    Attributes:
        setting: the setting.
        gammas: the setting's gammas as numbers.
        kept: number of samples.
        mean_score: of the kept samples, without the offset.
        duplicates: share of the kept samples with a kept near-duplicate (cosine 0.95 or more) among
            their neighbours in the graph with the largest k.
        coverage: mean distance from the pool's samples to the nearest kept one, in a random sample.
        overlap: samples kept by both this setting and the run, as a share of the smaller selection;
            None if the run has no selection.
        flagged: share of the flagged samples that is dropped; None if none are given.
    """

    setting: Setting
    gammas: tuple[float, float]
    kept: int
    mean_score: float
    duplicates: float
    coverage: float
    overlap: float | None
    flagged: float | None


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
    """

    config: RunConfig
    samples: int
    score_name: str
    outcomes: tuple[Outcome, ...]
    current: Setting | None


@dataclass(frozen=True)
class _CutGraph:
    """A graph, and which samples the cut-off removed before it was built, bool [N]."""

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
    parts = Parts(config.work_dir, {"embed": embed.units})
    score_N = read_score(plan["embed"].folder, embed.units, config.score.difficulty, "score.difficulty")
    kept_by_run_N = _read_run_selection(config.work_dir, plan)
    evaluator = _Evaluator(config, parts, score_N, graphs[max(graphs)].graph, flagged, kept_by_run_N)
    return SweepResult(
        config,
        len(parts),
        config.score.difficulty,
        tuple(_evaluate_all(config, grid, graphs, score_N, evaluator)),
        _current_setting(config),
    )


def _complete_grid(grid: SweepGrid, config: RunConfig) -> SweepGrid:
    """Fill empty fields with the run's own values, and check all of them."""
    fraction = (config.select.fraction,) if config.select.fraction is not None else (0.3,)
    complete = SweepGrid(
        grid.fractions or fraction,
        grid.n_neighbors or (config.graph.n_neighbors,),
        _check_gammas("--gamma-forward", grid.gamma_forward or (config.select.gamma_forward,)),
        _check_gammas("--gamma-reverse", grid.gamma_reverse or (config.select.gamma_reverse,)),
    )
    for k in complete.n_neighbors:
        if not 1 <= k <= 1024:
            raise UserError(f"--n-neighbors {k}: expected 1 to 1024")
    for value in complete.fractions:
        if not 0 < value <= 1:
            raise UserError(f"--fractions {value}: expected 0 < fraction <= 1")
    return complete


def _check_gammas(option: str, gammas: Sequence[float | str]) -> tuple[float | str, ...]:
    return tuple(dict.fromkeys(check_gamma(option, gamma) for gamma in gammas))


def _current_setting(config: RunConfig) -> Setting | None:
    select = config.select
    if select.fraction is None or select.groups is not None or select.method != "d2":
        return None
    (forward,) = _check_gammas("select.gamma_forward", [select.gamma_forward])
    (reverse,) = _check_gammas("select.gamma_reverse", [select.gamma_reverse])
    return Setting(config.graph.n_neighbors, forward, reverse, select.fraction)


def _get_graph(config: RunConfig, k: int, use_ray: bool) -> _CutGraph:
    """Read the graph with k neighbours; build it if it does not exist."""
    changed = config.model_copy(
        update={
            "graph": config.graph.model_copy(update={"n_neighbors": k}),
            # Every run first checks that its output is empty or its own. The run's own output would
            # fail that check with another k; this folder passes, and a run that stops after the
            # graph never creates it.
            "output": store.join(config.work_dir, "sweep", "no-output"),
        }
    )
    planned = plan_run(changed)["graph"]
    manifest = planned.find()
    if manifest is None:
        log.info("sweep: found no graph with n_neighbors %d; building it from the stored embeddings", k)
        manifest = run(changed, stop_after="graph", use_ray=use_ray).manifests["graph"]
    return _CutGraph(*read_graph(planned.folder, manifest.units))


def _read_run_selection(work_dir: str, plan: RunPlan) -> NDArray[np.bool_] | None:
    """Which samples the run itself keeps, bool [N]; None if it has not reached `select`."""
    embed, select = plan["embed"].find(), plan["select"].find()
    if embed is None or select is None:
        return None
    parts = Parts(work_dir, {"embed": embed.units, "select": select.units})
    kept = [table["kept"].to_numpy() for _, table in parts.read_all(DECISIONS, ["kept"])]
    return np.concatenate(kept).astype(bool) if kept else np.zeros(0, bool)


class _Evaluator:
    """Measures selections; holds what every setting is measured on."""

    def __init__(
        self,
        config: RunConfig,
        parts: Parts,
        score_N: NDArray[np.float32],
        widest: Graph,
        flagged: Collection[str],
        kept_by_run_N: NDArray[np.bool_] | None,
    ) -> None:
        self._score_N, self._kept_by_run_N = score_N, kept_by_run_N
        near = widest.sq_distances <= _NEAR_DUPLICATE_SQ
        rows = np.repeat(np.arange(len(parts)), np.diff(widest.indptr))
        self._near_from, self._near_to = rows[near], widest.indices[near]
        rng = np.random.default_rng(0)
        self._sample_S = np.sort(rng.permutation(len(parts))[:_SAMPLE_SIZE])
        vectors = parts.take_vectors(self._sample_S, config.embeddings_file)
        points_SD = features(config.graph.features, *vectors)
        self._queries_Q = np.sort(rng.permutation(len(self._sample_S))[:_QUERIES])
        self._distances_QS = metrics.distances(points_SD[self._queries_Q], points_SD)
        self._flagged_N = _find_flagged(parts, flagged) if flagged else None

    def evaluate(
        self, setting: Setting, gammas: tuple[float, float], positions_M: NDArray[np.int64]
    ) -> Outcome:
        """Measure a selection, given by the canonical positions of its samples."""
        kept_N = np.zeros(len(self._score_N), bool)
        kept_N[positions_M] = True
        repeated = np.unique(self._near_from[kept_N[self._near_from] & kept_N[self._near_to]])
        kept_S = kept_N[self._sample_S]
        order_S = np.concatenate([np.flatnonzero(kept_S), np.flatnonzero(~kept_S)])
        sizes = np.array([max(int(kept_S.sum()), 1)])
        (coverage,) = metrics.coverage_gaps(self._distances_QS, self._queries_Q, order_S, sizes)
        overlap = None
        if self._kept_by_run_N is not None:
            smaller = max(min(kept_N.sum(), self._kept_by_run_N.sum()), 1)
            overlap = float((kept_N & self._kept_by_run_N).sum() / smaller)
        return Outcome(
            setting=setting,
            gammas=gammas,
            kept=len(positions_M),
            mean_score=float(self._score_N[positions_M].mean(dtype=np.float64)),
            duplicates=len(repeated) / len(positions_M),
            coverage=float(coverage),
            overlap=overlap,
            flagged=None if self._flagged_N is None else float((~kept_N[self._flagged_N]).mean()),
        )


def _find_flagged(parts: Parts, flagged: Collection[str]) -> NDArray[np.bool_]:
    """Which samples have a flagged uid, bool [N]."""
    names = frozenset(flagged)
    uids = parts.column(SAMPLES, "uid").to_pylist()
    flagged_N = np.fromiter((uid in names for uid in uids), bool, len(uids))
    if not flagged_N.any():
        raise UserError(
            f"--flagged: found none of its {len(names)} uids in the pool, such as {min(names)[:40]!r}"
        )
    return flagged_N


def _evaluate_all(
    config: RunConfig,
    grid: SweepGrid,
    graphs: Mapping[int, _CutGraph],
    score_N: NDArray[np.float32],
    evaluator: _Evaluator,
) -> Iterator[Outcome]:
    """Rank the pool once per graph and pair of gammas, and measure every fraction of each ranking."""
    offset = -float(score_N.min()) if config.score.offset == "auto" else config.score.offset
    difficulty_N = shift(score_N, offset)
    medians = {k: median_sq_distance(graph.graph.sq_distances) for k, graph in graphs.items()}
    for k, forward, reverse in itertools.product(grid.n_neighbors, grid.gamma_forward, grid.gamma_reverse):
        gammas = resolve_gamma(forward, medians[k]), resolve_gamma(reverse, medians[k])
        log.info("sweep: n_neighbors %d, gamma_forward %g, gamma_reverse %g", k, *gammas)
        _, selection_N = compute_scores(graphs[k].graph, difficulty_N, gammas, None)
        ranked = np.flatnonzero(~graphs[k].cut_off_N)
        for fraction in grid.fractions:
            size = size_of_fraction(len(score_N), fraction)
            if size > len(ranked):
                raise UserError(
                    f"--fractions {fraction}: found {len(ranked)} ranked samples; expected at least {size}"
                )
            setting = Setting(k, forward, reverse, fraction)
            yield evaluator.evaluate(setting, gammas, ranked[top(selection_N[ranked], size)])
