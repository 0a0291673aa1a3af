"""Helpers give the outcomes and bytes of this machine, whichever of them joins, leaves or is lost."""

import functools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from d2prune.embed import params as embed_params
from d2prune.embed import worker as stage
from d2prune.embed.decode import remote as decode_remote
from d2prune.embed.decode.decoder import Decoder, library_versions
from d2prune.embed.decode.remote import AssistedPool, RemoteDecoder
from d2prune.embed.decode.task_queue import TASK_SAMPLES, DecodeTask, TaskQueue
from d2prune.embed.model import sources
from d2prune.errors import D2PruneError, InfrastructureError, UserError
from d2prune.execution import InProcess, InProcessHelpers, Resources, metrics
from d2prune.inputs import rejects
from d2prune.inputs.shards import expand_input
from d2prune.parts import files
from tests.embed.decode.faulty_decoders import DyingDecoder, MisbehavingDecoder
from tests.embed.decode.test_pool import outcomes, sample
from tests.embed.faulty_samples import FATAL_KEYS, FATAL_REASONS, good, tables
from tests.embed.images import write_tar

CRASH, TIMEOUT = rejects.IMAGE_CRASHED_DECODER, rejects.IMAGE_TIMEOUT


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(decode_remote, "_POLL_INTERVAL_S", 0.02)
    monkeypatch.setattr(decode_remote, "_IDLE_S", 0.02)
    monkeypatch.setattr(decode_remote, "_RETRY_DELAY_S", 0.0)


@pytest.fixture
def make_pool(tmp_path):
    pools = []

    def make(helpers, processes=0, work=None, max_helpers=8, timeout_s=0.3):
        work = work or MisbehavingDecoder(str(tmp_path))
        pools.append(AssistedPool(work, processes, 12, 64, 1, timeout_s, helpers, max_helpers))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_helpers_alone_give_the_same_outcomes_as_processes(make_pool):
    counted = metrics.total(metrics.SAMPLES_DECODED_REMOTELY)
    tasks = [
        ["a", "segfault", "b"],
        ["spin", "c"],
        ["d"],
        ["killed-once", "e", "segfault-2"],
        ["no-memory", "f"],
    ]
    assert outcomes(make_pool(InProcessHelpers({"x": 1, "y": 2})), tasks) == [
        ["a", CRASH, "b"],
        [TIMEOUT, "c"],
        ["d"],
        ["killed-once", "e", CRASH],
        [CRASH, "f"],
    ]
    assert metrics.total(metrics.SAMPLES_DECODED_REMOTELY) - counted == 11


def test_tasks_of_a_lost_helper_are_decoded_here(make_pool, tmp_path):
    helpers = InProcessHelpers({"x": 1})
    pool = make_pool(helpers, processes=1, timeout_s=60)
    keys = [f"slow-once-{number}" for number in range(4)]
    with pool.lane() as lane:
        futures = [lane.submit([(number, sample(key))]) for number, key in enumerate(keys)]
        # This machine's process holds two tasks and the helper two; each works on its first.
        wait_until(lambda: sum((tmp_path / key).exists() for key in keys) == 2)
        helpers.lose("x")
        wait_until(lambda: len(pool._tasks._returned) == 2)
        pool._processes[0].popen.kill()
        for key in keys:
            (tmp_path / key).touch()
        found = [future.result(timeout=60)[0] for future in futures]
    assert [one.key for one in found] == keys


def test_helpers_start_and_end_with_their_machines(make_pool):
    helpers = InProcessHelpers()
    pool = make_pool(helpers, processes=1)
    tasks = [[f"{'k' * (number % 5)}{task}-{number}" for number in range(8)] for task in range(8)]
    for machine in "abc":
        counted = metrics.total(metrics.SAMPLES_DECODED_REMOTELY)
        helpers.capacity[machine] = 2
        for _ in range(1000):
            assert outcomes(pool, tasks) == tasks
            if metrics.total(metrics.SAMPLES_DECODED_REMOTELY) > counted:
                break
        assert metrics.total(metrics.SAMPLES_DECODED_REMOTELY) > counted
        gone = threading.Timer(0.002, helpers.lose, [machine])
        gone.start()
        assert outcomes(pool, tasks) == tasks
        gone.join()
    wait_until(lambda: not pool._open_helpers)


def test_number_of_helpers_follows_room_and_limit(make_pool):
    helpers = InProcessHelpers({"x": 3, "y": 1})
    pool = make_pool(helpers, max_helpers=3)
    wait_until(lambda: len(pool._open_helpers) == 3)
    assert pool._running == {"x": 2, "y": 1}
    # Another worker takes its share: one helper is released.
    helpers.capacity["x"] = 1
    wait_until(lambda: len(pool._open_helpers) == 2)
    assert outcomes(pool, [["a"], ["bb"]]) == [["a"], ["bb"]]
    assert pool._running == {"x": 1, "y": 1}


def test_defect_of_the_decoder_reaches_the_caller(make_pool):
    pool = make_pool(InProcessHelpers({"x": 1}))
    with pool.lane() as lane, pytest.raises(D2PruneError, match="ZeroDivisionError: a defect"):
        lane.submit([(0, sample("defect"))]).result(timeout=60)
    assert outcomes(pool, [["a"]]) == [["a"]]


def test_work_stays_here_if_another_machine_cannot_decode(make_pool, tmp_path):
    class Elsewhere(InProcessHelpers):
        def start(self, make_worker, place):
            return super().start(
                functools.partial(RemoteDecoder, DyingDecoder(), 12, 1.0, library_versions()), place
            )

    pool = make_pool(Elsewhere({"x": 1}), processes=1)
    tasks = [[f"{number}"] for number in range(20)]
    assert outcomes(pool, tasks) == tasks


