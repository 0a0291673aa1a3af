"""Recognise errors that mean "out of memory": each library raises its own."""

import errno
import re
from collections.abc import Iterator

# Of a RuntimeError of torch, an OSError of the loader, or an ImportError of a library that could not
# be mapped under a limit (`ulimit -v`, RLIMIT_AS).
_WORDS = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|failed to map segment|bad_alloc"
    r"|can't start new thread|unable to allocate",
    re.IGNORECASE,
)
_TYPES = (RuntimeError, OSError, ImportError, SystemError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a failed allocation."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or (isinstance(cause, _TYPES) and _WORDS.search(str(cause)) is not None)
        for cause in _list_causes(error)
    )


def describe(error: BaseException) -> str:
    """Return one line: what failed, and what helps."""
    # An error of a Ray worker holds its whole traceback, one of torch a stack of C++ functions.
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    detail = next((line for line in lines if _WORDS.search(line)), "".join(lines[-1:]))
    text = f" ({detail[:200]})" if detail else ""
    return (
        f"out of memory{text}; use fewer workers, a smaller embed.batch_size or a larger machine; "
        "the same command resumes"
    )


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
