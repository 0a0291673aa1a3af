"""Whatever the names of work_dir, output and shards hold, every command finds what `run` wrote there.

Also if they look like credentials, which are masked in what is printed and kept in what is read back.
"""

import logging

import pytest
import yaml

from d2prune import store
from d2prune.cli.main import main
from d2prune.demo import s3_server
from d2prune.redaction import redact_text
from tests.pools import write_pool
from tests.s3 import moto_server

SECRET = "wJalrXUtnFEMI"
# A character may matter at the beginning, in the middle or at the end of a name.
NAMES = (f"[1] ?*!#x%20{SECRET}+~'\";&$x.", "-d\\ü😀[!a]{b,c}password=abcd*$(x)`x` ")


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture(scope="module")
def small_pool(tmp_path_factory):
    pool = write_pool(tmp_path_factory.mktemp("pool") / "token: password=abcd", 1, 8)
    (pool / "00000000.tar").rename(pool / f"{SECRET}-password=abcd.tar")
    return pool


def check_lifecycle(tmp_path, capsys, pool, root, name):
    """Run, run another fraction, list, explain, verify, reshard and prune below folders of a name."""
    logging.disable(logging.INFO)
    plain = name.replace("{", "(").replace("}", ")")
    work, out, scheduled = f"{root}/w{name}/{name}", f"{root}/o{plain}/{plain}", f"{root}/{plain}s"

    def call(*arguments):
        assert main(list(arguments)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    def run(fraction, output):
        settings = {
            "input": str(pool),
            "work_dir": work,
            "output": output,
            "embed": {"model": "demo"},
            "graph": {"n_neighbors": 2},
            "select": {"fraction": fraction},
            "report": {"gallery": 0},
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
        return call("run", "--no-ray", f"--config={tmp_path}/run.yaml")

    run(0.5, out)
    for fraction in (0.3, 0.8):
        run(fraction, f"{scheduled}/{{run_id}}")
    assert redact_text(out) in call("runs", "--", work)
    assert call("runs", "--", scheduled).count(f"{redact_text(scheduled)}/") == 2
    assert "difficulty" in call("explain", "--", work, "000000001")
    assert "no faults" in call("verify", "--full", "--", out)
    arguments = [f"--subset={out}/subset.npy", f"--input={pool}", f"--output={root}/{plain}/r"]
    assert "4 samples in 1 tars, 0 not found" in call("reshard", *arguments, f"--work-dir={root}/{name}/rw")
    before = {entry.split("/")[0] for entry in store.list_entries(scheduled)}
    call("runs", "--prune", "--yes", "--keep=1", "--", work)
    assert len(before - {entry.split("/")[0] for entry in store.list_entries(scheduled)}) == 1
    logging.disable(logging.NOTSET)


def test_local_folders(tmp_path, capsys, small_pool):
    check_lifecycle(tmp_path, capsys, small_pool, str(tmp_path / "root"), NAMES[0])


def test_relative_local_folders(tmp_path, capsys, small_pool, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_lifecycle(tmp_path, capsys, small_pool, "-root~", NAMES[1])


def test_s3_folders(tmp_path, capsys, small_pool):
    with moto_server() as server, s3_server.environment(server):
        server.make_bucket("bucket")
        check_lifecycle(tmp_path, capsys, small_pool, "s3://bucket/root", NAMES[0])
