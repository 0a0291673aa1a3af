"""Compiled kernels on disk: which changes find them, which compile again, and which files are trusted."""

import importlib.util
import logging
import os
import stat
import sys

import numpy as np
import pytest
from numba.core.registry import cpu_target

from d2prune.compiled import cache
from d2prune.compiled.decorator import kernel

CONSTANTS = "STEP = 3\n\n\ndef describe():\n    return 1\n"
CALLEE = """from d2prune.compiled.decorator import kernel
from {constants} import STEP

@kernel
def add_step(value):
    return value + STEP
"""
CALLER = """from d2prune.compiled.decorator import kernel
from {callee} import add_step

FACTOR = 2

@kernel
def twice(value):
    return FACTOR * add_step(value) + _late(value)

@kernel
def _late(value):
    return 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache that this test alone uses."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    forget = cache._writable_folder.cache_clear
    forget()
    cache._announced.clear()
    yield tmp_path / "cache" / "d2prune"
    forget()


def load(place, constants=CONSTANTS, callee=CALLEE, caller=CALLER):
    """Import the three files from a folder, as a new process would; returns the kernel `twice`."""
    names = {"constants": "cache_test_a", "callee": "cache_test_b"}
    place.mkdir(exist_ok=True)
    sources = (constants, callee.format(**names), caller.format(**names))
    try:
        for name, source in zip((*names.values(), "cache_test_c"), sources, strict=True):
            path = place / f"{name}.py"
            path.write_text(source)
            spec = importlib.util.spec_from_file_location(name, path)
            # Without Python's own cache, which goes by time and size of a file.
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            exec(compile(source, path, "exec"), vars(module))
        return module.twice
    finally:
        for name in (*names.values(), "cache_test_c"):
            sys.modules.pop(name, None)


def compiled(kernel, argument=10):
    """Call a kernel; returns its result and whether it was compiled for that."""
    result = kernel(argument)
    return result, bool(sum(kernel.stats.cache_misses.values()))


def test_another_copy_of_the_source_finds_the_kernels(folder, tmp_path):
    assert compiled(load(tmp_path / "one")) == (26, True)
    os.utime(tmp_path / "one", (0, 0))
    assert compiled(load(tmp_path / "two")) == (26, False)
    assert {path.suffix for path in folder.iterdir()} == {".kernel"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("changed", "result", "again"),
    [
        ({"constants": CONSTANTS.replace("3", "4")}, 28, True),
        ({"callee": CALLEE.replace("value + STEP", "value - STEP")}, 14, True),
        ({"callee": CALLEE.replace("@kernel", "@kernel(error_model='numpy')")}, 26, True),
        ({"caller": CALLER.replace("FACTOR = 2", "FACTOR = 5")}, 65, True),
        ({"caller": CALLER.replace("return 0", "return 1")}, 27, True),
        ({"constants": CONSTANTS.replace("return 1", "return 2")}, 26, False),
        ({"caller": "# A comment.\n\n" + CALLER}, 26, False),
    ],
    ids=["constant", "callee", "options", "own-constant", "later-callee", "unrelated", "moved"],
)
def test_what_decides_the_machine_code_compiles_again(folder, tmp_path, changed, result, again):
    assert compiled(load(tmp_path / "one")) == (26, True)
    assert compiled(load(tmp_path / "two", **changed)) == (result, again)


def test_each_type_of_argument_has_its_file(folder, tmp_path):
    kernel = load(tmp_path / "one")
    assert compiled(kernel, 10)[0] == 26 and compiled(kernel, 0.5)[0] == 7.0
    again = load(tmp_path / "one")
    assert compiled(again, 0.5) == (7.0, False) and compiled(again, 10) == (26, False)


def test_a_source_that_is_edited_while_the_process_runs_does_not_enter_the_cache(folder, tmp_path):
    kernel = load(tmp_path / "one")
    (tmp_path / "one" / "cache_test_c.py").write_text(CALLER.replace("FACTOR = 2", "FACTOR = 5"))
    assert compiled(kernel) == (26, True)
    edited = {"caller": CALLER.replace("FACTOR = 2", "FACTOR = 5")}
    assert compiled(load(tmp_path / "two", **edited)) == (65, True)


def test_damaged_files_are_not_read(tmp_path):
    """Cut at any byte, by a power cut, or with any byte changed."""
    path = tmp_path / "file"
    cache._write(path, b"machine code")
    content = path.read_bytes()
    assert cache._read_trusted(path) == b"machine code"
    for at in range(len(content)):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]):
            path.write_bytes(damaged)
            assert cache._read_trusted(path) is None


def test_a_damaged_file_is_compiled_again_and_replaced(folder, tmp_path):
    compiled(load(tmp_path / "one"))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert compiled(load(tmp_path / "one")) == (26, True)
    assert compiled(load(tmp_path / "one")) == (26, False)


@pytest.mark.parametrize("fault", ["group", "others", "link", "folder", "owner"])
def test_a_file_that_another_user_could_have_written_is_not_read(folder, tmp_path, monkeypatch, fault):
    compiled(load(tmp_path / "one"))
    for path in list(folder.iterdir()):
        if fault in ("group", "others"):
            path.chmod(0o620 if fault == "group" else 0o602)
        elif fault == "link":
            path.rename(tmp_path / path.name)
            path.symlink_to(tmp_path / path.name)
        elif fault == "folder":
            path.unlink()
            path.mkdir()
    if fault == "owner":
        monkeypatch.setattr(cache, "_trusted_owners", lambda: frozenset({os.getuid() + 1}))
    monkeypatch.setattr(cache.pickle, "loads", lambda data: pytest.fail("unpickled"))
    assert compiled(load(tmp_path / "one")) == (26, True)


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_to_is_not_used(folder, tmp_path, mode):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert compiled(load(tmp_path / "one")) == (26, True)
    assert not list(folder.iterdir())
    assert (tmp_path / "home" / "d2prune" / "kernels").is_dir()


def test_a_folder_that_cannot_be_written_is_read(folder, tmp_path, monkeypatch):
    """The kernels of an image, whose root file system is read-only."""
    compiled(load(tmp_path / "one"))
    monkeypatch.setattr(cache, "_writable_folder", lambda: None)
    assert compiled(load(tmp_path / "two")) == (26, False)
    assert compiled(load(tmp_path / "two"), 0.5) == (7.0, True)


def test_no_folder_can_be_written(folder, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cache, "folders", lambda: [tmp_path / "file" / "below"])
    monkeypatch.setattr(logging.getLogger(cache.__name__), "disabled", False)
    for place in ("one", "two"):
        assert compiled(load(tmp_path / place)) == (26, True)
    assert [line for line in caplog.messages if "NUMBA_CACHE_DIR" in line] == [
        "kernels are compiled by every process: found no folder to keep them in; set NUMBA_CACHE_DIR"
    ]


def test_one_line_says_that_the_first_call_compiles(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger(cache.__name__), "disabled", False)
    compiled(load(tmp_path / "one"))
    assert caplog.messages == [cache.NOTICE % folder]
    caplog.clear()
    cache._announced.clear()
    compiled(load(tmp_path / "one"))
    assert not caplog.messages


def test_files_of_old_versions_are_removed(folder, tmp_path):
    compiled(load(tmp_path / "one"))
    old, new = folder / "old.kernel", folder / "new.kernel"
    for path in (old, new, folder / "x.unfinished", folder / "other"):
        path.write_text("")
        os.utime(path, (0, 0))
    os.utime(new)
    cache._writable_folder.cache_clear()
    cache._writable_folder()
    left = {path.name for path in folder.iterdir()}
    assert {"new.kernel", "other"} <= left and not {"old.kernel", "x.unfinished"} & left


def test_constants_of_every_kind_are_told_apart():
    values = [0, 0.0, -0.0, False, None, "0", b"0", (0,), (0, 1), frozenset({0, 1}), np.int32(0), np.uint8(0)]
    values += [np.zeros(2), np.zeros((2, 1)), np.zeros(2, np.float32), np.ones(2), 1 << 62, {"a": 1}]
    assert len({cache._describe(value) for value in values}) == len(values)


@kernel
def _dot(a):
    return np.dot(a, a)


@kernel
def _total(a):
    return a.sum()


@pytest.mark.parametrize(("function", "registers"), [(_dot, True), (_total, False)])
def test_numba_registers_its_functions_only_for_machine_code_that_calls_them(
    folder, monkeypatch, function, registers
):
    assert function(np.ones(3)) == 3
    called = []
    monkeypatch.setattr(cpu_target.target_context, "refresh", lambda: called.append(True))
    signature = function.signatures[0]
    function._cache.save_overload(signature, function.overloads[signature])
    assert function._cache.load_overload(signature, cpu_target.target_context) is not None
    assert bool(called) == registers
