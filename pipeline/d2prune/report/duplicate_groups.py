"""Groups of duplicates: a sample that stays for the others, and its copies, the largest group first.

From the table of the `dedup` stage where it ran, else from the graph's edges between near-copies, by
the rule of that stage. G groups, M members that are not the group's keeper.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.d2.near_duplicates import deduplicate
from d2prune.knn.csr import Graph
from d2prune.parts.files import DUPLICATES
from d2prune.parts.reader import Parts
from d2prune.report.suppression import NearEdges


@dataclass(frozen=True)
class DuplicateGroups:
    """Groups by falling size, ties to the lower keeper.

    Attributes:
        keepers: int64 [G], canonical positions.
        starts: int64 [G + 1]; the members of group g are `members[starts[g]:starts[g + 1]]`.
        members: int64 [M], canonical positions, without the keepers, ascending in each group.
    """

    keepers: NDArray[np.int64]
    starts: NDArray[np.int64]
    members: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keepers)

    def group(self, number: int) -> NDArray[np.int64]:
        """Canonical positions of a group: its keeper, then its other members."""
        members = self.members[self.starts[number] : self.starts[number + 1]]
        return np.concatenate([self.keepers[number : number + 1], members])


def make_groups(keepers_M: NDArray[np.int64], members_M: NDArray[np.int64]) -> DuplicateGroups:
    """Group members by their keepers.

    Args:
        keepers_M: int64, canonical position of each member's keeper.
        members_M: int64, canonical positions, distinct.
    """
    order = np.lexsort((members_M, keepers_M))
    keepers, first, sizes = np.unique(keepers_M[order], return_index=True, return_counts=True)
    by_size = np.lexsort((keepers, -sizes))
    pieces = [members_M[order][first[g] : first[g] + sizes[g]] for g in by_size.tolist()]
    return DuplicateGroups(
        keepers[by_size],
        np.concatenate([[0], np.cumsum(sizes[by_size])]).astype(np.int64),
        np.concatenate([np.zeros(0, np.int64), *pieces]),
    )


def read_groups(pool: Parts) -> DuplicateGroups:
    """Read the groups that the dedup stage found; memory: 16 bytes per dropped sample."""
    keepers, members = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, table in pool.read_all(DUPLICATES, ["dropped", "group"]):
        dropped = np.flatnonzero(table["dropped"].to_numpy())
        members.append(start + dropped)
        keepers.append(np.asarray(table["group"].to_numpy())[dropped].astype(np.int64))
    return make_groups(np.concatenate(keepers), np.concatenate(members))


def group_near_copies(
    edges: NearEdges, positions_N: NDArray[np.int64], rank_N: NDArray[np.int64], cosine: float
) -> DuplicateGroups:
    """Group near-copies of a graph: of each group the sample with the highest rank is the keeper.

    Args:
        edges: pairs of near-copies in both directions; a pair with an end outside `positions_N` is
            ignored.
        positions_N: int64, ascending canonical positions of the samples to group.
        rank_N: int64, of each; higher = more wanted.
        cosine: lowest cosine of near-copies.
    """
    inside = np.isin(edges.from_E, positions_N) & np.isin(edges.to_E, positions_N)
    from_E, to_E, sq_E = edges.from_E[inside], edges.to_E[inside], edges.sq_distances_E[inside]
    nodes = np.unique(from_E)
    if not len(nodes):
        return make_groups(nodes, nodes)
    row_E, column_E = np.searchsorted(nodes, from_E), np.searchsorted(nodes, to_E)
    order = np.lexsort((column_E, row_E))
    indptr = np.searchsorted(row_E[order], np.arange(len(nodes) + 1))
    graph = Graph(indptr.astype(np.int64), column_E[order].astype(np.int64), sq_E[order])
    ranks = rank_N[np.searchsorted(positions_N, nodes)]
    wanted = np.unique(ranks, return_inverse=True)[1].astype(np.float64)
    keeper = deduplicate(graph, wanted, cosine)
    dropped = np.flatnonzero(keeper >= 0)
    return make_groups(nodes[keeper[dropped]], nodes[dropped])
