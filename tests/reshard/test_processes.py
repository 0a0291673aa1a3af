"""`d2prune reshard` as a process: two concurrent ones, a killed one, an interrupted one."""

import signal
import threading
from pathlib import Path

import pytest

from d2prune import store
from d2prune.demo import s3_server
from d2prune.reshard.reshard import ReshardParams, reshard
from tests.output.pools import plain_pool, put_pool, tree
from tests.programs import Code
from tests.reshard.test_reshard import subset_file
from tests.s3 import moto_server

TIMEOUT_S = 300
"""For a child process to print a line or to end; far above what a busy machine needs."""

# The command, which stops at the end of its first tar until a line arrives on standard input.
COMMAND = """
import sys
from d2prune.cli.main import main
from d2prune.output import tar_stream
close = tar_stream.TarStream.close
def pause_and_close(stream):
    if not pause_and_close.paused:
        pause_and_close.paused = True
        print("writing", flush=True)
        sys.stdin.readline()
    close(stream)
pause_and_close.paused = False
tar_stream.TarStream.close = pause_and_close
print("ready", flush=True)
sys.stdin.readline()
code = main(["reshard", *sys.argv[1:]])
print("exit", code, flush=True)
"""

# The command with blocks of one sample, which waits before the third block until `stop` is called.
INTERRUPTED_COMMAND = """
import sys
from d2prune.cli.main import main
from d2prune.output import byte_ranges
from d2prune.reshard.worker import ReshardWorker
byte_ranges.BLOCK = 1
check_stopped, calls = ReshardWorker._check_stopped, []
def wait_and_check(worker):
    calls.append(1)
    if len(calls) == 3:
        print("writing", flush=True)
        worker._stopped.wait()
    check_stopped(worker)
ReshardWorker._check_stopped = wait_and_check
sys.exit(main(["reshard", *sys.argv[1:]]))
"""


def read_line(process):
    """Read a line of the child's output; a child that prints nothing is killed, and its errors are shown."""
    timer = threading.Timer(TIMEOUT_S, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    return line or pytest.fail(process.communicate(timeout=TIMEOUT_S)[1])


@pytest.fixture(params=["local", "unconditional", "conditional"])
def output(request, tmp_path):
    """An output folder on disk, on rclone (ignores conditional puts) and on moto (honours them)."""
    if request.param == "local":
        yield str(tmp_path / "there")
        return
    serve = moto_server() if request.param == "conditional" else s3_server.serve(tmp_path / "served")
    with serve as server, s3_server.environment(server):
        server.make_bucket("bucket")
        yield "s3://bucket/there"


def different_files(found, expected):
    return {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}


def test_of_two_concurrent_reshards_one_works_and_the_other_exits(output, tmp_path):
    made = plain_pool(2, 10)
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for shard in made for item in shard[::2]])
    alone = reshard(str(tmp_path / "pool"), url, str(tmp_path / "alone"), ReshardParams(4))
    options = ["--subset", url, "--input", str(tmp_path / "pool"), "--output", output]
    processes = [Code(COMMAND, [*options, "--samples-per-shard", "4"]) for _ in range(2)]
    for process in processes:
        assert read_line(process) == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = {process: read_line(process) for process in processes}
    assert sorted(lines.values()) == ["exit 3\n", "writing\n"]
    (busy,) = (process for process, line in lines.items() if line == "exit 3\n")
    (working,) = (process for process in processes if process is not busy)
    errors = busy.communicate(timeout=TIMEOUT_S)[1].splitlines()
    assert len(errors) == 1 and f"output {output}: another run is" in errors[0]
    out, _ = working.communicate("continue\n", timeout=TIMEOUT_S)
    assert "exit 0" in out
    # The folder holds the output of one process, and no trace of the two.
    found = {file.url.rsplit("/", 1)[-1]: store.read_bytes(file.url) for file in store.list_files(output)}
    assert different_files(found, tree(tmp_path / "alone")) <= {"train.sh", "manifest.json"}
    if not output.startswith("s3"):
        assert not [path for path in Path(output).iterdir() if path.is_dir()]
    assert alone.counts["written"] == 10


def test_a_killed_reshard_does_not_block_the_next_one(tmp_path):
    made = plain_pool(1, 6)
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for item in made[0]])
    options = ["--subset", url, "--input", str(tmp_path / "pool"), "--output", str(tmp_path / "out")]
    # With --work-dir, since a killed process would leave its temporary folder behind.
    process = Code(COMMAND, [*options, "--work-dir", str(tmp_path / "work")])
    process.stdin.write("go\n")
    process.stdin.flush()
    assert [read_line(process) for _ in range(2)] == ["ready\n", "writing\n"]
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    assert (tmp_path / "out" / ".lease").exists()
    reshard(str(tmp_path / "pool"), url, str(tmp_path / "out"))
    reshard(str(tmp_path / "pool"), url, str(tmp_path / "alone"))
    different = different_files(tree(tmp_path / "out"), tree(tmp_path / "alone"))
    assert different <= {"train.sh", "manifest.json"}


def test_an_interrupted_reshard_stops_at_the_next_block(tmp_path):
    made = plain_pool(1, 6)
    put_pool(tmp_path / "pool", made)
    url = subset_file(tmp_path, [item.uid for item in made[0]])
    options = ["--subset", url, "--input", str(tmp_path / "pool"), "--output", str(tmp_path / "out")]
    process = Code(INTERRUPTED_COMMAND, options)
    assert read_line(process) == "writing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    # On a slow machine, a line of progress precedes it.
    assert errors.splitlines()[-1] == "d2prune: interrupted; the same command resumes"
    assert "Traceback" not in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".d2prune-run.json"]
