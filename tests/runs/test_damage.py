"""Damaged artifacts and bookkeeping: the next run rebuilds them, and ends with the same bytes."""

import logging
import os
import re
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from d2prune import store
from d2prune.cli.main import main
from d2prune.config.model import RunConfig
from d2prune.errors import DamagedFileError
from d2prune.execution import InProcess
from d2prune.output.manifest import read_manifest
from d2prune.runs.driver import run
from d2prune.stage.rebuilding import rebuild_damaged
from d2prune.store import completeness, lease, local_disk
from tests.pools import tree
from tests.power_cut import DEAD

STAGES = ("embed", "graph", "rank", "select", "write")
KINDS = {
    "deleted": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-7]),
}


def artifacts_of(place):
    """Every file of the run; reports show timings, so only their names count."""
    files = tree(place / "work") | {f"out/{name}": data for name, data in tree(place / "out").items()}
    return {name: b"" if name.endswith("report.html") else data for name, data in files.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_a_damaged_unit_of_a_finished_stage_is_rebuilt(finish, grow, place, caplog, stage):
    finish(2)
    before = artifacts_of(place)
    units = sorted(Path(place, "work", stage, "units").glob("*/*"))
    if stage == "graph":
        units = [path for path in units if path.parent.name.startswith("neighbors")]
    files = [path for path in units if path.parent == units[0].parent and path.name != "receipt.json"]
    damaged = [(files or units)[index % max(1, len(files))] for index in range(3)]
    for path, (kind, damage) in zip(damaged, KINDS.items(), strict=True):
        if path.name == "receipt.json" and kind != "deleted":
            continue  # Receipts of a complete stage are not read.
        damage(path)
        caplog.clear()
        run(grow(2), InProcess())
        assert artifacts_of(place) == before, (path.name, kind)
        (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert f"{stage}: 1 of " in warning and path.name in warning and path.parent.name in warning


def test_a_changed_file_of_the_same_size_is_rebuilt_by_the_run_that_reads_it(
    finish, grow, place, configure, caplog
):
    finish(2)
    config = grow(2)
    before = artifacts_of(place)
    same = {"input": config.input, "output": config.output}
    changes = {
        "embed/units/*/embeddings.parquet": {"graph__n_neighbors": 3},
        "graph/units/*/neighbors.parquet": {"select__gamma_forward": 0.5},
        "rank/units/*/ranks.parquet": {"select__fraction": 0.5},
    }
    damaged = {pattern: min(Path(place, "work").glob(pattern)) for pattern in changes}
    for pattern, path in damaged.items():
        path.write_bytes(bytes(path.stat().st_size))
        caplog.clear()
        run(configure(**same, **changes[pattern]), InProcess())
        assert path.read_bytes() == before[path.relative_to(place / "work").as_posix()]
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        # A reader of some columns checks the footer first.
        assert re.search(f"{re.escape(str(path))}: (found|.* footer) checksum", warnings[0])
        assert warnings[0].endswith("; rebuilding the unit")


def test_a_unit_that_is_damaged_again_after_it_was_rebuilt_ends_the_run():
    attempts = []

    def attempt():
        attempts.append(1)
        raise DamagedFileError(
            "x: found checksum 1; expected 2", f"/none/{min(len(attempts), 3)}", "delete it"
        )

    with pytest.raises(DamagedFileError, match="x: found checksum 1; expected 2; delete it"):
        rebuild_damaged(attempt, lambda: None)
    assert len(attempts) == 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pool, tiny_model):
    """A finished run of two shards, which each test repairs: its configuration, its folder and its files."""
    root = tmp_path_factory.mktemp("finished")
    values = {
        "input": str(pool / "{00000000..00000001}.tar"),
        "work_dir": str(root / "work"),
        "output": str(root / "out" / "run"),
        "embed": {"model": str(tiny_model), "batch_size": 16},
        "graph": {"n_neighbors": 4},
        "select": {"fraction": 0.3},
        "write": {"samples_per_shard": 10},
        "report": {"gallery": 4},
    }
    config = RunConfig.parse(values, "test")
    run(config, InProcess())
    return config, root, artifacts_of(root)


OUTPUT_FILES = (
    "00000000.tar", "00000001.tar", "00000001_stats.json", "00000000.parquet", "decisions-00000001.parquet",
    "subset.npy", "sizes.json", "meta.json", "train.sh",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OUTPUT_FILES)
def test_a_missing_or_shorter_file_of_a_finished_output_is_written_again(finished, caplog, name, kind):
    config, root, before = finished
    path = root / "out" / "run" / name
    KINDS[kind](path)
    run(config, InProcess())
    assert artifacts_of(root) == before
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith(f"write: 1 of 15 files of output {config.output} are missing or damaged")
    assert name in warning


def test_an_output_that_is_being_repaired_does_not_count_as_complete(finished, monkeypatch):
    config, root, before = finished
    (root / "out" / "run" / "00000000.tar").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("d2prune.write.worker.write_shard", lambda *arguments, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, InProcess())
    assert read_manifest(config.output) is None
    run(config, InProcess())
    assert artifacts_of(root) == before


def test_the_page_of_a_report_is_written_again_if_it_is_missing_or_empty(finished):
    config, root, before = finished
    (page,) = root.glob("work/report/*/report.html")
    for damage in (KINDS["deleted"], KINDS["empty"]):
        damage(page)
        run(config, InProcess())
        assert page.stat().st_size > 1000 and artifacts_of(root) == before


def test_complete_outputs_are_checked_with_one_listing(finished, monkeypatch):
    config, _, _ = finished
    listed = []
    list_files, iterate_files = store.list_files, completeness.iterate_files
    monkeypatch.setattr(
        store, "list_files", lambda folder, pattern=None: listed.append(folder) or list_files(folder, pattern)
    )
    monkeypatch.setattr(
        completeness,
        "iterate_files",
        lambda folder, levels: listed.append(folder) or iterate_files(folder, levels),
    )
    run(config, InProcess())
    assert listed.count(config.output) == 1
    assert all(listed.count(f"{config.work_dir}/{stage}/units") == 1 for stage in STAGES)


READER_DAMAGE = {
    "deleted": (KINDS["deleted"], "the next run rebuilds it"),
    "empty": (KINDS["empty"], "the next run rebuilds it"),
    "shorter": (KINDS["shorter"], "the next run rebuilds it"),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), "to rebuild it, delete "),
    "no footer": (lambda path: path.write_bytes(path.read_bytes()[:-8] + bytes(8)), "to rebuild it, delete "),
}


