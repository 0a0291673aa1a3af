"""What a selection removed, by property: words and writing systems of captions, sizes, sources, text fields.

Tables of samples in, kept and total counts per value out; pure functions and one accumulator, so that
the report counts a part at a time and the explorer any rows it likes. A shift is how far the kept share
of the samples with a value is from that of all samples, after allowing for chance. N rows, W words.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.report import writing_systems
from d2prune.report.captions import word_codes
from d2prune.report.writing_systems import system_codes

# Quantile of the normal distribution: one value in a thousand shows a shift by chance alone.
_Z = 3.29
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>[^/:?#@]+)"
_URL_FIELDS = frozenset({"url", "image_url", "source_url"})
_NO_VALUE = "(none)"
_MAX_VALUE_LENGTH = 80
# Values in memory at a time; rare ones are forgotten beyond it, so counts stay bounded in any pool.
_MAX_VALUES = 400_000

_WORD_BINS = (0, 1, 3, 6, 11, 21, 41)
_SIDE_BINS = (0, 64, 128, 256, 512, 1024, 2048)
_ASPECT_BINS = (1.0, 1.2, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Value:
    """One value of a property.

    Attributes:
        value: as text.
        samples: how many samples have it.
        kept: how many of these were kept.
        shift: kept share minus that of all samples, moved towards 0 as far as chance explains; 0 if
            chance explains all of it.
    """

    value: str
    samples: int
    kept: int
    shift: float

    @property
    def kept_share(self) -> float:
        """Share of the samples with this value that was kept."""
        return self.kept / self.samples


@dataclass(frozen=True)
class Property:
    """A property of samples, and the values it takes.

    Attributes:
        name: such as "Words in captions".
        values: those with a shift, by its falling size, ties to the more frequent; if `ordered`, all
            values in their own order.
        ordered: whether the values are ranges of a number.
        samples: samples counted.
        kept: of these, kept.
    """

    name: str
    values: tuple[Value, ...]
    ordered: bool
    samples: int
    kept: int

    @property
    def largest(self) -> float:
        """Size of the largest shift."""
        return max((abs(value.shift) for value in self.values), default=0.0)


def certain_shifts(
    kept_V: NDArray[np.int64], samples_V: NDArray[np.int64], share: float
) -> NDArray[np.float64]:
    """How far kept shares differ from `share` beyond chance: the distance to their Wilson intervals.

    Args:
        kept_V: int64 [V], samples kept.
        samples_V: int64 [V], of so many, at least 1.
        share: kept share of all samples.

    Returns:
        float64 [V]. Below 0: fewer are kept than of all samples. 0: `share` is within the 99.9 % interval.
    """
    found_V = kept_V / samples_V
    scale_V = 1 + _Z**2 / samples_V
    centre_V = (found_V + _Z**2 / (2 * samples_V)) / scale_V
    half_V = _Z * np.sqrt(found_V * (1 - found_V) / samples_V + _Z**2 / (4 * samples_V**2)) / scale_V
    # The interval holds the share found; rounding may put its end beside it.
    low_V, high_V = np.minimum(centre_V - half_V, found_V), np.maximum(centre_V + half_V, found_V)
    return np.asarray(np.maximum(low_V - share, 0) + np.minimum(high_V - share, 0), np.float64)


@dataclass
class _Counts:
    """Samples and kept samples per value of one property."""

    name: str
    ordered: bool = False
    samples: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def add(self, names: Sequence[str], code_W: NDArray[np.int64], kept_W: NDArray[np.bool_]) -> None:
        """Count values given as codes into `names`; negative codes count nowhere."""
        kept_W, code_W = kept_W[code_W >= 0], code_W[code_W >= 0]
        totals = np.bincount(code_W, minlength=len(names))
        for counter, counts in (
            (self.samples, totals),
            (self.kept, np.bincount(code_W[kept_W], minlength=len(names))),
        ):
            present = np.flatnonzero(counts)
            counter.update({names[code]: int(counts[code]) for code in present.tolist()})
        if len(self.samples) > _MAX_VALUES:
            self.samples = Counter(dict(self.samples.most_common(_MAX_VALUES // 2)))
            self.kept = Counter({value: self.kept[value] for value in self.samples})


class Shifts:
    """Counts of every property of the samples added so far."""

    def __init__(self, fields: Sequence[str] = ()) -> None:
        """Count nothing yet.

        Args:
            fields: text columns to count by value; those that hold URLs are counted by host.
        """
        self.samples = self.kept = 0
        self._fields = tuple(fields)
        names = ("words", "length", "system", "side", "aspect", "shard", *self._fields)
        titles = (
            "Words in captions",
            "Words per caption",
            "Writing system of the caption",
            "Shorter side of the image",
            "Aspect ratio",
            "Shard",
        )
        field_titles = tuple(f"Host of {name}" if is_url(name) else name for name in self._fields)
        self._counts = {
            name: _Counts(title, name in ("length", "side", "aspect"))
            for name, title in zip(names, titles + field_titles, strict=True)
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the samples that `add` reads."""
        return ("caption", "width", "height", "shard", *self._fields)

    def add(self, table: pa.Table, kept_N: NDArray[np.bool_]) -> None:
        """Count rows of the samples table.

        Args:
            table: with `columns`.
            kept_N: bool [N].
        """
        self.samples += len(kept_N)
        self.kept += int(kept_N.sum())
        row_W, code_W, names = word_codes(table["caption"])
        self._counts["words"].add(names, code_W, kept_N[row_W])
        self._counts["system"].add(writing_systems.NAMES, system_codes(table["caption"]), kept_N)
        for name, (names, code_N) in _bin_columns(table).items():
            self._counts[name].add(names, code_N, kept_N)
        for name in ("shard", *self._fields):
            values = hosts(table[name]) if is_url(name) else table[name]
            names, code_N = _encode(values)
            self._counts[name].add(names, code_N, kept_N)

    def merge(self, other: "Shifts") -> None:
        """Add the counts of another part of the pool."""
        self.samples += other.samples
        self.kept += other.kept
        for name, counts in other._counts.items():
            self._counts[name].samples.update(counts.samples)
            self._counts[name].kept.update(counts.kept)

    def properties(self) -> tuple[Property, ...]:
        """Every property with a shift, the largest shift first."""
        found = [self._property(counts) for counts in self._counts.values()]
        return tuple(sorted((item for item in found if item.largest), key=lambda item: -item.largest))

    def _property(self, counts: _Counts) -> Property:
        names = list(counts.samples)
        samples_V = np.array([counts.samples[name] for name in names], np.int64)
        kept_V = np.array([counts.kept[name] for name in names], np.int64)
        shift_V = certain_shifts(kept_V, samples_V, self.kept / max(self.samples, 1))
        shown = np.arange(len(names)) if counts.ordered else np.flatnonzero(shift_V)
        values = [
            Value(names[v], int(samples_V[v]), int(kept_V[v]), float(shift_V[v])) for v in shown.tolist()
        ]
        if counts.ordered:
            order = {name: number for number, name in enumerate(_range_names())}
            values.sort(key=lambda value: order[value.value])
        else:
            values.sort(key=lambda value: (-abs(value.shift), -value.samples, value.value))
        return Property(counts.name, tuple(values), counts.ordered, self.samples, self.kept)


