"""No sample stops the pool: each has one outcome, in order, whatever happens to the processes."""

import os
import random
import signal
import time

import numpy as np
import pytest

from d2prune.embed.decode.decoder import DecodedSample
from d2prune.embed.decode.pool import DecodePool
from d2prune.errors import D2PruneError, InfrastructureError
from d2prune.inputs import rejects
from d2prune.inputs.tar.reader import TarSample
from tests.embed.decode.faulty_decoders import DyingDecoder, MisbehavingDecoder


def sample(key, size=0):
    return TarSample(key, 0, size, {"jpg": bytes(1000)}, {}, ("jpg",))


@pytest.fixture
def make_pool(tmp_path):
    pools = []

    def make(work=None, processes=2, slots=32, timeout_s=0.3, **options):
        pools.append(
            DecodePool(
                work or MisbehavingDecoder(str(tmp_path)),
                processes,
                12,
                slots,
                timeout_s=timeout_s,
                **options,
            )
        )
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def outcomes(pool, tasks):
    """Decode lists of keys, each list a task; return their keys or reasons. Checks the pixels."""
    with pool.lane() as lane:
        slots = iter(random.Random(0).sample(range(pool.slots), pool.slots))
        given = [[(next(slots), sample(key)) for key in task] for task in tasks]
        futures = [lane.submit(task) for task in given]
        found = [future.result(timeout=60) for future in futures]
        for task, results in zip(given, found, strict=True):
            for (slot, one), result in zip(task, results, strict=True):
                if isinstance(result, DecodedSample):
                    assert result.key == one.key
                    assert (lane.pixels[slot] == len(one.key)).all()
        return [
            [result.key if isinstance(result, DecodedSample) else result.reason for result in task]
            for task in found
        ]


def test_outcomes_come_in_order(make_pool, decode_program):
    tasks = [[f"{'k' * i}{j}" for j in range(3)] for i in range(8)]
    assert outcomes(make_pool(), tasks) == tasks


CRASH, TIMEOUT = rejects.IMAGE_CRASHED_DECODER, rejects.IMAGE_TIMEOUT


@pytest.mark.parametrize("processes", [1, 3])
def test_fatal_sample_is_one_reject_and_its_neighbours_survive(make_pool, processes):
    tasks = [
        ["a", "segfault", "b"],
        ["spin", "c"],
        ["d"],
        ["killed-once", "e", "segfault-2"],
        ["no-memory", "f"],
    ]
    assert outcomes(make_pool(processes=processes), tasks) == [
        ["a", CRASH, "b"],
        [TIMEOUT, "c"],
        ["d"],
        ["killed-once", "e", CRASH],
        [CRASH, "f"],
    ]


def test_decoder_that_waits_forever_is_ended_by_the_wall_clock_limit(make_pool):
    assert outcomes(make_pool(timeout_s=0.05), [["sleep", "a"]]) == [[TIMEOUT, "a"]]


def test_processes_killed_from_outside_lose_nothing(make_pool):
    """Each process is killed once: a sample that ends two processes is rejected, whatever ended them."""
    pool = make_pool(processes=2, slots=400)
    with pool.lane() as lane:
        futures = [
            lane.submit([(8 * task + i, sample(f"{task}-{i}")) for i in range(8)]) for task in range(50)
        ]
        for index, task in enumerate((3, 25)):
            futures[task].result(timeout=60)
            while (process := pool._processes[index]) is None:
                time.sleep(0.01)
            os.kill(process.popen.pid, signal.SIGKILL)
        found = [result.key for future in futures for result in future.result(timeout=60)]
    assert found == [f"{task}-{i}" for task in range(50) for i in range(8)]


def test_replies_and_tasks_larger_than_a_socket_holds(make_pool):
    pool = make_pool(processes=1)
    with pool.lane() as lane:
        big = [TarSample(f"{i}", 0, 3 << 20, {"jpg": bytes(3 << 20)}, {}, ()) for i in range(4)]
        futures = [lane.submit([(i, one)]) for i, one in enumerate(big)]
        assert [len(future.result(timeout=60)[0].caption) for future in futures] == [3 << 20] * 4


def test_lanes_do_not_share_slots(make_pool):
    pool = make_pool(lanes=2)
    with pool.lane() as one, pool.lane() as two:
        one.submit([(0, sample("a"))]).result(timeout=60)
        two.submit([(0, sample("bbb"))]).result(timeout=60)
        assert (one.pixels[0] == 1).all() and (two.pixels[0] == 3).all()
        assert not np.shares_memory(one.pixels, two.pixels)


def test_defect_of_the_decoder_is_an_error_not_a_reject(make_pool):
    pool = make_pool()
    with pool.lane() as lane, pytest.raises(D2PruneError, match="ZeroDivisionError: a defect"):
        lane.submit([(0, sample("defect"))]).result(timeout=60)
    assert outcomes(pool, [["a"]]) == [["a"]]


def test_processes_that_never_start_fail_the_task(make_pool):
    pool = make_pool(DyingDecoder())
    with pool.lane() as lane, pytest.raises(InfrastructureError, match="die at startup"):
        lane.submit([(0, sample("a"))]).result(timeout=60)


def test_close_fails_unfinished_tasks_and_leaves_no_process(decode_program, make_pool, tmp_path):
    pool = make_pool(processes=1, timeout_s=60)
    with pool.lane() as lane:
        future = lane.submit([(0, sample("sleep"))])
        waiting = lane.submit([(1, sample("a"))])
        while not (tmp_path / "sleep").exists():
            time.sleep(0.01)
        (process,) = pool._processes
        pool.close()
        assert isinstance(future.exception(timeout=10), InfrastructureError)
        assert isinstance(waiting.exception(timeout=10), InfrastructureError)
        # So does a task that comes too late.
        late = lane.submit([(2, sample("b"))])
        assert isinstance(late.exception(timeout=10), InfrastructureError)
    assert process.popen.poll() is not None
