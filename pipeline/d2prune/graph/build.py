"""The graph stage: embeddings of the whole pool -> undirected kNN graph, one unit per input shard.

Reads the embed artifact's embeddings, writes `neighbors.parquet` (schemas.NEIGHBORS) per input
shard, row-aligned with its part. Small pools and exact searches are done by one worker in memory,
all others by the steps of `sharded`: same bytes. Invariant: the graph depends on the embeddings and
the params only, never on workers or layout.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from d2prune.errors import UserError
from d2prune.execution import Executor, Resources
from d2prune.graph.cut_off import find_cut_off
from d2prune.graph.params import GraphParams, Layout
from d2prune.graph.steps import run as sharded
from d2prune.graph.steps.edges import check_symmetry, commit_rows
from d2prune.graph.steps.job import Job, StepWorker, checked_features, units
from d2prune.knn.in_memory import knn_graph_report, wants_lists
from d2prune.knn.csr import Graph
from d2prune.knn.recall import Recall
from d2prune.stage.units import Work, run_units
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt


def plan(
    embed_folder: str,
    parts: Sequence[Receipt],
    embed_fingerprint: str,
    folder: str,
    params: GraphParams,
    layout: Layout,
) -> Job:
    """The job of a pool whose embeddings lie in `parts`, in canonical order.

    Raises:
        UserError: there is no such score as `drop_score`.
    """
    job = Job(embed_folder, tuple(parts), embed_fingerprint, folder, params, layout)
    if params.drop_score is None:
        return job
    return job.with_layout(
        cut_off=find_cut_off(embed_folder, job.parts, params.drop_score, params.drop_fraction)
    )


def build_graph(
    job: Job, executor: Executor, one: Resources, many: Resources
) -> tuple[Job, list[Receipt], dict[str, Any]]:
    """Build the graph and check it.

    Args:
        job: from `plan`.
        executor: where units run.
        one: of a worker that has a machine to itself.
        many: of the others.

    Returns:
        The job with what became known of it, for `clean`; one receipt per part; the facts of the artifact.

    Raises:
        UserError: an embedding is not finite or is zero, or the recall asked for is out of reach.
        BooksError: the graph is not symmetric.
    """
    params = job.params
    n_rows = int(job.starts[-1])
    if params.drop_score is not None:
        n_rows -= math.floor(n_rows * Fraction(repr(float(params.drop_fraction))))
    if wants_lists(n_rows, params.target_recall, params.nprobe) and n_rows >= job.layout.whole_below:
        job, receipts, facts = sharded.build(job, executor, one, many, partial(_check_recall, params))
    else:
        (unit,) = units(job, "whole", 1)
        work = Work("graph", job.folder, [unit], partial(StepWorker, job, whole), one)
        (done,) = run_units(work, executor)
        facts = dict(done.facts)
        receipts = [job.receipt("neighbors", part) for part in range(len(job.parts))]
    check_symmetry(receipts)
    return job, receipts, facts


def whole(job: Job, _: int) -> Receipt:
    """Build the graph of a pool that fits a machine's memory; commits all parts' units, then one with the facts."""
    params = job.params
    cut_off_N = np.zeros(int(job.starts[-1]), bool)
    blocks = []
    for part, receipt in enumerate(job.parts):
        start, stop = (int(bound) for bound in job.starts[part : part + 2])
        blocks.append(checked_features(job, part)[1])
        if job.cut_off is not None:
            cut_off_N[start:stop] = job.cut_off.of_part(job.embed_folder, part, receipt)
    kept_K = np.flatnonzero(~cut_off_N)
    report = knn_graph_report(
        np.concatenate(blocks)[kept_K],
        n_neighbors=params.n_neighbors,
        target_recall=params.target_recall,
        seed=params.seed,
        nlist=params.nlist,
        nprobe=params.nprobe,
    )
    if report.recall is not None:
        _check_recall(params, report.recall, report.nprobe, report.nlist)
    degree_N = np.zeros(len(cut_off_N), np.int64)
    degree_N[kept_K] = np.diff(report.graph.indptr)
    indptr = np.concatenate([[0], np.cumsum(degree_N)])
    indices = kept_K[report.graph.indices]
    for part in range(len(job.parts)):
        start, stop = (int(bound) for bound in job.starts[part : part + 2])
        edges = slice(indptr[start], indptr[stop])
        rows = Graph(
            indptr[start : stop + 1] - indptr[start], indices[edges], report.graph.sq_distances[edges]
        )
        commit_rows(job, part, rows, cut_off_N[start:stop])
    facts = sharded.facts_of(params.n_neighbors, report.nlist, report.nprobe, report.recall)
    return artifacts.commit_unit(job.folder, job.key("whole"), {}, {}, facts)


def _check_recall(params: GraphParams, recall: Recall, nprobe: int, nlist: int) -> None:
    """Refuse a graph that misses the target even at the upper end of the interval.

    Raises:
        UserError: says what was measured.
    """
    if params.target_recall is not None and recall.high < params.target_recall:
        raise UserError(
            f"graph.target_recall {params.target_recall}: measured {recall.value:.4f} (95 %: {recall.low:.4f} "
            f"to {recall.high:.4f}) with nprobe {nprobe} of {nlist}; give a larger graph.nprobe"
        )
