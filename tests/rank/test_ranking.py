"""The rank stage on real artifacts: partitions, losses and checkpoints change no committed byte."""

import dataclasses
from functools import partial

import pytest

from d2prune import store
from d2prune.execution import InProcess, Resources
from d2prune.parts.files import RANKS, SAMPLES, SUPPRESSORS
from d2prune.parts.reader import Parts
from d2prune.rank.job import RankJob
from d2prune.rank.member import RankMember
from d2prune.rank.params import Resolved
from d2prune.rank.ranking import rank, resolve
from d2prune.rounds.group import run_to_completion
from d2prune.rounds.member import UID_EXCHANGES
from d2prune.rounds.rows import share_parts
from d2prune.runs.driver import run
from d2prune.runs.plan import plan_run
from d2prune.store import artifacts
from tests.pools import tree
from tests.rounds.graph_member import LossyGroup

RESOLVED = Resolved(offset=0.5, gamma_forward=1.0, gamma_reverse=1.0)


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
def test_parts_are_divided_evenly_and_completely(rows, n, bounds):
    assert share_parts(rows, n) == bounds


def parts_of(config, manifests):
    return Parts(config.work_dir, {stage: manifests[stage].units for stage in ("embed", "graph")})


class LossyMethodGroup(LossyGroup):
    """Loses a member before the first exchange of a given method."""

    def __init__(self, group, method, member):
        super().__init__(group, {})
        self.method, self.member = method, member

    def exchange(self, method, members, inboxes, *arguments):
        if method == self.method:
            self.group.lose(self.member)
            self.method = None
        return super().exchange(method, members, inboxes, *arguments)


def test_lost_members_recover_from_their_files(configure, tmp_path):
    config = configure()
    result = run(config, InProcess(), stop_after="rank")
    folder = str(tmp_path / "rank-again")
    params = plan_run(config)["rank"].params
    parts = parts_of(config, result.manifests)
    resolved = resolve(parts, params, InProcess(), Resources())
    assert dataclasses.asdict(resolved) == result.manifests["rank"].facts
    job = RankJob(parts, folder, params, resolved, (0, 1, 2, 3, 4))
    losses = {call: [call % 4] for call in range(2, 60, 2)}
    for make_lossy in (
        partial(LossyGroup, losses=losses),
        *(partial(LossyMethodGroup, method=name, member=2) for name in UID_EXCHANGES),
    ):
        group = make_lossy(InProcess().group(partial(RankMember, job), 4, Resources()))
        by_member = run_to_completion(group, "commit", UID_EXCHANGES, checkpoint_every=1)
        assert store.list_files(job.checkpoints)
        receipts = [receipt for member in by_member for receipt in member]
        assert receipts == list(result.manifests["rank"].units)
        assert tree(f"{folder}/units") == tree(f"{config.work_dir}/rank/units")
        store.delete([file.url for file in store.list_files(folder)])


def test_suppressors_are_recorded_by_uid(configure, tmp_path):
    config = configure()
    result = run(config, InProcess(), stop_after="graph")
    parts, folder = parts_of(config, result.manifests), str(tmp_path / "rank")
    uids = [uid for _, table in parts.read_all(SAMPLES, ["uid"]) for uid in table["uid"].to_pylist()]
    params = plan_run(config)["rank"].params
    for receipt in rank(parts, folder, params, RESOLVED, InProcess(), Resources(workers=4)):
        positions = artifacts.read_table(folder, receipt, RANKS)["suppressor"].to_pylist()
        names = artifacts.read_table(folder, receipt, SUPPRESSORS)["suppressed_by"].to_pylist()
        assert names == [uids[position] if position >= 0 else None for position in positions]
        assert len(set(names)) > 2 and None in names


def test_checkpoints_are_deleted_at_the_end(configure, tmp_path):
    config = configure()
    result = run(config, InProcess(), stop_after="graph")
    params, folder = plan_run(config)["rank"].params, str(tmp_path / "rank")
    parts = parts_of(config, result.manifests)
    one = rank(parts, folder, params, RESOLVED, InProcess(), Resources(workers=1))
    four = rank(parts, folder, params, RESOLVED, InProcess(), Resources(workers=4))
    assert one == four
    assert not [file for file in store.list_files(folder) if "/checkpoints/" in file.url]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04half", b"no archive"])
def test_a_damaged_checkpoint_is_ignored(configure, tmp_path, caplog, data):
    config = configure()
    result = run(config, InProcess(), stop_after="graph")
    params, folder = plan_run(config)["rank"].params, str(tmp_path / "rank")
    parts = parts_of(config, result.manifests)
    undisturbed = rank(parts, folder, params, RESOLVED, InProcess(), Resources(workers=4))
    job = RankJob(parts, folder, params, RESOLVED, (0, 1, 2, 3, 4))
    for partition in (0, 2):
        store.write_bytes(f"{job.checkpoints}/{partition:06d}.npz", data)
    assert rank(parts, folder, params, RESOLVED, InProcess(), Resources(workers=4)) == undisturbed
    assert caplog.text.count("damaged checkpoint, ignored") == 2
