"""The graph that an increment starts from: which parts remain, and where their rows are now.

Reads manifests and receipts. Invariant: the parts that remain keep their order, so renumbering
keeps the order of positions. P parts now, B parts before, N positions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.graph.steps.step import step_key
from d2prune.knn.top_k import NO_POSITION
from d2prune.parts import files
from d2prune.parts.in_place import find_in_place
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt
from d2prune.store.completeness import find_complete_units

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Previous:
    """The graph that an increment starts from.

    Attributes:
        fingerprint: of that graph.
        spans: positions of its B parts.
        matches: [P], the part before that each part was; -1: added.
        states: [B], receipts of the units that `steps/state.py` wrote.
        checked: receipt of the sample that recall was measured on; None if it had another kind of
            sample.
    """

    fingerprint: str
    spans: Spans
    matches: tuple[int, ...]
    states: tuple[Receipt, ...]
    checked: Receipt | None

    @property
    def added(self) -> list[int]:
        """The parts that were added."""
        return [part for part, before in enumerate(self.matches) if before < 0]

    @property
    def removes(self) -> bool:
        """Whether a part with rows was removed."""
        removed = set(range(self.spans.n_parts)) - set(self.matches)
        return any(np.diff(self.spans.bounds(part))[0] for part in removed)

    def renumber(self, positions: Int64, spans: Spans) -> Int64:
        """Return where rows are now, int64 of the same shape; NO_POSITION stays, removed rows get -1.

        Args:
            positions: int64, of the previous pool, or NO_POSITION.
            spans: positions of the P parts now.
        """
        moves_B = np.full(self.spans.n_parts, -1, np.int64)
        for part, before in enumerate(self.matches):
            if before >= 0:
                moves_B[before] = part
        exists = positions != NO_POSITION
        part_N, row_N = self.spans.locate(np.where(exists, positions, 0))
        now_N = moves_B[part_N]
        found = np.where(now_N >= 0, spans.starts[now_N] + row_N, -1)
        return np.where(exists, found, NO_POSITION)


def match_parts(before: Sequence[str], now: Sequence[str]) -> list[int]:
    """Match equal parts in increasing order on both sides, as many as possible.

    Args:
        before: B contents, such as checksums.
        now: P contents.

    Returns:
        [P], the number of the part before, or -1. Equal contents are matched in turn.
    """
    places = defaultdict(list)
    for number, content in enumerate(before):
        places[content].append(number)
    taken: defaultdict[str, int] = defaultdict(int)
    candidates = []
    for content in now:
        turn, taken[content] = taken[content], taken[content] + 1
        candidates.append(places[content][turn] if turn < len(places[content]) else -1)
    # The longest increasing subsequence, by patience sorting.
    tops: list[int] = []
    holders: list[int] = []
    links = [-1] * len(now)
    for part, number in enumerate(candidates):
        if number >= 0:
            pile = bisect_left(tops, number)
            links[part] = holders[pile - 1] if pile else -1
            if pile == len(tops):
                tops.append(number)
                holders.append(part)
            else:
                tops[pile], holders[pile] = number, part
    matches = [-1] * len(now)
    part = holders[-1] if holders else -1
    while part >= 0:
        matches[part] = candidates[part]
        part = links[part]
    return matches


def unit_inputs(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The inputs in the unit keys of a graph: without a quantiser that it was given and did not use."""
    inputs = dict(manifest["inputs"])
    if "unused_quantiser" in manifest["facts"]:
        inputs.pop("quantiser", None)
    return inputs


def find_previous(
    work_dir: str, fingerprint: str, quantiser: str, parts: Sequence[Receipt], embeddings: str
) -> Previous | str:
    """Find what an increment needs, or say what is missing.

    Args:
        work_dir: URL.
        fingerprint: of the previous graph.
        quantiser: fingerprint of the quantiser that the new graph uses.
        parts: units of the embed artifact now.
        embeddings: file of each of them that distances are measured on.
    """
    folder = store.join(work_dir, "graph")
    manifest = artifacts.read_manifest(folder, fingerprint)
    if manifest is None:
        return f"the last graph, {fingerprint}, no longer exists"
    if manifest.facts.get("quantiser") != quantiser:
        return f"the last graph, {fingerprint}, has another quantiser"
    embed = artifacts.read_manifest(store.join(work_dir, "embed"), manifest.inputs["embed"])
    if embed is None:
        return f"the embeddings of the last graph, {fingerprint}, no longer exist"
    inputs = unit_inputs({"inputs": manifest.inputs, "facts": manifest.facts})

    def key(step: str, index: int) -> str:
        return step_key(step, index, manifest.params, inputs)

    checked = key("checked", 0)
    states = [key("state", part) for part in range(len(embed.units))]
    found = find_complete_units(folder, [*states, checked])
    n_found = len(found.keys() - {checked})
    if n_found < len(states):
        why = "lost some of its candidates"
        if not n_found:
            why = "kept no candidates, because it was built in memory or with a cut-off"
        return f"the last graph, {fingerprint}, {why}"
    matches = match_parts(
        [_identify(receipt, embeddings) for receipt in embed.units],
        [_identify(receipt, embeddings) for receipt in parts],
    )
    return Previous(
        fingerprint,
        Parts(work_dir, {"embed": embed.units}).spans,
        tuple(matches),
        tuple(found[name] for name in states),
        found.get(checked),
    )


def _identify(receipt: Receipt, embeddings: str) -> str:
    """Identity of a part's embeddings: their checksum, or those of the arrays of the input that hold them.

    Of arrays, rows that the import rejected are left out: then the samples, which list the others, count
    too. The arrays' sizes and times do not.
    """
    checksums = {file.name: file.checksum for file in receipt.files}
    place = find_in_place(receipt) if embeddings == files.EMBEDDINGS else None
    if place is None:
        return checksums.get(embeddings, receipt.key)
    arrays = [(side, array.dtype, array.checksum) for side, array in sorted(place.arrays.items())]
    rejects = receipt.rows(files.SAMPLES) < place.rows
    return artifacts.fingerprint(arrays, place.width, checksums[files.SAMPLES] if rejects else None)
