"""The numbers of all decisions of a run as arrays in memory, about 26 bytes a sample. N samples."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.explore.explain import Ranking
from d2prune.parts.files import DECISIONS
from d2prune.report.outcome import NOT_RANKED
from d2prune.runs.finished import FinishedRun

_COLUMNS = ("difficulty", "forward_score", "selection_fixed", "kept", "reason")
_THREADS = 4


@dataclass(frozen=True)
class Numbers:
    """One row per sample, in canonical order.

    Attributes:
        difficulty_N: float32.
        forward_N: float64.
        ranking: selection scores, and which samples were ranked and kept.
        reason_N: int8, index into `reasons`.
        reasons: the reasons that occur, sorted.
    """

    difficulty_N: NDArray[np.float32]
    forward_N: NDArray[np.float64]
    ranking: Ranking
    reason_N: NDArray[np.int8]
    reasons: tuple[str, ...]


def read_numbers(run: FinishedRun) -> Numbers:
    """Read the decisions part by part, so that no second copy of the pool is in memory."""
    n = len(run)
    difficulty_N, forward_N = np.empty(n, np.float32), np.empty(n, np.float64)
    fixed_N, kept_N, reason_N = np.empty(n, np.int64), np.empty(n, bool), np.empty(n, np.int8)
    codes: dict[str, int] = {}
    lock = threading.Lock()

    def read(part: int) -> None:
        rows = slice(*run.parts.spans.bounds(part))
        table = run.parts.peek(part, DECISIONS, _COLUMNS)
        difficulty_N[rows] = table["difficulty"].to_numpy()
        forward_N[rows] = table["forward_score"].to_numpy()
        fixed_N[rows] = table["selection_fixed"].to_numpy()
        kept_N[rows] = table["kept"].to_numpy()
        reason = table["reason"].combine_chunks().dictionary_encode()
        with lock:
            part_codes = [codes.setdefault(name, len(codes)) for name in reason.dictionary.to_pylist()]
        reason_N[rows] = np.array(part_codes, np.int8)[reason.indices.to_numpy()]

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(read, range(run.parts.spans.n_parts)))
    # Threads meet reasons in any order.
    reasons = sorted(codes)
    reason_N = np.array([reasons.index(name) for name in codes], np.int8)[reason_N]
    ranked_N = ~np.isin(reason_N, [code for code, name in enumerate(reasons) if name in NOT_RANKED])
    return Numbers(difficulty_N, forward_N, Ranking(fixed_N, ranked_N, kept_N), reason_N, tuple(reasons))
