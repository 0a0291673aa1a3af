"""Views: faiss files that find their lists in another file, a body, which faiss maps into memory.

Reads centroids and the sizes of lists; returns an IndexIVFScalarQuantizer (float16, inner product of
unit rows, which is their cosine) as bytes. Lists are chosen by Euclidean distance to their centroids, as
the graph chooses them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.extras import require

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

DEFAULT_NPROBE = 32
"""Lists that a search visits unless it says otherwise; stored in the view."""


def import_faiss() -> Any:
    """Import faiss.

    Raises:
        MissingExtraError: it is not installed.
    """
    require("faiss", "the index of a pool")
    import faiss

    return faiss


def make_view(centroids_LD: Float32, sizes_L: Int64, body: str) -> bytes:
    """Return the view of a body, as faiss writes it.

    Args:
        centroids_LD: float32 [L, D].
        sizes_L: int64 [L], rows of each list, in the order of the body.
        body: path that faiss opens; a plain name for readers that pass `IO_FLAG_ONDISK_SAME_DIR`.
    """
    faiss = import_faiss()
    n_lists, n_dims = centroids_LD.shape
    quantiser = faiss.IndexFlatL2(n_dims)
    quantiser.add(np.ascontiguousarray(centroids_LD))
    index = faiss.IndexIVFScalarQuantizer(
        quantiser, n_dims, n_lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    lists = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size, lists.filename = n_lists, index.code_size, body
    lists.lists.resize(n_lists)
    sizes = np.ascontiguousarray(sizes_L, np.uint64)
    lists.set_all_lists_sizes(faiss.swig_ptr(sizes))
    lists.totsize = int(sizes.sum()) * row_bytes(n_dims)
    index.replace_invlists(lists, False)
    index.is_trained, index.ntotal = True, int(sizes.sum())
    index.nprobe = min(DEFAULT_NPROBE, n_lists)
    return bytes(faiss.serialize_index(index))


def row_bytes(n_dims: int) -> int:
    """Return the bytes of a row in a body: its code and its id."""
    return 2 * n_dims + 8
