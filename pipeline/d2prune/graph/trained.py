"""The unit of a trained quantiser, which all graphs that search its lists share.

Written by the graph that trains it, as `graph/units/trained-<fingerprint>`; pruning keeps it as
long as a graph that uses it. Invariant: the fingerprint is that of the content.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.graph.latest import trained_key
from d2prune.graph.params import GraphParams
from d2prune.knn.in_memory import TrainedLists
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.npy import load_array, npy_bytes

CENTROIDS, TUNING_RANKS = "centroids.npy", "tuning-ranks.npy"


def fingerprint_of(trained: TrainedLists) -> str:
    """Fingerprint of a quantiser."""
    checksums = {name: store.checksum(data) for name, data in _to_files(trained).items()}
    return artifacts.fingerprint("quantiser", checksums, _to_facts(trained), GraphParams.lists_version)


def commit_trained(folder: str, trained: TrainedLists) -> str:
    """Write the unit of a quantiser, and return its fingerprint.

    Args:
        folder: `work_dir/graph`.
        trained: the lists.
    """
    fingerprint = fingerprint_of(trained)
    artifacts.commit_unit(folder, trained_key(fingerprint), _to_files(trained), facts=_to_facts(trained))
    return fingerprint


def _to_files(trained: TrainedLists) -> dict[str, bytes]:
    return {CENTROIDS: npy_bytes(trained.centroids), TUNING_RANKS: npy_bytes(trained.tuning)}


def _to_facts(trained: TrainedLists) -> dict[str, int]:
    return {"nlist": len(trained.centroids), "nprobe": trained.nprobe, "rows": trained.rows}


def copy_trained(source: str, folder: str, fingerprint: str) -> None:
    """Copy the unit of a quantiser from another work_dir; both folders are those of the graph stage."""
    if commit_trained(folder, read_trained(source, fingerprint)) != fingerprint:
        raise UserError(
            f"{store.redact(source)}: found another quantiser in unit {trained_key(fingerprint)}; "
            "expected the one that it is named by"
        )


def read_trained(folder: str, fingerprint: str) -> TrainedLists:
    """Read a quantiser.

    Raises:
        UserError: it does not exist.
        DamagedFileError: a file is damaged.
    """
    receipt = _read_receipt(folder, fingerprint)
    return TrainedLists(
        _read_array(folder, receipt, CENTROIDS),
        receipt.facts["nprobe"],
        _read_array(folder, receipt, TUNING_RANKS),
        receipt.facts["rows"],
    )


def read_facts(folder: str, fingerprint: str) -> dict[str, int]:
    """`nlist`, `nprobe` and `rows` of a quantiser; raises what `read_trained` does."""
    return dict(_read_receipt(folder, fingerprint).facts)


def _read_receipt(folder: str, fingerprint: str) -> Receipt:
    receipt = artifacts.read_receipt(folder, trained_key(fingerprint))
    if receipt is None:
        raise UserError(
            f"graph.quantiser: found no quantiser {fingerprint} in {store.redact(folder)}; expected that of "
            "an earlier graph. `auto` takes another, or trains one"
        )
    return receipt


def _read_array(folder: str, receipt: Receipt, name: str) -> NDArray[Any]:
    return np.ascontiguousarray(load_array(artifacts.read_file(folder, receipt, name)))
