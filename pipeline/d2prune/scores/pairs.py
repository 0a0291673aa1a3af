"""Difficulty from embeddings alone: how well image and caption match, compared with the rest of the pool.

N samples, D dimensions, M samples of a reference. Products are float32 on one thread or on a GPU, so
scores of another machine may differ in the last digits, as embeddings do. torch is imported where it
multiplies, since it takes a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.arguments import as_rows
from d2prune.compiled.threads import available_cores, parallel_ranges
from d2prune.errors import ArgumentError
from d2prune.extras import require
from d2prune.knn.features import unit_rows

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

TEMPERATURE = 0.01
REFERENCE_SIZE = 32_768
N_REFERENCES = 5
# A block of products is 32 MiB: large enough for the full rate of the product, small enough to be
# read again from the cache.
_ROWS, _COLUMNS = 1024, 8192


@dataclass(frozen=True)
class Reference:
    """Samples of the pool that every pair is compared with.

    Attributes:
        positions: int64 [M], ascending positions in the pool: a sample is not compared with itself.
        image: float32 [M, D], unit norm.
        text: float32 [M, D], unit norm.
    """

    positions: Int64
    image: Float32
    text: Float32


def draw_references(n: int, size: int, count: int, seed: int) -> list[Int64]:
    """Draw the positions of `count` references, int64 [min(size, n)] each, ascending."""
    return [
        np.sort(np.random.default_rng([seed, number]).choice(n, min(size, n), replace=False, shuffle=False))
        for number in range(count)
    ]


def s_clip_loss(
    image_emb: NDArray[Any],
    text_emb: NDArray[Any],
    temperature: float = TEMPERATURE,
    reference_size: int = REFERENCE_SIZE,
    n_references: int = N_REFERENCES,
    seed: int = 0,
    threads: int | None = None,
) -> Float32:
    """Score pairs by s-CLIPLoss: the CLIP score minus how well image and caption match other samples.

    Source: Wang et al., "CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive
    Learning", arXiv 2405.19547. The score of pair i is the negative CLIP loss of a batch that holds
    pair i and a reference sample B of the pool, in units of the cosine:

        c_ii - t/2 (log sum_j exp(c_ij / t) + log sum_j exp(c_ji / t)),    j in B and i

    where c_ij is the cosine of image i and text j. A caption that fits many images scores lower than
    a specific one. The scores of several references are averaged.

    Args:
        image_emb: floats [N, D]; rows are normalised.
        text_emb: floats [N, D], row-aligned.
        temperature: t, above 0. The paper's 0.01 is that of OpenAI's models.
        reference_size: samples in a reference; at most N are used.
        n_references: number of references.
        seed: of the references.
        threads: number of threads; affects speed only. Default: the cores available to this process.

    Returns:
        float32 [N], at most 0; higher = image and caption match each other rather than others.

    Raises:
        ArgumentError: shapes that differ, a row that cannot be normalised, or a parameter out of range.
    """
    image_ND, text_ND = unit_rows(as_rows(image_emb, "image_emb")), unit_rows(as_rows(text_emb, "text_emb"))
    if image_ND.shape != text_ND.shape:
        raise ArgumentError(f"text_emb: found shape {text_ND.shape}; expected {image_ND.shape}, as image_emb")
    check_parameters(temperature, reference_size, n_references)
    require("torch", "s_clip_loss")
    drawn = draw_references(len(image_ND), reference_size, n_references, seed)
    references = (Reference(rows_M, image_ND[rows_M], text_ND[rows_M]) for rows_M in drawn)
    return average_s_clip_loss(
        image_ND, text_ND, np.arange(len(image_ND)), references, temperature, threads or available_cores()
    )


def check_parameters(temperature: float, reference_size: int, n_references: int) -> None:
    """Check the parameters of s-CLIPLoss.

    Raises:
        ArgumentError: one is out of range.
    """
    if not 1e-4 <= temperature <= 1e4:
        raise ArgumentError(f"temperature: found {temperature}; expected 0.0001 to 10,000")
    if reference_size < 1 or n_references < 1:
        raise ArgumentError(
            f"reference_size and n_references: found {reference_size} and {n_references}; expected at least 1"
        )


def average_s_clip_loss(
    image_ND: Float32,
    text_ND: Float32,
    positions_N: Int64,
    references: Iterator[Reference] | Sequence[Reference],
    temperature: float,
    threads: int,
    device: str = "cpu",
) -> Float32:
    """Return the mean s-CLIPLoss of some rows over the references.

    Args:
        image_ND: float32 [N, D], unit norm.
        text_ND: float32 [N, D], unit norm.
        positions_N: int64 [N], positions of the rows in the pool.
        references: read one at a time.
        temperature: above 0.
        threads: number of threads; one on a GPU.
        device: torch device of the products.
    """
    total_N, count = np.zeros(len(image_ND)), 0
    own_N = np.einsum("nd,nd->n", image_ND, text_ND)
    for reference in references:
        block = _Block(reference.positions, positions_N, own_N, temperature, threads, device)
        of_images = block.log_partition(image_ND, reference.text)
        of_texts = block.log_partition(text_ND, reference.image)
        total_N -= temperature / 2 * (of_images + of_texts)
        count += 1
    return (total_N / count).astype(np.float32)


@dataclass(frozen=True)
class _Block:
    """Some rows of the pool beside one reference.

    Attributes:
        positions_M: int64 [M], of the reference.
        positions_N: int64 [N], of the rows.
        own_N: float32 [N], cosine of each row's image and text.
        temperature: t.
        threads: number of threads.
        device: torch device of the products.
    """

    positions_M: Int64
    positions_N: Int64
    own_N: Float32
    temperature: float
    threads: int
    device: str

    def log_partition(self, rows_ND: Float32, others_MD: Float32) -> NDArray[np.float64]:
        """Return log(1 + sum_j exp((c_nj - own_n) / t)) over the reference without row n itself.

        Relative to its own cosine, a row's own term is 1. So a term that underflows does not matter,
        and only an overflow needs the slower sum with a maximum.

        Args:
            rows_ND: float32 [N, D], one side of the rows.
            others_MD: float32 [M, D], the other side of the reference.

        Returns:
            float64 [N].
        """
        import torch

        log_N = np.empty(len(rows_ND))
        # The shift by the own cosine is one more dimension of the product, which costs nothing.
        others = torch.from_numpy(np.pad(others_MD, ((0, 0), (0, 1)), constant_values=1)).to(self.device)
        column_N = np.searchsorted(self.positions_M, self.positions_N)
        is_member_N = self.positions_M[np.minimum(column_N, len(others) - 1)] == self.positions_N

        def compute(start: int, stop: int) -> None:
            shifted = np.concatenate([rows_ND[start:stop], -self.own_N[start:stop, None]], axis=1)
            rows = torch.from_numpy(shifted / np.float32(self.temperature)).to(self.device)
            log_R = torch.zeros(stop - start, dtype=torch.float64, device=self.device)
            members = start + np.flatnonzero(is_member_N[start:stop])
            for left in range(0, len(others), _COLUMNS):
                logits = rows @ others[left : left + _COLUMNS].T
                here = members[(column_N[members] >= left) & (column_N[members] < left + _COLUMNS)]
                logits[torch.from_numpy(here - start), torch.from_numpy(column_N[here] - left)] = -torch.inf
                log_sums = logits.exp().sum(dim=1).double().log()
                if log_sums.isposinf().any():
                    log_sums = torch.logsumexp(logits.double(), dim=1)
                log_R = torch.logaddexp(log_R, log_sums)
            log_N[start:stop] = log_R.cpu().numpy()

        parallel_ranges(compute, len(rows_ND), self.threads, _ROWS)
        return log_N


def norm_sim(
    image_emb: NDArray[Any], target_emb: NDArray[Any], p: float = 2, threads: int | None = None
) -> Float32:
    """Score images by NormSim: their likeness to a target set.

    Source: as `s_clip_loss`. The score is the p-norm of an image's cosines to all target images: for
    p = 2 the square root of their sum of squares, for p = infinity the largest magnitude.

    Args:
        image_emb: floats [N, D]; rows are normalised.
        target_emb: floats [M, D], such as the training images of the tasks a model is meant for; rows are
            normalised. Without a target, pass a random sample of the pool: p = 2 then favours what is
            common in it.
        p: 2 or infinity.
        threads: number of threads; affects speed only. Default: the cores available to this process.

    Returns:
        float32 [N], at least 0; higher = closer to the target.

    Raises:
        ArgumentError: widths that differ, an empty target, a row that cannot be normalised, or another p.
    """
    image_ND, target_MD = (
        unit_rows(as_rows(image_emb, "image_emb")),
        unit_rows(as_rows(target_emb, "target_emb")),
    )
    check_target(target_MD.shape, image_ND.shape[1])
    threads = threads or available_cores()
    if p == 2:
        return norm_sim_2(image_ND, second_moment(target_MD))
    if p == np.inf:
        return norm_sim_inf(image_ND, target_MD, threads)
    raise ArgumentError(f"p: found {p}; expected 2 or infinity")


def check_target(shape: Sequence[int], width: int, name: str = "target_emb") -> None:
    """Check the shape of a target.

    Raises:
        ArgumentError: it is empty, or its rows have another width than the pool's embeddings.
    """
    if len(shape) != 2 or shape[0] == 0 or shape[1] != width:
        raise ArgumentError(
            f"{name}: found shape {tuple(shape)}; expected rows of {width} dimensions, at least one"
        )


def second_moment(target_MD: Float32) -> NDArray[np.float64]:
    """Return the sum of outer products of the rows, float64 [D, D]."""
    total_DD = np.zeros((target_MD.shape[1],) * 2)
    for start in range(0, len(target_MD), _COLUMNS):
        block = target_MD[start : start + _COLUMNS].astype(np.float64)
        total_DD += block.T @ block
    return total_DD


def norm_sim_2(image_ND: Float32, moment_DD: NDArray[np.float64]) -> Float32:
    """Return NormSim with p = 2, from the second moment of the target; float32 [N]."""
    score_N = np.empty(len(image_ND), np.float32)
    for start in range(0, len(image_ND), _ROWS):
        rows = image_ND[start : start + _ROWS].astype(np.float64)
        squares = np.einsum("nd,nd->n", rows @ moment_DD, rows)
        score_N[start : start + _ROWS] = np.sqrt(np.maximum(squares, 0.0))
    return score_N


def norm_sim_inf(image_ND: Float32, target_MD: Float32, threads: int, device: str = "cpu") -> Float32:
    """Return NormSim with p = infinity; float32 [N]."""
    score_N = np.zeros(len(image_ND), np.float32)
    import torch

    target = torch.from_numpy(target_MD).to(device)

    def compute(start: int, stop: int) -> None:
        rows = torch.from_numpy(image_ND[start:stop]).to(device)
        largest = torch.zeros(stop - start, device=device)
        for left in range(0, len(target), _COLUMNS):
            largest = torch.maximum(largest, (rows @ target[left : left + _COLUMNS].T).abs().amax(dim=1))
        score_N[start:stop] = largest.cpu().numpy()

    parallel_ranges(compute, len(image_ND), threads, _ROWS)
    return score_N
