"""Nothing that a pool holds is executed, here or by a trainer that reads the output."""

import dataclasses
import json
import tarfile

import pytest
from webdataset import autodecode

from d2prune.cli.main import main
from d2prune.inputs.tar.reader import RawMember
from d2prune.output import subset
from d2prune.output.executable import EXECUTABLE, IMAGES, is_executable
from d2prune.output.manifest import read_manifest, seal
from d2prune.output.tar_stream import make_decodable
from d2prune.reshard.reshard import reshard
from d2prune.verify import folder
from d2prune.write.plan import KeepExecutableParams, WriteParams
from tests.output import hostile, runs
from tests.output.pools import Made, build, jpeg, plain_pool, read_tars, sample, uid_of

WOULD_EXECUTE = "a data loader would execute this member"


@pytest.fixture
def markers(tmp_path, monkeypatch):
    """A folder in which a file appears when a payload is executed."""
    found = tmp_path / "markers"
    found.mkdir()
    hostile.mark_ghostscript(monkeypatch, found)
    return found


def executed(markers):
    found = sorted(path.name for path in markers.iterdir())
    for name in found:
        (markers / name).unlink()
    return found


@pytest.mark.parametrize("extension", hostile.EXTENSIONS)
def test_every_extension_that_webdataset_executes_is_known(tmp_path, markers, extension):
    """The payloads work: WebDataset executes some under the known extensions, and none under others."""
    made = hostile.hostile_samples(markers, [extension])
    build(tmp_path, [made], [[True] * len(made)])
    hostile.decode_all([tmp_path / "pool" / "00000000.tar"])
    assert bool(executed(markers)) == (extension in hostile.IN_WEBDATASET)
    assert extension in {*EXECUTABLE, *IMAGES} or extension not in hostile.IN_WEBDATASET


def test_no_member_of_a_pool_is_executed(tmp_path, markers):
    made = hostile.hostile_samples(markers)
    pool = build(tmp_path, [made], [[True] * len(made)])
    out = tmp_path / "out"
    manifest, _ = runs.write(pool, str(out), 1000)
    # Every kind of payload under the executable names, PostScript and IPTC under those of images.
    images = len(IMAGES & set(hostile.EXTENSIONS) - set(EXECUTABLE))
    expected = len(EXECUTABLE) * len(hostile.payloads(markers)) * 4 + images * 2 * 4
    assert manifest.counts["executable_set_aside"] == expected
    members = [(name.split(".", 1)[1], payload) for tar in read_tars(out) for name, payload in tar]
    assert not [name for name, payload in members if is_executable(name, payload)]
    assert {item.members[-1][1] for item in made} <= {payload for _, payload in members}
    faults = folder.verify(str(out), folder.Depth(tars=None, samples=None))
    assert not [fault for fault in faults if WOULD_EXECUTE in fault or "differs" in fault]
    assert not executed(markers)
    hostile.decode_all(sorted(out.glob("*.tar")))
    assert not executed(markers)


def test_executable_members_are_kept_on_request(tmp_path, markers):
    made = hostile.hostile_samples(markers, EXECUTABLE)
    pool = build(tmp_path, [made], [[True] * len(made)])
    out = tmp_path / "out"
    manifest, _ = runs.write(pool, str(out), params=KeepExecutableParams(1000))
    assert manifest.params["keep_executable_members"] and "executable_set_aside" not in manifest.counts
    assert [(name.split(".", 1)[1], payload) for tar in read_tars(out) for name, payload in tar] == [
        (name.lower(), payload) for item in made for name, payload in item.members
    ]
    assert folder.verify(str(out), full=True) == []
    assert not executed(markers)
    # An output that does not record the option holds such members by mistake or by malice.
    record = json.loads((out / "manifest.json").read_text())
    del record["params"]["keep_executable_members"]
    (out / "manifest.json").write_bytes(seal(record))
    assert WOULD_EXECUTE in folder.verify(str(out))[0]
    assert not executed(markers)


def test_the_option_changes_no_other_output(tmp_path):
    assert dataclasses.asdict(WriteParams(7)) == {"samples_per_shard": 7}
    pool = build(tmp_path, plain_pool(1, 4), [[True] * 4])
    default, keeping = pool.plan(WriteParams(7)), pool.plan(KeepExecutableParams(7))
    assert default[0].key != keeping[0].key and default[0].ranges == keeping[0].ranges
    assert default[1:] == keeping[1:]


