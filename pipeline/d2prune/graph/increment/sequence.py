"""The steps of an increment, in order; records as in `steps/sequence.py`."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from d2prune.graph.increment.meet import meet
from d2prune.graph.increment.rows import arrive, collect_bereft, previous_of
from d2prune.graph.increment.sample import merge_sample, update_sample
from d2prune.graph.increment.settle import join, settle
from d2prune.graph.steps.edges import FOUND
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.quantise import check_recall
from d2prune.graph.steps.sequence import STEPS
from d2prune.graph.steps.state import read_checked
from d2prune.graph.steps.step import Step, once
from d2prune.graph.trained import read_facts
from d2prune.knn.merge import without_self
from d2prune.knn.recall import measure
from d2prune.store.artifacts import Receipt

log = logging.getLogger(__name__)

# Rows of a share as stored: few shares, because each goes through all lists, and all added rows.
_SHARE_BYTES = 2**30


def per_added_part(job: Job) -> int:
    """Count one unit per part that was added."""
    return len(previous_of(job).added)


def per_share(job: Job) -> int:
    """Count one unit per share."""
    return job.slices


def per_share_if_removed(job: Job) -> int:
    """Count one unit per share, or none if nothing was removed."""
    return job.slices if previous_of(job).removes else 0


def choose_shares(job: Job) -> Job:
    """Before the steps: add the lists, and the number of shares."""
    assert job.given is not None
    facts = read_facts(job.folder, job.given)
    n_bytes = sum(job.pool.vector_bytes(part, job.params.embeddings) or 0 for part in range(len(job.parts)))
    shares = job.layout.partitions or -(-n_bytes // _SHARE_BYTES)
    return replace(
        job,
        nlist=facts["nlist"],
        nprobe=facts["nprobe"],
        trained=job.given,
        rows=len(job.spans),
        slices=max(1, min(shares, len(job.parts))),
    )


def log_bereft(job: Job, receipts: Sequence[Receipt]) -> Job:
    """After `bereft`: log how many rows are searched again."""
    log.info("graph: %d rows lost a neighbour", sum(receipt.facts["rows"] for receipt in receipts))
    return job


def measure_recall(job: Job, receipts: Sequence[Receipt]) -> Job:
    """After `checked`: add the recall.

    Raises:
        RecallMissedError: the target recall was missed.
    """
    sample = read_checked(job.folder, receipts[0])
    if len(sample.positions):
        found = np.concatenate([job.array("settle", share, FOUND) for share in range(job.slices)])
        job = replace(job, recall=measure(found, without_self(sample.top, sample.positions).sq_distances))
    check_recall(job)
    return job


INCREMENT: tuple[Step, ...] = (
    # Group the rows of each added part, and find the lists they visit.
    Step("arrive", arrive, per_added_part, layout=("origin",)),
    # Collect the rows that lost a neighbour.
    Step("bereft", collect_bereft, per_share_if_removed, layout=("slices", "origin"), after=log_bereft),
    # Draw the sample that recall is measured on; take over the true neighbours that are known.
    Step("sample", update_sample, once, layout=("origin",)),
    # Compare kept rows with added rows, and seekers with all rows.
    Step("meet", meet, per_share, layout=("slices", "origin")),
    # Merge the candidates; keep the state; send the edges to the shares of both ends.
    Step("settle", settle, per_share, layout=("slices", "origin")),
    # Keep the sample with its true neighbours.
    Step("checked", merge_sample, once, after=measure_recall, keep=True),
    # Write each part's rows of the undirected graph: the artifact.
    Step("join", join, per_share, layout=("slices", "origin")),
)

ALL_STEPS: tuple[Step, ...] = (*STEPS, *INCREMENT)
