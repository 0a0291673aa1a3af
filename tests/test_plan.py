"""The plan of a run: amounts that can be counted by hand, limits that change with the fleet, and a real calibration."""

import dataclasses

import pytest

from d2prune.cli.main import main
from d2prune.estimate.costs import STAGES, Fleet, Rates, Workload, cost, graph_seconds, make_plan

WORK = Workload(samples=1_000_000, sample_bytes=30_000, shards=100, dimension=512, sides=1, fraction=0.25)
RATES = Rates(embed_s=1 / 500)
FLEET = Fleet(gpus=4, cpus=64)


def by_stage(work=WORK, rates=RATES, fleet=FLEET):
    return {plan.stage: plan for plan in make_plan(work, rates, fleet)}


def test_what_can_be_counted():
    plans = by_stage()
    assert tuple(plans) == STAGES
    embed, write = plans["embed"], plans["write"]
    assert (embed.units, embed.read) == (100, 30e9)
    assert embed.gpu_hours == pytest.approx(1e6 / 500 / 3600)
    assert embed.wall_s == pytest.approx(1e6 / 500 / 4) and embed.limit == "GPU"
    assert write.units == 25 + 100
    assert write.read >= 250_000 * 30_000 and plans["rank"].gpu_hours == 0
    assert cost(list(plans.values()), Fleet(4, 64, gpu_price=3.0)) == pytest.approx(3 * embed.gpu_hours)


def test_the_limit_is_what_is_scarce():
    assert by_stage(fleet=Fleet(gpus=4, cpus=2))["embed"].limit == "decoding"
    assert by_stage(fleet=Fleet(gpus=0, cpus=64))["embed"].limit == "CPU"
    assert by_stage(rates=dataclasses.replace(RATES, store_bytes_s=1e5))["embed"].limit == "store"
    assert by_stage(fleet=Fleet(cpus=1000))["graph"].limit == "partitions"
    # More devices than shards are of no use.
    few = dataclasses.replace(WORK, shards=2)
    assert (
        by_stage(few, fleet=Fleet(8, 64))["embed"].wall_s == by_stage(few, fleet=Fleet(2, 64))["embed"].wall_s
    )


def test_a_worker_stays_of_one_size_while_the_pool_grows():
    large = dataclasses.replace(WORK, samples=12_800_000_000, shards=1_280_000)
    plans, small = by_stage(large, fleet=Fleet(256, 8192)), by_stage()
    for stage in ("embed", "select", "write"):
        assert plans[stage].memory == pytest.approx(small[stage].memory, rel=0.01)
    assert plans["graph"].partitions > small["graph"].partitions


def test_the_graph_grows_like_its_kernels():
    def seconds(samples, **more):
        return graph_seconds(dataclasses.replace(WORK, samples=samples, **more), RATES)

    assert 2 < seconds(2_000_000) / seconds(1_000_000) < 4
    exact = [seconds(count, exact=True) for count in (100_000, 200_000)]
    assert 3.5 < exact[1] / exact[0] < 4
    # Measured on two quiet cores, CPU seconds: docs/results.md.
    assert seconds(99_999) == pytest.approx(7.3, rel=0.1)


@pytest.fixture
def plan(config_file, capsys):
    def _plan(*options):
        code = main(["plan", "--config", str(config_file), *options])
        said = capsys.readouterr()
        return code, said.out, said.err

    return _plan


def test_printed_for_a_number_of_samples(plan):
    code, out, _ = plan("--samples", "12.8e6", "--embed-rate", "300", "--gpus", "8", "--gpu-price", "2")
    assert code == 0
    assert out.startswith(
        "12,800,000 samples in 1,280 shards, 448 GB; 8 GPUs, 16 cores, 2 and 0 per GPU and core hour"
    )
    rows = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert rows[2:9] == ["stage", *STAGES] and rows[9:] == ["wall", "cost", "memory", "limit"]


def test_printed_for_the_input_as_it_lies(plan):
    code, out, _ = plan("--embed-rate", "10")
    assert code == 0 and "in 4 shards" in out
    assert "cost" not in out


def test_mistakes(plan):
    assert plan("--samples", "0", "--embed-rate", "10")[0] == 2
    code, _, err = plan("--samples", "1e6")
    assert code == 2 and "give --embed-rate SAMPLES_PER_SECOND of one worker, or --calibrate" in err


def test_calibrated_by_a_real_run(plan):
    code, out, _ = plan("--calibrate", "3", "--cpus", "1")
    assert code == 0
    assert out.startswith("160 samples in 4 shards")
    assert "calibrated on 120 samples of 3 shards" in out
    code, _, err = plan("--calibrate", "1")
    assert code == 2 and "expected 2 or more" in err


def test_several_models_take_the_sum_of_their_times_and_bytes():
    from d2prune.config.model import RunConfig
    from d2prune.estimate.workload import default_rates, workload

    def config(embed, **graph):
        values = {"input": "x", "work_dir": "w", "output": "o", "select": {"fraction": 0.3}}
        return RunConfig.parse({**values, "embed": embed, "graph": graph}, "test")

    b32, l14 = (config({"model": name, "pretrained": "openai"}) for name in ("ViT-B-32", "ViT-L-14"))
    both = config({"models": ["ViT-B-32/openai", "ViT-L-14/openai"]}, model="l14")
    fleet = Fleet(gpus=1, cpus=8)
    one, other, together = (default_rates(each, None, fleet).embed_s for each in (b32, l14, both))
    assert together == pytest.approx(one + other)
    works = [workload(each, 10**6) for each in (b32, l14, both)]
    assert [(work.dimension, work.stored) for work in works] == [(512, 1024), (768, 1536), (768, 2560)]
    written = [make_plan(work, Rates(0.01), fleet)[0].written for work in works]
    assert written[2] - written[0] == 2 * 1536 * 10**6
