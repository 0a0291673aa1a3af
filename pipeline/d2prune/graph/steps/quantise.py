"""Steps `quantiser`, `truth` and `layout`: train the lists, choose nprobe, group lists into partitions.

`quantiser` collects two seeded samples and the training rows from all parts, and trains; `truth`
searches every part for the true neighbours of the samples, by brute force; `layout` chooses the
nprobe that reaches the target on one sample. `measured_recall` measures the other at the end.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from d2prune.errors import UserError
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import features_of, groups_of, members_of_groups, read_part, read_rows
from d2prune.graph.trained import commit_trained, open_quantiser, read_facts
from d2prune.knn.duplicates import expand
from d2prune.knn.in_memory import TrainedLists
from d2prune.knn.list_partitions import group_lists
from d2prune.knn.merge import merge, without_self
from d2prune.knn.probes import tune_nprobe
from d2prune.knn.quantiser import Quantiser, default_nlist, train, training_sample
from d2prune.knn.recall import RECALL_QUERIES, Recall, brute_force, measure, recall_samples
from d2prune.knn.stable_sample import NO_RANKS, rank_rows
from d2prune.knn.top_k import TopK
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

CENTROIDS, SIZES, PARTITIONS = "centroids.npy", "sizes.npy", "partitions.npy"
# The two samples: one chooses nprobe, the other checks the recall reached.
TUNING, CHECKED = "tuning", "checked"
NPROBE = "nprobe"
# Rows of a part converted to float32 at a time.
_BLOCK = 8_192
_READ_AHEAD = 4


class RecallMissedError(Exception):
    """The given quantiser misses the target recall; another one is trained.

    Attributes:
        job: with everything its steps found out.
    """

    def __init__(self, found: str, job: Job) -> None:
        """Take what was found, in words, and the job."""
        super().__init__(found)
        self.job = job


def quantiser_of(job: Job) -> Quantiser:
    """Return the quantiser that step `quantiser` trained or took."""
    url = job.url("quantiser", 0, CENTROIDS)
    return open_quantiser(url, lambda: job.array("quantiser", 0, CENTROIDS))


def train_quantiser(job: Job, _: int) -> Receipt:
    """Train the centroids, and store the samples that recall is measured on."""
    params, n_members = job.params, job.members[-1]
    nlist = min(params.nlist or default_nlist(n_members), n_members)
    training = training_sample(n_members, nlist, params.seed)
    tuning, checked = recall_samples(n_members, RECALL_QUERIES, params.seed)
    wanted = np.unique(np.concatenate([training, tuning, checked]))

    # Training rows first, so that they are a slice: they are gigabytes.
    place_W = np.argsort(np.argsort(~np.isin(wanted, training), kind="stable"), kind="stable")
    parts = np.flatnonzero(np.diff(np.searchsorted(wanted, job.members))).tolist()
    positions_W = np.empty(len(wanted), np.int64)
    rows_WD = np.empty((len(wanted), 0), np.float32)

    def read_wanted(part: int) -> tuple[Float32, Int64, slice]:
        found = slice(*np.searchsorted(wanted, job.members[part : part + 2]).tolist())
        rows = read_part(job, part)
        chosen = np.flatnonzero(rows.is_member)[wanted[found] - job.members[part]]
        return features_of(job, rows.raw[chosen]), rows.positions[chosen], found

    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        for first in range(0, len(parts), _READ_AHEAD):
            for rows, positions, found in pool.map(read_wanted, parts[first : first + _READ_AHEAD]):
                if not rows_WD.shape[1]:
                    rows_WD = np.empty((len(wanted), rows.shape[1]), np.float32)
                rows_WD[place_W[found]], positions_W[place_W[found]] = rows, positions
    training_SD = rows_WD[: len(training)]
    centroids_LD = train(training_SD, nlist, params.seed, threads=job.layout.threads)
    home_S = Quantiser(centroids_LD).find_lists(training_SD, 1, job.layout.threads)[:, 0]
    files = {CENTROIDS: centroids_LD, SIZES: np.bincount(home_S, minlength=nlist)}
    for name, ranks in ((TUNING, tuning), (CHECKED, checked)):
        chosen = place_W[np.searchsorted(wanted, ranks)]
        files |= {f"{name}.npy": rows_WD[chosen], f"{name}-positions.npy": positions_W[chosen]}
    return job.commit("quantiser", 0, files, facts={"nlist": nlist})


def find_truth(job: Job, part: int) -> Receipt:
    """Find the nearest rows of a part to each sampled row.

    For the tuning sample these are members; for the checked sample, all rows of the groups that the
    members represent.
    """
    positions_M, raw_MD = read_part(job, part).members()
    threads = job.layout.threads
    names = [CHECKED, TUNING] if _tunes(job) else [CHECKED]
    samples = [job.array("quantiser", 0, f"{name}.npy") for name in names]
    # One pass for both samples, so that each row is normalised once.
    top = brute_force(
        np.concatenate(samples),
        (
            (features_of(job, raw_MD[start : start + _BLOCK]), positions_M[start : start + _BLOCK])
            for start in range(0, len(raw_MD), _BLOCK)
        ),
        job.n_best,
        threads,
    )
    n_checked = len(samples[0])
    files = {}
    if TUNING in names:
        files = _top_files(TUNING, top[n_checked:])
    checked = expand(top[:n_checked], *groups_of(members_of_groups(job, part)))
    return job.commit("truth", part, files | _top_files(CHECKED, checked))


def choose_layout(job: Job, _: int) -> Receipt:
    """Choose nprobe, unless it is given, and group the lists into partitions."""
    centroids_LD = job.array("quantiser", 0, CENTROIDS)
    if job.given is not None:
        fingerprint, nprobe = job.given, read_facts(job.folder, job.given)[NPROBE]
    else:
        tuning = NO_RANKS
        if job.params.nprobe is not None:
            nprobe = job.params.nprobe
        else:
            nprobe = _tune_nprobe(job, quantiser_of(job))
            tuning = np.sort(rank_rows(job.array("quantiser", 0, f"{TUNING}.npy"), job.params.seed))
        nprobe = min(nprobe, len(centroids_LD))
        trained = TrainedLists(centroids_LD, nprobe, tuning, job.rows)
        fingerprint = commit_trained(job.folder, trained, job.params)
    n_partitions = min(job.partitions, len(centroids_LD))
    partition_L = group_lists(centroids_LD, job.array("quantiser", 0, SIZES), n_partitions)
    facts = {NPROBE: nprobe, "trained": fingerprint}
    return job.commit("layout", 0, {PARTITIONS: partition_L}, facts=facts)


def measured_recall(job: Job, found_SK: Float32) -> Recall | None:
    """Measure recall on the checked sample; None if the pool is too small to have one.

    Args:
        job: step `truth` is complete.
        found_SK: float32 [S, K], squared distances of the sample's neighbours, by its position.
    """
    if len(found_SK) == 0:
        return None
    positions_S = job.array("quantiser", 0, f"{CHECKED}-positions.npy")
    return measure(found_SK, without_self(merge_truth(job, CHECKED), positions_S).sq_distances)


def check_recall(job: Job) -> None:
    """Refuse a graph whose recall is below the target even at the upper end of its interval.

    Raises:
        RecallMissedError: the target was missed with a quantiser that is given.
        UserError: it was missed with one that this graph trained; reports what was measured.
    """
    if not misses_target(job):
        return
    target, recall = job.params.target_recall, job.recall
    assert recall is not None
    found = (
        f"found recall {recall.value:.4f} (95 % interval {recall.low:.4f} to {recall.high:.4f}) with nprobe "
        f"{job.nprobe} of {job.nlist} lists; expected {target}"
    )
    if job.given is not None:
        raise RecallMissedError(found, job)
    raise UserError(f"graph.target_recall: {found}. Set a larger graph.nprobe instead")


def misses_target(job: Job) -> bool:
    """Whether recall is below the target even at the upper end of its interval."""
    target, recall = job.params.target_recall, job.recall
    return target is not None and recall is not None and recall.high < target


def _tunes(job: Job) -> bool:
    """Whether nprobe is chosen on a sample."""
    return job.given is None and job.params.nprobe is None


def _tune_nprobe(job: Job, lists: Quantiser) -> int:
    positions_S = job.array("quantiser", 0, f"{TUNING}-positions.npy")
    true_SK = without_self(merge_truth(job, TUNING), positions_S).positions
    rows_SD, target = job.array("quantiser", 0, f"{TUNING}.npy"), job.params.target_recall
    assert target is not None
    return tune_nprobe(lists, rows_SD, true_SK, partial(read_rows, job), target, job.layout.threads)


def _top_files(sample: str, top: TopK) -> dict[str, NDArray[np.generic]]:
    return {f"{sample}-sq-distances.npy": top.sq_distances, f"{sample}-neighbours.npy": top.positions}


def merge_truth(job: Job, sample: str) -> TopK:
    """Merge the true neighbours of a sample over all parts."""
    top: TopK | None = None
    for part in range(len(job.parts)):
        arrays = [job.array("truth", part, f"{sample}-{name}.npy") for name in ("sq-distances", "neighbours")]
        more = TopK(*arrays)
        top = more if top is None else merge([top, more])
    assert top is not None
    return top
