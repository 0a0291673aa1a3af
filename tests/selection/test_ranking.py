"""The rank stage on real artifacts: partitions, losses and checkpoints leave no trace in what is committed."""

from functools import partial

import pytest

from pipeline import storage
from pipeline.driver import run
from pipeline.execution import InProcess, Resources
from pipeline.run_plan import plan_run
from pipeline.selection.distributed import settle
from pipeline.selection.ranking import Pool, RankJob, RankMember, rank, resolve_offset, share_parts
from tests.pools import tree
from tests.selection.test_distributed import Losing


@pytest.mark.parametrize(
    ("rows", "n", "bounds"),
    [
        ([5], 4, [0, 1]),
        ([5, 5, 5, 5], 2, [0, 2, 4]),
        ([1, 1, 1, 97], 2, [0, 4]),
        ([97, 1, 1, 1], 2, [0, 1, 4]),
        ([0, 0, 3], 2, [0, 3]),
        ([2, 2, 2], 9, [0, 1, 2, 3]),
    ],
)
def test_parts_are_shared_evenly_and_completely(rows, n, bounds):
    assert share_parts(rows, n) == bounds


def test_lost_members_come_back_from_their_files(configure, tmp_path):
    config = configure()
    result = run(config, InProcess(), stop_after="rank")
    folder = str(tmp_path / "rank-again")
    params = plan_run(config).rank.params
    embed, graph = result.manifests["embed"], result.manifests["graph"]
    artifacts_of = Pool(f"{config.work_dir}/embed", embed.units, f"{config.work_dir}/graph", graph.units, folder)
    offset = resolve_offset(artifacts_of, params)
    assert offset == result.manifests["rank"].facts["offset"]
    job = RankJob(artifacts_of, params, offset, (0, 1, 2, 3, 4))
    losses = {call: [call % 4] for call in range(2, 60, 2)}
    group = Losing(InProcess().group(partial(RankMember, job), 4, Resources()), losses)
    receipts = [receipt for member in settle(group, "finish", checkpoint_every=1) for receipt in member]
    assert storage.list_files(job.checkpoints)
    assert receipts == list(result.manifests["rank"].units)
    assert tree(f"{folder}/units") == tree(f"{config.work_dir}/rank/units")


def test_checkpoints_are_swept(configure, tmp_path):
    config = configure()
    result = run(config, InProcess(), stop_after="graph")
    params = plan_run(config).rank.params
    manifests = result.manifests
    given = Pool(
        f"{config.work_dir}/embed",
        manifests["embed"].units,
        f"{config.work_dir}/graph",
        manifests["graph"].units,
        str(tmp_path / "r"),
    )
    one = rank(given, params, 0.5, InProcess(), Resources(workers=1))
    four = rank(given, params, 0.5, InProcess(), Resources(workers=4))
    assert one == four
    assert not [file for file in storage.list_files(given.folder) if "/checkpoints/" in file.url]
