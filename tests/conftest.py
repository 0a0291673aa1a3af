"""Fixtures of many tests: a tiny CLIP with random weights, a small pool, and a configuration."""

import json
import logging
import os

import pytest
import yaml

from d2prune.config.model import RunConfig
from d2prune.embed.model import names
from tests.pools import write_pool

# Ray lowers the priority of its workers (nice 15); beside other test processes they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

# The slowest files run first, so that no test process is left with one of them at the end.
_FIRST = (
    "jobs/test_submit.py",
    "integration/test_kill.py",
    "docs/test_commands.py",
    "integration/test_run.py",
    "graph/test_stage.py",
    "embed/test_decode_remote.py",
    "embed/test_compile.py",
)


def pytest_collection_modifyitems(items):
    """Run the slowest files first."""
    items.sort(key=lambda item: not str(item.path).endswith(_FIRST))


CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with `tiny-clip.json` and `weights.safetensors`."""
    import safetensors.torch

    open_clip = names.import_open_clip()
    import torch

    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny-clip.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    safetensors.torch.save_file(
        open_clip.create_model("tiny-clip").state_dict(), folder / "weights.safetensors"
    )
    return folder


@pytest.fixture(autouse=True)
def _log_handlers_as_before():
    """Restore the log handlers: the command line logs to a stream that pytest closes."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    return write_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def settings(pool, tiny_model, tmp_path):
    """Plain values of a configuration, to be changed before `RunConfig.parse`."""
    return {
        "input": str(pool),
        "work_dir": str(tmp_path / "work"),
        "output": str(tmp_path / "output"),
        "embed": {"model": str(tiny_model), "batch_size": 16},
        "graph": {"n_neighbors": 4},
        "select": {"fraction": 0.3},
        "write": {"samples_per_shard": 10},
        "report": {"gallery": 4},
    }


@pytest.fixture
def configure(settings):
    """Returns a function that makes a configuration, with changes as `section__key=value`."""

    def _configure(**changes: object) -> RunConfig:
        values = {name: dict(value) if isinstance(value, dict) else value for name, value in settings.items()}
        for name, value in changes.items():
            section, _, key = name.partition("__")
            if key:
                values.setdefault(section, {})[key] = value
            else:
                values[name] = value
        return RunConfig.parse(values, "test")

    return _configure


@pytest.fixture
def config_file(settings, tmp_path):
    """The configuration as a file, for the command line."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