@pytest.mark.parametrize("kind", READER_DAMAGE)
@pytest.mark.parametrize("file", ["embed/*/samples", "graph/*/neighbors", "select/*/decisions"])
def test_readers_report_damage_and_write_nothing(finished, capsys, kind, file):
    config, root, before = finished
    stage, _, name = file.split("/")
    (position,) = pq.read_table(root / "out" / "run" / "00000000.parquet")["uid"].to_pylist()[:1]
    path = min(root.glob(f"work/{stage}/units/*/{name}.parquet"))
    damage, remedy = READER_DAMAGE[kind]
    damage(path)
    damaged = artifacts_of(root)
    assert main(["explain", config.work_dir, position]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("d2prune:")]
    assert len(lines) == 1 and str(path) in lines[0] and remedy in lines[0]
    assert artifacts_of(root) == damaged
    if remedy.endswith("delete "):
        receipt = lines[0].partition(remedy)[2].partition(" and start the run again")[0]
        Path(receipt).unlink()
    run(config, InProcess())
    assert artifacts_of(root) == before


@pytest.mark.parametrize("folder", ["embed/units/x", "graph", "report/x", "runs", "."])
def test_the_next_run_removes_temporary_files_of_killed_ones(finished, folder):
    config, root, before = finished
    for place in (root / "work" / folder, root / "out" / "run" / ".lease"):
        place.mkdir(parents=True, exist_ok=True)
        (place / f".tmp-d2prune-{DEAD}-1f").write_bytes(b"half")
    live = root / "work" / folder / f"{Path(local_disk.name_temporary(''))}"
    live.write_bytes(b"half")
    run(config, InProcess())
    assert live.exists()
    live.unlink()
    assert artifacts_of(root) == before
    assert not (root / "out" / "run" / ".lease").exists()


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a": 1}'])
def test_damaged_bookkeeping_is_ignored_and_rebuilt(finish, grow, place, data):
    finish(2)
    before = artifacts_of(place)
    names = ("manifest.json", "receipt.json", "sources.json", "latest.json")
    paths = [path for path in [*place.glob("work/**/*.json"), *place.glob("out/**/*.json")]]
    paths = [path for path in paths if path.name in names or path.parent.name == "runs"]
    assert len(paths) > 12
    for path in paths:
        path.write_bytes(data)
    run(grow(2), InProcess())
    assert artifacts_of(place) == before


def test_damaged_manifests_of_other_artifacts_do_not_stop_a_run(finish, grow, place, configure, caplog):
    finish(2)
    config = grow(2)
    damaged = [*place.glob("work/*/*/manifest.json")]
    for path in damaged:
        path.write_bytes(b"")
    run(configure(embed__batch_size=8, input=config.input, output=config.output), InProcess())
    assert len(damaged) == 5 and all(str(path) in caplog.text for path in damaged)


def test_a_damaged_lease_record_is_taken_over_when_it_expires(finished, caplog):
    config, root, before = finished
    folder = root / "work" / lease.FOLDER
    for data in (b"", b"[]", b'{"token": 1}', bytes(200)):
        (record,) = folder.glob("*.json")
        record.write_bytes(data)
        os.utime(record, (time.time() - 50 * lease.TTL_S,) * 2)
        caplog.clear()
        run(config, InProcess())
        assert f"{record}: damaged lease record" in caplog.text
        assert artifacts_of(root) == before and not record.exists()
