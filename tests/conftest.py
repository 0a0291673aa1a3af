"""Shared fixtures: a tiny CLIP with random weights, a small pool, a run over it, and one Ray session."""

import copy
import json
import logging
import os
import re
import subprocess
import types

import hypothesis
import pytest
import yaml

from d2prune.config.model import RunConfig
from d2prune.embed.decode import pool as decode_pool
from d2prune.embed.model import sources
from d2prune.execution import OnRay
from tests import fuzzing
from tests.decode_forks import ForkedProcess
from tests.pools import write_pool

# Ray's workers are niced by 15; beside the other test processes of a small machine they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

# Loaded here, because settings of a test are taken from the profile when its file is imported.
# Without what depends on how busy the machine is.
hypothesis.settings.register_profile(
    "d2prune", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("d2prune")

# Files that take longest, so that no process is left alone with one at the end.
_FIRST = (
    "jobs/test_submit.py",
    "explore/test_page.py",
    "embed/decode/test_remote.py",
    "graph/test_build.py",
    "embed/model/test_compile.py",
    "graph/test_increment.py",
    "docs/test_commands.py",
    "runs/test_pruning_foreign.py",
    "runs/test_damage.py",
    "index/test_build.py",
    "tools/test_bundled_model.py",
    "output/test_executable.py",
    "graph/test_latest.py",
    "embed/test_worker.py",
)


# A test that is the first to call a kernel would log that it compiles.
logging.getLogger("d2prune.compiled.cache").disabled = True


def pytest_configure(config):
    config.addinivalue_line("markers", "fuzz: random inputs; `make fuzz` runs these for a chosen time")


def pytest_collection_modifyitems(items):
    """Mark what `make quick` leaves out, and start with the longest files."""
    for item in items:
        if _shares_ray(item.nodeid):
            item.add_marker(pytest.mark.ray)
        elif "ray_executor" in item.fixturenames:
            raise pytest.UsageError(f"{item.nodeid}: uses ray_executor, so its name must contain `on_ray`")
        if any("chromium" in mark.kwargs.get("reason", "") for mark in item.iter_markers("skipif")):
            item.add_marker(pytest.mark.browser)
    if most := os.environ.get(fuzzing.EXAMPLES_VARIABLE):
        for test in {getattr(item, "function", None) for item in items}:
            fuzzing.limit_examples(test, int(most))
    items.sort(key=_rank_by_length)
    fuzzing.tests_in_session = max(1, sum(item.get_closest_marker("fuzz") is not None for item in items))


def _shares_ray(nodeid):
    """Whether a test runs on the test session's Ray: by its name, as xdist's scheduler knows nothing else."""
    return re.search(r"_on_ray|\[ray[-\]]", nodeid) is not None


def _rank_by_length(item):
    """Ray first, then the longest files, longest first."""
    if item.get_closest_marker("ray") is not None:
        return 0
    ranks = (rank for rank, name in enumerate(_FIRST, 1) if str(item.path).endswith(name))
    return next(ranks, len(_FIRST) + 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files side by side; tests that share the Ray session are one group, in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "ray" if _shares_ray(nodeid) else nodeid.partition("::")[0]

    return ByFile(config, log)


SYNC = os.fsync


@pytest.fixture(scope="session", autouse=True)
def _no_waits_for_the_disk():
    """A run syncs 180 times, a millisecond each. Tests in tests/store do sync; see also `tests.power_cut`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _forked_decode_processes():
    """Start decode processes as forks of one, see `tests.decode_forks`."""
    forked = types.SimpleNamespace(Popen=ForkedProcess, DEVNULL=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_pool, "subprocess", forked)
        yield


@pytest.fixture
def decode_program(monkeypatch):
    """Start decode processes as users do, as programs."""
    monkeypatch.setattr(decode_pool, "subprocess", subprocess)


@pytest.fixture(scope="session")
def ray_executor():
    """One Ray session of two cores for all tests that leave it standing; they may kill workers in it."""
    executor = OnRay(num_cpus=2)
    yield executor
    executor.close()


CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with `tiny-clip.json` and `weights.safetensors`."""
    import safetensors.torch

    open_clip = sources.import_open_clip()
    import torch

    _parse_vocabulary_once(open_clip)
    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny-clip.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    safetensors.torch.save_file(
        open_clip.create_model("tiny-clip").state_dict(), folder / "weights.safetensors"
    )
    return folder


def _parse_vocabulary_once(open_clip):
    """Every run loads CLIP's tokenizer, which takes 0.2 s. Each gets a copy of one, with its own cache."""
    load, kept = open_clip.get_tokenizer, {}

    def copy_tokenizer(name, *args, **kwargs):
        tokenizer = kept.get(name) or load(name, *args, **kwargs)
        if not isinstance(tokenizer, open_clip.SimpleTokenizer) or args or kwargs:
            return tokenizer
        copied = copy.copy(kept.setdefault(name, tokenizer))
        copied.cache = dict(tokenizer.cache)
        return copied

    open_clip.get_tokenizer = copy_tokenizer


@pytest.fixture(autouse=True)
def _log_handlers_as_before():
    """The command line points logging at a stream that pytest closes."""
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
    """Plain values of a run's configuration; change them before `RunConfig.parse`."""
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
    """The configuration, with `section__key=value` changes."""

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
    """The same as a file, for the command line."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
