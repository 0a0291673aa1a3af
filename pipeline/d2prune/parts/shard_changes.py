"""Which shards of a pool are new, removed or replaced since another one, from the receipts of `embed`.

A shard is one unit: a tar, or a part of a table. It is known by its name and by the size and version
of its files, so shards that are only embedded with other settings count as unchanged.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from d2prune.parts import files
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

_Shard = tuple[str, str]


@dataclass(frozen=True)
class ShardChanges:
    """Numbers of shards.

    Attributes:
        new: with a name that the other pool does not have.
        removed: whose name is gone.
        replaced: with the same name and other files.
        unchanged: the rest.
        new_rows: embedded samples of the new shards and of those that replace others.
        removed_rows: embedded samples of the removed and of the replaced shards.
    """

    new: int
    removed: int
    replaced: int
    unchanged: int
    new_rows: int
    removed_rows: int

    def __str__(self) -> str:
        """Such as `2 shards new, 1 removed`."""
        counts = {"new": self.new, "removed": self.removed, "replaced": self.replaced}
        found = [(word, count) for word, count in counts.items() if count]
        if not found:
            return "the same shards"
        (word, count), *others = found
        first = f"{count:,} {'shard' if count == 1 else 'shards'} {word}"
        return ", ".join([first, *(f"{count:,} {word}" for word, count in others)])


def compare_shards(before: Iterable[Receipt], now: Iterable[Receipt]) -> ShardChanges:
    """Compare the units of two embed artifacts."""
    earlier, later = _read(before), _read(now)
    unchanged = _count(earlier) & _count(later)
    removed, new = _count(earlier) - unchanged, _count(later) - unchanged
    removed_names, new_names = (Counter(name for name, _ in one.elements()) for one in (removed, new))
    replaced = (removed_names & new_names).total()
    return ShardChanges(
        new=new.total() - replaced,
        removed=removed.total() - replaced,
        replaced=replaced,
        unchanged=unchanged.total(),
        new_rows=sum(sum(later[shard][-count:]) for shard, count in new.items()),
        removed_rows=sum(sum(earlier[shard][-count:]) for shard, count in removed.items()),
    )


def _read(units: Iterable[Receipt]) -> dict[_Shard, list[int]]:
    """Name and identity of each shard -> the rows of the shards that have them: names may be cut to one."""
    found = defaultdict(list)
    for unit in units:
        found[name_of(unit), identity_of(unit)].append(unit.rows(files.SAMPLES))
    return found


def _count(shards: dict[_Shard, list[int]]) -> Counter[_Shard]:
    return Counter({shard: len(rows) for shard, rows in shards.items()})


def name_of(unit: Receipt) -> str:
    """The readable part of a unit's key: the end of the shard's name, and the part of a table."""
    return unit.key.rpartition("-")[0]


def identity_of(unit: Receipt) -> str:
    """Sizes and versions of the files that a unit was made from, or its key if its receipt lists none."""
    found = unit.facts.get("source", unit.facts.get("sources"))
    return unit.key if found is None else artifacts.fingerprint(found)
