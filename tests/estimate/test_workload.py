"""`d2prune plan`: workloads from a configuration, the printed table, and a real calibration."""

import pytest

from d2prune.cli.main import main
from d2prune.config.model import RunConfig
from d2prune.estimate.costs import Fleet, Rates, make_plan
from d2prune.estimate.workload import default_rates, make_workload
from d2prune.runs.stages import STAGES


@pytest.fixture
def plan(config_file, capsys):
    def _plan(*options):
        code = main(["plan", "--config", str(config_file), *options])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return _plan


def test_plan_for_a_number_of_samples(plan):
    code, out, _ = plan("--samples", "12.8e6", "--embed-rate", "300", "--gpus", "8", "--gpu-price", "2")
    assert code == 0
    assert out.startswith(
        "12,800,000 samples in 1,280 shards, 448 GB; 8 GPUs, 16 cores, 2 per GPU hour and 0 per core hour"
    )
    first_words = [line.split()[0] for line in out.splitlines() if line.strip()]
    table = ["stage", *(stage.name for stage in STAGES if stage.name not in ("rescore", "dedup"))]
    assert out.splitlines()[1] == "selection: d2, k = 4, gamma 5/median forward and 5/median reverse"
    assert first_words[3:] == [*table, "wall", "cost", "memory", "limit"]


def test_plan_for_the_listed_input(plan):
    code, out, _ = plan("--embed-rate", "10")
    assert code == 0 and "in 4 shards" in out
    assert "cost" not in out


def test_usage_errors(plan):
    assert plan("--samples", "0", "--embed-rate", "10")[0] == 2
    code, _, err = plan("--samples", "1e6")
    assert code == 2 and "expected --embed-rate SAMPLES_PER_SECOND, or --calibrate" in err


def test_calibration_measures_a_real_run(plan):
    code, out, _ = plan("--calibrate", "3", "--cpus", "1")
    assert code == 0
    assert out.startswith("160 samples in 4 shards")
    assert "calibrated on 120 samples of 3 shards" in out
    code, _, err = plan("--calibrate", "1")
    assert code == 2 and "--calibrate: found 1; expected a whole number from 2" in err


def test_times_and_bytes_of_several_models_add_up():
    def config(embed, **graph):
        values = {"input": "x", "work_dir": "w", "output": "o", "select": {"fraction": 0.3}}
        return RunConfig.parse({**values, "embed": embed, "graph": graph}, "test")

    b32, l14 = (config({"model": name, "pretrained": "openai"}) for name in ("ViT-B-32", "ViT-L-14"))
    both = config({"models": ["ViT-B-32/openai", "ViT-L-14/openai"]}, model="l14")
    fleet = Fleet(gpus=1, cpus=8)
    one, other, together = (default_rates(each, None, fleet).embed_s for each in (b32, l14, both))
    assert together == pytest.approx(one + other)
    works = [make_workload(each, 10**6) for each in (b32, l14, both)]
    assert [(work.dimension, work.stored_values) for work in works] == [(512, 1024), (768, 1536), (768, 2560)]
    written = [make_plan(work, Rates(0.01), fleet)[0].written for work in works]
    assert written[2] - written[0] == 2 * 1536 * 10**6
