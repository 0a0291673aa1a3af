"""Check the names and sizes of an output folder's objects, and that recorded counts agree."""

import logging
import re

from d2prune import store
from d2prune.output import claim, layout
from d2prune.output.closing import describe_tables, describe_tars
from d2prune.output.manifest import OutputManifest
from d2prune.output.receipts import list_sizes
from d2prune.verify.contents import Contents
from d2prune.verify.faults import compare_values

log = logging.getLogger(__name__)

_MAX_NAMED = 10
"""Files of others that are named; the rest are counted."""

_SCRIPT_VALUE = re.compile(r"^(SHARDS|SAMPLES)=(.*)$", re.MULTILINE)


def check_objects(output: str, manifest: OutputManifest) -> tuple[list[str], frozenset[str]]:
    """Compare the objects of the folder, by name and size, with the manifest.

    Logs the names of files of others, which are no fault unless a trainer would read them.

    Returns:
        The faults, and the names of missing objects.
    """
    prefix = output.rstrip("/") + "/"
    names = {name for name in store.list_entries(output) if not name.startswith(store.TEMPORARY)}
    sizes = list_sizes(output, manifest.is_stable)
    faults = []
    for file in manifest.files:
        kind = layout.kind_of(file.name)
        if kind is None or not kind.listed:
            faults.append(f"{layout.MANIFEST}: lists {file.name}, which is not a file of an output folder")
        elif file.name not in sizes:
            faults.append(f"{file.name}: missing")
        elif sizes[file.name] != file.size:
            faults.append(f"{file.name}: found {sizes[file.name]} bytes; expected {file.size}")
    foreign = sorted(names - {file.name for file in manifest.files} - {layout.MANIFEST, layout.CLAIM})
    faults += [f"{name}: not in the manifest" for name in foreign if _is_fault(name)]
    if nested := [name for name in foreign if "/" in name]:
        faults.append(f"found {len(nested)} files in subfolders; expected no subfolders")
    _log_foreign(prefix, [name for name in foreign if not layout.is_read_by_trainers(name)])
    return faults, frozenset(file.name for file in manifest.files if file.name not in sizes)


def _is_fault(name: str) -> bool:
    return "/" not in name and layout.is_read_by_trainers(name)


def _log_foreign(prefix: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        log.warning(
            "%s: d2prune did not write %s%s; trainers ignore such files",
            store.redact(prefix),
            ", ".join(names[:_MAX_NAMED]),
            more,
        )


def check_claim(output: str, manifest: OutputManifest) -> list[str]:
    """Check that the claim is that of the run that wrote the manifest."""
    try:
        data = store.read_bytes(store.join(output, layout.CLAIM))
    except FileNotFoundError:
        return [f"{layout.CLAIM}: missing"]
    if data != claim.encode(manifest.identity):
        return [f"{layout.CLAIM}: not the claim of the run that {layout.MANIFEST} records"]
    return []


def check_tar_counts(contents: Contents) -> list[str]:
    """Check that the tars of an output are numbered without gaps, or shared, and that counts agree."""
    faults, manifest = [], contents.manifest
    counts = manifest.counts
    tars = [file.name for file in manifest.tars]
    expected = [layout.SHARD_FORMAT.format(i) for i in range(len(tars))]
    if manifest.is_stable:
        expected = [name for name in tars if layout.is_shared(name)]
        faults += [f"{name}: not the name of a shared tar" for name in tars if not layout.is_shared(name)]
    rows = [manifest.rows(layout.table_of(name)) or 0 for name in expected]
    if not manifest.is_stable and tars != expected:
        odd = sorted(set(tars) ^ set(expected))
        faults.append(
            f"numbering: expected {len(expected)} tars numbered from 0 without gaps; "
            f"missing or unexpected: {', '.join(odd[:5])}"
        )
    values: list[tuple[str, object, object]] = [
        ("sum of the tables' rows", sum(rows), counts["written"]),
        ("selected", counts["selected"], counts["written"]),
        ("tars", len(tars), counts["shards"]),
    ]
    meta = describe_tars(
        len(rows),
        manifest.params.get("samples_per_shard"),
        counts["pool"],
        counts["written"],
        manifest.is_stable,
    )
    values += _compare_object(contents, layout.META, meta)
    if (sizes := contents.read_json(layout.SIZES)) is not None:
        values.append((layout.SIZES, sizes, dict(zip(expected, rows, strict=True))))
    for index, number in enumerate(() if manifest.is_stable else rows):
        values += _compare_object(contents, layout.STATS_FORMAT.format(index), {"successes": number})
    values += _compare_script(contents, len(rows), counts["written"])
    return faults + compare_values(values)


def check_table_counts(contents: Contents) -> list[str]:
    """Check that counts agree, of an output of tables of kept samples."""
    counts = contents.manifest.counts
    rows = sum(file.rows or 0 for file in contents.manifest.kept_tables)
    values: list[tuple[str, object, object]] = [
        ("sum of the tables' rows", rows, counts["written"]),
        ("selected", counts["selected"], counts["written"]),
    ]
    values += _compare_object(contents, layout.META, describe_tables(counts["pool"], counts["written"]))
    return compare_values(values)


def _compare_object(
    contents: Contents, name: str, expected: dict[str, object]
) -> list[tuple[str, object, object]]:
    """Entries of a JSON object, as (name, value found, value expected)."""
    found = contents.read_json(name)
    if found is None:
        return []
    return [(f"{name}: {key}", found.get(key), value) for key, value in expected.items()]


def _compare_script(contents: Contents, shards: int, samples: int) -> list[tuple[str, object, object]]:
    """The counts in `train.sh`, as (name, value found, value expected); of no shards, it has none."""
    data = contents.read(layout.TRAIN)
    if data is None or not shards:
        return []
    found = dict(_SCRIPT_VALUE.findall(data.decode(errors="replace")))
    expected = {"SHARDS": str(shards), "SAMPLES": str(samples)}
    return [(f"{layout.TRAIN}: {name}", found.get(name), value) for name, value in expected.items()]
