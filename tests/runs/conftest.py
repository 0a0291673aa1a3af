"""A pool that grows between scheduled runs, and finished runs to spoil, which are made only once."""

import shutil

import pytest

from d2prune.execution import InProcess
from d2prune.runs.driver import run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def copies():
    """Numbers of shards of consecutive runs -> a copy of what they wrote."""
    return {}


@pytest.fixture
def place(base):
    """An empty folder at the same path in every test, since artifacts name their files by path."""
    for name in ("root", "pool"):
        shutil.rmtree(base / name, ignore_errors=True)
        (base / name).mkdir()
    return base / "root"


@pytest.fixture
def settings(settings, place):
    return settings | {"work_dir": str(place / "work"), "output": str(place / "output")}


@pytest.fixture
def grow(configure, pool, place):
    """Returns a function that adds shards to an input folder and returns the configuration."""
    folder = place.with_name("pool")

    def _grow(shards: int):
        for path in sorted(pool.glob("*.tar"))[:shards]:
            shutil.copy2(path, folder)
        return configure(input=str(folder), output=f"{place}/out/{{run_id}}")

    return _grow


@pytest.fixture
def finish(grow, place, copies):
    """Returns a function that leaves one finished run for each number of shards; the first use makes them."""

    def _finish(*numbers: int) -> None:
        for shards in numbers:
            config = grow(shards)
            if numbers not in copies:
                run(config, InProcess())
        if numbers in copies:
            shutil.copytree(copies[numbers], place, dirs_exist_ok=True)
        else:
            copies[numbers] = place.with_name("copy-" + "-".join(map(str, numbers)))
            shutil.copytree(place, copies[numbers])

    return _finish
