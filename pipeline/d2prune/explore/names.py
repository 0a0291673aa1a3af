"""Looking samples up by name: a uid, the beginning of one, a key, or `shard/key`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from d2prune.inputs.sample_id import normal_uid
from d2prune.parts.files import DECISIONS, REJECTS
from d2prune.runs.finished import FinishedRun

_MAX_SUGGESTIONS = 3


@dataclass(frozen=True)
class RejectedSample:
    """A sample that was read but not embedded."""

    shard: str
    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Match:
    """The samples that a name matches.

    Attributes:
        positions: canonical positions of embedded samples.
        rejected: rejected samples.
        suggestions: if there are neither, uids that begin similarly.
    """

    positions: tuple[int, ...]
    rejected: tuple[RejectedSample, ...]
    suggestions: tuple[str, ...] = ()


def find_samples(run: FinishedRun, names: Sequence[str]) -> dict[str, Match]:
    """Look names up; reads three columns of the pool once.

    A uid, in upper or lower case and with or without the dashes of a UUID, shared by several samples, or
    a key that occurs in several shards, matches all of them. The beginning of a uid matches only if it
    is unique.
    """
    decisions = pa.concat_tables(run.parts.peek_all(DECISIONS, ["uid", "key", "shard"]))
    rejects = pa.concat_tables(run.parts.peek_all(REJECTS, ["shard", "key", "reason", "detail"]))
    return {name: match_name(name, decisions, rejects) for name in names}


def match_name(name: str, decisions: pa.Table, rejects: pa.Table) -> Match:
    """Look one name up.

    Args:
        name: what to look up.
        decisions: with columns uid, key and shard, in canonical order.
        rejects: as the rejects table.
    """
    uid = decisions["uid"]
    wanted = normal_uid(name) or name.lower()
    positions = _true_rows(pc.or_(pc.equal(uid, wanted), _has_key(decisions, name)))
    rejected = tuple(RejectedSample(**row) for row in rejects.filter(_has_key(rejects, name)).to_pylist())
    if positions or rejected:
        return Match(positions, rejected)
    for length in range(len(wanted), 0, -1):
        matching = _true_rows(pc.starts_with(uid, wanted[:length]))
        uids = sorted(set(uid.take(pa.array(matching[:1000])).to_pylist())) if matching else []
        if length == len(wanted) and len(uids) == 1:
            return Match(matching, ())
        if uids:
            return Match((), (), tuple(uids[:_MAX_SUGGESTIONS]))
    return Match((), ())


def _has_key(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Which rows have this key, or this `shard/key`.

    `tar -C FOLDER .` puts `./` before every key; the name may leave it out.
    """
    shard, _, key = name.rpartition("/")
    has_key = pc.is_in(table["key"], value_set=pa.array([name, f"./{name}"]))
    if not shard:
        return has_key
    in_shard = pc.and_(
        pc.equal(table["shard"], shard), pc.is_in(table["key"], value_set=pa.array([key, f"./{key}"]))
    )
    return pc.or_(has_key, in_shard)


def _true_rows(mask: pa.ChunkedArray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(np.asarray(mask.to_numpy()).astype(bool)).tolist())
