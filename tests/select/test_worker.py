"""The select stage's worker: what it needs to decide about a part."""

import shutil
from pathlib import Path

import pytest

from d2prune.execution import InProcess
from d2prune.runs.driver import run
from d2prune.select import worker
from tests.pools import tree


@pytest.mark.parametrize("groups", [None, "shard"])
def test_a_part_is_decided_without_any_other_part(configure, tmp_path, groups):
    config = configure(**{"select__groups": groups} if groups else {})
    manifests = run(config, InProcess(), stop_after="select").manifests
    embed, rank = Path(config.work_dir, "embed"), Path(config.work_dir, "rank")
    params = worker.SelectParams(config.select.fraction, None, None, groups)
    parts = manifests["embed"].units
    line = worker.draw_line(str(rank), manifests["rank"], str(embed), parts, params)
    units = worker.plan_select(manifests["rank"].units, line, params)
    part = len(units) // 2
    for folder, receipts in ((embed, parts), (rank, manifests["rank"].units)):
        for receipt in (*receipts[:part], *receipts[part + 1 :]):
            shutil.rmtree(folder / "units" / receipt.key)
    receipt = worker.SelectWorker(str(embed), str(rank), str(tmp_path / "select"), parts)(units[part])
    assert receipt == manifests["select"].units[part]
    assert tree(tmp_path / "select" / "units" / receipt.key) == tree(
        Path(config.work_dir, "select", "units", receipt.key)
    )
