"""`d2prune reshard` as a process: two of it at one moment, one that is killed, one that is interrupted."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from d2prune import store
from d2prune.demo import s3_server
from d2prune.reshard.reshard import ReshardParams, reshard
from tests.output.pools import plain_pool, put_pool, tree
from tests.output.test_resharding import subset_file
from tests.s3 import moto_server

ROOT = Path(__file__).parents[2]

# The command itself, but for a stop in the middle of its first tar, until it is told to go on.
COMMAND = """
import sys
from d2prune.cli.main import main
from d2prune.output import shard_writer, tar_stream
close = tar_stream.TarStream.close
def stop_and_close(stream):
    if not stop_and_close.told:
        stop_and_close.told = True
        print("writing", flush=True)
        sys.stdin.readline()
    close(stream)
stop_and_close.told = False
tar_stream.TarStream.close = stop_and_close
print("ready", flush=True)
sys.stdin.readline()
code = main(["reshard", *sys.argv[1:]])
print("exit", code, flush=True)
"""


@pytest.fixture(params=["local", "unconditional", "conditional"])
def place(request, tmp_path):
    """A folder on the disk, on rclone, which ignores conditions on a put, and on moto, which honours them."""
    if request.param == "local":
        yield str(tmp_path / "there")
        return
    serve = moto_server() if request.param == "conditional" else s3_server.serve(tmp_path / "served")
    with serve as server, s3_server.environment(server):
        server.make_bucket("bucket")
        yield "s3://bucket/there"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def test_one_works_and_the_other_says_so(place, tmp_path):
    made = plain_pool(2, 10)
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for shard in made for item in shard[::2]])
    alone = reshard(str(tmp_path / "pool"), url, str(tmp_path / "alone"), ReshardParams(4))
    options = [
        "--subset",
        url,
        "--input",
        str(tmp_path / "pool"),
        "--output",
        place,
        "--samples-per-shard",
        "4",
    ]
    processes = [start(*options) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process: process.stdout.readline() for process in processes}
    assert sorted(said.values()) == ["exit 3\n", "writing\n"]
    (busy,) = (process for process, line in said.items() if line == "exit 3\n")
    (working,) = (process for process in processes if process is not busy)
    lines = busy.communicate(timeout=30)[1].splitlines()
    assert len(lines) == 1 and f"output {place}: another run is" in lines[0]
    out, _ = working.communicate("go on\n", timeout=60)
    assert "exit 0" in out
    # Nothing but the output is left, and in it nothing of the two.
    there = {file.url.rsplit("/", 1)[-1]: store.read_bytes(file.url) for file in store.list_files(place)}
    expected = tree(tmp_path / "alone")
    different = {name for name in there.keys() | expected.keys() if there.get(name) != expected.get(name)}
    assert different <= {"train.sh", "manifest.json"}
    if not place.startswith("s3"):
        assert not [path for path in Path(place).iterdir() if path.is_dir()]
    assert alone.counts["written"] == 10


def test_a_killed_one_keeps_nobody_waiting(tmp_path):
    made = plain_pool(1, 6)
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for item in made[0]])
    options = ["--subset", url, "--input", str(tmp_path / "pool"), "--output", str(tmp_path / "out")]
    # A temporary folder would be left behind.
    process = start(*options, "--work-dir", str(tmp_path / "work"))
    process.stdin.write("go\n")
    process.stdin.flush()
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "writing\n"]
    process.kill()
    process.communicate()
    assert (tmp_path / "out" / ".lease").exists()
    reshard(str(tmp_path / "pool"), url, str(tmp_path / "out"))
    reshard(str(tmp_path / "pool"), url, str(tmp_path / "alone"))
    there, expected = tree(tmp_path / "out"), tree(tmp_path / "alone")
    assert {name for name in there.keys() | expected.keys() if there.get(name) != expected.get(name)} <= {
        "train.sh",
        "manifest.json",
    }


def test_an_interrupted_one_leaves_its_tars_at_the_next_block(tmp_path):
    made = plain_pool(1, 6)
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for item in made[0]])
    options = ["--subset", url, "--input", str(tmp_path / "pool"), "--output", str(tmp_path / "out")]
    # Blocks of one sample, and a wait before the third that ends with the signal.
    slow = """
import time
from d2prune.output import fetch, resharding
fetch.BLOCK = 1
go_on, calls = resharding.ReshardWriter._go_on, []
def wait_and_go_on(writer):
    calls.append(1)
    if len(calls) == 3:
        print("writing", flush=True)
        while not writer._stopped.is_set():
            time.sleep(0.01)
    go_on(writer)
resharding.ReshardWriter._go_on = wait_and_go_on
from d2prune.cli.main import main
import sys
sys.exit(main(["reshard", *sys.argv[1:]]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.splitlines() == [
        "d2prune: interrupted; the same command resumes"
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".d2prune-run.json"]
