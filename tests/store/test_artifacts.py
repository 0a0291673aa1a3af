from dataclasses import dataclass

import pyarrow as pa
import pytest

from d2prune import store
from d2prune.errors import BooksError, DamagedFileError, InfrastructureError
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest


@dataclass(frozen=True)
class Params:
    n_neighbors: int = 5
    features: str = "image"


def _manifest(folder, params, fingerprint="f"):
    return artifacts.commit_manifest(
        folder,
        Manifest("graph", fingerprint, vars(params) | {}, {"embed": "e"}, (), {"read": 1}, {"recall": 0.97}),
    )


def test_a_receipt_is_read_as_it_was_written(tmp_path):
    table = pa.table({"a": [1, 2, 3]})
    receipt = artifacts.commit_unit(
        str(tmp_path), "unit", {"t.parquet": table, "b.bin": b"xyz"}, {"read": 3}, {"r": 0.5}
    )
    assert artifacts.read_receipt(str(tmp_path), "unit") == receipt
    assert receipt.rows("t.parquet") == 3
    assert artifacts.read_table(str(tmp_path), receipt, "t.parquet").equals(table)
    assert artifacts.read_receipt(str(tmp_path), "other") is None


def test_a_table_that_does_not_match_its_receipt_is_an_error(tmp_path):
    receipt = artifacts.commit_unit(str(tmp_path), "unit", {"t.parquet": pa.table({"a": [1]})})
    for data, fault in ((b"other", "found 5 bytes"), (bytes(receipt.files[0].size), "found checksum")):
        store.write_bytes(artifacts.unit_url(str(tmp_path), "unit", "t.parquet"), data)
        with pytest.raises(DamagedFileError, match=f"{fault} ?.*; expected .* as in its receipt"):
            artifacts.read_table(str(tmp_path), receipt, "t.parquet")


def test_keys_and_fingerprints_depend_on_their_identity_alone():
    assert artifacts.unit_key("a b/c.tar", Params()).startswith("a_b_c.tar-")
    assert artifacts.unit_key("x", Params()) == artifacts.unit_key("x", Params())
    assert artifacts.unit_key("x", Params()) != artifacts.unit_key("x", Params(n_neighbors=6))
    assert artifacts.unit_key("x/y", 1) != artifacts.unit_key("x_y", 1)
    with pytest.raises(TypeError):
        artifacts.fingerprint(object())
    with pytest.raises(ValueError):
        artifacts.fingerprint(float("nan"))


def test_a_manifest_is_found_by_its_fingerprint_only(tmp_path):
    written = _manifest(str(tmp_path), Params())
    assert artifacts.read_manifest(str(tmp_path), "f") == written
    assert artifacts.read_manifest(str(tmp_path), "g") is None
    store.write_bytes(
        artifacts.manifest_url(str(tmp_path), "g"),
        store.read_bytes(artifacts.manifest_url(str(tmp_path), "f")),
    )
    with pytest.raises(
        InfrastructureError, match=r"found artifact f, schema version .*; expected g, version"
    ):
        artifacts.read_manifest(str(tmp_path), "g")


def test_changed_params_names_the_fewest_changes(tmp_path):
    assert artifacts.changed_params(str(tmp_path), vars(Params())) is None
    _manifest(str(tmp_path), Params(n_neighbors=5, features="text"), "f1")
    _manifest(str(tmp_path), Params(n_neighbors=9), "f2")
    assert artifacts.changed_params(str(tmp_path), vars(Params(n_neighbors=5))) in (
        ["n_neighbors: 9 -> 5"],
        ["features: text -> image"],
    )


def test_counts_that_do_not_balance_are_an_error():
    artifacts.balance("embed", 5, {"embedded": 3, "rejected": 2})
    with pytest.raises(BooksError, match="found embedded 3 \\+ rejected 1 = 4; expected 5"):
        artifacts.balance("embed", 5, {"embedded": 3, "rejected": 1})


def test_a_flipped_bit_in_a_manifest_or_receipt_is_damage(tmp_path, caplog):
    folder = str(tmp_path)
    receipt = artifacts.commit_unit(
        folder, "u", {"t.parquet": pa.table({"a": [1, 2, 3]})}, {"rows": 3}, {"share": 0.1}
    )
    manifest = _manifest(folder, Params())
    for name, read, expected in (
        ("units/u/receipt.json", lambda: artifacts.read_receipt(folder, "u"), receipt),
        ("f/manifest.json", lambda: artifacts.read_manifest(folder, "f"), manifest),
    ):
        path, url = tmp_path / name, f"{folder}/{name}"
        data = path.read_bytes()
        assert read() == expected
        for position in range(0, len(data), 5):
            path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            caplog.clear()
            # White space means nothing.
            assert read() in (None, expected)
            assert (read() is None) == (f"{url}: damaged, ignored" in caplog.text)
            assert read() is None or data[position : position + 1].isspace()
        path.write_bytes(data)