def test_machine_with_other_libraries_is_refused(make_pool, tmp_path):
    class Elsewhere(InProcessHelpers):
        def start(self, make_worker, place):
            return super().start(lambda: make_worker.func(*make_worker.args[:-1], "Pillow 1.1.7"), place)

    pool = make_pool(Elsewhere({"x": 1}))
    with (
        pool.lane() as lane,
        pytest.raises(UserError, match=r"decodes with Pillow .* with Pillow 1\.1\.7; pixels may"),
    ):
        lane.submit([(0, sample("a"))]).result(timeout=60)


def test_close_fails_unfinished_tasks(make_pool, tmp_path):
    pool = make_pool(InProcessHelpers({"x": 1}), timeout_s=60)
    with pool.lane() as lane:
        futures = [lane.submit([(number, sample(f"sleep-{number}"))]) for number in range(4)]
        wait_until((tmp_path / "sleep-0").exists)
        pool.close()
        assert all(isinstance(future.exception(timeout=10), InfrastructureError) for future in futures)


def test_returned_tasks_come_first_and_only_to_local_processes():
    tasks, one, two = TaskQueue(), DecodeTask(1, []), DecodeTask(2, [])
    tasks.put(one)
    tasks.put(two)
    assert tasks.take(returned=False) is one and tasks.give_back(one)
    assert tasks.take(0, returned=False) is two and tasks.take(0, returned=False) is None
    assert tasks.give_back(two) and tasks.take() is one and tasks.take() is two and tasks.take(0) is None
    assert tasks.close() == [] and not tasks.give_back(one) and tasks.take() is None


def test_helper_takes_a_task_of_the_maximum_size(tmp_path):
    decoder = RemoteDecoder(MisbehavingDecoder(str(tmp_path)), 12, 10.0, library_versions())
    samples = [sample("k" * (number + 1)) for number in range(TASK_SAMPLES)]
    found, pixels = decoder(samples)
    decoder.close()
    assert [one.key for one in found] == [one.key for one in samples]
    assert (pixels == np.arange(1, TASK_SAMPLES + 1)[:, None]).all()


def test_parts_are_byte_identical_with_and_without_helpers(tiny_model, tmp_path, monkeypatch):
    """Compare the checksums of samples, embeddings and rejects, fatal samples included."""
    monkeypatch.setattr(stage, "Decoder", lambda *given: MisbehavingDecoder(str(tmp_path), Decoder(*given)))
    pool = tmp_path / "pool"
    pool.mkdir()
    write_tar(pool / "0.tar", [m for i, key in enumerate(FATAL_KEYS) for m in good(key, i)])
    write_tar(pool / "1.tar", [m for i in range(40) for m in good(f"{i}", i)])
    params = embed_params.EmbedParams(*sources.identity(str(tiny_model), None), batch_size=4)
    units = embed_params.plan(expand_input(str(pool)), params)
    found = []
    counted = metrics.total(metrics.SAMPLES_DECODED_REMOTELY)
    for folder, processes, helpers in (("local", 1, None), ("remote", 0, InProcessHelpers({"x": 2, "y": 1}))):
        worker = stage.EmbedWorker(
            str(tmp_path / folder), params, str(tiny_model), None, "cpu", processes, 0.2, helpers=helpers
        )
        found.append([worker(unit) for unit in (units if helpers is None else units[::-1])])
        worker.close()
    assert metrics.total(metrics.SAMPLES_DECODED_REMOTELY) - counted == len(FATAL_KEYS) + 40
    local, remote = found
    assert local == remote[::-1]
    _, rejects, _ = tables(str(tmp_path / "remote"), remote[1])
    expected = {key: reason for key, reason in FATAL_REASONS.items() if key != "junk"}
    assert dict(zip(rejects["key"].to_pylist(), rejects["reason"].to_pylist(), strict=True)) == expected
    assert {file.name for file in local[0].files} == {files.SAMPLES, files.EMBEDDINGS, files.REJECTS}


@pytest.mark.ray
def test_cluster_whose_helper_nodes_join_and_leave(tiny_model, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for shard in range(30):
        write_tar(pool / f"{shard:02d}.tar", [m for i in range(16) for m in good(f"{i}", 16 * shard + i)])
    command = [
        sys.executable,
        "-m",
        "tests.embed.decode.remote_cluster",
        str(pool),
        str(tiny_model),
        str(tmp_path / "ray"),
    ]
    surroundings = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    surroundings |= {"RAY_AUTH_MODE": "disabled"}
    surroundings.pop("RAY_ADDRESS", None)
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run(command, cwd=root, env=surroundings, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    facts = json.loads(ran.stdout.splitlines()[-1])
    # Two workers with half a GPU each on the head, which has no spare core; one core of the first node each.
    assert facts["room"] == 2 and facts["places at first"] == [] and facts["places then"] == [1]
    used, removed, used_too = facts["steps"]
    assert used == "the first node decoded" and used_too == "the second node decoded" and "removed" in removed
    # The removed node held tasks; no shard was restarted because of them, and every byte is the same.
    assert facts["most calls"] == 1
    params = embed_params.EmbedParams(*sources.identity(str(tiny_model), None), batch_size=4)
    units = embed_params.plan(expand_input(str(pool)), params)
    make = functools.partial(stage.EmbedWorker, str(tmp_path / "local"), params, str(tiny_model), None, "cpu")
    receipts = InProcess().map(make, units, Resources(units_in_flight=stage.SHARDS_IN_FLIGHT))
    local = {one.key: sorted([file.name, file.checksum] for file in one.files) for one in receipts}
    assert facts["receipts"] == local and len(local) == 30
