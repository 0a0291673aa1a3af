"""`verify` finds no fault in a good output and reports each fault of a bad one."""

import dataclasses
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2prune import store
from d2prune.cli.main import main
from d2prune.errors import UserError
from d2prune.inputs.tar.reader import TarReader
from d2prune.output import subset
from d2prune.output.manifest import OutputManifest, encode_manifest, read_manifest
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord
from d2prune.verify import folder
from tests.output.pools import Made, build, jpeg, plain_pool, sample
from tests.output.runs import write


@pytest.fixture
def pool(tmp_path):
    made = plain_pool()
    made[0][0] = Made("odd", "0" * 32, (("JPG", jpeg(1)), ("txt", b"caf\xe9"), ("json", b"{not json")))
    made[0][2] = sample(made[0][2].key, uid="0" * 32, number=77)
    return build(tmp_path, made, [[i % 2 == 0 for i in range(20)] for _ in range(3)])


@pytest.fixture
def out(tmp_path, pool):
    write(pool, str(tmp_path / "out"))
    return tmp_path / "out"


def change_manifest(out, change):
    """Write a manifest with other entries, as a bug of the writer would."""
    manifest = read_manifest(str(out))
    record = dataclasses.asdict(manifest)
    change(record)
    record["files"] = tuple(FileRecord(**file) for file in record["files"])
    (out / "manifest.json").write_bytes(encode_manifest(OutputManifest(**record)))


def rewrite(out, name, data, **values):
    """Change a file and its record in the manifest, as a bug of the writer would."""
    (out / name).write_bytes(data)

    def change(manifest):
        record = next(file for file in manifest["files"] if file["name"] == name)
        record.update(size=len(data), checksum=store.checksum(data), **values)

    change_manifest(out, change)


@pytest.mark.parametrize("full", [False, True])
def test_a_good_output_has_no_faults(out, full):
    assert folder.verify(str(out), full) == []


def test_a_sample_of_tars_includes_the_first_and_the_last(out):
    manifest = read_manifest(str(out))
    assert [check.index for check in folder._choose_tars(manifest, folder.Depth(tars=3))][::2] == [0, 4]
    assert len(folder._choose_tars(manifest, folder.Depth(tars=None))) == 5


def test_an_incomplete_or_missing_folder(out, tmp_path):
    (out / "manifest.json").unlink()
    assert "is not complete" in folder.verify(str(out))[0]
    with pytest.raises(UserError, match="not found"):
        folder.verify(str(tmp_path / "nowhere"))


def test_missing_short_and_unexpected_files(out):
    (out / "00000001.tar").unlink()
    (out / "00000002.parquet").write_bytes(b"")
    (out / "00000009.tar").write_bytes(b"")
    text = "\n".join(folder.verify(str(out)))
    assert "00000001.tar: missing" in text
    assert "00000002.parquet: found 0 bytes; expected" in text
    assert "00000009.tar: not in the manifest" in text


def test_missing_files_do_not_hide_other_faults(out, pool):
    """Every missing object is reported, and so is a fault of every other kind."""
    missing = ("00000001.tar", "00000002.parquet", "sizes.json", "00000000_stats.json", "subset.npy")
    for name in missing:
        (out / name).unlink()
    tar = out / "00000003.tar"
    tar.write_bytes(tar.read_bytes()[:-3000])
    meta = json.loads((out / "meta.json").read_text())
    rewrite(out, "meta.json", json.dumps(meta | {"output_shard_count": 7}).encode())
    source = Path(pool.shards[0].url)
    source.write_bytes(source.read_bytes().replace(b"a drawing of 000000004", b"a drawinG of 000000004"))
    found = folder.verify(str(out), full=True)
    assert {line for line in found if line.endswith("missing")} == {f"{name}: missing" for name in missing}
    text = "\n".join(found)
    assert "meta.json: output_shard_count: found 7; expected 5" in text
    assert "00000002.tar: cannot be checked without its table" in text
    assert (
        "00000003.tar: checksum differs from the manifest" in text and "00000003.tar: tar-truncated" in text
    )
    assert "txt differs from the source" in text
    assert not any(line.startswith(("decisions", "00000004")) for line in found)


