"""The steps that build a graph, in order. Running, resuming, cleaning up and pruning all read these records.

Before each step that adds to the job stands the function that does so, `Step.after`.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from d2prune.graph.params import choose_partitions
from d2prune.graph.steps.assign import count_visitors, find_visits, write_lists
from d2prune.graph.steps.distinct import find_copies, group_rows
from d2prune.graph.steps.edges import found_for_checked, merge_candidates, write_neighbors, write_no_neighbors
from d2prune.graph.steps.given import adopt_quantiser
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.quantise import (
    NPROBE,
    check_recall,
    choose_layout,
    find_truth,
    measured_recall,
    train_quantiser,
)
from d2prune.graph.steps.search import search_partition
from d2prune.graph.steps.send import send_rows
from d2prune.graph.steps.state import write_checked, write_state
from d2prune.graph.steps.step import Step, once, per_part
from d2prune.graph.steps.whole import build_whole
from d2prune.knn.recall import Recall
from d2prune.store.artifacts import Receipt

log = logging.getLogger(__name__)


def per_bucket(job: Job) -> int:
    """Count one unit per bucket of row hashes."""
    return job.buckets


def per_part_with_state(job: Job) -> int:
    """Count one unit per embed part, or none: a graph with a cut-off keeps no state."""
    return len(job.parts) if job.cut_off is None else 0


def per_slice(job: Job) -> int:
    """Count one unit per partition and slice of the parts."""
    return job.partitions * job.slices


def per_wave(job: Job) -> int:
    """Count one unit per wave and embed part."""
    return job.waves * len(job.parts)


def find_sends(job: Job, wave: int) -> range:
    """Return the units that send rows to the partitions of a wave."""
    return range(wave * len(job.parts), (wave + 1) * len(job.parts))


def find_searches(job: Job, wave: int) -> range:
    """Return the units that search the partitions of a wave."""
    first, stop = job.wave_bounds[wave : wave + 2]
    return range(first * job.slices, stop * job.slices)


def read_facts(job: Job, receipts: Sequence[Receipt]) -> Job:
    """After `whole`: add the lists and the recall.

    Raises:
        RecallMissedError: the target recall was missed with a given quantiser.
    """
    facts = receipts[0].facts
    recall = None
    if "recall" in facts:
        recall = Recall(facts["recall"], facts["recall_low"], facts["recall_high"], facts["recall_queries"])
    job = replace(
        job, nlist=facts["nlist"], nprobe=facts["nprobe"], recall=recall, trained=facts.get("quantiser")
    )
    check_recall(job)
    return job


def count_distinct(job: Job, receipts: Sequence[Receipt]) -> Job:
    """After `distinct`: add the distinct rows of each part."""
    rows = [receipt.facts["distinct"] for receipt in receipts]
    row_bytes = max(receipt.facts["row_bytes"] for receipt in receipts)
    kept = sum(receipt.facts["kept"] for receipt in receipts)
    return replace(job, members=tuple(np.cumsum([0, *rows]).tolist()), row_bytes=row_bytes, rows=kept)


def count_members(job: Job, receipts: Sequence[Receipt]) -> Job:
    """After `copies`: add the members of each part, and the number of partitions for them."""
    rows = np.diff(job.members)
    for receipt in receipts:
        for part, count in receipt.facts["copies"]:
            rows[part] -= count
    n_bytes = int(rows.sum()) * job.row_bytes
    partitions = job.layout.partitions or choose_partitions(n_bytes, job.layout.cores)
    return replace(job, members=tuple(np.cumsum([0, *rows]).tolist()), partitions=partitions)


def read_nlist(job: Job, receipts: Sequence[Receipt]) -> Job:
    """After `quantiser`: add the number of lists."""
    return replace(job, nlist=receipts[0].facts["nlist"])


def read_nprobe(job: Job, receipts: Sequence[Receipt]) -> Job:
    """After `layout`: add the number of lists that a row visits."""
    nprobe = receipts[0].facts[NPROBE]
    log.info("graph: %d lists in %d partitions, nprobe %d", job.nlist, job.partitions, nprobe)
    return replace(job, nprobe=nprobe, trained=receipts[0].facts["trained"])


def divide_search(job: Job, _: Sequence[Receipt]) -> Job:
    """After `assign`: add the visitors of each partition, and the number of slices and waves.

    There are enough slices for the partition with the most visitors. A wave has as many partitions as
    the share of the pool that may be in transit, at least one.
    """
    visits_P = count_visitors(job)
    slices = min(len(job.parts), max(1, -(-int(visits_P.max()) // job.layout.visitors)))
    limit = math.inf
    if job.layout.in_transit is not None:
        limit = job.layout.in_transit * job.members[-1]
    bounds, in_transit = [0], 0
    for partition, count in enumerate(visits_P.tolist()):
        if in_transit and in_transit + count > limit:
            bounds.append(partition)
            in_transit = 0
        in_transit += count
    bounds.append(job.partitions)
    return replace(job, visitors=tuple(visits_P.tolist()), slices=slices, wave_bounds=tuple(bounds))


def measure_and_check_recall(job: Job, _: Sequence[Receipt]) -> Job:
    """After `merge`: add the recall.

    Raises:
        UserError: the target recall was missed.
        RecallMissedError: it was missed with a given quantiser.
    """
    job = replace(job, recall=measured_recall(job, found_for_checked(job)))
    check_recall(job)
    return job


IN_MEMORY: tuple[Step, ...] = (
    Step("whole", build_whole, once, whole_machine=True, uses_gpu=True, after=read_facts, keep=True),
)

SHARDED: tuple[Step, ...] = (
    # Group identical rows within each part; send their hashes to buckets.
    Step("distinct", group_rows, per_part, layout=("buckets",), after=count_distinct),
    # Find the rows that repeat a row of an earlier part; send them to the parts.
    Step("copies", find_copies, per_bucket, layout=("buckets",), after=count_members),
    # Train the centroids of the lists; draw the two samples that recall is measured on.
    Step("quantiser", train_quantiser, once, whole_machine=True, uses_gpu=True, after=read_nlist),
    # Find the true neighbours of the samples among each part's rows.
    Step("truth", find_truth, per_part),
    # Choose nprobe; group the lists into partitions.
    Step("layout", choose_layout, once, layout=("partitions",), whole_machine=True, after=read_nprobe),
    # Find the lists that each part's rows visit.
    Step("assign", find_visits, per_part, layout=("partitions",), uses_gpu=True, after=divide_search),
    # Write the list of each row of a part, for the index that users keep.
    Step("lists", write_lists, per_part, keep=True),
    # Send each part's rows to the partitions of the lists they visit, for one wave of partitions.
    Step("send", send_rows, per_wave, layout=("partitions", "wave_bounds"), find_wave=find_sends),
    # Search the lists of each partition for their visitors; send the candidates to the parts.
    Step(
        "search",
        search_partition,
        per_slice,
        layout=("partitions", "slices"),
        uses_gpu=True,
        find_wave=find_searches,
    ),
    # Merge the candidates of each part's rows; send the edges to the parts of both ends.
    Step("merge", merge_candidates, per_part, after=measure_and_check_recall),
    # Keep the candidates of each part, for the increments of this graph.
    Step("state", write_state, per_part_with_state, keep=True),
    # Write each part's rows of the undirected graph: the artifact.
    Step("neighbors", write_neighbors, per_part, keep=True),
)

# With a given quantiser: nothing is trained, and recall is measured on the stable sample.
GIVEN: tuple[Step, ...] = (
    *SHARDED[:2],
    # Draw the sample that recall is measured on.
    Step("quantiser", adopt_quantiser, once, after=read_nlist),
    *SHARDED[3:-2],
    # Keep the sample with its true neighbours.
    Step("checked", write_checked, once, keep=True),
    *SHARDED[-2:],
)

# With `n_neighbors: 0`. Its units are those of the last step above.
WITHOUT_EDGES: tuple[Step, ...] = (Step("neighbors", write_no_neighbors, per_part, keep=True),)

STEPS = IN_MEMORY + GIVEN
