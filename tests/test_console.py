"""Whatever is printed: no credentials, no control characters, on any encoding; and no way around it."""

import ast
import io
import logging
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune import console, errors
from d2prune.cli import getting_started
from d2prune.cli.main import main

PACKAGE = Path(console.__file__).parent
URL, SHOWN = "https://me:pw@host/x?sig=abc", "https://host/x"
HOSTILE = "a\x1b]0;owned\x07\x9b1m\u202eb\n\u2028c\u200b\ud800"
ESCAPED = r"a\x1b]0;owned\x07\x9b1m\u202eb\n\u2028c\u200b\ud800"


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_printable_text_has_one_line_of_visible_characters(text):
    shown = console.printable(text)
    assert all(
        unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
        for c in shown.replace("\u200d", "").replace("\u200c", "")
    )
    assert console.printable(shown) == shown and len(shown.splitlines()) <= 1


def test_letters_of_every_script_stay():
    for text in ("é שלום 你好 नमस्ते क्‍ष", "👩‍👩‍👧 …→—", r"C:\x1b", "tab is\\t"):
        assert console.printable(text) == text
    assert console.printable(HOSTILE) == ESCAPED


class Stream(io.TextIOWrapper):
    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding, write_through=True)

    @property
    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252", "utf-16-le"])
def test_lines_are_printed_on_any_encoding(monkeypatch, encoding):
    for safe in (False, True):
        stream = Stream(encoding)
        monkeypatch.setattr(sys, "stdout", console.SafeStream(stream) if safe else stream)
        console.print_line(f"{HOSTILE} {URL} é 名")
        console.flush()
        assert stream.text.startswith(f"{ESCAPED} {SHOWN} ") and stream.text.count("\n") == 1


def test_what_other_libraries_print_is_safe(monkeypatch):
    stream = Stream("utf-8")
    monkeypatch.setattr(sys, "stderr", console.SafeStream(stream))
    print("GET ", URL[:14], URL[14:], " \x1b[1m", sep="", file=sys.stderr)
    sys.stderr.write("\r 50%|\t")
    sys.stderr.flush()
    sys.stderr.writelines(["a\n", "b"])
    assert stream.text == f"GET {SHOWN} \\x1b[1m\n\r 50%|\ta\n"
    assert sys.stderr.encoding == "utf-8" and not sys.stderr.isatty()
    assert console.unfiltered(sys.stderr) is stream


def test_errors_hold_no_credentials_and_no_control_characters():
    for kind in (
        errors.UserError,
        errors.BusyError,
        errors.BooksError,
        errors.InfrastructureError,
        errors.WorkerLostError,
    ):
        error = kind(f"{URL}: {HOSTILE}")
        assert str(error) == f"{SHOWN}: {ESCAPED}" == str(pickle.loads(pickle.dumps(error)))


@pytest.fixture
def log_lines(caplog):
    with caplog.at_level(logging.INFO):
        yield lambda: [record.getMessage() for record in caplog.records]


def test_log_records_are_safe_for_every_handler(log_lines, caplog):
    log = logging.getLogger("d2prune.store.retries")
    log.info("%s of %s: %d", URL, HOSTILE, 3)
    try:
        raise ValueError(f"{URL} \x1b[1m")
    except ValueError:
        log.exception("failed")
    assert log_lines() == [f"{SHOWN} of {ESCAPED}: 3", "failed"]
    assert f"ValueError: {SHOWN} \\x1b[1m" in caplog.text and "pw" not in caplog.text


def test_warnings_are_shown_where_logging_is_not_configured():
    """In notebooks and in Ray's workers, Python prints warnings by itself."""
    code = (
        "import logging, d2prune; log = logging.getLogger('d2prune.x'); "
        f"log.warning('lost %s', {URL!r}); log.info('hidden')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == f"lost {SHOWN}\n"


def test_a_traceback_that_leaves_the_program_is_safe():
    code = (
        "import sys; from d2prune.cli import getting_started; from d2prune.cli.main import main\n"
        f"def fail(_): raise ValueError({URL!r} + ' \\x1b[1m')\n"
        "getting_started._models = fail\n"
        "sys.exit(main(['models']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith(f"ValueError: {SHOWN} \\x1b[1m\n")
    # The line of source holds it, too.
    assert "me:pw" not in done.stderr


def test_argparse_echoes_arguments_safely(capsys):
    hostile = f"{URL} \x1b[1m\nd2prune: all is well"
    for argv in (["plan", "--config", "x", "--gpus", hostile], ["models", hostile], [hostile]):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert SHOWN in error and "pw" not in error and "\x1b" not in error and error.count("\n") == 1


@pytest.mark.parametrize("target", ["/dev/full", "closed", "none"])
def test_an_output_that_cannot_be_written_is_one_line(target):
    code = (
        "import sys; from d2prune.cli import getting_started; from d2prune.cli.main import main; "
        "from d2prune.console import print_line; "
        "getting_started._models = lambda _: [print_line('x' * 99) for _ in range(9999)] and 0; "
        "sys.exit(main(['models']))"
    )
    out = {"/dev/full": "> /dev/full", "closed": "| true", "none": ">&-"}[target]
    command = f'set -o pipefail; "{sys.executable}" -c "{code}" {out}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if "Warning" not in line]
    assert lines == (
        ["d2prune: <stdout>: cannot be written: No space left on device"] if target == "/dev/full" else []
    )
    assert done.returncode == {"/dev/full": 1, "closed": 141, "none": 0}[target]


def test_the_streams_are_those_of_the_caller_afterwards(monkeypatch, capsys):
    monkeypatch.setattr(getting_started, "_models", lambda arguments: 0)
    before = sys.stdout, sys.stderr
    assert main(["models"]) == 0 and (sys.stdout, sys.stderr) == before


# Names that would write past `console` and `redaction`, and the files that may use them.
_WAYS_OUT = {
    "print": set(),
    "sys.stdout": {"console.py"},
    "sys.stderr": {"console.py", "cli/main.py", "execution/progress.py"},
    "json.dumps": {
        "redaction.py",
        *(f"store/{name}.py" for name in ("artifacts", "manifest_file", "recorded", "records")),
    },
    "json.dump": set(),
    "warnings.warn": {"d2/coreset.py"},
    "sys.__stdout__": set(),
    "sys.__stderr__": set(),
}


def _name(node):
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def test_there_is_no_other_way_out():
    """`print`, streams and JSON are used where they are made safe, and in fingerprints."""
    found = {
        (name, path.relative_to(PACKAGE).as_posix())
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (name := _name(node)) in _WAYS_OUT
    }
    assert [pair for pair in sorted(found) if pair[1] not in _WAYS_OUT[pair[0]]] == []
