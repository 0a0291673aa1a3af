"""Texts that contain a word, in upper or lower case, at some gigabytes a second a core.

Two texts are equal if their characters have equal simple case foldings (Unicode, CaseFolding.txt, C
and S), as in RE2: `K` finds `k` and the Kelvin sign, `ß` finds `ẞ` and not `ss`. Invariant: what
is found are whole characters, inside one text. R texts, C characters of the word, V variants of a
character.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

_MAX_UTF8 = 4
_ANCHOR = 4
_BLOCK = 64
_NONE = np.uint8(255)
# No character beyond has a case.
_LAST_CASED = 0x1FFFF
_ASCII_VARIANTS = {"k": "kK\u212a", "s": "sS\u017f"}


@dataclass(frozen=True)
class Pattern:
    """A word as the kernel reads it.

    Attributes:
        bytes_CVB: uint8, UTF-8 of each variant of each character, padded with zeros.
        lengths_CV: int64, bytes of each variant; 0 where a character has fewer variants.
        anchor: the character with which the anchor begins.
        decided: characters from there on that need no comparison once the bits are found, and their bytes.
        masks_A4: uint8, the bits in which all variants of the anchor's bytes agree; 0 beyond them.
        values_A4: uint8, these bits; several if the variants of the anchor differ in length.
    """

    bytes_CVB: NDArray[np.uint8]
    lengths_CV: NDArray[np.int64]
    anchor: int
    decided: tuple[int, int]
    masks_A4: NDArray[np.uint8]
    values_A4: NDArray[np.uint8]


def contains(texts: pa.ChunkedArray, word: str, wanted_R: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the wanted strings contain a word, bool [R]; one that is null contains none."""
    pattern = compile_word(word)
    hit_R = np.zeros(len(texts), bool)
    for rows, data, end_R1 in _pieces(texts):
        for mask_4, value_4 in zip(pattern.masks_A4, pattern.values_A4, strict=True):
            _search(
                data, end_R1, pattern.bytes_CVB, pattern.lengths_CV, pattern.anchor, *pattern.decided,
                mask_4, value_4, wanted_R[rows], hit_R[rows],
            )  # fmt: skip
    return _without_nulls(texts, hit_R)


def begins(texts: pa.ChunkedArray, word: str, *, whole: bool = False) -> NDArray[np.bool_]:
    """Which strings begin with a word, or are equal to it, in exact case, bool [R]."""
    code = np.frombuffer(word.encode("utf-8", "surrogatepass"), np.uint8)
    hit_R = np.zeros(len(texts), bool)
    for rows, data, end_R1 in _pieces(texts):
        _compare(data, end_R1, code, whole, hit_R[rows])
    return _without_nulls(texts, hit_R)


def _pieces(texts: pa.ChunkedArray) -> Iterator[tuple[slice, NDArray[np.uint8], NDArray[np.int32]]]:
    """Rows, bytes of all texts, and where in them each text of the rows begins and the last ends."""
    start = 0
    for chunk in texts.chunks:
        rows = slice(start, start + len(chunk))
        start = rows.stop
        _, ends, data = chunk.buffers()
        if len(chunk) and data is not None:
            end_R1 = np.frombuffer(ends, np.int32)[chunk.offset :][: len(chunk) + 1]
            yield rows, np.frombuffer(data, np.uint8), end_R1


