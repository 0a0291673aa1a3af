"""Stand-alone resharding: write the samples that a subset file names to an output folder.

A replacement for DataComp's resharder. Indexes the input tars once (the indexes stay in
`work_dir`), finds the samples that the subset file names, and writes them with the writer of the
write stage. Invariant: one output sample for each entry of the subset file whose uid is in the
pool.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pyarrow as pa

from d2prune import store
from d2prune.errors import UserError
from d2prune.execution import Executor, InProcess, Resources
from d2prune.inputs.shards import TarShard, expand_input
from d2prune.output import claim, layout, receipts, subset
from d2prune.output.closing import OutputRun, close_tar_output
from d2prune.output.executable import KEEP_OPTION
from d2prune.output.manifest import OutputManifest
from d2prune.output.objects import write_object
from d2prune.reshard import shard_index
from d2prune.reshard.matching import select_rows
from d2prune.reshard.plan import ReshardParams, plan
from d2prune.reshard.worker import ReshardWorker
from d2prune.stage.rebuilding import rebuild_damaged
from d2prune.stage.units import Work, run_units
from d2prune.store import artifacts

__all__ = ["ReshardParams", "reshard"]

log = logging.getLogger(__name__)

UNITS_IN_FLIGHT = 2
"""Tars a worker handles concurrently: one is read while another is hashed, written and closed.

Each has at most 64 MiB of reads from an object store in flight, and 96 MiB of uploads to one."""


def reshard(
    given: str | Sequence[str],
    subset_url: str,
    output: str,
    params: ReshardParams | None = None,
    work_dir: str | None = None,
    executor: Executor | None = None,
    resources: Resources | None = None,
    keep_executable_members: bool = False,
) -> OutputManifest:
    """Copy the samples that a subset file names to an output folder. The same call resumes after a kill.

    The calling process holds about 100 bytes per sample written.

    Args:
        given: the input tars: a folder, a glob, a brace pattern, or a list of them.
        subset_url: subset file, written by a run or by DataComp.
        output: URL of the output folder, empty or begun by the same call.
        params: see `ReshardParams`.
        work_dir: where indexes and receipts are kept; every worker must reach it. Default: a
            temporary local folder, so that a killed call starts over.
        executor: runs the units; default: this process.
        resources: of one worker, and the number of workers.
        keep_executable_members: see `output.executable`; default: they get another extension.

    Returns:
        The manifest of the output. Its count `missing` is the number of entries whose uid is not in
        the pool.

    Raises:
        UserError: there is no tar or no subset file, the output folder belongs to another run, or no
            uid of the subset file is in the pool, which leaves the output folder without a claim.
        BusyError: another process is writing to the output folder.
        BooksError: the number of samples written differs from the number selected.
    """
    params = params or ReshardParams()
    if params.samples_per_shard < 1:
        raise UserError(f"samples per shard: found {params.samples_per_shard}; expected at least 1")
    shards = _list_input(given, subset_url, output, work_dir)
    wanted = subset.read(subset_url)
    if not len(wanted):
        raise UserError(f"subset file {store.redact(subset_url)}: found no uids; expected at least one")
    pool = [(store.recordable(shard.url), shard.size, shard.version) for shard in shards]
    # Hashed and recorded only if set: all other outputs do not depend on the option.
    options = {KEEP_OPTION: True} if keep_executable_members else {}
    identity = artifacts.fingerprint(
        "reshard", params, store.checksum(wanted.tobytes()), pool, *options.items()
    )
    executor = executor or InProcess()
    resources = dataclasses.replace(resources or Resources(), units_in_flight=UNITS_IN_FLIGHT)
    with claim.hold(output, identity) as held, _open_work_dir(work_dir) as folder:

        def attempt() -> OutputManifest:
            indexes = _index_shards(folder, shards, executor, resources)
            rows = _select(wanted, indexes, f"subset file {store.redact(subset_url)}", output, shards)
            units = plan(rows, shards, params, identity)
            work = Work(
                "reshard",
                store.join(folder, receipts.FOLDER),
                units,
                worker=partial(ReshardWorker, folder, output, keep_executable_members),
                resources=resources,
                complete=receipts.find_complete(folder, output, [unit.key for unit in units]),
            )
            tars = run_units(work, executor)
            held.check()
            ids = write_object(output, layout.SAMPLE_IDS, subset.to_bytes(wanted), len(wanted))
            run = OutputRun(
                output=output,
                work_dir=folder,
                identity=identity,
                params=dataclasses.asdict(params) | options,
                pool=sum(index.num_rows for index in indexes),
                selected=rows.num_rows,
                shards=shards,
            )
            missing = {"missing": len(wanted) - rows.num_rows}
            return close_tar_output(run, params.samples_per_shard, tars, [ids], missing)

        return rebuild_damaged(attempt, held.check)


def _select(
    wanted: subset.UidArray, indexes: Sequence[pa.Table], shown: str, output: str, shards: Sequence[TarShard]
) -> pa.Table:
    """Select the rows to copy, and log how many entries are missing.

    Raises:
        UserError: all entries are missing; the output folder is free for another run.
    """
    rows = select_rows(wanted, indexes)
    missing, pool_size = len(wanted) - rows.num_rows, sum(index.num_rows for index in indexes)
    found = f"{shown}: {missing} of {len(wanted)} entries are not among the {pool_size} samples of the input"
    if missing and rows.num_rows:
        log.warning(found)
    elif missing:
        claim.withdraw(output)
        raise UserError(
            f"{found}: {len(shards)} tars, such as {store.redact(shards[0].url)}; expected the tars that "
            "the subset was made for. Uids hashed from embeddings (columns.uid: null) are in no tar"
        )
    return rows


def _list_input(
    given: str | Sequence[str], subset_url: str, output: str, work_dir: str | None
) -> list[TarShard]:
    """List the input tars; check that what is read is not where this call writes."""
    written = {"output": output} | ({"work_dir": work_dir} if work_dir is not None else {})
    store.check_readable("subset file", subset_url)
    shards = expand_input(given, written)
    if store.contains(store.resolve(output), store.resolve(subset_url)):
        raise UserError(
            f"subset file {store.redact(subset_url)} is in output {store.redact(output)}; expected an "
            "empty folder for the output"
        )
    return shards


@contextmanager
def _open_work_dir(given: str | None) -> Iterator[str]:
    if given is not None:
        store.sweep_temporaries(given)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="d2prune-reshard-") as folder:
        yield folder


def _index_shards(
    work_dir: str, shards: Sequence[TarShard], executor: Executor, resources: Resources
) -> list[pa.Table]:
    """Index the input tars and return the indexes in order; existing indexes are read."""
    folder = store.join(work_dir, "index")
    work = Work(
        "index",
        folder,
        shard_index.plan(shards),
        worker=partial(shard_index.IndexWorker, folder),
        resources=resources,
    )
    units = run_units(work, executor)
    counters = artifacts.sum_counters(units)
    skipped = {name: count for name, count in counters.items() if name != "samples" and count}
    if skipped:
        counts = ", ".join(f"{name} {count}" for name, count in skipped.items())
        log.warning("input: samples that cannot be indexed are skipped: %s", counts)
    return [artifacts.read_table(folder, receipt, shard_index.INDEX) for receipt in units]
