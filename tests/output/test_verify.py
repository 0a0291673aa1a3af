"""`verify` is silent on a good output and names each fault of a bad one."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import storage
from pipeline.errors import UserError
from pipeline.inputs.tar import TarReader
from pipeline.output import finish, verify
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


def rewrite(out, name, data):
    """Change a file and the manifest's record of it, as a defect of the writer would."""
    (out / name).write_bytes(data)
    manifest = json.loads((out / "manifest.json").read_text())
    record = next(file for file in manifest["files"] if file["name"] == name)
    record.update(size=len(data), checksum=storage.checksum(data))
    (out / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("full", [False, True])
def test_good_output(out, full):
    assert verify.verify(str(out), full) == []


def test_sampled_checks_the_first_and_the_last_tar(out):
    manifest = finish.read_manifest(str(out))
    assert [check.index for check in verify._chosen(manifest, verify.Depth(tars=3))][::2] == [0, 4]
    assert len(verify._chosen(manifest, verify.Depth(tars=None))) == 5


def test_unfinished_and_absent(out, tmp_path):
    (out / "manifest.json").unlink()
    assert "has not finished" in verify.verify(str(out))[0]
    with pytest.raises(UserError, match="not found"):
        verify.verify(str(tmp_path / "nowhere"))


def test_missing_short_and_foreign_files(out):
    (out / "00000001.tar").unlink()
    (out / "00000002.parquet").write_bytes(b"")
    (out / "00000009.tar").write_bytes(b"")
    text = "\n".join(verify.verify(str(out)))
    assert "00000001.tar: missing" in text
    assert "00000002.parquet: 0 bytes" in text
    assert "00000009.tar: not in the manifest" in text


def test_a_flipped_bit_in_an_image(out):
    data = bytearray((out / "00000001.tar").read_bytes())
    data[600] ^= 1
    (out / "00000001.tar").write_bytes(data)
    assert verify.verify(str(out), full=True) == ["00000001.tar: its checksum is not the manifest's"]
    rewrite(out, "00000001.tar", bytes(data))
    (fault,) = verify.verify(str(out), depth=verify.Depth(tars=None, samples=None, loader=False))
    assert fault.startswith("00000001.tar: ") and fault.endswith("jpg is not the source's")


def test_a_changed_caption_in_the_source(out, pool):
    path = Path(pool.shards[1].url)
    path.write_bytes(path.read_bytes().replace(b"a drawing of 000010004", b"a drawinG of 000010004"))
    (fault,) = verify.verify(str(out), full=True)
    assert "(from 00000001, 000010004): txt is not the source's" in fault
    path.unlink()
    assert any("is gone" in fault for fault in verify.verify(str(out), full=True))


def test_a_lost_sample(out):
    with open(out / "00000004.tar", "rb") as stream:
        first = next(iter(TarReader(stream)))
    rewrite(out, "00000004.tar", (out / "00000004.tar").read_bytes()[first.size :])
    text = "\n".join(verify.verify(str(out), full=True))
    assert "00000004.tar: 1 samples, its table tells 2" in text
    assert "open_clip's data loader yields 1 samples of 2" in text


def test_counts_that_disagree(out):
    rewrite(out, "00000002_stats.json", b'{"successes": 6}')
    rewrite(out, "sizes.json", b"{}")
    rewrite(out, "meta.json", b'{"output_shard_count": 4, "output_shard_format": "{:08d}.tar"}')
    text = "\n".join(verify.verify(str(out)))
    assert "00000002_stats.json: successes: 6, expected 7" in text
    assert "sizes.json: {}" in text
    assert "output_shard_count: 4, expected 5" in text


def test_a_subset_file_of_other_samples(out):
    rows = np.load(out / "subset.npy")
    rows[3] = (1, 2)
    np.save(out / "other.npy", rows)
    data = (out / "other.npy").read_bytes()
    (out / "other.npy").unlink()
    rewrite(out, "subset.npy", data)
    (fault,) = verify.verify(str(out))
    assert fault.startswith("subset.npy: 30 uids, 30 samples were written; 1 uids were not written, 1 written ones")


def test_what_the_loader_drops_is_told(tmp_path):
    image = Made("0", "a" * 32, (("jpg", jpeg(1)[:200]), ("txt", b"cut"), ("json", b"{}")))
    write(build(tmp_path, [[image, sample("1")]], [[True, True]]), str(tmp_path / "out"))
    faults = verify.verify(str(tmp_path / "out"))
    assert any("yields 1 samples of 2" in fault for fault in faults)
    assert any("data loader: Handling webdataset error" in fault for fault in faults)
