"""Every file of an output folder is checked: each way to damage one is reported, whatever the file."""

import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.shards import TarShard
from d2prune.output import claim, layout, receipts, subset
from d2prune.output.closing import OutputRun, close_table_output
from d2prune.output.manifest import OutputManifest, encode_manifest, read_manifest, seal
from d2prune.output.objects import write_table
from d2prune.reshard.reshard import ReshardParams, reshard
from d2prune.store import schemas
from d2prune.store.artifacts import FileRecord
from d2prune.verify.folder import Depth, verify
from tests.output.pools import build, plain_pool, uid_of
from tests.output.runs import write

FULL = Depth(tars=None, samples=None, loader=False)
"""All but open_clip's loader, which takes most of the time and reads no other files."""


def write_tars(folder):
    pool = build(folder, plain_pool(2, 6), [[True, False] * 3, [False, True, True] * 2])
    write(pool, str(folder / "out"), samples_per_shard=4)


def write_resharded(folder):
    write_tars(folder)
    uids = subset.decode(subset.read(str(folder / "out" / "subset.npy")))
    (folder / "wanted.npy").write_bytes(subset.to_bytes(subset.encode([*uids, "f" * 32])))
    shutil.rmtree(folder / "out")
    reshard(str(folder / "pool"), str(folder / "wanted.npy"), str(folder / "out"), ReshardParams(4))


def write_tables(folder):
    """Two input tables of three rows, of which two are kept."""
    output, work_dir, units, lists, shards = str(folder / "out"), str(folder / "work"), [], [], []
    claim.claim(output, "1d" * 16)
    for part in range(2):
        uids = [uid_of(f"{part} {row}") for row in range(3)]
        pq.write_table(pa.table({"uid": uids, "text": list("abc")}), folder / f"{part}.parquet")
        info = store.info(str(folder / f"{part}.parquet"))
        shards.append(TarShard(info.url, str(part), info.size, info.version))
        columns = {"uid": uids, "shard": [str(part)] * 3, "row": [0, 1, 2], "kept": [True, False, True]}
        rows = pa.table(
            [pa.array(columns.get(f.name, [None] * 3), f.type) for f in schemas.KEPT], schema=schemas.KEPT
        ).append_column("text", [list("abc")])
        kept = rows.filter(rows["kept"])
        record = write_table(output, layout.KEPT_FORMAT.format(part), kept)
        units.append(receipts.commit_unit(work_dir, str(part), [record], {"written": 2}, kept["uid"]))
        listed = pa.table(
            [pa.array(columns.get(f.name, [None] * 3), f.type) for f in schemas.POOL_DECISIONS],
            schema=schemas.POOL_DECISIONS,
        )
        lists.append(write_table(output, layout.DECISIONS_FORMAT.format(part), listed))
    close_table_output(OutputRun(output, work_dir, "1d" * 16, {"uid": "uid"}, 6, 4, shards), units, lists)


@pytest.fixture(scope="module", params=[write_tars, write_resharded, write_tables])
def out(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.__name__)
    request.param(folder)
    return folder / "out"


def check(out):
    try:
        return verify(str(out), depth=FULL)
    except UserError as error:
        return [str(error).removeprefix(f"{out}/")]


def flip(data, position):
    return data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :]


def damage(name, files):
    """List every damage of one file: what was done, and the new bytes (None: deleted)."""
    data = files[name]
    others = [files[o] for o in files if Path(o).suffix == Path(name).suffix and files[o] != data]
    other = (others or [b"other"])[0]
    found = {
        "deleted": None,
        "emptied": b"",
        "cut by a byte": data[:-1],
        "cut in half": data[: len(data) // 2],
        "grown by a byte": data + b"\0",
        "zeroed": bytes(len(data)),
        "replaced": other,
        "replaced at the same size": (other + bytes(len(data)))[: len(data)],
        **{
            f"byte {position} flipped": flip(data, position)
            for position in (0, len(data) // 3, len(data) // 2, len(data) - 2, len(data) - 1)
        },
    }
    return list(found.items())


def find_unreported(out, files, names):
    """Damage several files at a time, each in another way, until each was damaged in every way."""
    choices = {name: damage(name, files) for name in names}
    unreported = []
    for turn in range(max(map(len, choices.values()))):
        done = {}
        for number, name in enumerate(names):
            done[name], data = choices[name][(turn + number) % len(choices[name])]
            if data is None:
                (out / name).unlink()
            else:
                (out / name).write_bytes(data)
        faults = check(out)
        for name in names:
            if not any(line.startswith(f"{name}: ") for line in faults):
                unreported.append((name, done[name]))
            (out / name).write_bytes(files[name])
    return unreported


def test_every_damage_of_every_file_is_reported(out):
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert check(out) == [] and len(files) >= 8
    tables = [name for name in files if name.endswith(".parquet")]
    # Without the manifest nothing else is checked, and a tar is checked with its table.
    others = [name for name in files if name not in (*tables, layout.MANIFEST)]
    for names in ([layout.MANIFEST], tables, others):
        assert find_unreported(out, files, names) == []
    assert check(out) == []


def test_every_file_is_of_a_known_kind(out):
    listed = {file.name for file in read_manifest(str(out)).files}
    for path in out.iterdir():
        kind = layout.kind_of(path.name)
        assert kind is not None and kind.listed == (path.name in listed)


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "._meta.json",
        "meta.json~",
        ".train.sh.swp",
        "#train.sh#",
        "Thumbs.db",
        "notes.txt",
        "00000099.tar.part",
        "00000000 (1).tar.crdownload",
        "__len__",
    ],
)
def test_files_that_trainers_ignore_are_named_and_no_fault(out, name, caplog):
    (out / name).write_bytes(b"x")
    try:
        assert check(out) == [] and f"did not write {name}; trainers ignore" in caplog.text
    finally:
        (out / name).unlink()