@pytest.mark.parametrize("missing", ["00000000.parquet", "subset.npy", "decisions-00000001.parquet"])
def test_two_lists_are_compared_without_the_third(out, missing):
    """Tables, subset file and decisions list the same samples: any two that can be read are compared."""
    (out / missing).unlink()
    assert folder.verify(str(out))[0] == f"{missing}: missing"
    difference = "1 unexpected, 1 missing"
    if missing != "subset.npy":
        uids = subset.decode(subset.read(str(out / "subset.npy")))
        rewrite(out, "subset.npy", subset.to_bytes(subset.encode([*uids[1:], "f" * 32])))
    else:
        table = pq.read_table(out / "decisions-00000000.parquet")
        kept = [False, *table["kept"].to_pylist()[1:]]
        sink = pa.BufferOutputStream()
        pq.write_table(table.set_column(table.schema.get_field_index("kept"), "kept", [kept]), sink)
        rewrite(out, "decisions-00000000.parquet", sink.getvalue().to_pybytes())
        difference = "0 unexpected, 1 missing"
    assert any(difference in line for line in folder.verify(str(out)))


def test_a_flipped_bit_in_an_image(out):
    data = bytearray((out / "00000001.tar").read_bytes())
    data[600] ^= 1
    (out / "00000001.tar").write_bytes(data)
    checksum, image = folder.verify(str(out), full=True)
    assert checksum == "00000001.tar: checksum differs from the manifest" and image.endswith(
        "jpg differs from the source"
    )
    rewrite(out, "00000001.tar", bytes(data))
    (fault,) = folder.verify(str(out), depth=folder.Depth(tars=None, samples=None, loader=False))
    assert fault.startswith("00000001.tar: ") and fault.endswith("jpg differs from the source")


def test_a_changed_caption_in_the_source(out, pool):
    path = Path(pool.shards[1].url)
    path.write_bytes(path.read_bytes().replace(b"a drawing of 000010004", b"a drawinG of 000010004"))
    (fault,) = folder.verify(str(out), full=True)
    assert "(from 00000001, 000010004): txt differs from the source" in fault
    path.unlink()
    assert any("no longer exists" in fault for fault in folder.verify(str(out), full=True))


