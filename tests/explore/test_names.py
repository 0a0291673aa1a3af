"""A uid, the beginning of one, a key and shard/key each find their samples."""

from uuid import UUID

import numpy as np
import pyarrow as pa

from d2prune.explore.names import Match, find_samples, match_name
from d2prune.parts.files import DECISIONS
from tests.explore.conftest import SAME


def test_a_name_finds_every_sample_that_has_it(finished):
    first = finished.parts.take(np.array([0]), DECISIONS, ["uid", "key", "shard"]).to_pylist()[0]
    end = len(finished)
    uid = first["uid"]
    spellings = [uid.upper(), uid[:9].upper(), str(UUID(uid)), str(UUID(uid)).upper()]
    unique = [uid, uid[:9], *spellings, first["key"], f"{first['shard']}/{first['key']}"]
    found = find_samples(finished, [*unique, SAME, "mute", "0", "zz"])
    for name in unique:
        assert found[name].positions == (0,)
    assert found[SAME].positions == (end - 2, end - 1)
    assert [rejected.reason for rejected in found["mute"].rejected] == ["caption-missing"]
    # A beginning that is not unique finds nothing and suggests some of the uids.
    assert found["0"].positions == () and len(found["0"].suggestions) == 3
    assert found["zz"] == Match((), ())


def test_a_key_is_found_without_the_dot_folder_that_tar_adds():
    decisions = pa.table({"uid": ["aa", "bb"], "key": ["./1", "2"], "shard": ["s", "s"]})
    rejects = pa.table({"shard": ["s"], "key": ["./3"], "reason": ["x"], "detail": [""]})
    for name, positions in (("1", (0,)), ("./1", (0,)), ("s/1", (0,)), ("2", (1,)), ("s/2", (1,))):
        assert match_name(name, decisions, rejects).positions == positions
    assert match_name("s/3", decisions, rejects).rejected[0].key == "./3"
