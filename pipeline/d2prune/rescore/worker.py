"""Workers of the rescore stage: one draws the reference rows of a part, the other scores a part."""

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune.parts.files import PAIR_SCORES
from d2prune.rescore.job import ROWS, RescoreJob, read_sides, split_sides
from d2prune.rescore.target import CENTROIDS, TARGET, read_centroids, read_target
from d2prune.scores import nearest, pairs
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class PartUnit:
    """One part of the pool."""

    key: str
    part: int


class RowsWorker:
    """Commits the embeddings of a part's rows that are in a reference."""

    def __init__(self, job: RescoreJob) -> None:
        self._job = job

    def __call__(self, unit: PartUnit) -> Receipt:
        """Commit the rows of one part, float16 [R, D] or [R, 2 D]."""
        job, sink = self._job, io.BytesIO()
        np.save(sink, read_sides(job, unit.part)[job.wanted_rows(unit.part)], allow_pickle=False)
        return artifacts.commit_unit(job.folder, unit.key, {ROWS: sink.getvalue()})


class ScoreWorker:
    """Scores one part at a time."""

    def __init__(self, job: RescoreJob, device: str) -> None:
        self._job, self._device = job, device

    def __call__(self, unit: PartUnit) -> Receipt:
        """Score and commit one part.

        Raises:
            UserError: the target or the centroids have another width than the embeddings.
        """
        job, scores = self._job, self._job.params.scores
        start, stop = job.parts.spans.bounds(unit.part)
        image_ND, text_ND = split_sides(read_sides(job, unit.part), job.params.sides, start)
        columns: dict[str, Float32] = {}
        if schemas.S_CLIP_LOSS in scores:
            columns[schemas.S_CLIP_LOSS] = pairs.average_s_clip_loss(
                image_ND,
                text_ND,
                np.arange(start, stop),
                job.references(),
                job.params.temperature,
                threads=1,
                device=self._device,
            )
        if schemas.NORM_SIM_2 in scores:
            columns[schemas.NORM_SIM_2] = pairs.norm_sim_2(image_ND, self._moment)
        if schemas.NORM_SIM_INF in scores:
            columns[schemas.NORM_SIM_INF] = pairs.norm_sim_inf(image_ND, self._target, 1, self._device)
        if schemas.NEAR_TARGET in scores:
            columns[schemas.NEAR_TARGET] = nearest.near_target(
                image_ND, self._centroids, self._target_clusters, 1, self._device
            )
        table = pa.table([columns[name] for name in scores], schema=schemas.pair_scores(scores))
        return artifacts.commit_unit(
            job.folder, unit.key, {PAIR_SCORES: table}, counters={"scored": stop - start}
        )

    @cached_property
    def _target(self) -> Float32:
        """The target set, or the first reference in its place; float32 [M, D]."""
        job = self._job
        if job.target is None or job.params.target is None:
            return next(job.references()).image
        target_MD = read_target(job.target, job.params.target)
        pairs.check_target(target_MD.shape, self._width, TARGET)
        return target_MD

    @cached_property
    def _centroids(self) -> Float32:
        """The centroids, float32 [M, D]."""
        job = self._job
        assert job.centroids is not None and job.params.centroids is not None
        centroids_MD = read_centroids(job.centroids, job.params.centroids)
        pairs.check_target(centroids_MD.shape, self._width, CENTROIDS)
        return centroids_MD

    @cached_property
    def _target_clusters(self) -> NDArray[np.int64]:
        """The centroids that are nearest to a row of the target."""
        return np.unique(nearest.find_nearest(self._target, self._centroids, 1, self._device))

    @cached_property
    def _width(self) -> int:
        """Dimensions of an embedding."""
        width: int = read_sides(self._job, 0).shape[1]
        return width // 2 if "+" in self._job.params.sides else width

    @cached_property
    def _moment(self) -> NDArray[np.float64]:
        return pairs.second_moment(self._target)
