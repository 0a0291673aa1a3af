"""Finished runs of synthetic embeddings, with nothing but what an index is built from."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa

from d2prune.execution import InProcess
from d2prune.graph.build import delete_intermediate_units
from d2prune.graph.params import Layout
from d2prune.knn.features import features
from d2prune.runs.finished import FinishedRun
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest
from tests.graph.pools import PARAMS, build_graph, embed

IN_LISTS = Layout(whole_below=0, partitions=3, buckets=2, in_transit=None)
IN_MEMORY = Layout()


def finish(folder, image, text=None, params=PARAMS, layout=IN_LISTS, n_parts=5, score=None):
    """A run whose artifacts lie in `folder`; every third sample is kept."""
    parts = embed(folder / "embed", image, text, n_parts, score)
    job, receipts, facts = build_graph(folder, parts, params, layout, InProcess())
    delete_intermediate_units(job)
    decided, start = [], 0
    for part, receipt in enumerate(parts):
        rows = np.arange(start, start + receipt.rows("samples.parquet"))
        start += len(rows)
        table = make_decisions(part, rows)
        decided.append(
            artifacts.commit_unit(str(folder / "select"), f"d-{part}", {"decisions.parquet": table})
        )
    embedded = make_manifest("embed", {}, {}, parts)
    graph = make_manifest("graph", asdict(params), {"embed": "e" * 32}, receipts, facts)
    rank = make_manifest("rank", {}, {"graph": graph.fingerprint}, [])
    select = make_manifest("select", {}, {"graph": graph.fingerprint}, decided)
    return FinishedRun(str(folder), embedded, graph, rank, select)


def make_manifest(stage, params, inputs, receipts, facts=None):
    identity = artifacts.fingerprint(stage, params, [receipt.key for receipt in receipts])
    counters = artifacts.sum_counters(receipts)
    return Manifest(stage, identity, params, inputs, tuple(receipts), counters, facts or {})


def make_decisions(part, rows):
    columns = {
        "uid": [f"{row:032x}" for row in rows],
        "shard": [f"{part:05d}.tar"] * len(rows),
        "key": [f"key{row}" for row in rows],
        "kept": [row % 3 == 0 for row in rows],
    }
    table = pa.Table.from_pylist([], schema=schemas.DECISIONS)
    filled = {name: columns.get(name, [None] * len(rows)) for name in table.column_names}
    return pa.table(filled, schema=schemas.DECISIONS)


def rows_of(run):
    """The rows that the graph of a run was built on."""
    image, text = run.parts.take_vectors(np.arange(len(run)), run.embeddings_file)
    return features(run.features, image, text)
