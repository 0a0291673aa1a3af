"""Which units count as complete."""

import pytest

from d2prune import store
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, unit_url
from d2prune.store.completeness import find_complete_units, find_damaged_units

FILES = {"a.bin": b"123", "b.bin": b"", "c.bin": b"4"}
DAMAGE = {
    "file deleted": ("a.bin", None, "a.bin is missing"),
    "empty file deleted": ("b.bin", None, "b.bin is missing"),
    "file cut": ("a.bin", b"12", "a.bin has 2 bytes instead of 3"),
    "file longer": ("b.bin", b"1", "b.bin has 1 bytes instead of 0"),
    "receipt deleted": ("receipt.json", None, "receipt.json is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_unit_is_complete_if_all_its_files_are_there_with_their_sizes(tmp_path, kind):
    folder = str(tmp_path)
    units = [artifacts.commit_unit(folder, key, FILES) for key in ("one", "two")]
    manifest = Manifest("embed", "f", {}, {}, tuple(units), {})
    assert find_complete_units(folder, ["one", "two", "three"]) == {unit.key: unit for unit in units}
    assert find_damaged_units(folder, manifest) == {}
    name, data, fault = DAMAGE[kind]
    if data is None:
        store.delete([unit_url(folder, "one", name)])
    else:
        store.write_bytes(unit_url(folder, "one", name), data)
    assert find_complete_units(folder, ["one", "two"]) == {"two": units[1]}
    assert find_damaged_units(folder, manifest) == {"one": fault}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", bytes(200)])
def test_a_unit_with_a_damaged_receipt_is_not_complete(tmp_path, data):
    artifacts.commit_unit(str(tmp_path), "one", FILES)
    store.write_bytes(unit_url(str(tmp_path), "one", "receipt.json"), data)
    assert find_complete_units(str(tmp_path), ["one"]) == {}


def test_receipts_of_units_without_files_are_not_requested(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "read_receipt", lambda folder, key: pytest.fail(key))
    assert find_complete_units(str(tmp_path), ["one", "two"]) == {}
