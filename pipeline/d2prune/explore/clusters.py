"""The report's clusters, extended to every sample of the pool.

Reads the embeddings of a `FinishedRun` once, part by part; writes nothing. Invariant: centroids and
names are those of the report, since both come from the same seeded sample and the same functions; a
sample belongs to the nearest centroid. N samples, S in the random sample, C clusters, D dimensions.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.features import features
from d2prune.parts import files
from d2prune.parts.features import read_embeddings, unit_features
from d2prune.report import metrics
from d2prune.report.captions import distinctive_words
from d2prune.report.random_sample import draw_positions
from d2prune.report.record import ReportParams
from d2prune.runs.finished import FinishedRun

NOT_LABELLED = -1
"""Label of a sample whose cluster was not computed."""
# With more bytes of embeddings than this only the report's sample is labelled: reading terabytes
# would take hours.
LIMIT = 8 << 30
_THREADS = 2


@dataclass(frozen=True)
class Clusters:
    """The cluster of each sample.

    Attributes:
        names: the most distinctive words of each cluster; clusters are numbered by their index here.
        label_N: int16 [N]; `NOT_LABELLED` if a sample's cluster was not computed.
        complete: whether every sample is labelled.
    """

    names: tuple[str, ...]
    label_N: NDArray[np.int16]
    complete: bool


def read_clusters(run: FinishedRun, limit: int = LIMIT) -> Clusters:
    """Cluster the pool; no names if there are fewer than two clusters, or no embeddings.

    Args:
        run: the run.
        limit: with more bytes of embeddings than this, only the report's sample is labelled.
    """
    label_N = np.full(len(run), NOT_LABELLED, np.int16)
    table = run.embeddings_file
    sizes = [run.parts.vector_bytes(part, table) for part in range(len(run.embed.units))]
    if not len(run) or None in sizes:
        return Clusters((), label_N, True)
    params = ReportParams()
    positions_S = draw_positions(run.parts.spans, params.sample_rows, params.sample_groups, params.seed)
    captions = run.parts.take(positions_S, files.SAMPLES, ["caption"])["caption"].to_pylist()
    points_SD = features(run.features, *run.parts.take_vectors(positions_S, table))
    n_clusters = metrics.cluster_count(len(points_SD), params.clusters)
    label_S, centroids_CD = metrics.cluster(points_SD, n_clusters, params.seed)
    words = distinctive_words([caption or "" for caption in captions], label_S)
    if len(words) < 2:
        return Clusters((), label_N, True)
    label_N[positions_S] = label_S
    in_sample = len(positions_S) == len(run)
    within_limit = sum(filter(None, sizes)) <= limit
    if within_limit and not in_sample:
        with ThreadPoolExecutor(_THREADS) as threads:
            parts = range(run.parts.spans.n_parts)
            label_N = np.concatenate(list(threads.map(lambda part: _label(run, part, centroids_CD), parts)))
    names = tuple(words.get(label) or "no common words" for label in range(len(centroids_CD)))
    return Clusters(names, label_N, within_limit or in_sample)


def _label(run: FinishedRun, part: int, centroids_CD: NDArray[np.float32]) -> NDArray[np.int16]:
    """The cluster of each sample of a part, int16."""
    start, stop = run.parts.spans.bounds(part)
    if start == stop:
        return np.zeros(0, np.int16)
    table = run.embeddings_file
    raw_ND = read_embeddings(run.parts, part, table, run.features)
    points_ND = unit_features(run.features, raw_ND, start)
    return metrics.nearest_centroids(points_ND, centroids_CD).astype(np.int16)
