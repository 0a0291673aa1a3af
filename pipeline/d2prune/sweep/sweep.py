"""`d2prune sweep`: what other fractions, neighbourhoods and gammas would keep, from what a run has stored.

Reads the embed artifact's scores and a sample of its embeddings, and one graph for each k; nothing
is embedded again. A k whose graph does not exist is built from the stored embeddings, as an
artifact that later runs use too. Rankings are computed in memory (about 60 bytes a sample and 12 a
directed edge) and not stored.
"""

import itertools
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.d2.api import compute_scores
from d2prune.d2.budget import size_of_fraction, top
from d2prune.d2.fixed_point import check_gamma
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.parts.neighbors import read_graph
from d2prune.report import metrics
from d2prune.runs.driver import run
from d2prune.runs.finished import FinishedRun
from d2prune.runs.plan import RunPlan, plan_run
from d2prune.scores.column import read_score, shift
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest
from d2prune.store.columns import vectors

log = logging.getLogger(__name__)

# Points and queries that coverage is measured on: as in the report, so that figures compare.
_POINTS, _QUERIES = 10_000, 2_000
# Squared distance of unit vectors with the cosine from which two samples count as near-duplicates.
_NEAR_SQ = 2 - 2 * metrics.NEAR_DUPLICATE


@dataclass(frozen=True)
class Grid:
    """What to try: every combination."""

    fractions: tuple[float, ...]
    n_neighbors: tuple[int, ...]
    gamma_forward: tuple[float, ...]
    gamma_reverse: tuple[float, ...]


@dataclass(frozen=True)
class Setting:
    """One combination."""

    n_neighbors: int
    gamma_forward: float
    gamma_reverse: float
    fraction: float


@dataclass(frozen=True)
class Outcome:
    """What a setting keeps.

    Attributes:
        setting: which.
        kept: samples.
        mean_score: of the kept, without the offset.
        duplicates: share of the kept that have a kept near-duplicate (cosine 0.95 or more) among
            their neighbours in the graph with the largest k.
        coverage: mean distance of the pool's samples to the nearest kept one, in a seeded sample.
        overlap: share of the smaller of this and the run's own selection that both keep; None
            without such a run.
        flagged: share of the flagged samples that is dropped; None where none were named.
    """

    setting: Setting
    kept: int
    mean_score: float
    duplicates: float
    coverage: float
    overlap: float | None
    flagged: float | None


@dataclass(frozen=True)
class Sweep:
    """All outcomes, the run's own first where its setting is not among those asked for.

    Attributes:
        config: the run's.
        samples: embedded, the budget's base.
        score_name: what difficulty is made from.
        outcomes: in the order of the grid.
        current: the run's own setting; None where its budget is no fraction.
    """

    config: RunConfig
    samples: int
    score_name: str
    outcomes: tuple[Outcome, ...]
    current: Setting | None


def sweep(config: RunConfig, grid: Grid, flagged: Collection[str] = (), use_ray: bool = True) -> Sweep:
    """Try every combination of `grid` on what the run of `config` has stored.

    Args:
        config: a run whose embed stage is finished.
        grid: an empty field means the run's own value.
        flagged: uids whose fate is told, for instance known mismatches.
        use_ray: where graphs that do not exist yet are built.

    Raises:
        UserError: the pool is not embedded yet, or a value is out of range.
    """
    if config.select.groups is not None or config.select.fraction is None:
        log.info("sweep: fractions are of the whole pool, without the run's own groups, size or min_score")
    grid = _filled(grid, config)
    plan = plan_run(config)
    embed = plan["embed"].find()
    if embed is None:
        raise UserError(
            f"{store.redact(config.work_dir)}: the pool is not embedded yet with these settings; "
            "run `d2prune run --config ... --stop-after graph` first"
        )
    graphs = {k: _graph(config, k, use_ray) for k in sorted(set(grid.n_neighbors))}
    pool = _Pool(plan, embed, config, graphs[max(graphs)], flagged)
    return Sweep(
        config, pool.size, config.score.difficulty, tuple(_outcomes(pool, graphs, grid)), _current(config)
    )


