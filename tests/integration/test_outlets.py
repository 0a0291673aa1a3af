"""Nothing that leaves the program holds a credential or a control character, whatever succeeds or fails.

One run over a pool whose names and captions are hostile, half of it behind a password. Then every
command that prints, on every encoding, and every place where a user can write a credential.
"""

import contextlib
import functools
import http.server
import io
import json
import re
import sys
import tarfile
import threading
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from d2prune.cli.main import main
from d2prune.output import subset
from tests.pools import add, draw, write_pool
from tests.test_redaction import shows

SECRET = "wJalrXUtn/EMI+K7MDENG=bPxRfiCY/EXAMPLEKEY"
QUOTED = quote(SECRET, safe="")
HOSTILE = "k\x1b]0;owned\x07\u202e\x9b31m"


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves ranges to those who know the password."""

    def do_GET(self):
        if self.headers.get("Authorization") is None:
            self.send_error(401)
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        start, end = 0, len(data)
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, end = int(wanted[1]), int(wanted[2]) + 1
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data[start:end])))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[start:end])

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def _write_hostile(folder):
    folder.mkdir()
    with tarfile.open(folder / f"{HOSTILE}.tar", "w") as tar:
        for i in range(8):
            add(tar, f"{HOSTILE}{i}.jpg", draw("circle", "red", i))
            add(tar, f"{HOSTILE}{i}.txt", f"{HOSTILE} caption\nof {i}".encode())
        add(tar, f"{HOSTILE}mute.jpg", draw("bar", "blue", 99))
    return folder


class _Streams:
    """Standard output and error with an encoding that refuses what it lacks, as under LC_ALL=C."""

    def __init__(self, encoding="utf-8"):
        self._buffers = io.BytesIO(), io.BytesIO()
        self.streams = [io.TextIOWrapper(buffer, encoding, errors="strict") for buffer in self._buffers]
        self._encoding = encoding

    def text(self):
        for stream in self.streams:
            stream.flush()
        return "".join(buffer.getvalue().decode(self._encoding) for buffer in self._buffers)


def call(argv, encoding="utf-8"):
    """Exit code of a command, and what it printed."""
    given = _Streams(encoding)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = given.streams
    try:
        code = main(argv)
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdout, sys.stderr = before
    return code, given.text()


def check(printed):
    assert not shows(printed, SECRET) and not shows(printed, QUOTED), printed
    bad = {c for c in printed.replace("\n", "") if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not bad and "Traceback" not in printed, (bad, printed)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model):
    """A finished run: (folder, URL of the protected half of the pool, exit code and what it printed)."""
    folder = tmp_path_factory.mktemp("outlets")
    pool = write_pool(folder / "pool", 1, 20)
    _write_hostile(folder / "hostile")
    handler = functools.partial(_Handler, directory=str(pool))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://someone:{QUOTED}@127.0.0.1:{server.server_port}/00000000.tar"
    config = {
        "input": [url, str(folder / "hostile")],
        "work_dir": str(folder / "work"),
        "output": str(folder / "out"),
        "embed": {"model": str(tiny_model), "batch_size": 16},
        "graph": {"n_neighbors": 3},
        "select": {"fraction": 0.5},
        "write": {"samples_per_shard": 100},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2PRUNE_STORAGE_ATTEMPTS", "1")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        yield folder, url, call(["run", "--config", str(folder / "run.yaml"), "--no-ray"])
    server.shutdown()
    server.server_close()


def test_a_run_stores_and_prints_no_credential(place):
    folder, url, (code, printed) = place
    assert code == 0, printed
    check(printed)
    stored = [path for name in ("work", "out") for path in (folder / name).rglob("*") if path.is_file()]
    for path in stored:
        data = path.read_bytes()
        assert SECRET.encode() not in data and QUOTED.encode() not in data, path
    assert any(path.name == "report.html" for path in stored) and any(
        path.name == "train.sh" for path in stored
    )
    inputs = json.loads((folder / "out" / "manifest.json").read_text())["inputs"]
    assert url.replace(f"someone:{QUOTED}@", "") in [shard["url"] for shard in inputs]


COMMANDS = {
    "run": (["run", "--config", "{folder}/run.yaml", "--no-ray"], 0),
    "run again": (["run", "--config", "{folder}/run.yaml", "--no-ray", "--set", "select.fraction=0.4"], 2),
    "plan": (["plan", "--config", "{folder}/run.yaml", "--embed-rate", "9"], 0),
    "sweep": (["sweep", "--config", "{folder}/run.yaml", "--no-ray", "--fractions", "0.2,0.4"], 0),
    "verify": (["verify", "{folder}/out", "--full"], 1),
    "explain": (["explain", "{folder}/work", "{hostile}3", "{hostile}mute"], 0),
    "explain unknown": (["explain", "{folder}/work", "{hostile}"], 2),
    "explore": (["explore", "{folder}/work", "--port", "99999"], 2),
    "runs": (["runs", "{folder}/work"], 0),
    "prune": (["runs", "{folder}/work", "--prune"], 0),
    "reshard": (
        [
            "reshard",
            "--subset",
            "{folder}/subset.npy",
            "--input",
            "{folder}/hostile",
            "--output",
            "{folder}/new{n}",
        ],
        2,
    ),
}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_visible_text_on_every_encoding(place, name, encoding):
    folder = place[0]
    (folder / "subset.npy").write_bytes(subset.to_bytes(subset.encode(["0" * 32])))
    argv, expected = COMMANDS[name]
    known = {"folder": folder, "hostile": HOSTILE, "n": encoding}
    code, printed = call([argument.format(**known) for argument in argv], encoding)
    check(printed)
    assert code == expected and printed, printed


URLS = {
    "s3": f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/folder",
    "http": f"http://someone:{QUOTED}@127.0.0.1:1/x",
    "query": f"http://127.0.0.1:1/x?X-Amz-Signature={SECRET}",
    "sas": f"abfs://container@account:{SECRET}/folder",
    "braces": f"s3://KEY:{SECRET}@bucket/{{a,b",
    "chain": f"zip://a.tar::s3://KEY:{SECRET}@bucket/x",
    "single": f"s3:/KEY:{SECRET}@bucket/x",
}
USES = {
    "input": (["run", "--config", "{yaml}", "--no-ray"], {"input": "{url}"}),
    "inputs": (["plan", "--config", "{yaml}"], {"input": ["{url}", "{url}/{{0..1}}.tar"]}),
    "work_dir": (["run", "--config", "{yaml}", "--no-ray"], {"work_dir": "{url}"}),
    "output": (["run", "--config", "{yaml}", "--no-ray"], {"output": "{url}"}),
    "model": (
        ["run", "--config", "{yaml}", "--no-ray"],
        {"embed": {"model": "{url}", "pretrained": "{url}"}},
    ),
    "wrong type": (["run", "--config", "{yaml}"], {"select": {"fraction": "{url}"}}),
    "wrong section": (["run", "--config", "{yaml}"], {"graph": ["{url}"]}),
    "unknown key": (["run", "--config", "{yaml}"], {"{url}": 1}),
    "expression": (["run", "--config", "{yaml}"], {"score": {"difficulty": "{url}"}}),
    "address": (["run", "--config", "{yaml}"], {"ray": {"address": "x{url}"}, "input": "/nothing"}),
    "set": (["run", "--config", "{yaml}", "--set", "input={url}", "--no-ray"], {}),
    "set key": (["run", "--config", "{yaml}", "--set", "{url}"], {}),
    "set yaml": (["run", "--config", "{yaml}", "--set", "input=[{url}"], {}),
    "config": (["run", "--config", "{url}"], {}),
    "stage": (["run", "--config", "{yaml}", "--stop-after", "{url}"], {}),
    "number": (["run", "--config", "{yaml}", "--workers", "{url}"], {}),
    "unknown option": (["plan", "--config", "{yaml}", "{url}"], {}),
    "grid": (["sweep", "--config", "{yaml}", "--fractions", "{url}"], {}),
    "flagged": (["sweep", "--config", "{yaml}", "--flagged", "{url}"], {}),
    "verify": (["verify", "{url}"], {}),
    "explain": (["explain", "{url}", "x"], {}),
    "explain name": (["explain", "{work}", "{url}"], {}),
    "explain run": (["explain", "{work}", "x", "--run", "{url}"], {}),
    "explore": (["explore", "{url}"], {}),
    "explore compare": (["explore", "{work}", "--compare", "{url}"], {}),
    "explore input": (["explore", "{work}", "--input", "{url}"], {}),
    "runs": (["runs", "{url}"], {}),
    "reshard": (["reshard", "--subset", "{url}", "--input", "{url}", "--output", "{url}"], {}),
    "reshard input": (["reshard", "--subset", "{npy}", "--input", "{url}", "--output", "{work}/o"], {}),
    "reshard output": (
        ["reshard", "--subset", "{npy}", "--input", "{work}/../hostile", "--output", "{url}"],
        {},
    ),
}


@pytest.mark.parametrize("use", USES)
def test_credentials_are_not_echoed_wherever_they_are_written(place, tmp_path, monkeypatch, use):
    folder = place[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "subset.npy").write_bytes(subset.to_bytes(subset.encode(["0" * 32])))
    argv, change = USES[use]
    for url in URLS.values():
        known = {"url": url, "yaml": "run.yaml", "work": str(folder / "work"), "npy": "subset.npy"}

        def fill(value, known=known):
            if isinstance(value, str):
                return value.format(**known)
            if isinstance(value, dict):
                return {fill(name): fill(inner) for name, inner in value.items()}
            return list(map(fill, value)) if isinstance(value, list) else value

        config = {**yaml.safe_load((folder / "run.yaml").read_text()), "input": str(folder / "hostile")}
        config |= {"work_dir": str(tmp_path / "work"), "output": str(tmp_path / "out"), **fill(change)}
        Path("run.yaml").write_text(yaml.safe_dump(config))
        code, printed = call(list(map(fill, argv)))
        check(printed)
        assert code in (1, 2), (url, printed)


@pytest.mark.parametrize(
    "text", ["input: {url}\n  x: 1\n", "input: [{url}\n", "input: 'a {url}\n", "{url}: *{url}\n"]
)
def test_credentials_in_broken_yaml_are_not_echoed(tmp_path, text):
    for url in URLS.values():
        (tmp_path / "run.yaml").write_text(text.format(url=url))
        code, printed = call(["run", "--config", str(tmp_path / "run.yaml")])
        check(printed)
        assert code == 2 and printed.count("\n") == 1


def test_workers_of_ray_print_safely(monkeypatch):
    from d2prune import console
    from d2prune.execution import ray_group, ray_worker

    monkeypatch.setattr(ray_worker, "export_metrics", lambda: None)
    for actor in (ray_worker.WorkerActor, ray_group.MemberActor):
        with contextlib.redirect_stderr(io.StringIO()) as printed, contextlib.redirect_stdout(io.StringIO()):
            actor()
            assert isinstance(sys.stderr, console.SafeStream) and isinstance(sys.stdout, console.SafeStream)
            print(f"{URLS['s3']} \x1b[1m", file=sys.stderr)
        assert printed.getvalue() == "s3://bucket/folder \\x1b[1m\n"
