"""Estimates: amounts that can be counted by hand, and limits that depend on the fleet."""

import dataclasses

import pytest

from d2prune.estimate.costs import Fleet, Rates, graph_seconds, make_plan, total_cost
from d2prune.estimate.work import Workload
from d2prune.runs.stages import STAGES

WORK = Workload(samples=1_000_000, sample_bytes=30_000, shards=100, dimension=512, sides=1, fraction=0.25)
RATES = Rates(embed_s=1 / 500)
FLEET = Fleet(gpus=4, cpus=64)


def by_stage(work=WORK, rates=RATES, fleet=FLEET):
    return {plan.stage: plan for plan in make_plan(work, rates, fleet)}


def test_amounts_are_counted():
    plans = by_stage()
    assert list(plans) == [stage.name for stage in STAGES if stage.name not in ("rescore", "dedup")]
    rescored = by_stage(dataclasses.replace(WORK, compared=2 * 2 * 32_768, deduplicates=True))
    assert list(rescored) == [stage.name for stage in STAGES]
    assert rescored["rescore"].cpu_hours == pytest.approx(1e6 * 131_072 * 1024 / (0.6 * 1.2e11) / 3600)
    embed, write = plans["embed"], plans["write"]
    assert (embed.units, embed.read) == (100, 30e9)
    assert embed.gpu_hours == pytest.approx(1e6 / 500 / 3600)
    assert embed.wall_s == pytest.approx(1e6 / 500 / 4) and embed.limit == "GPU"
    assert write.units == 25 + 100
    assert write.read >= 250_000 * 30_000 and plans["rank"].gpu_hours == 0
    assert total_cost(list(plans.values()), Fleet(4, 64, gpu_price=3.0)) == pytest.approx(3 * embed.gpu_hours)


def test_limit_is_the_scarcest_resource():
    assert by_stage(fleet=Fleet(gpus=4, cpus=2))["embed"].limit == "decoding"
    assert by_stage(fleet=Fleet(gpus=0, cpus=64))["embed"].limit == "CPU"
    assert by_stage(rates=dataclasses.replace(RATES, store_bytes_s=1e5))["embed"].limit == "store"
    assert by_stage(fleet=Fleet(cpus=1000))["graph"].limit == "partitions"
    # More GPUs than shards do not help.
    few = dataclasses.replace(WORK, shards=2)
    assert (
        by_stage(few, fleet=Fleet(8, 64))["embed"].wall_s == by_stage(few, fleet=Fleet(2, 64))["embed"].wall_s
    )


def test_memory_of_a_worker_does_not_grow_with_the_pool():
    large = dataclasses.replace(WORK, samples=12_800_000_000, shards=1_280_000)
    plans, small = by_stage(large, fleet=Fleet(256, 8192)), by_stage()
    for stage in ("embed", "select", "write"):
        assert plans[stage].memory == pytest.approx(small[stage].memory, rel=0.01)
    assert plans["graph"].partitions > small["graph"].partitions


def test_graph_time_grows_like_its_kernels():
    def seconds(samples, **more):
        return graph_seconds(dataclasses.replace(WORK, samples=samples, **more), RATES)

    assert 2 < seconds(2_000_000) / seconds(1_000_000) < 4
    exact = [seconds(count, exact=True) for count in (100_000, 200_000)]
    assert 3.5 < exact[1] / exact[0] < 4
    # CPU seconds that `knn_graph_report` took on one core of a busy machine.
    assert seconds(99_999) == pytest.approx(5.5, rel=0.3)


def test_an_exact_graph_uses_a_gpu_if_that_is_faster():
    large = dataclasses.replace(WORK, samples=20_000_000, dimension=768, exact=True)
    on_gpu, on_cpu = by_stage(large)["graph"], by_stage(large, fleet=Fleet(0, 64))["graph"]
    assert on_gpu.limit == "one GPU" and on_gpu.gpu_hours == pytest.approx(2 * 768 * 4e14 / 2e14 / 3600)
    assert on_cpu.gpu_hours == 0 and on_cpu.wall_s > 100 * on_gpu.wall_s
    assert by_stage(dataclasses.replace(large, exact=False))["graph"].gpu_hours == 0
    slow = dataclasses.replace(RATES, graph_gpu_flops=1e9)
    assert by_stage(large, rates=slow)["graph"].limit == "one worker"