def _filled(grid: Grid, config: RunConfig) -> Grid:
    fraction = (config.select.fraction,) if config.select.fraction is not None else (0.3,)
    filled = Grid(
        grid.fractions or fraction,
        grid.n_neighbors or (config.graph.n_neighbors,),
        grid.gamma_forward or (config.select.gamma_forward,),
        grid.gamma_reverse or (config.select.gamma_reverse,),
    )
    for k in filled.n_neighbors:
        if not 1 <= k <= 1024:
            raise UserError(f"--n-neighbors {k}: expected 1 to 1024")
    for gamma in filled.gamma_forward:
        check_gamma("--gamma-forward", gamma)
    for gamma in filled.gamma_reverse:
        check_gamma("--gamma-reverse", gamma)
    for wanted in filled.fractions:
        if not 0 < wanted <= 1:
            raise UserError(f"--fractions {wanted}: expected 0 < fraction <= 1")
    return filled


def _current(config: RunConfig) -> Setting | None:
    select = config.select
    if select.fraction is None or select.groups is not None or select.method != "d2":
        return None
    return Setting(config.graph.n_neighbors, select.gamma_forward, select.gamma_reverse, select.fraction)


def _graph(config: RunConfig, k: int, use_ray: bool) -> tuple[Graph, NDArray[np.bool_]]:
    """The graph of k neighbours, built where there is none, and who was cut off before."""
    changed = config.model_copy(
        update={
            "graph": config.graph.model_copy(update={"n_neighbors": k}),
            # A run claims its output; this one never gets so far.
            "output": store.join(config.work_dir, "sweep", "no-output"),
        }
    )
    planned = plan_run(changed)["graph"]
    found = planned.find()
    if found is None:
        log.info("sweep: no graph with n_neighbors %d is stored; building it from the stored embeddings", k)
        found = run(changed, stop_after="graph", use_ray=use_ray).manifests["graph"]
    return read_graph(planned.folder, found.units)


class _Pool:
    """What every setting is measured on: scores, a sample of vectors, the graph that tells duplicates."""

    def __init__(
        self,
        plan: RunPlan,
        embed: Manifest,
        config: RunConfig,
        widest: tuple[Graph, NDArray[np.bool_]],
        flagged: Collection[str],
    ) -> None:
        folder = plan["embed"].folder
        self.score_N = read_score(folder, embed.units, config.score.difficulty, "score.difficulty")
        given = config.score.offset
        self.difficulty_N = shift(self.score_N, -float(self.score_N.min()) if given == "auto" else given)
        self.size = len(self.score_N)
        near = widest[0].sq_distances <= _NEAR_SQ
        rows = np.repeat(np.arange(self.size), np.diff(widest[0].indptr))
        self._from, self._to = rows[near], widest[0].indices[near]
        source = FinishedRun(config.work_dir, embed, None, embed, embed)
        rng = np.random.default_rng(0)
        self._sample = np.sort(rng.permutation(self.size)[:_POINTS])
        # A side that distances are not measured on may be missing: tables need not have it.
        sides = [f"{side}_emb" for side in config.graph.features.split("+")]
        found = source.parts.take(self._sample, config.embeddings_file, sides)
        image, text = (
            vectors(found[side]) if side in sides else np.zeros((len(found), 0), np.float16)
            for side in ("image_emb", "text_emb")
        )
        points_ND = metrics.join_features(image, text, config.graph.features)
        self._asking = np.sort(rng.permutation(len(self._sample))[:_QUERIES])
        self._near = metrics.distances(points_ND[self._asking], points_ND)
        self.flagged_N = None
        if flagged:
            uids = source.parts.column(SAMPLES, "uid")
            names = frozenset(flagged)
            self.flagged_N = np.fromiter((uid in names for uid in uids.to_pylist()), bool, self.size)
            if not self.flagged_N.any():
                raise UserError(
                    f"--flagged: none of {len(names)} uids is in the pool, such as {min(names)[:40]!r}"
                )
        self._own_N = _own_selection(plan)

    def outcome(self, setting: Setting, kept_K: NDArray[np.int64]) -> Outcome:
        """Measure a selection, given as positions."""
        kept_N = np.zeros(self.size, bool)
        kept_N[kept_K] = True
        repeated = np.unique(self._from[kept_N[self._from] & kept_N[self._to]])
        sampled_M = kept_N[self._sample]
        order_M = np.concatenate([np.flatnonzero(sampled_M), np.flatnonzero(~sampled_M)])
        sizes = np.array([max(int(sampled_M.sum()), 1)])
        coverage = metrics.nearest_by_fraction(self._near, self._asking, order_M, sizes)
        own_N = self._own_N
        return Outcome(
            setting=setting,
            kept=len(kept_K),
            mean_score=float(self.score_N[kept_K].mean(dtype=np.float64)),
            duplicates=len(repeated) / len(kept_K),
            coverage=float(coverage[0]),
            overlap=None
            if own_N is None
            else float((kept_N & own_N).sum() / max(min(kept_N.sum(), own_N.sum()), 1)),
            flagged=None if self.flagged_N is None else float((~kept_N[self.flagged_N]).mean()),
        )


