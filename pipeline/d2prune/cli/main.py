"""Entry point of the `d2prune` command: logging, signals and exit codes.

Exit codes: 0 success; 1 failure, the same command resumes; 2 usage or configuration error, reported
in one line; 3 another run is in progress; 130 interrupted.
"""

import contextlib
import gc
import importlib.abc
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from d2prune import console
from d2prune.cli import memory
from d2prune.cli.parser import PROGRAM, build_parser
from d2prune.errors import D2PruneError
from d2prune.extras import find_missing

_OBJECTS_BEFORE_COLLECTION = 50_000


def run_program() -> int:
    """Run the command line in its own process, which may load less than one that it is called from."""
    return main(prepare=hide_pandas_from_arrow)


def hide_pandas_from_arrow() -> None:
    """Keep Arrow from importing pandas when it makes its first array, in case that was a pandas object.

    The import takes 0.25 s of CPU and 50 MB, and no command passes pandas objects to Arrow. Others, and
    Arrow's own conversions to pandas, import it when they need it.
    """
    import pyarrow

    class NoPandas(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "pandas":
                raise ImportError(name)

    if "pandas" not in sys.modules:
        finder = NoPandas()
        sys.meta_path.insert(0, finder)
        try:
            pyarrow.array([0])
        finally:
            sys.meta_path.remove(finder)


def main(
    argv: Sequence[str] | None = None, program: str = PROGRAM, prepare: Callable[[], None] = lambda: None
) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: the words after the program's name; default: those of this process.
        program: name of a script that runs a single command, for its usage and messages.
        prepare: called before a command, and not for `--help` or `--version`.
    """
    # Importing what a run needs makes objects that stay. Collecting garbage after every 700 of them, and
    # once more in all of them when the interpreter ends, is a quarter of the CPU time of a short command.
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, *gc.get_threshold()[1:])
    try:
        return _run_safely(argv, program, prepare)
    finally:
        gc.freeze()


def _run_safely(argv: Sequence[str] | None, program: str, prepare: Callable[[], None]) -> int:
    console.set_program(program)
    with console.safe_streams():
        try:
            return _run_command(argv, program, prepare)
        except console.OutputError as error:
            # The reader closed the pipe, as in `d2prune explain ... | head`, or the disk is full.
            # The stream goes to /dev/null, or the interpreter would fail again when it flushes at exit.
            error.discard()
            if error.closed:
                return 128 + signal.SIGPIPE
            with contextlib.suppress(console.OutputError):
                console.print_error(str(error))
            return 1


def _run_command(argv: Sequence[str] | None, program: str, prepare: Callable[[], None]) -> int:
    parser = build_parser(program)
    words = sys.argv[1:] if argv is None else list(argv)
    if not words:
        for line in parser.format_help().rstrip().splitlines():
            console.print_line(line)
        return 0
    try:
        arguments = parser.parse_args(words)
    except SystemExit as end:  # an error of usage, --help or --version, already printed
        return int(end.code or 0)
    _configure_logging()
    try:
        with _interrupt_on_sigterm():
            prepare()
            code = int(arguments.command(arguments))
            console.flush()
            return code
    except D2PruneError as error:
        console.print_error(str(error))
        return error.exit_code
    except Exception as error:
        if missing := find_missing(error):
            console.print_error(str(missing))
            return missing.exit_code
        if not memory.is_out_of_memory(error):
            raise
        console.print_error(memory.describe(error))
        return 1
    except KeyboardInterrupt:
        console.print_error("interrupted; the same command resumes")
        return 130


def _configure_logging() -> None:
    """Log d2prune's progress to standard error, and only warnings of the storage libraries."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    logging.getLogger("d2prune").setLevel(logging.INFO)
    for library in ("botocore", "aiobotocore", "s3fs", "fsspec", "root"):
        logging.getLogger(library).setLevel(logging.WARNING)


@contextlib.contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C. `ray job stop`, Kubernetes and cloud schedulers send it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(run_program())
