"""A pool that changes from night to night, and the graph stage's work for it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from d2prune.execution import InProcess, Resources
from d2prune.graph import build
from d2prune.graph.params import Layout
from d2prune.graph.trained import copy_trained
from d2prune.parts.reader import Parts
from d2prune.store import artifacts, columns
from d2prune.store.artifacts import Manifest
from tests.pools import tree

ONE = Resources()
IN_STEPS = Layout(whole_below=0, partitions=3, buckets=2, batch_rows=200, in_transit=None)


def embed_pool(work_dir, shards) -> Manifest:
    """Commit the embed artifact of a pool: name -> float16 rows [N, D], in order."""
    folder = str(Path(work_dir) / "embed")
    units = []
    for name, rows in shards.items():
        key = artifacts.unit_key(name, rows.tobytes().hex())
        receipt = artifacts.read_receipt(folder, key)
        if receipt is None:
            names = {"shard": [name] * len(rows), "key": [f"sample{row}" for row in range(len(rows))]}
            schema = pa.schema([("shard", pa.string()), ("key", pa.string())])
            samples = pa.table(names, schema=schema)
            # A score to cut off by.
            samples = samples.append_column("row", pa.array(rows[:, 0].astype(np.float32)))
            tables = {
                "embeddings.parquet": pa.table({"image_emb": columns.vector_column(rows)}),
                "samples.parquet": samples,
            }
            receipt = artifacts.commit_unit(folder, key, tables)
        units.append(receipt)
    identity = artifacts.fingerprint("embed", [unit.key for unit in units])
    return artifacts.commit_manifest(folder, Manifest("embed", identity, {}, {}, tuple(units), {}))


def build_night(
    work_dir, shards, params, given=None, previous=None, layout=IN_STEPS, executor=None
) -> Manifest:
    """Build and commit the graph of a pool as the stage does."""
    work_dir = Path(work_dir)
    embed = embed_pool(work_dir, shards)
    inputs = {"embed": embed.fingerprint} | ({} if given is None else {"quantiser": given})
    folder = str(work_dir / "graph")
    pool = Parts(str(work_dir), {"embed": embed.units})
    job = build.plan_job(pool, inputs, folder, params, layout)
    job, receipts = build.build_graph(job, executor or InProcess(), ONE, ONE, previous)
    identity = artifacts.fingerprint("graph", params, inputs)
    manifest = Manifest("graph", identity, asdict(params), inputs, tuple(receipts), {}, job.facts)
    artifacts.commit_manifest(folder, manifest)
    build.delete_intermediate_units(job)
    return manifest


def build_full(work_dir, shards, params, source, given, layout=IN_STEPS) -> Manifest:
    """Build the graph of a pool with the quantiser of another work_dir, in a fresh one."""
    copy_trained(str(Path(source) / "graph"), str(Path(work_dir) / "graph"), given)
    return build_night(work_dir, shards, params, given, layout=layout)


def graph_files(work_dir, manifest) -> dict[str, bytes]:
    """The files that a graph consists of and keeps, with its manifest."""
    keys = {unit.key for unit in manifest.units} | set(build.other_unit_keys(asdict(manifest)))
    files = tree(Path(work_dir) / "graph")
    chosen = {name: data for name, data in files.items() if name.split("/")[1] in keys}
    name = f"{manifest.fingerprint}/manifest.json"
    return chosen | {name: files[name]}


def random_rows(rng: np.random.Generator, centres, n_rows, pool=None):
    """Rows near some centres; a few are copies of each other or of rows of the pool."""
    rows = centres[rng.integers(0, len(centres), n_rows)] + 0.5 * rng.normal(size=(n_rows, centres.shape[1]))
    rows = rows.astype(np.float16)
    if n_rows > 4:
        rows[rng.integers(0, n_rows, 3)] = rows[0]
    if pool is not None and len(pool) and n_rows > 2:
        rows[rng.integers(0, n_rows, 2)] = pool[rng.integers(0, len(pool), 2)]
    return rows
