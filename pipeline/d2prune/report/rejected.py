"""Examples of the samples that were rejected or filtered, for each reason."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from d2prune.parts.files import REJECTS
from d2prune.parts.reader import Parts
from d2prune.report.captions import shorten

_COLUMNS = ("shard", "key", "reason", "detail")
_MAX_DETAIL = 90


def count_by_reason(
    counters: Mapping[str, int], kinds: Sequence[str] = ("rejected", "filtered")
) -> dict[str, int]:
    """Rejected and filtered samples by reason, most frequent first.

    Args:
        counters: of the embed artifact or of one of its units.
        kinds: which of the two to count.
    """
    counts = {
        name.partition(".")[2]: count
        for name, count in counters.items()
        if name.partition(".")[0] in kinds and name.partition(".")[2] and count
    }
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def read_examples(pool: Parts, size: int) -> dict[str, tuple[str, ...]]:
    """For each reason the first `size` samples in canonical order, as `shard/key: what was found`.

    Reads only rejects tables of parts that add an example.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for part, receipt in enumerate(pool.units("embed")):
        wanted = {name for name in count_by_reason(receipt.counters) if len(found[name]) < size}
        if not wanted:
            continue
        for row in pool.peek(part, REJECTS, _COLUMNS).to_pylist():
            if row["reason"] in wanted and len(found[row["reason"]]) < size:
                name = "/".join(shorten(row[column], 60) for column in ("shard", "key") if row[column])
                detail = shorten(row["detail"], _MAX_DETAIL)
                found[row["reason"]].append(f"{name}: {detail}" if detail else name)
    return {reason: tuple(examples) for reason, examples in found.items() if examples}
