"""Compiled kernels on disk: found by every process of a user, whichever copy of the source it runs.

numba's own cache is in the folder of the source file, so each unpacked copy of the package (a job's
upload, a worktree, an image) compiles everything again, for about a minute. It checks the file of the
function alone, and two processes that compile at the same moment may overwrite each other's files.
Here a file holds one compiled signature, and its name is a hash of all that decides its content: the
code of the function and of the kernels it calls, the constants they use, the signature, the CPU, and
the versions of Python, numba and numpy.

These files are pickles, so they are stored in folders that no other user can write to, and a file is
read only if it belongs to the user, to root or to the owner of this program (docs/security.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import numba
import numpy as np
from numba.core import caching, compiler, serialize
from numba.core.runtime import rtsys

log = logging.getLogger(__name__)

NOTICE = "compiling kernels for this CPU, once, which takes up to a minute; later starts find them in %s"

_KEEP_S = 90 * 24 * 3600.0
"""Files that were written earlier than this are removed: of old versions, or compiled again in a second."""

_REGISTERED_SYMBOLS = (b"numba_xx", b"numba_ez_", b"numba_raw_", b"_numba_hashsecret", b"numba_parallel_for")
"""What machine code can call only once numba has registered it: BLAS, LAPACK, hashes of text, `prange`."""

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), type(...), np.generic)


def folders() -> list[Path]:
    """Folders that may hold compiled kernels, in the order in which they are tried."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    found = [Path(given) / "d2prune"] if given else []
    with contextlib.suppress(RuntimeError):  # This user has no home folder.
        user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        found.append(Path(user) / "d2prune" / "kernels")
    return [*(folder for folder in found if folder.is_absolute()), Path(__file__).parent / "__pycache__"]


class KernelCache(caching._Cache):  # type: ignore[misc]
    """Cache of one function's compiled signatures; what `Dispatcher.compile` asks before it compiles."""

    def __init__(self, dispatcher: Any, options: Mapping[str, Any]) -> None:
        """Read and write nothing yet; `options` are those of the decorator: numba changes its copy."""
        self.options = dict(options)
        self._dispatcher, self._function = dispatcher, dispatcher.py_func

    @property
    def cache_path(self) -> str:
        """Folder that new files go to."""
        return str(_writable_folder() or "")

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Load the compiled signature; None if there is none, or none that can be trusted and read."""
        # `target.refresh()`, which numba's own cache calls, also registers all that can be compiled: 0.3 s.
        rtsys.initialize(target)
        key = self._key(signature, target.codegen())
        for folder in folders():
            data = _read_trusted(folder / self._name(key))
            if data is None:
                continue
            found, payload = pickle.loads(data)
            if found == key:
                if any(symbol in data for symbol in _REGISTERED_SYMBOLS):
                    target.refresh()
                return compiler.CompileResult._rebuild(target, *payload)
        _announce()
        return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Store a compiled signature, if there is a folder to store it in."""
        folder = _writable_folder()
        # What holds the address of an object is of no use to another process.
        bound = compiled.library.has_dynamic_globals or compiled.lifted or " at 0x" in str(signature)
        if folder is None or bound:
            return
        key = self._key(signature, compiled.codegen)
        with contextlib.suppress(OSError):
            _write(folder / self._name(key), serialize.dumps((key, compiled._reduce())))

    def enable(self) -> None:
        """Do nothing: the cache is always enabled."""

    def disable(self) -> None:
        """Do nothing: the cache is always enabled."""

    def flush(self) -> None:
        """Do nothing: files of other sources have other names."""

    @cached_property
    def _stamp(self) -> str:
        # Computed at the first call, when the functions that the file defines further down exist.
        return stamp(self._dispatcher)

    def _key(self, signature: Any, codegen: Any) -> tuple[str, ...]:
        versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.implementation.cache_tag)
        return (str(signature), repr(codegen.magic_tuple()), self._stamp, *map(str, versions))

    def _name(self, key: tuple[str, ...]) -> str:
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        return f"{self._function.__module__}.{self._function.__qualname__}-{digest[:32]}.kernel"


