"""The report's clusters, carried over to every sample of the pool.

Reads embeddings of a `FinishedRun`, once, a part at a time; writes nothing. Invariant: centroids
and names are those that the report shows, since both come from the same seeded sample by the same
functions; a sample belongs to the nearest centroid.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.parts import files
from d2prune.report import gallery, metrics
from d2prune.report.data import ReportParams
from d2prune.report.pool_sample import choose_positions
from d2prune.runs.finished import FinishedRun
from d2prune.store.columns import vectors

NONE = -1
"""Label of a sample that was not looked at."""
# Beyond so many bytes of embeddings only the report's sample is labelled: nobody waits for terabytes.
LIMIT = 8 << 30
_THREADS = 2


@dataclass(frozen=True)
class Clusters:
    """Which cluster each sample belongs to.

    Attributes:
        names: the most telling words of each; the number of a cluster is its place here.
        label_N: int16 [N]; `NONE` where a sample was not looked at.
        whole: whether all were.
    """

    names: tuple[str, ...]
    label_N: NDArray[np.int16]
    whole: bool


def read_clusters(run: FinishedRun, limit: int = LIMIT) -> Clusters:
    """Cluster the pool; without names where there are fewer than two clusters, or no embeddings."""
    label_N = np.full(len(run), NONE, np.int16)
    sizes = [file.size for unit in run.embed.units for file in unit.files if file.name == run.embeddings]
    if not len(run) or len(sizes) < len(run.embed.units):
        return Clusters((), label_N, True)
    params = ReportParams()
    positions_S = choose_positions(run.parts.spans, params.sample_rows, params.sample_groups, params.seed)
    table = run.parts.take(positions_S, files.SAMPLES, ["caption"])
    image_SD, text_SD = run.parts.take_vectors(positions_S, run.embeddings)
    points_SD = metrics.join_features(image_SD, text_SD, run.features)
    wanted = metrics.cluster_count(len(points_SD), params.clusters)
    label_S, centres = metrics.k_means(points_SD, wanted, params.seed)
    telling = gallery.telling_words([caption or "" for caption in table["caption"].to_pylist()], label_S)
    if len(telling) < 2:
        return Clusters((), label_N, True)
    label_N[positions_S] = label_S
    whole = sum(sizes) <= limit
    if whole and len(positions_S) < len(run):
        with ThreadPoolExecutor(_THREADS) as threads:
            labels = threads.map(lambda part: _nearest(run, part, centres), range(len(run.embed.units)))
            label_N = np.concatenate(list(labels))
    names = tuple(telling.get(cluster) or "no common words" for cluster in range(len(centres)))
    return Clusters(names, label_N, whole or len(positions_S) == len(run))


def _nearest(run: FinishedRun, part: int, centres: NDArray[np.float32]) -> NDArray[np.int16]:
    start, stop = run.parts.spans.bounds(part)
    sides = run.features.split("+")
    table = run.parts.peek(part, run.embeddings, [f"{side}_emb" for side in sides])
    found = {side: vectors(table[f"{side}_emb"]) for side in sides}
    nothing = np.zeros((stop - start, 0), np.float16)
    points = metrics.join_features(found.get("image", nothing), found.get("text", nothing), run.features)
    return np.asarray((points @ centres.T).argmax(axis=1), np.int16)
