"""The worker of the select stage needs the files of one part only."""

import shutil
from pathlib import Path

import pytest

from d2prune.execution import InProcess
from d2prune.parts.reader import Parts
from d2prune.runs.driver import run
from d2prune.select.params import SelectParams
from d2prune.select.thresholds import find_thresholds
from d2prune.select.worker import SelectWorker, plan_select
from tests.pools import tree


@pytest.mark.parametrize("groups", [None, "shard"])
def test_part_is_decided_without_the_files_of_other_parts(configure, tmp_path, groups):
    config = configure(**{"select__groups": groups} if groups else {})
    manifests = run(config, InProcess(), stop_after="select").manifests
    embed, rank = Path(config.work_dir, "embed"), Path(config.work_dir, "rank")
    params = SelectParams(config.select.fraction, None, None, groups)
    stages = {stage: manifests[stage].units for stage in ("embed", "rank")}
    parts, counters = Parts(config.work_dir, stages), manifests["rank"].counters
    thresholds = find_thresholds(parts, params, counters["ranked"])
    units = plan_select(stages["rank"], thresholds, groups)
    part = len(units) // 2
    for folder, receipts in ((embed, stages["embed"]), (rank, stages["rank"])):
        for receipt in (*receipts[:part], *receipts[part + 1 :]):
            shutil.rmtree(folder / "units" / receipt.key)
    receipt = SelectWorker(parts, str(tmp_path / "select"))(units[part])
    assert receipt == manifests["select"].units[part]
    assert tree(tmp_path / "select" / "units" / receipt.key) == tree(
        Path(config.work_dir, "select", "units", receipt.key)
    )
