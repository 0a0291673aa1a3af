"""The steps that build an index: units that run on any worker and commit what they made.

| step | unit | when |
|---|---|---|
| `train` | one | the graph stored no lists |
| `lists` | part | the graph left rows without a list |
| `scatter` | part | there are several partitions |
| `partition` | partition | always: the artifact |

With one partition, which holds up to 2 GiB, its unit reads the embeddings itself. With several, each
part first sends its codes to the partitions, so that the embeddings are read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import BooksError
from d2prune.graph.steps.assign import LISTS
from d2prune.graph.steps.quantise import CENTROIDS
from d2prune.graph.trained import open_quantiser
from d2prune.index.bodies import Body
from d2prune.index.job import IndexJob, assign_rows
from d2prune.index.views import make_view
from d2prune.knn.features import features
from d2prune.knn.quantiser import default_nlist, train, training_sample
from d2prune.runs.artifact_kinds import SHARD_BODY, SHARD_VIEW
from d2prune.stage import exchange
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord, Receipt
from d2prune.store.npy import npy_bytes

SENT = "codes.bin"
_SEED = 0
# Parts read and converted ahead of the one that is placed.
_READ_AHEAD = 2


@dataclass(frozen=True)
class IndexUnit:
    """Unit `index` of a step."""

    key: str
    index: int


@dataclass(frozen=True)
class IndexWorker:
    """Runs the units of one step."""

    job: IndexJob
    run: Callable[[IndexJob, int], Receipt]

    def __call__(self, unit: IndexUnit) -> Receipt:
        """Run the unit and commit it."""
        return self.run(self.job, unit.index)


def train_lists(job: IndexJob, _: int) -> Receipt:
    """Train centroids on a seeded sample of the pool."""
    run = job.run
    nlist = default_nlist(len(run))
    positions_S = training_sample(len(run), nlist, _SEED)
    image, text = run.parts.take_vectors(positions_S, run.embeddings_file)
    sample_SD = features(run.features, image, text)
    centroids_LD = train(sample_SD, nlist, _SEED, threads=job.threads)
    return artifacts.commit_unit(job.folder, job.key("train"), {CENTROIDS: npy_bytes(centroids_LD)})


def assign_lists(job: IndexJob, part: int) -> Receipt:
    """Write the list of each row of a part: the graph's, or where it has none, the nearest."""
    start, stop = job.run.parts.spans.bounds(part)
    list_N = job.read_graph_lists(part).copy() if job.lists_of_graph else np.full(stop - start, -1, np.int32)
    without = np.flatnonzero(list_N < 0)
    if len(without):
        rows_MD = job.rows(part)
        rows_MD = rows_MD if len(without) == len(rows_MD) else rows_MD[without]
        quantiser = open_quantiser(job.centroids_url, job.find_centroids)
        list_N[without] = assign_rows(quantiser, rows_MD, job.threads)
    return artifacts.commit_unit(job.folder, job.key("lists", part), {LISTS: npy_bytes(list_N)})


def sent_type(n_dims: int) -> np.dtype[Any]:
    """Return the record of a row sent to a partition."""
    return np.dtype([("position", "<i8"), ("list", "<i4"), ("code", "u1", (2 * n_dims,))])


def send_codes(job: IndexJob, part: int) -> Receipt:
    """Send the codes of a part to the partitions of their lists."""
    list_N, start = job.lists(part), int(job.run.parts.spans.starts[part])
    records = np.empty(len(list_N), sent_type(job.n_dims))
    records["position"] = start + np.arange(len(list_N))
    records["list"] = list_N
    if len(list_N):
        records["code"] = job.codes(part)
    to_N = np.searchsorted(job.bounds, list_N, side="right") - 1
    files = {SENT: exchange.pack(records, to_N, job.n_partitions)}
    return artifacts.commit_unit(job.folder, job.key("scatter", part), files)


def write_partition(job: IndexJob, partition: int) -> Receipt:
    """Write the shard of a partition: the body of its lists, and a view of it.

    Raises:
        BooksError: rows are missing or too many.
    """
    first, stop = job.bounds[partition : partition + 2]
    centroids_LD, sizes_L = job.layout()
    centroids_LD, sizes_L = centroids_LD[first:stop], sizes_L[first:stop]
    body = Body(first, sizes_L, job.n_dims)
    rows = _read_parts(job) if job.n_partitions == 1 else _read_sent(job, partition)
    for codes_NC, lists_N, positions_N in rows:
        body.add(codes_NC, lists_N, positions_N)
    if not body.is_full():
        raise BooksError(
            f"index: partition {partition}: found other rows than the {sizes_L.sum()} of its lists"
        )
    view = make_view(centroids_LD, sizes_L, SHARD_BODY)
    key = job.key("partition", partition)
    # The checksum takes as long as the write; both release the interpreter.
    with ThreadPoolExecutor(1) as thread:
        checksum = thread.submit(store.checksum, body.data.data)
        with store.writer(artifacts.unit_url(job.folder, key, SHARD_BODY), store.Sync.LATER) as stream:
            stream.write(body.data.data)
        store.write_bytes(artifacts.unit_url(job.folder, key, SHARD_VIEW), view, store.Sync.LATER)
        records = [
            FileRecord(SHARD_BODY, None, len(body.data), checksum.result()),
            FileRecord(SHARD_VIEW, None, len(view), store.checksum(view)),
        ]
    counters = {"samples": int(sizes_L.sum()), "lists": stop - first}
    return artifacts.commit_receipt(job.folder, key, records, counters)


Rows = tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int64]]


def _read_parts(job: IndexJob) -> Iterator[Rows]:
    """Yield codes, lists and positions of every part, in order; a few parts are converted ahead."""
    spans = job.run.parts.spans

    def read(part: int) -> Rows:
        return job.codes(part), job.lists(part), np.arange(*spans.bounds(part))

    parts = [part for part in range(job.n_parts) if spans.bounds(part)[0] < spans.bounds(part)[1]]
    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        for first in range(0, len(parts), _READ_AHEAD):
            yield from pool.map(read, parts[first : first + _READ_AHEAD])


def _read_sent(job: IndexJob, partition: int) -> Iterator[Rows]:
    urls = [artifacts.unit_url(job.folder, job.key("scatter", part), SENT) for part in range(job.n_parts)]
    for records in exchange.read_all(urls, sent_type(job.n_dims), partition):
        yield np.ascontiguousarray(records["code"]), records["list"].copy(), records["position"].copy()