def is_url(name: str) -> bool:
    """Whether a column of this name holds URLs of images."""
    return name.lower() in _URL_FIELDS


def hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the host of each URL in lower case, without user and port; null if there is none."""
    return pc.utf8_lower(pc.struct_field(pc.extract_regex(urls, _HOST), "host"))


def _encode(values: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct values, shortened, and the code of each row."""
    short = pc.utf8_slice_codeunits(values.cast(pa.string()), 0, _MAX_VALUE_LENGTH)
    encoded = pc.if_else(pc.equal(pc.coalesce(short, pa.scalar("")), ""), _NO_VALUE, short)
    array = pa.chunked_array([encoded]) if isinstance(encoded, pa.Array) else encoded
    combined = array.combine_chunks().dictionary_encode()
    return combined.dictionary.to_pylist(), np.asarray(combined.indices, np.int64)


def _bin_columns(table: pa.Table) -> Mapping[str, tuple[list[str], NDArray[np.int64]]]:
    """Codes of caption length, shorter side and aspect ratio; -1 where a size is not known."""
    caption = pc.utf8_trim_whitespace(table["caption"].fill_null(""))
    words = pc.list_value_length(pc.utf8_split_whitespace(caption)).to_numpy().astype(np.float64)
    words[pc.equal(caption, "").to_numpy(zero_copy_only=False).astype(bool)] = 0
    width, height = (
        np.array(table[name].cast(pa.float64()).to_numpy(), np.float64) for name in ("width", "height")
    )
    short, long = np.fmin(width, height), np.fmax(width, height)
    known = (short > 0) & np.isfinite(width + height)
    ratio = np.divide(long, short, out=np.full(len(short), np.nan), where=known)
    return {
        "length": (_word_ranges(), _bin(words, _WORD_BINS)),
        "side": (_side_ranges(), _bin(np.where(known, short, np.nan), _SIDE_BINS)),
        "aspect": (_aspect_ranges(), _bin(ratio, _ASPECT_BINS)),
    }


def _bin(values_N: NDArray[np.float64], starts: Sequence[float]) -> NDArray[np.int64]:
    code_N = np.searchsorted(starts, values_N, side="right") - 1
    return np.where(np.isnan(values_N), -1, np.maximum(code_N, 0))


def _ranges(starts: Sequence[int], unit: str) -> list[str]:
    """Names of ranges of whole numbers."""
    names = []
    for start, after in zip(starts, [*starts[1:], None], strict=True):
        end = "" if after is None else str(after - 1)
        span = (
            f"{start:,} or more"
            if after is None
            else str(start)
            if end == str(start)
            else f"{start} to {end}"
        )
        names.append(f"{span} {unit}")
    return names


def _word_ranges() -> list[str]:
    return _ranges(_WORD_BINS, "words")


def _side_ranges() -> list[str]:
    return _ranges(_SIDE_BINS, "px")


def _aspect_ranges() -> list[str]:
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(_ASPECT_BINS)]
    return [*names, f"{_ASPECT_BINS[-1]:g} or more"]


def _range_names() -> list[str]:
    makers: Sequence[Callable[[], list[str]]] = (_word_ranges, _side_ranges, _aspect_ranges)
    return [name for make in makers for name in make()]
