"""The entry point: errors, signals and pipes become one line and an exit code."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from d2prune import errors
from d2prune.cli import getting_started
from d2prune.cli.main import main


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UserError, 2),
        (errors.BusyError, 3),
        (errors.BooksError, 1),
        (errors.InfrastructureError, 1),
    ],
)
def test_error_is_one_line_with_its_exit_code(monkeypatch, capsys, error, code):
    def fail(arguments):
        raise error("what went wrong")

    monkeypatch.setattr(getting_started, "_models", fail)
    assert main(["models"]) == code
    assert capsys.readouterr().err == "d2prune: what went wrong\n"


def test_defect_shows_its_traceback(monkeypatch):
    monkeypatch.setattr(getting_started, "_models", lambda arguments: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


def test_sigterm_interrupts_like_ctrl_c(monkeypatch, capsys):
    monkeypatch.setattr(getting_started, "_models", lambda arguments: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "d2prune: interrupted; the same command resumes\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("lines", [1, 100_000], ids=["found at the end", "found while printing"])
def test_closed_pipe_ends_without_a_traceback(lines):
    # The command that prints the names of models, without the import that finds them.
    code = (
        "import sys; from d2prune.cli import getting_started, main\n"
        f"getting_started._models = lambda arguments: print('name\\n' * {lines}) or 0\n"
        "sys.exit(main.main(['models']))"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE and "Traceback" not in done.stderr


def _allocate_with_numpy():
    import numpy as np

    np.empty(2**60, np.uint8)


def _allocate_with_torch():
    import torch

    torch.empty(2**60, dtype=torch.uint8)


def _allocate_with_pyarrow():
    import pyarrow as pa

    pa.allocate_buffer(2**62)


def _allocate_with_mmap():
    import mmap

    mmap.mmap(-1, 2**60)


def _raise(error):
    def fail():
        raise error

    return fail


def _raise_from_worker():
    try:
        raise MemoryError
    except MemoryError as error:
        raise RuntimeError("ray::Worker\n  a traceback\nMemoryError") from error


@pytest.mark.parametrize(
    "allocate",
    [
        _allocate_with_numpy,
        _allocate_with_torch,
        _allocate_with_pyarrow,
        _allocate_with_mmap,
        _raise_from_worker,
        _raise(MemoryError()),
        _raise(OSError(errno.ENOMEM, "Cannot allocate memory")),
        _raise(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB\nstack of C++")),
        _raise(RuntimeError("can't start new thread")),
        _raise(ImportError("libtorch_cpu.so: failed to map segment from shared object")),
        _raise(RuntimeError("std::bad_alloc")),
    ],
)
def test_out_of_memory_is_one_line(monkeypatch, capsys, allocate):
    monkeypatch.setattr(getting_started, "_models", lambda arguments: allocate())
    assert main(["models"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("d2prune: out of memory") and shown.count("\n") == 1
    assert "the same command resumes" in shown
