"""The write stage from claim to manifest, as a run does it."""

from functools import partial

from d2prune.execution import InProcess, Resources
from d2prune.output import claim
from d2prune.output import manifest as finish
from d2prune.write import worker

IDENTITY = "1d" * 16


def write(pool, output, samples_per_shard=7, identity=IDENTITY, order=lambda units: units):
    """Returns the manifest and the keys of the units that were done now."""
    units = pool.units(samples_per_shard)
    claim.claim(output, identity)
    claim.sweep(output)
    receipts = worker.finished(pool.work_dir, output, units)
    todo = order([unit for unit in units if unit.key not in receipts])
    make = partial(worker.Writer, pool.work_dir, output)
    for receipt in InProcess().map(make, todo, Resources()):
        receipts[receipt.key] = receipt
    manifest = finish.finish(
        output,
        pool.work_dir,
        identity,
        worker.WriteParams(samples_per_shard),
        pool.shards,
        pool.select,
        units,
        [receipts[unit.key] for unit in units],
    )
    return manifest, [unit.key for unit in todo]
