"""One finished run with hostile captions, shared by the tests of this folder; they must not write to it."""

import json
import shutil
import tarfile
import threading

import pytest

from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.explore.api import Explorer
from d2prune.explore.server import Server
from d2prune.runs.driver import run
from d2prune.runs.finished import open_run
from tests.pools import add, draw, write_pool

HOSTILE = {
    "html": "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "rtl": "\u202egpj.exe \u05e9\u05dc\u05d5\u05dd \u2066isolated\u2069",
    "long": "word" * 2500,
    "escape": "\x1b[31mred\x1b[0m\x07 bell",
    "quote": "\"'><b>&amp;{{ 7 * 7 }}${1}",
}
SAME = "a" * 32


def _write(folder):
    """The usual pool, and a shard with hostile captions, two equal uids and a sample without a caption."""
    write_pool(folder, shards=3)
    with tarfile.open(folder / "00000003.tar", "w") as tar:
        for index, (name, caption) in enumerate(
            [*HOSTILE.items(), ("same1", "a red circle"), ("same2", "a red bar")]
        ):
            add(tar, f"{name}.jpg", draw("circle", "red", index))
            add(tar, f"{name}.txt", caption.encode())
            record = {"uid": SAME if name.startswith("same") else f"{index:032x}"}
            add(tar, f"{name}.json", json.dumps(record).encode())
        add(tar, "mute.jpg", draw("bar", "blue", 99))
    return folder


@pytest.fixture(scope="session")
def finished_config(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("explore")
    return RunConfig.parse(
        {
            "input": str(_write(folder / "pool")),
            "work_dir": str(folder / "work"),
            "output": str(folder / "output"),
            "embed": {"model": str(tiny_model), "batch_size": 16},
            "graph": {"n_neighbors": 4},
            "select": {"fraction": 0.3, "gamma_reverse": 0.5},
            "report": {"gallery": 8},
        },
        "test",
    )


@pytest.fixture(scope="session")
def finished_result(finished_config):
    return run(finished_config, InProcess())


@pytest.fixture(scope="session")
def finished(finished_config, finished_result):
    return open_run(finished_config.work_dir)


@pytest.fixture(scope="session")
def several(finished_config, finished_result, tmp_path_factory):
    """A copy of the run's work_dir with two more selections: another gamma, and a part of the pool.

    The two stopped after `select`, so they have no id of a run. Returns the work_dir and the names
    `first`, `gamma` and `part` with the fingerprints of their selections.
    """
    work = tmp_path_factory.mktemp("several") / "work"
    shutil.copytree(finished_config.work_dir, work)
    # A run checks its output before it starts, also one that stops before it writes.
    elsewhere = {"work_dir": str(work), "output": str(work.with_name("output"))}
    first = finished_config.model_copy(update=elsewhere)
    select = first.select.model_copy(update={"fraction": 0.4, "gamma_reverse": 3.0})
    parts = [f"{first.input}/{shard:08d}.tar" for shard in (1, 3)]
    configs = {
        "gamma": first.model_copy(update={"select": select}),
        "part": first.model_copy(update={"input": parts}),
    }
    found = {"first": finished_result.manifests["select"].fingerprint}
    for name, config in configs.items():
        result = run(config, InProcess(), stop_after="select")
        found[name] = result.manifests["select"].fingerprint
    return str(work), found


@pytest.fixture(scope="session")
def several_server(several):
    work, found = several
    with Server(Explorer(open_run(work, found["first"]))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()
