"""One finished run with hostile captions, shared by the tests of this folder; they must not write to it."""

import json
import tarfile

import pytest

from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
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
