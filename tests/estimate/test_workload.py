"""`d2prune plan`: workloads from a configuration, the printed table, and a real calibration."""

import re

import numpy as np
import pytest

from d2prune.cli.main import main
from d2prune.config.model import RunConfig
from d2prune.estimate.costs import Fleet, Rates, make_plan
from d2prune.estimate.table import format_seconds
from d2prune.estimate.workload import default_rates, make_workload
from d2prune.runs.stages import STAGES
from tests.tables import make_rows, write_columns, write_datacomp


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
    assert out.splitlines()[1] == "selection: d2, k = 4, gamma 8/median forward and 10/median reverse"
    assert first_words[3:] == [*table, "wall", "cost", "memory", "work_dir", "limit"]


def test_plan_for_the_listed_input(plan):
    code, out, _ = plan("--embed-rate", "10")
    assert code == 0 and "in 4 shards" in out
    assert "cost" not in out


BARE = {
    "--samples 12.8e9 --gpus 64": (
        "12,800,000,000 samples in 1,280,000 shards, 448 TB; 64 GPUs",
        r"wall time +[\d,]+\.\d days",
        "limit       graph takes 99% of the time (CPU): 16 cores compute all the time; more of them",
        "assumed     tars that ViT-L-14 embeds, 30 % kept;",
    ),
    "--samples 12.8e6 --cpus 2": (
        "12,800,000 samples in 1,280 parts of tables, 43 GB; 0 GPUs, 2 cores",
        "assumed     tables of embeddings as in DataComp's metadata (for tars, add --gpus or --embed-rate)",
    ),
    "--samples 1e6 --model ViT-B-32/openai --gpus 8 --fraction 0.1": (
        "1,000,000 samples in 100 shards, 35 GB",
        "limit       embed takes",
        "the 16 cores decode images more slowly than the GPUs encode them",
    ),
    "--samples 1000 --embed-rate 5 --set select.size=10": ("1,000 samples in 1 shards", "assumed     tars"),
    "--samples 1e6 --set select.method=random --set columns.text_emb=null": (
        "tables of embeddings",
        "30 % kept",
    ),
    "--samples 1e9 x.parquet --work-dir w --output o": ("1,000,000,000 samples in 100,000 parts of tables",),
}


@pytest.mark.parametrize("options", BARE)
def test_plan_without_a_configuration(options, capsys):
    assert main(["plan", *options.split()]) == 0
    printed = capsys.readouterr().out
    for text in BARE[options]:
        assert re.search(text, printed) if "+" in text else text in printed
    assert "h  " not in printed.split("wall time")[1].splitlines()[0]


@pytest.mark.parametrize(("write", "copies"), [(write_datacomp, False), (write_columns, True)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_plan_of_tables_reads_their_headers(tmp_path, capsys, write, copies, dtype):
    parts = [(0, 0), (120, 1), (80, 2)]
    pool = write(tmp_path / "pool", [make_rows(*part, dtype=dtype) for part in parts])
    command = ["plan", str(pool), "--fraction", "0.3", "--work-dir", "w", "--output", "o"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    # The second file has as many rows per byte as the first, to within the size of footers.
    samples = int(printed.split()[0])
    assert abs(samples - 200) < 60 and "parts of tables" in printed
    config = RunConfig.parse(
        {"input": str(pool), "work_dir": "w", "output": "o", "select": {"fraction": 0.3}}, "test"
    )
    work = make_workload(config, None)
    assert (work.tables, work.copies, work.dimension, work.stored_values) == (True, copies, 16, 32)
    size = np.dtype(dtype).itemsize
    embed, graph = make_plan(work, Rates(0.0), Fleet())[:2]
    # Copies are float16; what is read in place stays as it is.
    assert embed.written == work.samples * (60 + 64 * copies)
    assert embed.read == work.samples * (32 * size + work.sample_bytes)
    assert graph.read == work.samples * 32 * (2 if copies else size)
    assert main([*command, "--calibrate"]) == 2
    assert "--calibrate: found no embed.model, so the input is tables" in capsys.readouterr().err


def test_days_and_hours():
    shown = [format_seconds(value) for value in (119.94, 121, 7199, 7201, 172_799, 172_801, 4.266e7)]
    assert shown == ["119.9 s", "2 min", "120 min", "2.0 h", "48.0 h", "2.0 days", "493.8 days"]


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
