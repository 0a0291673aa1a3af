"""Where a stage runs: small ones in this process, large ones and those for GPUs on Ray."""

import math
from types import SimpleNamespace

import pytest

from d2prune.config.model import RunConfig
from d2prune.runs.placement import place


def config(model="demo", **more):
    return RunConfig.parse(
        {
            "input": "p",
            "work_dir": "w",
            "output": "o",
            "select": {"fraction": 0.3},
            "embed": {"model": model},
            **more,
        },
        "test",
    )


def embedded(samples):
    unit = SimpleNamespace(facts={"dimension": 512})
    return {"embed": SimpleNamespace(counters={"embedded": samples}, units=(unit,) * 100)}


def tars(count, size):
    return [SimpleNamespace(size=size) for _ in range(count)]


@pytest.mark.parametrize(
    ("stage", "samples", "here"),
    [
        ("rank", 1_500, True),
        ("select", 1_500, True),
        ("write", 1_500, True),
        ("graph", 1_500, True),
        ("select", 10**6, True),
        ("write", 10**6, False),
        ("graph", 10**6, False),
        ("rank", 10**8, False),
    ],
)
@pytest.mark.parametrize("ray_is_open", [True, False])
def test_small_stages_run_in_this_process(stage, samples, here, ray_is_open):
    placed = place(stage, config(), [], embedded(samples), ray_is_open, workers=16)
    assert placed.is_here == here
    assert placed.here_s >= 0 and math.isfinite(placed.here_s) == (stage != "rank" or here)


@pytest.mark.parametrize(
    ("shards", "model", "here"),
    [
        (tars(6, 1_250_000), "demo", True),
        (tars(600, 1_250_000), "demo", False),
        (tars(6, 1_250_000), "ViT-B-32", False),
    ],
    ids=["demo", "large", "model-of-unknown-speed"],
)
def test_embedding_runs_here_only_with_a_model_known_to_be_fast(shards, model, here):
    more = {"pretrained": "openai"} if model != "demo" else {}
    run = config(embed={"model": model, **more})
    assert place("embed", run, shards, {}, False, workers=2).is_here == here


@pytest.mark.parametrize("stage", ["embed", "rescore", "graph"])
def test_what_needs_a_gpu_runs_on_ray(stage):
    assert not place(stage, config(ray={"num_gpus": 1}), tars(1, 1_000), embedded(100), True).is_here


def test_large_samples_and_stages_that_need_much_memory_run_on_ray():
    assert place("write", config(), tars(10, 10**6), embedded(10_000), True, 16).is_here
    assert not place("write", config(), tars(10, 2 * 10**9), embedded(10_000), True, 16).is_here
    wide = config(graph={"n_neighbors": 50})
    assert math.isinf(place("rank", wide, [], embedded(4_000_000), True, 1).here_s)


def test_a_running_ray_makes_fewer_stages_pay_here():
    samples = [10 ** (n / 4) for n in range(8, 40)]
    counts = [
        sum(place("write", config(), [], embedded(round(n)), is_open, 16).is_here for n in samples)
        for is_open in (False, True)
    ]
    assert counts[0] > counts[1] > 0
