"""Step `whole`: build the graph of a pool that fits in the memory of one machine."""

from dataclasses import replace

import numpy as np

from d2prune.graph.steps.edges import commit_rows
from d2prune.graph.steps.given import check_dimensions
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import checked_features
from d2prune.graph.steps.quantise import check_recall, misses_target
from d2prune.graph.trained import commit_trained, read_trained
from d2prune.knn.csr import Graph
from d2prune.knn.in_memory import knn_graph_report
from d2prune.store.artifacts import Receipt


def build_whole(job: Job, _: int) -> Receipt:
    """Build the graph; commit the `neighbors` units of all parts, then one unit with the facts.

    Raises:
        UserError: an embedding cannot be normalised, the target recall was missed, or the given quantiser
            has other dimensions than the embeddings.
    """
    params = job.params
    cut_off_N = np.zeros(len(job.spans), bool)
    blocks = []
    for part in range(len(job.parts)):
        start, stop = job.spans.bounds(part)
        blocks.append(checked_features(job, part)[1])
        if job.cut_off is not None:
            cut_off_N[start:stop] = job.cut_off.drop_mask(job.pool, part)
    kept_K = np.flatnonzero(~cut_off_N)
    given = None if job.given is None else read_trained(job.folder, job.given)
    if given is not None:
        check_dimensions(blocks[0].shape[1], given.centroids)
    report = knn_graph_report(
        np.concatenate(blocks)[kept_K],
        n_neighbors=params.n_neighbors,
        target_recall=params.target_recall,
        seed=params.seed,
        nlist=params.nlist,
        nprobe=params.nprobe,
        given=given,
        are_unit=True,
    )
    job = replace(job, nlist=report.nlist, nprobe=report.nprobe, recall=report.recall, trained=job.given)
    if job.given is not None and misses_target(job):
        # The driver trains another quantiser.
        return job.commit("whole", 0, {}, facts=job.facts)
    check_recall(job)
    if report.lists is not None and job.given is None:
        job = replace(job, trained=commit_trained(job.folder, report.lists, params))
    degree_N = np.zeros(len(cut_off_N), np.int64)
    degree_N[kept_K] = np.diff(report.graph.indptr)
    indptr = np.concatenate([[0], np.cumsum(degree_N)])
    indices = kept_K[report.graph.indices]
    for part in range(len(job.parts)):
        start, stop = job.spans.bounds(part)
        edges = slice(indptr[start], indptr[stop])
        rows = Graph(
            indptr[start : stop + 1] - indptr[start], indices[edges], report.graph.sq_distances[edges]
        )
        commit_rows(job, part, rows, cut_off_N[start:stop])
    return job.commit("whole", 0, {}, facts=job.facts)