def _without_nulls(texts: pa.ChunkedArray, hit_R: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return hit_R & np.asarray(pc.is_valid(texts)) if texts.null_count else hit_R


@lru_cache(maxsize=64)
def compile_word(word: str) -> Pattern:
    """Prepare the search for a word of at least one character."""
    variants = [[variant.encode("utf-8", "surrogatepass") for variant in _variants(char)] for char in word]
    shape = len(variants), max(map(len, variants))
    bytes_CVB, lengths_CV = np.zeros((*shape, _MAX_UTF8), np.uint8), np.zeros(shape, np.int64)
    for c, encoded in enumerate(variants):
        for v, code in enumerate(encoded):
            bytes_CVB[c, v, : len(code)] = list(code)
            lengths_CV[c, v] = len(code)
    runs = [_agreeing_bits(variants[start:]) for start in range(len(variants))]
    # The longest, and the first of those.
    anchor = max(range(len(runs)), key=lambda start: (len(runs[start]), -start))
    anchors, decided = [runs[anchor]], _decided(variants[anchor:], runs[anchor])
    if not runs[anchor]:
        # All characters have variants of several lengths, as `s` and `k` have: one anchor for each length
        # of the first two.
        first = [_by_length(encoded) for encoded in variants[:2]]
        anchors = [_agreeing_bits([*lengths]) for lengths in itertools.product(*first)]
    masks_A4, values_A4 = np.zeros((2, len(anchors), _ANCHOR), np.uint8)
    for a, bits in enumerate(anchors):
        masks_A4[a, : len(bits)], values_A4[a, : len(bits)] = zip(*bits, strict=True)
    return Pattern(bytes_CVB, lengths_CV, anchor, decided, masks_A4, values_A4)


def _by_length(encoded: list[bytes]) -> list[list[bytes]]:
    return [[code for code in encoded if len(code) == size] for size in sorted(set(map(len, encoded)))]


def _agreeing_bits(variants: Sequence[Sequence[bytes]]) -> list[tuple[int, int]]:
    """Mask and value of the first bytes of a text, as far as all its variants are of one length."""
    found: list[tuple[int, int]] = []
    for encoded in variants:
        if len({len(code) for code in encoded}) > 1:
            break
        for column in zip(*encoded, strict=True):
            different = 0
            for byte in column:
                different |= byte ^ column[0]
            found.append((0xFF & ~different, column[0] & ~different))
        if len(found) >= _ANCHOR:
            break
    return found[:_ANCHOR]


def _decided(variants: Sequence[Sequence[bytes]], bits: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The characters at the beginning that are found where the anchor's bits are, and their bytes."""
    chars = size = 0
    for encoded in variants:
        masks = bits[size : size + len(encoded[0])]
        free = sum(8 - mask.bit_count() for mask, _ in masks)
        if len(masks) < len(encoded[0]) or 1 << free > len(encoded):
            break
        chars, size = chars + 1, size + len(masks)
    return chars, size


def _variants(char: str) -> str:
    """The characters with the same simple case folding."""
    if char.isascii():
        return _ASCII_VARIANTS.get(char.lower()) or (char.lower() + char.upper() if char.isalpha() else char)
    return _equal_characters().get(_fold(char), char)


def _fold(char: str) -> str:
    """The simple case folding of a character: Python has the full one, which may be several."""
    return next((found for found in (char.casefold(), char.lower()) if len(found) == 1), char)


@cache
def _equal_characters() -> dict[str, str]:
    """The characters of each simple case folding that have several."""
    found: dict[str, str] = {}
    for start in range(0, _LAST_CASED + 1, _BLOCK):
        block = "".join(map(chr, range(start, start + _BLOCK)))
        # Nearly all blocks have no case, and the table takes 5 ms instead of 75.
        if block.lower() == block.casefold() == block:
            continue
        for char in block:
            folded = _fold(char)
            if folded != char:
                found[folded] = found.get(folded, folded) + char
    return found


@kernel
def _search(
    data: NDArray[np.uint8],
    end_R1: NDArray[np.int32],
    bytes_CVB: NDArray[np.uint8],
    lengths_CV: NDArray[np.int64],
    anchor: int,
    decided_chars: int,
    decided_bytes: int,
    mask_4: NDArray[np.uint8],
    value_4: NDArray[np.uint8],
    wanted_R: NDArray[np.bool_],
    hit_R: NDArray[np.bool_],
) -> None:
    """Set `hit_R` for wanted texts that contain the word; text r is `data[end_R1[r] : end_R1[r + 1]]`."""
    m0, m1, m2, m3 = mask_4[0], mask_4[1], mask_4[2], mask_4[3]
    v0, v1, v2, v3 = value_4[0], value_4[1], value_4[2], value_4[3]
    row, at, stop = 0, end_R1[0], end_R1[-1]
    n_chars, n_variants = lengths_CV.shape
    while at < stop:
        if at + _BLOCK + _ANCHOR <= stop:
            # Where in the block the anchor begins; in this form it is compiled to vector instructions.
            x0, x1 = data[at : at + _BLOCK], data[at + 1 : at + 1 + _BLOCK]
            x2, x3 = data[at + 2 : at + 2 + _BLOCK], data[at + 3 : at + 3 + _BLOCK]
            offset = _NONE
            for i in range(_BLOCK):
                differs = np.uint8(
                    ((x0[i] & m0) ^ v0) | ((x1[i] & m1) ^ v1) | ((x2[i] & m2) ^ v2) | ((x3[i] & m3) ^ v3)
                )
                offset = min(offset, _NONE if differs else np.uint8(i))
            if offset == _NONE:
                at += _BLOCK
                continue
            at += offset
            decided, right = decided_chars, at + decided_bytes
        elif (data[at] & m0) != v0 or (at + 1 < stop and (data[at + 1] & m1) != v1):
            at += 1
            continue
        else:
            decided, right = 0, at
        while end_R1[row + 1] <= at:
            row += 1
        start, end = end_R1[row], end_R1[row + 1]
        if not wanted_R[row]:
            at = end
            continue
        # The characters from the anchor on, then those before it, from the last to the first. The loops
        # are in this function since a call of another one costs more than the comparison.
        left, size = at, int(right <= end)
        for step in range(decided, n_chars):
            if not size:
                break
            forward = step < n_chars - anchor
            c = anchor + step if forward else n_chars - 1 - step
            size = 0
            for v in range(n_variants):
                length = lengths_CV[c, v]
                first = right if forward else left - length
                if length and start <= first <= end - length and data[first] == bytes_CVB[c, v, 0]:
                    i = 1
                    while i < length and data[first + i] == bytes_CVB[c, v, i]:
                        i += 1
                    if i == length:
                        # At most one fits: no character's UTF-8 begins or ends with that of another.
                        size = length
                        break
            if forward:
                right += size
            else:
                left -= size
        hit_R[row] |= size > 0
        # One match in a text is enough.
        at = end if size else at + 1


@kernel
def _compare(
    data: NDArray[np.uint8],
    end_R1: NDArray[np.int32],
    code: NDArray[np.uint8],
    whole: bool,
    hit_R: NDArray[np.bool_],
) -> None:
    """Set `hit_R` for texts that begin with a code, or are equal to it."""
    size = len(code)
    for row in range(len(hit_R)):
        start, end = end_R1[row], end_R1[row + 1]
        if end - start == size or (not whole and end - start > size):
            i = 0
            while i < size and data[start + i] == code[i]:
                i += 1
            hit_R[row] = i == size