@pytest.mark.parametrize(
    "name",
    [
        "00000099.tar",
        "._00000000.tar",
        "copy.tar",
        "00000099_stats.json",
        "00000099.parquet",
        "decisions-00000099.parquet",
        "kept-00000099.parquet",
        "more/00000000.tar",
        "more/notes.txt",
    ],
)
def test_files_that_trainers_would_read_are_faults(out, name):
    path = out / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    try:
        (fault,) = check(out)
        expected = (
            "found 1 files in subfolders; expected no subfolders"
            if "/" in name
            else f"{name}: not in the manifest"
        )
        assert fault == expected
    finally:
        path.unlink()
        if path.parent != out:
            path.parent.rmdir()


def replace_listed(out, name, data):
    """Replace a file and its record in the manifest: a contradiction that no checksum shows."""
    manifest = read_manifest(str(out))
    files = tuple(
        FileRecord(name, file.rows, len(data), store.checksum(data)) if file.name == name else file
        for file in manifest.files
    )
    (out / name).write_bytes(data)
    (out / "manifest.json").write_bytes(encode_manifest(dataclasses.replace(manifest, files=files)))


def contradictions(files):
    """Yield a file and another content of it, for every entry of every JSON object and of train.sh."""
    for name, data in files.items():
        if name in (layout.MANIFEST, layout.CLAIM):
            continue
        if name.endswith(".json"):
            record = json.loads(data)
            for key, value in record.items():
                other = value + 1 if isinstance(value, int) else "other"
                yield name, json.dumps(record | {key: other}).encode()
                yield name, json.dumps({k: v for k, v in record.items() if k != key}).encode()
        if name == layout.SIZES:
            yield name, json.dumps(record | {"00000099.tar": 4}).encode()
        if name == layout.TRAIN:
            yield name, data.replace(b"SAMPLES=7", b"SAMPLES=8")
            yield name, data.replace(b"SHARDS=2", b"SHARDS=1")


def test_every_contradiction_is_reported(out):
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    found = list(contradictions(files))
    assert len(found) >= 6
    for name, data in found:
        assert data != files[name]
        replace_listed(out, name, data)
        assert any(line.startswith(f"{name}") for line in check(out)), (name, data)
        (out / "manifest.json").write_bytes(files["manifest.json"])
        (out / name).write_bytes(files[name])


def test_a_manifest_that_lists_other_names_is_a_fault(out):
    manifest = read_manifest(str(out))
    data = (out / "manifest.json").read_bytes()
    more = (*manifest.files, FileRecord("../secret", None, 1, "0"), FileRecord("manifest.json", None, 1, "0"))
    changed: OutputManifest = dataclasses.replace(manifest, files=more)
    (out / "manifest.json").write_bytes(encode_manifest(changed))
    faults = check(out)
    (out / "manifest.json").write_bytes(data)
    assert [line for line in faults if "which is not a file of an output folder" in line] == [
        "manifest.json: lists ../secret, which is not a file of an output folder",
        "manifest.json: lists manifest.json, which is not a file of an output folder",
    ]


ODD = [0, -1, 10**18, "3", None, 1.5, True, [], {"a": 1}]


def test_no_manifest_is_a_traceback(out):
    """Entries missing or of another kind or size, with a valid checksum, as only malice would write them."""
    path = out / "manifest.json"
    data = path.read_bytes()
    record = json.loads(data)
    places = [(record, name) for name in record if name != "checksum"]
    places += [(record[name], key) for name in ("params", "counts") for key in record[name]]
    places += [(record[name][0], key) for name in ("files", "inputs") for key in record[name][0]]
    for number, (parent, key) in enumerate(places):
        value = parent.pop(key)
        found = [seal(record)]
        # Two odd values for each entry, and all of them for the entries together.
        for odd in (ODD[number % len(ODD)], ODD[(number + 4) % len(ODD)]):
            parent[key] = odd
            found.append(seal(record))
        parent[key] = value
        for changed in found:
            path.write_bytes(changed)
            check(out)
    path.write_bytes(data)
