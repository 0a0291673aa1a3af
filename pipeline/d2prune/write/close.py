"""Close the output folder of a run: sort the units' receipts by kind and balance the sample counts."""

import dataclasses
from collections.abc import Mapping, Sequence

from d2prune.inputs.find import SourceShard
from d2prune.output import receipts as unit_receipts
from d2prune.output.closing import OutputRun, close_table_output, close_tar_output
from d2prune.output.manifest import OutputManifest
from d2prune.parts.files import DECISIONS
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.write.plan import (
    DecisionsUnit,
    KeptTableUnit,
    SharedTarUnit,
    StableParams,
    TarUnit,
    Unit,
    WriteParams,
)


def close_output(
    output: str,
    work_dir: str,
    identity: str,
    params: WriteParams,
    shards: Sequence[SourceShard],
    select: Manifest,
    units: Sequence[Unit],
    receipts: Sequence[Receipt],
    reused: Mapping[str, int] | None = None,
) -> OutputManifest:
    """Balance the sample counts, then write the files that describe the whole folder and its manifest.

    Args:
        output: URL of the output folder, claimed with `identity`.
        work_dir: holds the units' receipts, in `write`.
        identity: fingerprint of everything that decides the output's content.
        params: what the units were planned with.
        shards: the pool in canonical order.
        select: the select artifact.
        units: as planned.
        receipts: one per unit, in the order of `units`.
        reused: what of it the output before has, too; only of an output of shared tars.

    Raises:
        BooksError: written differs from selected, or the decisions do not cover the whole pool.
    """
    pairs = list(zip(units, receipts, strict=True))
    tars = [receipt for unit, receipt in pairs if isinstance(unit, TarUnit | SharedTarUnit)]
    tables = [receipt for unit, receipt in pairs if isinstance(unit, KeptTableUnit)]
    decisions = [receipt for unit, receipt in pairs if isinstance(unit, DecisionsUnit)]
    pool = sum(unit.rows(DECISIONS) for unit in select.units)
    selected = sum(unit.counters["kept"] for unit in select.units)
    listed = artifacts.sum_counters(decisions)
    artifacts.balance("write: decisions", pool, {"listed": listed.get("listed", 0)})
    artifacts.balance("write: kept decisions", selected, {"listed as kept": listed.get("listed_kept", 0)})
    others = [record for receipt in decisions for record in unit_receipts.written_objects(receipt)]
    run = OutputRun(output, work_dir, identity, dataclasses.asdict(params), pool, selected, shards)
    if tables:
        uid = next(unit.uid for unit in units if isinstance(unit, KeptTableUnit))
        return close_table_output(dataclasses.replace(run, params={"uid": uid}), tables, others)
    shared = isinstance(params, StableParams)
    return close_tar_output(run, params.samples_per_shard, tars, others, reused, shared)
