"""Damaged artifacts and bookkeeping: the next run rebuilds them, and ends with the same bytes."""

import logging
from pathlib import Path

import pytest

from d2prune.cli.main import main
from d2prune.errors import InfrastructureError
from d2prune.execution import InProcess
from d2prune.runs.driver import run
from d2prune.store import lease
from tests.pools import tree

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


def test_a_changed_file_of_the_same_size_is_rebuilt_by_the_run_after_the_one_that_finds_it(
    finish, grow, place, configure
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
        changed = configure(**same, **changes[pattern])
        with pytest.raises(InfrastructureError, match=f"{path}: .*the same run again rebuilds the unit"):
            run(changed, InProcess())
        run(changed, InProcess())
        assert path.read_bytes() == before[path.relative_to(place / "work").as_posix()]


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


@pytest.mark.parametrize("data", ["", "[]", '{"token": 1}'])
def test_a_damaged_lease_record_is_one_line(config_file, settings, capsys, data):
    folder = Path(settings["work_dir"], lease.FOLDER)
    folder.mkdir(parents=True)
    (folder / "00000007.json").write_text(data)
    assert main(["run", "--config", str(config_file), "--no-ray"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("d2prune:")]
    assert len(lines) == 1 and f"{folder}/00000007.json: damaged lease record" in lines[0]
