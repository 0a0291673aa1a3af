"""Which run of a work_dir a run continues, and what changed since.

Decided when the run is published and recorded in its entry (`runs/entries.py`), so that it stays the
same whatever runs come later. Reads manifests and the entries of finished runs.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

from d2prune import store
from d2prune.parts.shard_changes import compare_shards
from d2prune.runs.entries import RunEntry
from d2prune.stage.earlier import COMPARED, changed_settings
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest

# A pool is asked for by its own runs and by those that continue it, which are mostly next to each other.
_POOLS = 4
_Read = Callable[[str, str], Manifest | None]


def choose_continued(
    work_dir: str, entries: list[RunEntry], run_id: str, output: str, manifests: Mapping[str, Manifest]
) -> str:
    """The id of the run that a new run continues; empty if there is none.

    It is the newest run of another pool in the same output root that has a shard of the same name, or
    else the newest one of the work_dir that has the same shard. Of the runs of that pool, one with the
    same settings is preferred to a trial with others. A run that itself grew from the new one, which
    was pruned and runs again, is none that it continues.

    Args:
        work_dir: URL.
        entries: the finished runs, newest first.
        run_id: of the new run.
        output: URL of the new run's output.
        manifests: stage -> artifact of the new run.
    """
    root = output.rstrip("/").rpartition("/")[0]
    own = manifests["embed"]
    others = [
        entry
        for entry in entries
        if entry.artifacts.get("embed") not in (None, own.fingerprint)
        and run_id not in _list_chain(entries, entry)
    ]
    read_head = functools.cache(artifacts.read_head)
    in_root = [entry for entry in others if entry.root == root]
    for candidates, by_name in ((in_root, True), (others, False)):
        shares: dict[str, bool] = {}
        for entry in candidates:
            pool = entry.artifacts["embed"]
            if pool not in shares:
                embed = artifacts.read_manifest(store.join(work_dir, "embed"), pool)
                shares[pool] = embed is not None and _shares_any(embed, own, by_name)
            if shares[pool]:
                alike = [each for each in candidates if each.artifacts["embed"] == pool]
                heads = ((each, read_manifests(work_dir, each, read_head)) for each in alike)
                same = (each for each, found in heads if found and not changed_settings(found, manifests))
                return next(same, entry).run_id
    return ""


def _list_chain(entries: list[RunEntry], entry: RunEntry) -> list[str]:
    """The ids of the runs that a run continues, the next one first, up to one that was pruned."""
    chain: list[str] = []
    found: RunEntry | None = entry
    while found is not None and found.continues and found.continues not in chain:
        chain.append(found.continues)
        found = find_entry(entries, found.continues, found.root)
    return chain


def _shares_any(before: Manifest, now: Manifest, by_name: bool) -> bool:
    found = compare_shards(before.units, now.units)
    return found.unchanged > 0 or (by_name and found.replaced > 0)


def read_manifests(
    work_dir: str, entry: RunEntry, read: _Read = artifacts.read_manifest
) -> dict[str, Manifest]:
    """Stage -> artifact of a finished run, up to `select`; empty if one of them is gone.

    Args:
        work_dir: URL.
        entry: the run.
        read: `artifacts.read_manifest`, or `artifacts.read_head`, which reads no units.
    """
    found = {}
    for stage, fingerprint in entry.artifacts.items():
        if stage in COMPARED:
            manifest = read(store.join(work_dir, stage), fingerprint)
            if manifest is None:
                return {}
            found[stage] = manifest
    return found


def find_entry(entries: list[RunEntry], run_id: str, root: str) -> RunEntry | None:
    """The run with an id, of an output root if several outputs have it."""
    found = [entry for entry in entries if entry.run_id == run_id]
    return next((entry for entry in found if entry.root == root), found[0] if found else None)


def describe_continued(work_dir: str, entries: list[RunEntry]) -> Iterator[str]:
    """Yield, for each run, which one it continues and what changed, in one line; empty if it continues none.

    Of a pool the units are read, of all other artifacts only the parameters: once, even if runs share them.
    """
    read_head = functools.cache(artifacts.read_head)
    read_pool = functools.lru_cache(_POOLS)(artifacts.read_manifest)

    def read(folder: str, fingerprint: str) -> Manifest | None:
        return (read_pool if folder == store.join(work_dir, "embed") else read_head)(folder, fingerprint)

    return (_describe_one(work_dir, entries, entry, read) for entry in entries)


def _describe_one(work_dir: str, entries: list[RunEntry], entry: RunEntry, read: _Read) -> str:
    if not entry.continues:
        return ""
    earlier = find_entry(entries, entry.continues, entry.root)
    before = {} if earlier is None else read_manifests(work_dir, earlier, read)
    now = read_manifests(work_dir, entry, read)
    if not before or not now:
        return f"continues {entry.continues}, {'whose artifacts are gone' if earlier else 'which was pruned'}"
    shards = compare_shards(before["embed"].units, now["embed"].units)
    rows = f"+{shards.new_rows:,} and -{shards.removed_rows:,} rows of these shards"
    return "; ".join([f"continues {entry.continues}: {shards}, {rows}", *changed_settings(before, now)])
