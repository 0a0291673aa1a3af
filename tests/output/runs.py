"""Run the write stage from claim to manifest, as a run does."""

from functools import partial

from d2prune.execution import InProcess, Resources
from d2prune.output import claim, receipts
from d2prune.write.close import close_output
from d2prune.write.plan import KeepExecutableParams, WriteParams
from d2prune.write.worker import WriteWorker

IDENTITY = "1d" * 16


def write(pool, output, samples_per_shard=7, identity=IDENTITY, order=lambda units: units, params=None):
    """Return the manifest, and the keys of the units that this call ran."""
    params = params or WriteParams(samples_per_shard)
    units = pool.plan(params)
    claim.claim(output, identity)
    claim.remove_temporaries(output)
    found = receipts.find_complete(pool.work_dir, output, [unit.key for unit in units])
    pending = order([unit for unit in units if unit.key not in found])
    make = partial(WriteWorker, pool.work_dir, output, isinstance(params, KeepExecutableParams))
    for receipt in InProcess().map(make, pending, Resources()):
        found[receipt.key] = receipt
    manifest = close_output(
        output,
        pool.work_dir,
        identity,
        params,
        pool.shards,
        pool.select,
        units,
        [found[unit.key] for unit in units],
    )
    return manifest, [unit.key for unit in pending]
