"""The unit of a trained quantiser, which all graphs that search its lists share, and quantisers in memory.

Written by the graph that trains it, as `graph/units/trained-<fingerprint>`; pruning keeps it as
long as a graph that uses it. Invariant: the fingerprint is that of the content.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import LostInputError, UserError
from d2prune.graph.latest import trained_key
from d2prune.graph.params import GraphParams
from d2prune.knn.in_memory import TrainedLists
from d2prune.knn.quantiser import Quantiser
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.npy import load_array, npy_bytes

CENTROIDS, TUNING_RANKS = "centroids.npy", "tuning-ranks.npy"


def fingerprint_of(trained: TrainedLists, params: GraphParams) -> str:
    """Fingerprint of a quantiser that a graph with some parameters trained."""
    return _fingerprint(_to_files(trained), _to_facts(trained, params))


def commit_trained(folder: str, trained: TrainedLists, params: GraphParams) -> str:
    """Write the unit of a quantiser, and return its fingerprint.

    Args:
        folder: `work_dir/graph`.
        trained: the lists.
        params: of the graph that trained them.
    """
    return _commit(folder, _to_files(trained), _to_facts(trained, params))


def copy_trained(source: str, folder: str, fingerprint: str) -> None:
    """Copy the unit of a quantiser from another work_dir; both folders are those of the graph stage."""
    if (
        _commit(folder, _to_files(read_trained(source, fingerprint)), read_facts(source, fingerprint))
        != fingerprint
    ):
        raise UserError(
            f"{store.redact(source)}: found another quantiser in unit {trained_key(fingerprint)}; "
            "expected the one that it is named by"
        )


def _commit(folder: str, files: dict[str, bytes], facts: dict[str, Any]) -> str:
    fingerprint = _fingerprint(files, facts)
    artifacts.commit_unit(folder, trained_key(fingerprint), files, facts=facts)
    return fingerprint


def _fingerprint(files: dict[str, bytes], facts: dict[str, Any]) -> str:
    checksums = {name: store.checksum(data) for name, data in files.items()}
    return artifacts.fingerprint("quantiser", checksums, facts, GraphParams.lists_version)


def _to_files(trained: TrainedLists) -> dict[str, bytes]:
    return {CENTROIDS: npy_bytes(trained.centroids), TUNING_RANKS: npy_bytes(trained.tuning)}


def _to_facts(trained: TrainedLists, params: GraphParams) -> dict[str, Any]:
    """Return its size and nprobe, the rows of its pool, and the parameters that it was trained with."""
    found = {"nlist": len(trained.centroids), "nprobe": trained.nprobe, "rows": trained.rows}
    return found | {"features": params.features, "embeddings": params.embeddings, "seed": params.seed}


def read_trained(folder: str, fingerprint: str) -> TrainedLists:
    """Read a quantiser.

    Raises:
        LostInputError: it does not exist.
        DamagedFileError: a file is damaged.
    """
    receipt = _read_receipt(folder, fingerprint)
    return TrainedLists(
        _read_array(folder, receipt, CENTROIDS),
        receipt.facts["nprobe"],
        _read_array(folder, receipt, TUNING_RANKS),
        receipt.facts["rows"],
    )


def read_facts(folder: str, fingerprint: str) -> dict[str, Any]:
    """What `_to_facts` recorded of a quantiser; raises what `read_trained` does."""
    return dict(_read_receipt(folder, fingerprint).facts)


_opened: dict[str, Quantiser] = {}


def open_quantiser(url: str, read_centroids: Callable[[], NDArray[np.float32]]) -> Quantiser:
    """Return a quantiser; it is prepared once per process, which takes longer than a part.

    Args:
        url: of the centroids.
        read_centroids: returns them, float32 [L, D].
    """
    quantiser = _opened.get(url)
    if quantiser is None:
        quantiser = Quantiser(read_centroids())
        _opened.clear()
        _opened[url] = quantiser
    return quantiser


def _read_receipt(folder: str, fingerprint: str) -> Receipt:
    receipt = artifacts.read_receipt(folder, trained_key(fingerprint))
    if receipt is None:
        raise LostInputError(
            f"graph.quantiser: found no quantiser {fingerprint} in {store.redact(folder)}; expected that of "
            "an earlier graph. Run again with `auto`, which takes another, or trains one"
        )
    return receipt


def _read_array(folder: str, receipt: Receipt, name: str) -> NDArray[Any]:
    return np.ascontiguousarray(load_array(artifacts.read_file(folder, receipt, name)))
