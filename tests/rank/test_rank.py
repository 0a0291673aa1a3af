"""The rank stage on real artifacts: partitions, losses and checkpoints leave no trace in what is committed."""

from functools import partial

import pytest

from d2prune import store
from d2prune.execution import InProcess, Resources
from d2prune.rank import member as ranking
from d2prune.rank.member import CLOSING, RankJob, RankMember, rank, resolve_offset, share_parts
from d2prune.rank.pool import Pool
from d2prune.rank.settle import settle
from d2prune.runs.driver import run
from d2prune.runs.plan import plan_run
from d2prune.store import artifacts
from tests.pools import tree
from tests.rank.test_distributed_rounds import Losing


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


def pool_of(config, manifests, folder):
    embed, graph = manifests["embed"].units, manifests["graph"].units
    return Pool(f"{config.work_dir}/embed", embed, f"{config.work_dir}/graph", graph, str(folder))


class LosingAt(Losing):
    """Loses a member before the first call of an exchange that has this name."""

    def __init__(self, group, method, member):
        super().__init__(group, {})
        self.method, self.member = method, member

    def exchange(self, method, members, inboxes, *arguments):
        if method == self.method:
            self.group.lose(self.member)
            self.method = None
        return super().exchange(method, members, inboxes, *arguments)


def test_lost_members_come_back_from_their_files(configure, tmp_path):
    config = configure()
    result = run(config, InProcess(), stop_after="rank")
    folder = str(tmp_path / "rank-again")
    params = plan_run(config)["rank"].params
    pool = pool_of(config, result.manifests, folder)
    offset = resolve_offset(pool, params)
    assert offset == result.manifests["rank"].facts["offset"]
    job = RankJob(pool, params, offset, (0, 1, 2, 3, 4))
    losses = {call: [call % 4] for call in range(2, 60, 2)}
    for losing in (
        partial(Losing, losses=losses),
        *(partial(LosingAt, method=name, member=2) for name in CLOSING),
    ):
        group = losing(InProcess().group(partial(RankMember, job), 4, Resources()))
        receipts = [
            receipt for member in settle(group, "finish", CLOSING, checkpoint_every=1) for receipt in member
        ]
        assert store.list_files(job.checkpoints)
        assert receipts == list(result.manifests["rank"].units)
        assert tree(f"{folder}/units") == tree(f"{config.work_dir}/rank/units")
        store.delete([file.url for file in store.list_files(folder)])


def test_suppressors_are_named_by_the_uids_at_their_positions(configure, tmp_path):
    config = configure()
    result = run(config, InProcess(), stop_after="graph")
    pool = pool_of(config, result.manifests, tmp_path / "rank")
    uids = [
        uid
        for part in pool.parts
        for uid in artifacts.read_table(pool.embed_folder, part, "samples.parquet")["uid"].to_pylist()
    ]
    for receipt in rank(pool, plan_run(config)["rank"].params, 0.5, InProcess(), Resources(workers=4)):
        by = artifacts.read_table(pool.folder, receipt, ranking.RANKS)["suppressor"].to_pylist()
        names = artifacts.read_table(pool.folder, receipt, ranking.SUPPRESSORS)["suppressed_by"].to_pylist()
        assert names == [uids[position] if position >= 0 else None for position in by]
        assert len(set(names)) > 2 and None in names


def test_checkpoints_are_swept(configure, tmp_path):
    config = configure()
    result = run(config, InProcess(), stop_after="graph")
    params = plan_run(config)["rank"].params
    given = pool_of(config, result.manifests, tmp_path / "r")
    one = rank(given, params, 0.5, InProcess(), Resources(workers=1))
    four = rank(given, params, 0.5, InProcess(), Resources(workers=4))
    assert one == four
    assert not [file for file in store.list_files(given.folder) if "/checkpoints/" in file.url]