def _own_selection(plan: RunPlan) -> NDArray[np.bool_] | None:
    """What the run itself keeps, where it got so far."""
    found = plan["select"].find()
    if found is None:
        return None
    parts = [artifacts.read_table(plan["select"].folder, unit, DECISIONS, ["kept"]) for unit in found.units]
    return np.asarray(pa.concat_tables(parts)["kept"].to_numpy()).astype(bool)


def _outcomes(
    pool: _Pool, graphs: dict[int, tuple[Graph, NDArray[np.bool_]]], grid: Grid
) -> Iterator[Outcome]:
    for k, forward, reverse in itertools.product(grid.n_neighbors, grid.gamma_forward, grid.gamma_reverse):
        graph, cut_off_N = graphs[k]
        log.info("sweep: n_neighbors %d, gamma_forward %g, gamma_reverse %g", k, forward, reverse)
        _, score_N = compute_scores(graph, pool.difficulty_N, (forward, reverse), None)
        ranked_K = np.flatnonzero(~cut_off_N)
        for fraction in grid.fractions:
            size = size_of_fraction(pool.size, fraction)
            if size > len(ranked_K):
                raise UserError(
                    f"--fractions {fraction}: {size} samples, but only {len(ranked_K)} are ranked"
                )
            yield pool.outcome(Setting(k, forward, reverse, fraction), ranked_K[top(score_N[ranked_K], size)])


def table(found: Sweep) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The outcomes as text: head and rows; columns that say nothing are left out."""
    columns: list[tuple[str, list[str]]] = [
        ("k", [str(o.setting.n_neighbors) for o in found.outcomes]),
        ("gamma_f", [f"{o.setting.gamma_forward:g}" for o in found.outcomes]),
        ("gamma_r", [f"{o.setting.gamma_reverse:g}" for o in found.outcomes]),
        ("fraction", [f"{o.setting.fraction:g}" for o in found.outcomes]),
        ("kept", [f"{o.kept:,}" for o in found.outcomes]),
        (f"mean {found.score_name}", [f"{o.mean_score:.4f}" for o in found.outcomes]),
        ("duplicates left", [f"{o.duplicates:.1%}" for o in found.outcomes]),
        ("coverage gap", [f"{o.coverage:.4f}" for o in found.outcomes]),
        ("flagged dropped", ["" if o.flagged is None else f"{o.flagged:.1%}" for o in found.outcomes]),
        ("as the run", ["" if o.overlap is None else f"{o.overlap:.1%}" for o in found.outcomes]),
        ("", ["this run" if o.setting == found.current else "" for o in found.outcomes]),
    ]
    shown = [(name, cells) for name, cells in columns if any(cells)]
    return [name for name, _ in shown], [
        list(row) for row in zip(*(cells for _, cells in shown), strict=True)
    ]
