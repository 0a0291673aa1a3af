"""What the program prints: the one way to standard output, standard error and the log.

Everything that reaches a terminal or a log passes here, and loses its credentials (`redaction`) and
what a terminal would obey instead of show: escape sequences, other control characters, overrides of
the writing direction, invisible characters. Keys, captions, file names and the answers of servers
are chosen by others. A character that the stream's encoding lacks is written as an escape, so no
locale ends a command.

Lines of ours go through `print_line`, errors through `print_error`, log records through the handler
that `redact_logs` installs. `safe_streams` covers what other libraries print, and tracebacks.
"""

import contextlib
import errno
import logging
import os
import re
import sys
import threading
import traceback
import unicodedata
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TextIO

from d2prune.redaction import redact_text

# Joiners are invisible but change how characters of many scripts, and emoji, are drawn.
_JOINERS = "\u200c\u200d"
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
_LINE_CONTROLS = "\n\r\t"
_ORDINARY = re.compile(r"[ -~]*")


class OutputError(OSError):
    """Standard output or error cannot be written: its reader has gone, or the disk is full."""

    def __init__(self, stream: Any, cause: OSError) -> None:
        """Name the stream and the cause."""
        super().__init__(f"{getattr(stream, 'name', 'output')}: cannot be written: {cause.strerror or cause}")
        self._stream = stream
        self.closed = cause.errno == errno.EPIPE

    def discard(self) -> None:
        """Send the stream to /dev/null from now on."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextlib.contextmanager
def _reported(stream: Any) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(stream, error) from error


def printable(text: str, keep: str = "") -> str:
    r"""`text` on one line, with an escape such as `\x1b` or `\u202e` for what is not visible.

    Args:
        text: any text; the characters of every script are kept unchanged.
        keep: characters not to escape.
    """
    if _ORDINARY.fullmatch(text):
        return text
    return "".join(c if c in keep or _is_visible(c) else _escape(c) for c in text)


def _is_visible(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in (
        "Cc",
        "Cf",
        "Cs",
        "Cn",
        "Zl",
        "Zp",
    )


def _escape(character: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return named.get(character) or (
        f"\\x{ord(character):02x}"
        if character < "\x80"
        else character.encode("ascii", "backslashreplace").decode("ascii")
    )


def one_line(text: str) -> str:
    """`text` as it may be shown: without credentials, on one line of visible characters."""
    return printable(redact_text(text))


def format_bytes(amount: float) -> str:
    """Return a number of bytes in the largest unit that it reaches."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:,.0f} {units[0]}" if amount >= 10 or units[0] == "B" else f"{amount:.1f} {units[0]}"


def print_line(text: str = "", flush: bool = False) -> None:
    """Print one line on standard output."""
    _print(sys.stdout, one_line(text), flush)


_program = "d2prune"


def set_program(name: str) -> None:
    """Set the name that errors begin with; `d2prune` unless a script runs a command."""
    global _program
    _program = name


def print_error(text: str) -> None:
    """Print one line, with the program's name, on standard error."""
    _print(sys.stderr, f"{_program}: {one_line(text)}", flush=True)


def _print(stream: TextIO | None, line: str, flush: bool) -> None:
    # Without a standard output (`>&-`), Python has none either.
    if stream is not None:
        with _reported(stream):
            stream.write(_encodable(f"{line}\n", stream))
            if flush:
                stream.flush()


def flush() -> None:
    """Write what standard output still holds.

    Raises:
        OutputError: it cannot be written.
    """
    if sys.stdout is not None:
        with _reported(sys.stdout):
            sys.stdout.flush()


def _encodable(text: str, stream: Any) -> str:
    """`text` with escapes for what the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return text


class SafeStream:
    """A text stream in front of another one; passes on complete lines, made safe to show.

    Newlines, carriage returns and tabs stay, since other libraries draw with them.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`, which the caller keeps and closes."""
        self.inner = stream
        self._pending = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Take text; a line is written when it is complete, as a credential may come in pieces."""
        with self._lock:
            lines, newline, rest = (self._pending + text).rpartition("\n")
            self._pending = rest
            if newline:
                self._pass_on(lines + newline)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Take several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is pending, too: a progress bar has no newline."""
        with self._lock:
            pending, self._pending = self._pending, ""
            if pending:
                self._pass_on(pending)
            with _reported(self.inner):
                self.inner.flush()

    def _pass_on(self, text: str) -> None:
        with _reported(self.inner):
            self.inner.write(_encodable(printable(redact_text(text), _LINE_CONTROLS), self.inner))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def unfiltered(stream: TextIO) -> TextIO:
    """The stream behind a `SafeStream`, for the progress bar, which draws with escape sequences."""
    return stream.inner if isinstance(stream, SafeStream) else stream


def install() -> None:
    """Put safe streams in place of standard output and error, for the rest of this process."""
    sys.stdout, sys.stderr = (
        stream if stream is None or isinstance(stream, SafeStream) else SafeStream(stream)
        for stream in (sys.stdout, sys.stderr)
    )


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """`install` for the length of the block; a traceback that leaves the program is safe afterwards, too."""
    before = sys.stdout, sys.stderr
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_traceback
    install()
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                # A closed pipe was reported where it was noticed.
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
        sys.stdout, sys.stderr = before


def _print_traceback(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, place))
    if sys.stderr is not None:
        sys.stderr.write(_encodable(printable(redact_text(text), _LINE_CONTROLS), sys.stderr))


class _RecordRedactor(logging.Handler):
    """Rewrites each record of this package before the handlers of the application see it.

    Python calls a logger's own handlers before those of its parents, and all of them get the same
    record. So it holds for every formatter, in notebooks and in Ray's workers.
    """

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        safe = one_line(message)
        if safe != message:
            record.msg, record.args = safe, None
        if record.exc_info and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)
            record.exc_text = printable(redact_text(text), _LINE_CONTROLS)
        if not logging.getLogger().handlers and logging.lastResort is not None:
            # Python's own output of warnings, which ends where a logger has a handler.
            if record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)


def redact_logs() -> None:
    """Make every record of this package safe to show; called when the package is imported."""
    logger = logging.getLogger("d2prune")
    if not any(isinstance(handler, _RecordRedactor) for handler in logger.handlers):
        logger.addHandler(_RecordRedactor())
