"""Steps `assign` and `lists`: find the lists that each row visits, and write its home list.

A row's lists depend on that row and the quantiser alone (`knn.probes`). Q distinct rows, P probes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import (
    MEMBERS_OF_GROUPS,
    LocalGroups,
    features_of,
    local_groups,
    members_of_groups,
    read_part,
)
from d2prune.graph.steps.quantise import NPROBE, PARTITIONS, quantiser_of
from d2prune.knn.probes import find_probes
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

Int32 = NDArray[np.int32]

VISITED = "visited.npy"
LISTS = "lists.npy"
VISITS = "visits.npy"
# Rows of a part converted to float32 at a time.
_BLOCK = 16_384
_READERS = 8


def find_visits(job: Job, part: int) -> Receipt:
    """Find the lists that each distinct row of a part visits, home first."""
    rows = read_part(job, part)
    lists = quantiser_of(job)
    partition_L = job.array("layout", 0, PARTITIONS)
    nprobe = job.receipt("layout").facts[NPROBE]
    visited_QP = np.empty((len(rows.raw), nprobe), smallest_integer(job.nlist))
    visits_P = np.zeros(job.partitions, np.int64)
    for start in range(0, len(rows.raw), _BLOCK):
        block = slice(start, start + _BLOCK)
        visited_QP[block] = find_probes(lists, features_of(job, rows.raw[block]), nprobe, job.layout.threads)
        visits_P += np.bincount(
            visited_partitions(partition_L[visited_QP[block]], job.partitions)[1], minlength=job.partitions
        )
    groups = members_of_groups(job, part)
    # A representative is found where it is at home, and where it visits.
    row_G = np.searchsorted(rows.positions, groups["representative"])
    group_V, to_V = visited_partitions(partition_L[visited_QP[row_G]], job.partitions)
    files = {
        VISITED: visited_QP,
        MEMBERS_OF_GROUPS: exchange.pack(groups[group_V], to_V, job.partitions),
        VISITS: visits_P,
    }
    facts = {"width": rows.raw.shape[1], "dtype": rows.raw.dtype.str, NPROBE: nprobe}
    return job.commit("assign", part, files, facts=facts)


def count_visitors(job: Job) -> NDArray[np.int64]:
    """Count the rows that visit each partition, int64 [partitions]; reads a file of each part."""
    visits_P = np.zeros(job.partitions, np.int64)
    with ThreadPoolExecutor(_READERS) as pool:
        for more in pool.map(lambda part: job.array("assign", part, VISITS), range(len(job.parts))):
            visits_P += more
    return visits_P


def smallest_integer(n_values: int) -> type[np.int16] | type[np.int32]:
    """The smallest type that holds -1 and the numbers below `n_values`."""
    return np.int16 if n_values < 2**15 else np.int32


def visited_partitions(
    partition_QP: NDArray[np.integer], n_partitions: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs (query, partition) such that one of the query's lists is in the partition.

    Args:
        partition_QP: partition of each list that each query visits.
        n_partitions: at least 1.

    Returns:
        int64 [V] twice, ordered by query, then partition.
    """
    is_visited_QA = np.zeros((len(partition_QP), n_partitions), bool)
    is_visited_QA[np.arange(len(partition_QP))[:, None], partition_QP] = True
    query_V, to_V = np.nonzero(is_visited_QA)
    return query_V, to_V


def write_lists(job: Job, part: int) -> Receipt:
    """Write the home list of each row of a part, int32 [N], -1 for rows that are cut off.

    The pool's index (`d2prune index`) is built from it.
    """
    groups = local_groups(job, part)
    return commit_lists(job, part, groups, job.array("assign", part, VISITED)[:, 0])


def commit_lists(job: Job, part: int, groups: LocalGroups, home_Q: Int32) -> Receipt:
    """Commit the `lists` unit of a part, from the home lists of its Q distinct rows."""
    start, stop = job.spans.bounds(part)
    list_N = np.full(stop - start, -1, np.int32)
    if len(groups.kept_N):
        # Groups are numbered in the order of their first rows, as distinct rows are.
        list_N[groups.kept_N] = home_Q[groups.group_N]
    return job.commit("lists", part, {LISTS: list_N})
