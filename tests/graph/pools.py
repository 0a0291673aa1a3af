"""Embed artifacts of synthetic embeddings, and the graph that is built from them in memory."""

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from d2prune.execution import Resources
from d2prune.graph import build
from d2prune.graph.params import GraphParams
from d2prune.graph.trained import fingerprint_of
from d2prune.knn.csr import Graph
from d2prune.knn.in_memory import knn_graph_report
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from d2prune.store import artifacts, columns

PARAMS = GraphParams("image", 4, None, None, 3, 0, None, 0.0)
ONE = Resources()


def clustered(n_rows, n_dims=12, seed=0, copies=0.0):
    """Float16 rows in clusters; a share `copies` of them repeats other rows."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n_rows // 40), n_dims))
    rows = (centres[rng.integers(0, len(centres), n_rows)] + 0.6 * rng.normal(size=(n_rows, n_dims))).astype(
        np.float16
    )
    copied = rng.random(n_rows) < copies
    # Copies of a few rows only, so that large groups span all parts.
    rows[copied] = rows[rng.integers(0, max(1, n_rows // 50), copied.sum())]
    return rows


def embed(folder, image, text=None, n_parts=5, score=None):
    """Commit an embed artifact with parts of unequal size, one of them empty; return its receipts."""
    n_rows = len(image)
    cuts = np.sort(np.random.default_rng(7).integers(0, n_rows + 1, n_parts - 2))
    bounds = [0, *cuts.tolist(), cuts[0] if n_parts > 2 else 0, n_rows]
    bounds.sort()
    receipts = []
    for part, (start, stop) in enumerate(itertools.pairwise(bounds)):
        table = {"image_emb": columns.vector_column(image[start:stop])}
        if text is not None:
            table["text_emb"] = columns.vector_column(text[start:stop])
        names = {
            "shard": [f"{part:05d}.tar"] * (stop - start),
            "key": [f"sample{row}" for row in range(stop - start)],
        }
        samples = pa.table(names, schema=pa.schema([("shard", pa.string()), ("key", pa.string())]))
        if score is not None:
            samples = samples.append_column("aum", pa.array(score[start:stop]))
        files = {"embeddings.parquet": pa.table(table), "samples.parquet": samples}
        receipts.append(artifacts.commit_unit(str(folder), f"part-{part}", files))
    return receipts


def build_graph(work_dir, parts, params, layout, executor, many=ONE):
    """Run the graph stage alone; return job, receipts and facts."""
    work_dir = Path(work_dir)
    pool = Parts(str(work_dir), {"embed": parts})
    job = build.plan_job(pool, {"embed": "e" * 32}, str(work_dir / "graph"), params, layout)
    job, receipts = build.build_graph(job, executor, ONE, many)
    return job, receipts, job.facts


def same_bytes(job, receipts, facts, expected_graph, expected_facts):
    """Assert that a stage's result equals a graph built in memory, bit for bit."""
    graph, _ = read_graph(job.folder, receipts)
    graph.validate()
    for name in ("indptr", "indices", "sq_distances"):
        assert getattr(graph, name).tobytes() == getattr(expected_graph, name).tobytes(), name
    assert json.dumps(facts) == json.dumps(expected_facts)


def in_memory(rows, params, kept=None):
    """Graph and facts by `knn_graph_report` on the kept rows, as a graph of all rows."""
    kept = np.arange(len(rows)) if kept is None else kept
    report = knn_graph_report(
        rows[kept], params.n_neighbors, params.target_recall, params.seed, params.nlist, params.nprobe
    )
    degree = np.zeros(len(rows), np.int64)
    degree[kept] = np.diff(report.graph.indptr)
    graph = Graph(
        np.concatenate([[0], np.cumsum(degree)]), kept[report.graph.indices], report.graph.sq_distances
    )
    facts = {"n_neighbors": params.n_neighbors, "nlist": report.nlist, "nprobe": report.nprobe}
    if report.lists is not None:
        facts["quantiser"] = fingerprint_of(report.lists, params)
    if report.recall is not None:
        facts |= {
            "recall": report.recall.value,
            "recall_low": report.recall.low,
            "recall_high": report.recall.high,
            "recall_queries": report.recall.n_queries,
        }
    return graph, facts