def stamp(function: Any) -> str:
    """Hash everything in the program that decides a function's machine code.

    That is the bytecode and the options of the function and of all kernels and intrinsics it calls,
    directly or through others, and the values of the global constants they use. It is what was
    imported: sources that are edited while a process runs do not enter what the process stores.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        current = waiting.pop(0)
        options = getattr(getattr(current, "_cache", None), "options", None)
        current = getattr(current, "py_func", None) or getattr(current, "_defn", None) or current
        if id(current) in seen:
            continue
        seen.add(id(current))
        cells = [cell.cell_contents for cell in current.__closure__ or ()]
        described = (_describe(current.__code__), _describe((options, current.__defaults__, cells)))
        digest.update(repr((current.__qualname__, *described)).encode())
        for name, value in _list_globals(current):
            if _is_compiled(value, current):
                waiting.append(value)
            else:
                digest.update(f"{name}={_describe(value)};".encode())
    return digest.hexdigest()


def _list_globals(function: Any) -> list[tuple[str, Any]]:
    """The globals of a function by name, and what it may use of the modules among them."""
    names = sorted(_list_names(function.__code__))
    found = [(name, function.__globals__[name]) for name in names if name in function.__globals__]
    modules = [value for _, value in found if isinstance(value, ModuleType) and _is_ours(value, function)]
    return found + [
        (name, vars(module)[name]) for module in modules for name in names if name in vars(module)
    ]


def _list_names(code: CodeType) -> set[str]:
    nested = (_list_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*nested)


def _is_compiled(value: Any, caller: Any) -> bool:
    """Whether a global is part of the machine code, or of what generates it."""
    if hasattr(value, "py_func") or hasattr(value, "_defn"):
        return True
    return isinstance(value, FunctionType) and _is_ours(value, caller)


def _is_ours(value: Any, caller: Any) -> bool:
    module = value.__name__ if isinstance(value, ModuleType) else value.__module__
    return bool(str(module).partition(".")[0] == caller.__module__.partition(".")[0])


def _describe(value: Any) -> str:
    """A text that is the same for equal values in every process; the type alone of what is no constant."""
    if isinstance(value, CodeType):
        parts = (value.co_code, value.co_exceptiontable, value.co_consts, value.co_names, value.co_varnames)
        counts = (value.co_freevars, value.co_argcount, value.co_kwonlyargcount, value.co_flags)
        return _describe((*parts, *counts))
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_describe, value))})"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_describe, value)))}}}"
    if isinstance(value, dict):
        return _describe([*value.items()])
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}"
    return repr(value) if isinstance(value, _CONSTANTS) else type(value).__qualname__


@cache
def _trusted_owners() -> frozenset[int]:
    """Users whose files may be unpickled: who owns this program can run code in it anyway."""
    return frozenset({os.getuid(), 0, os.stat(__file__).st_uid}) if hasattr(os, "getuid") else frozenset()


def _is_trusted(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or (
        status.st_uid in _trusted_owners() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _read_trusted(path: Path) -> bytes | None:
    """Read a file of `_write`; None if there is none, it is damaged, or others could have written it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not _is_trusted(status):
                return None
            checksum, data = file.read(hashlib.sha256().digest_size), file.read()
            return data if hashlib.sha256(data).digest() == checksum else None
    except OSError:
        return None


@cache
def _writable_folder() -> Path | None:
    """The first folder that this process can write to and no other user can; it is created."""
    for folder in folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_trusted(folder.stat()):
                with tempfile.TemporaryFile(dir=folder):
                    pass
                _remove_old(folder)
                return folder
    log.warning("kernels are compiled by every process: found no folder to keep them in; set NUMBA_CACHE_DIR")
    return None


def _remove_old(folder: Path) -> None:
    """Remove kernels of versions that are long gone, and what killed processes left behind."""
    limit = time.time() - _KEEP_S
    for entry in os.scandir(folder):
        if entry.name.endswith((".kernel", ".unfinished")):
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < limit:
                    os.unlink(entry.path)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[int, str]]:
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".unfinished")
    try:
        yield descriptor, name
    except BaseException:
        os.unlink(name)
        raise


def _write(path: Path, data: bytes) -> None:
    """Write a file in one step; of several writers the last wins, and all write the same machine code."""
    with _temporary(path.parent) as (descriptor, name):
        with open(descriptor, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
        os.replace(name, path)


_announced = threading.Event()


def _announce() -> None:
    """Say once in a process that it compiles: the first call takes long."""
    if not _announced.is_set():
        _announced.set()
        log.warning(NOTICE, _writable_folder() or "memory")