@pytest.mark.parametrize("start", [0, 0.4])
def test_zeros_in_an_output_tar(out, start):
    data = (out / "00000002.tar").read_bytes()
    kept = data[: int(len(data) * start) // 512 * 512]
    rewrite(out, "00000002.tar", kept + bytes(len(data) - len(kept)))
    assert any(
        fault.startswith("00000002.tar: tar-zeros: zeros from byte")
        for fault in folder.verify(str(out), depth=folder.Depth(tars=None, samples=None, loader=False))
    )


def test_a_lost_sample(out):
    with open(out / "00000004.tar", "rb") as stream:
        first = next(iter(TarReader(stream)))
    rewrite(out, "00000004.tar", (out / "00000004.tar").read_bytes()[first.size :])
    text = "\n".join(folder.verify(str(out), full=True))
    assert "00000004.tar: found 1 samples; expected 2, the rows of its table" in text
    assert "open_clip's data loader yields 1 of 2 samples" in text


def test_counts_that_disagree(out):
    rewrite(out, "00000002_stats.json", b'{"successes": 6}')
    rewrite(out, "sizes.json", b"{}")
    rewrite(out, "meta.json", b'{"output_shard_count": 4, "output_shard_format": "{:08d}.tar"}')
    text = "\n".join(folder.verify(str(out)))
    assert "00000002_stats.json: successes: found 6; expected 7" in text
    assert "sizes.json: found {}; expected" in text
    assert "output_shard_count: found 4; expected 5" in text


def test_a_subset_file_of_other_samples(out):
    rows = np.load(out / "subset.npy")
    rows[3] = (1, 2)
    np.save(out / "other.npy", rows)
    data = (out / "other.npy").read_bytes()
    (out / "other.npy").unlink()
    rewrite(out, "subset.npy", data)
    (fault,) = folder.verify(str(out))
    assert fault.startswith(
        "subset.npy: found 30 uids; expected the 30 in the tables: 1 unexpected, 1 missing, e.g. "
    )


def test_samples_that_the_loader_drops_are_reported(tmp_path):
    image = Made("0", "a" * 32, (("jpg", jpeg(1)[:200]), ("txt", b"cut"), ("json", b"{}")))
    write(build(tmp_path, [[image, sample("1")]], [[True, True]]), str(tmp_path / "out"))
    faults = folder.verify(str(tmp_path / "out"))
    assert any("yields 1 of 2 samples" in fault for fault in faults)
    assert any("data loader: Handling webdataset error" in fault for fault in faults)


def test_a_gap_in_the_numbering(out):
    for suffix in (".tar", "_stats.json", ".parquet"):
        (out / f"00000004{suffix}").rename(out / f"00000007{suffix}")

    def change(manifest):
        for file in manifest["files"]:
            file["name"] = file["name"].replace("00000004", "00000007")

    change_manifest(out, change)
    faults = folder.verify(str(out))
    names = "missing or unexpected: 00000004.tar, 00000007.tar"
    assert f"numbering: expected 5 tars numbered from 0 without gaps; {names}" in faults


def test_a_subfolder(out):
    (out / "more").mkdir()
    (out / "more" / "00000000.tar").write_bytes((out / "00000000.tar").read_bytes())
    assert folder.verify(str(out)) == ["found 1 files in subfolders; expected no subfolders"]


def test_decisions_that_keep_other_samples(out):
    path = out / "decisions-00000001.parquet"
    table = pq.read_table(path)
    flags = table["kept"].to_pylist()
    first, second = flags.index(True), flags.index(False)
    flags[first], flags[second] = False, True
    changed = table.set_column(table.schema.get_field_index("kept"), "kept", pa.array(flags))
    rewrite(out, path.name, artifacts.table_bytes(changed))
    (fault,) = folder.verify(str(out))
    assert fault.startswith(
        "decisions: found 30 uids; expected the 30 in the tables: 1 unexpected, 1 missing, e.g. "
    )


def test_decisions_on_a_part_of_the_pool(out):
    path = out / "decisions-00000001.parquet"
    table = pq.read_table(path)
    data = artifacts.table_bytes(table.filter(table["kept"]))
    rewrite(out, path.name, data, rows=10)
    assert folder.verify(str(out)) == ["decisions: found 50 rows; expected 60, one per sample of the pool"]


def test_two_samples_swapped(out):
    """All bytes are those of the sources, but two samples are not where the table lists them."""
    data = (out / "00000002.tar").read_bytes()
    first, second = itertools.islice(TarReader(io.BytesIO(data)), 2)
    swapped = data[second.offset :][: second.size] + data[: first.size] + data[second.offset + second.size :]
    rewrite(out, "00000002.tar", swapped)
    faults = folder.verify(str(out), full=True)
    assert faults[:2] == [
        f"00000002.tar: sample 0: found key {second.key}; expected {first.key}",
        f"00000002.tar: sample 1: found key {first.key}; expected {second.key}",
    ]


def test_a_changed_table(out):
    path = out / "00000003.parquet"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    faults = folder.verify(str(out), full=True)
    assert faults[0] == "00000003.parquet: checksum differs from the manifest"
    assert faults[1].startswith("00000003.parquet: cannot be read: ")
    assert faults[-1] == "00000003.tar: cannot be checked without its table"


def test_an_invalid_subset_file(out):
    rewrite(out, "subset.npy", b"\x93NUMPY, more or less")
    (fault,) = folder.verify(str(out))
    assert fault.startswith("subset.npy: cannot be read: ")


def test_a_count_of_selected_samples_that_differs(out):
    change_manifest(out, lambda manifest: manifest["counts"].update(selected=31))
    assert folder.verify(str(out)) == ["selected: found 31; expected 30"]


def test_the_command_prints_each_fault_and_exits_with_0_1_or_2(out, capsys):
    assert main(["verify", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: no faults found\n"
    (out / "meta.json").unlink()
    (out / "stray.tar").write_bytes(b"x")
    assert main(["verify", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["meta.json: missing", "stray.tar: not in the manifest", f"{out}: 2 faults"]
    assert main(["verify", str(out / "nowhere")]) == 2
