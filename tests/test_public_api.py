"""The public API: every name can be imported, quickly, and no submodule hides it."""

import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import d2prune
from d2prune.runs import driver

HEAVY = {"torch", "ray", "numba", "pyarrow", "faiss", "pydantic"}
NOT_LOADED = {
    "d2prune": HEAVY,
    "d2prune.cli.main": HEAVY,
    # What plans, lists and prunes runs, and every worker but those that embed and search.
    "d2prune.runs.driver": {"torch", "ray", "open_clip", "torchvision", "transformers", "numba", "jinja2"},
    # Decode processes: one per core.
    "d2prune.embed.decode.decoder": HEAVY,
}


@pytest.mark.parametrize("module", NOT_LOADED)
def test_import_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not NOT_LOADED[module] & set(done.stdout.split())


def test_public_names_are_what_they_say():
    assert d2prune.run is driver.run
    assert sorted(d2prune.__all__) == d2prune.__all__
    modules = [name for name in d2prune.__all__ if isinstance(getattr(d2prune, name), ModuleType)]
    assert modules == ["scores"]


def test_no_submodule_hides_a_public_name():
    """Importing `d2prune.run`, for example, would replace the function `run` with a module."""
    submodules = {module.name for module in pkgutil.iter_modules(d2prune.__path__)}
    assert submodules & set(d2prune.__all__) == {"scores"}


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = d2prune.nothing


def test_package_is_typed():
    assert Path(d2prune.__file__).with_name("py.typed").is_file()
