"""Check the names and sizes of an output folder's objects, and that recorded counts agree."""

import json
from typing import Any

from d2prune import store
from d2prune.output import layout
from d2prune.output.manifest import OutputManifest
from d2prune.verify.faults import compare_values


def check_objects(output: str, manifest: OutputManifest) -> tuple[list[str], frozenset[str]]:
    """Compare the objects of the folder, by name and size, with the manifest.

    Returns:
        The faults, and the names of missing objects.
    """
    found = store.list_files(output)
    sizes = {file.url.rsplit("/", 1)[-1]: file.size for file in found}
    faults = []
    for file in manifest.files:
        if file.name not in sizes:
            faults.append(f"{file.name}: missing")
        elif sizes[file.name] != file.size:
            faults.append(f"{file.name}: found {sizes[file.name]} bytes; expected {file.size}")
    known = {file.name for file in manifest.files} | {layout.MANIFEST, layout.CLAIM}
    faults += [f"{name}: not in the manifest" for name in sorted(sizes.keys() - known)]
    if len(found) != len(sizes):
        faults.append(f"found {len(found) - len(sizes)} files in subfolders; expected no subfolders")
    return faults, frozenset(file.name for file in manifest.files if file.name not in sizes)


def check_tar_counts(output: str, manifest: OutputManifest, missing: frozenset[str]) -> list[str]:
    """Check that the tars of an output are numbered without gaps, and that counts agree."""
    faults = []
    counts = manifest.counts
    expected = [layout.SHARD_FORMAT.format(i) for i in range(counts["shards"])]
    rows = [manifest.rows(layout.TABLE_FORMAT.format(i)) or 0 for i in range(len(expected))]
    tars = [file.name for file in manifest.files if file.name.endswith(".tar")]
    if tars != expected:
        odd = sorted(set(tars) ^ set(expected))
        faults.append(
            f"numbering: expected {len(expected)} tars numbered from 0 without gaps; "
            f"missing or unexpected: {', '.join(odd[:5])}"
        )
    values: list[tuple[str, object, object]] = [
        ("sum of the tables' rows", sum(rows), counts["written"]),
        ("selected", counts["selected"], counts["written"]),
    ]
    if layout.META not in missing:
        meta = _read_json(output, layout.META)
        values += [
            (f"{layout.META}: output_shard_count", meta.get("output_shard_count"), len(rows)),
            (f"{layout.META}: output_shard_format", meta.get("output_shard_format"), layout.SHARD_FORMAT),
        ]
    if layout.SIZES not in missing:
        sizes = dict(zip(expected, rows, strict=True))
        values.append((layout.SIZES, _read_json(output, layout.SIZES), sizes))
    for index, number in enumerate(rows):
        name = layout.STATS_FORMAT.format(index)
        if name not in missing:
            values.append((f"{name}: successes", _read_json(output, name).get("successes"), number))
    return faults + compare_values(values)


def check_table_counts(output: str, manifest: OutputManifest, missing: frozenset[str]) -> list[str]:
    """Check that counts agree, of an output of tables of kept samples."""
    counts = manifest.counts
    rows = sum(file.rows or 0 for file in manifest.kept_tables)
    values: list[tuple[str, object, object]] = [
        ("sum of the tables' rows", rows, counts["written"]),
        ("selected", counts["selected"], counts["written"]),
    ]
    if layout.META not in missing:
        meta = _read_json(output, layout.META)
        values += [
            (f"{layout.META}: output_count", meta.get("output_count"), counts["written"]),
            (f"{layout.META}: output_shard_count", meta.get("output_shard_count"), 0),
        ]
    return compare_values(values)


def _read_json(output: str, name: str) -> dict[str, Any]:
    """Read a small JSON object of the output; empty if it does not exist or is not a JSON object."""
    try:
        value = json.loads(store.read_bytes(store.join(output, name)))
    except (ValueError, FileNotFoundError):
        return {}
    return value if isinstance(value, dict) else {}