def test_reshard_sets_executable_members_aside(tmp_path, markers):
    made = hostile.hostile_samples(markers, ["pyd", "pth", "ps"])
    uids = tmp_path / "uids.npy"
    named = [
        Made(item.key, item.uid, (*item.members, ("json", json.dumps({"uid": item.uid}).encode())))
        for item in made
    ]
    pool = build(tmp_path, [named], [[True] * len(named)])
    uids.write_bytes(subset.to_bytes(subset.encode([item.uid for item in named])))
    manifest = reshard(pool.url, str(uids), str(tmp_path / "out"))
    assert manifest.counts["executable_set_aside"] == manifest.counts["written"] == len(named)
    assert "keep_executable_members" not in manifest.params
    assert folder.verify(str(tmp_path / "out"), full=True) == []
    hostile.decode_all([tmp_path / "out" / "00000000.tar"])
    options = ["--subset", str(uids), "--input", pool.url, "--output", str(tmp_path / "kept")]
    assert main(["reshard", *options, "--keep-executable-members"]) == 0
    kept = read_manifest(str(tmp_path / "kept"))
    assert kept.params["keep_executable_members"] and kept.identity != manifest.identity
    assert folder.verify(str(tmp_path / "kept"), full=True) == []
    assert not executed(markers)
    hostile.decode_all([tmp_path / "kept" / "00000000.tar"])
    assert executed(markers)


def test_postscript_named_as_an_image_is_not_run_by_verify(tmp_path, markers):
    """Kept only on request; `run` rejects such samples, since it decodes neither PostScript nor IPTC."""
    made = [
        Made(f"{i}{len(data)}", uid_of(f"{i}{len(data)}"), ((name, data), ("txt", b"a caption")))
        for i, name in enumerate(["jpg", "png", "webp", "jpeg"])
        for data in (hostile.POSTSCRIPT, hostile.IPTC)
    ]
    pool = build(tmp_path, [made], [[True] * 8])
    runs.write(pool, str(tmp_path / "out"), 8, params=KeepExecutableParams(8))
    faults = folder.verify(str(tmp_path / "out"), full=True)
    assert sum("data loader: Handling webdataset error" in fault for fault in faults) == 8
    assert any("yields 0 of 8 samples" in fault for fault in faults)
    assert not executed(markers)
    hostile.decode_all([tmp_path / "out" / "00000000.tar"])
    assert executed(markers)


def test_the_image_extensions_are_those_of_webdataset():
    assert set(autodecode.IMAGE_EXTENSIONS) <= IMAGES


def test_an_image_in_many_layers_of_gzip_is_not_searched():
    assert is_executable("png" + ".gz" * 5, b"") and not is_executable("png" + ".gz" * 4, b"")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("pyd-unsafe", "pyd", ["pyd-unsafe", "pyd-unsafe-2"]),
        ("json-invalid", "json", ["json-invalid", "json-invalid-2"]),
        ("txt-original", "txt", ["txt-original", "txt", "txt-original-2"]),
    ],
)
def test_a_name_that_is_taken_is_numbered(first, second, expected):
    """A repeated extension would start a new sample."""
    bad = memoryview(b"\xff{")
    members = [RawMember(f"a.{name}", name, bad) for name in (first, second, "jpg")]
    written, repairs = make_decodable(members)
    assert [name for name, _ in written] == [*expected, "jpg"] and len(repairs) == 1


def test_members_before_and_after_are_unchanged(tmp_path):
    odd = Made("0", uid_of("0"), (("pyd", b"1"), ("jpg", jpeg(1)), ("pyd.gz", b"2"), ("txt", b"words")))
    runs.write(build(tmp_path, [[odd, sample("1")]], [[True, True]]), str(tmp_path / "out"))
    with tarfile.open(tmp_path / "out" / "00000000.tar") as tar:
        names = [name.split(".", 1)[1] for name in tar.getnames()]
    assert names == ["pyd-unsafe", "jpg", "pyd.gz-unsafe", "txt", "jpg", "txt", "json"]
