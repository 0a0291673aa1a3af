"""Reading and writing the manifest of an output folder."""

import json

import pytest

from d2prune.errors import UserError
from d2prune.output.manifest import InputShard, OutputManifest, read_manifest, write_manifest
from d2prune.store.artifacts import FileRecord

MANIFEST = OutputManifest(
    identity="a" * 32,
    params={"samples_per_shard": 7},
    counts={"written": 3},
    inputs=(InputShard("/pool/00000000.tar", "00000000", 10),),
    files=(FileRecord("00000000.parquet", 3, 20, "b" * 64), FileRecord("00000000.tar", None, 30, "c" * 64)),
)


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    assert read_manifest(str(tmp_path)) is None
    write_manifest(str(tmp_path), MANIFEST)
    assert read_manifest(str(tmp_path)) == MANIFEST
    assert (MANIFEST.rows("00000000.parquet"), MANIFEST.rows("00000000.tar")) == (3, None)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', json.dumps({"format": 2}).encode()])
def test_a_file_that_is_not_a_manifest_of_this_format_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json: "):
        read_manifest(str(tmp_path))
