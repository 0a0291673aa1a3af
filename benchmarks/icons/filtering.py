"""Filter the pool with `d2prune`: each method and fraction from the same stored artifacts.

Reads `DIR/pool/*.tar` and the teacher; writes artifacts to `DIR/work-TEACHER` and subset files in
DataComp's format to `DIR/subsets-TEACHER/METHOD-FRACTION.npy`. The pool is embedded once; a method
that needs another graph, score or deduplication adds it. The first run is `d2prune run` with all of
its stages on a local Ray; the others stop at the selection.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.icons import data, methods
from d2prune import store
from d2prune.baselines.by_diversity import info_max
from d2prune.config.model import RunConfig
from d2prune.output import subset
from d2prune.parts.files import DECISIONS, NEIGHBORS, SAMPLES
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from d2prune.runs.driver import run
from d2prune.scores.column import read_score


def configure(folder: Path, teacher: str, method: str, fraction: float, seed: int = 0) -> RunConfig:
    """Return the configuration of a run; its offset may be that of `with_offset`."""
    values: dict[str, Any] = {
        "input": str(folder / "pool" / "*.tar"),
        "work_dir": str(folder / f"work-{teacher}"),
        "output": str(folder / f"output-{teacher}" / "{run_id}"),
        "embed": {"model": str(folder / f"teacher-{teacher}"), "batch_size": 256},
        "ray": {"workers": 1},
        "select": {"fraction": fraction},
    }
    for section, options in methods.settings(method, seed).items():
        values[section] = values.get(section, {}) | options
    return RunConfig.parse(values, method)


def with_offset(config: RunConfig, method: str) -> RunConfig:
    """Return a run's configuration with the offset that a method's percentile gives, if it names one.

    The pool is embedded, if it was not.
    """
    percent = methods.offset_percent(method)
    if percent is None:
        return config
    units = run(config, stop_after="embed", use_ray=False).manifests["embed"].units
    parts = Parts(config.work_dir, {"embed": units})
    score_N = read_score(parts, range(parts.spans.n_parts), "clip_score", "score.difficulty")
    offset = -float(np.percentile(score_N, percent))
    return config.model_copy(update={"score": config.score.model_copy(update={"offset": offset})})


def run_whole(folder: Path, teacher: str, method: str, fraction: float) -> None:
    """Run all stages of the pipeline on a local Ray: tars to tars, with a report."""
    result = run(configure(folder, teacher, method, fraction))
    print({stage: round(seconds, 1) for stage, seconds in result.seconds.items()}, flush=True)


def subset_file(folder: Path, teacher: str, method: str, fraction: float, seed: int = 0) -> Path:
    """Return the subset file of a method, written if it is missing."""
    name = method.replace("/", "-per-").replace(":", "-")
    if method == methods.RANDOM:
        name += f"-{seed}"
    path = folder / f"subsets-{teacher}" / f"{name}-{fraction:g}.npy"
    if not path.exists():
        config = with_offset(configure(folder, teacher, method, fraction, seed), method)
        alpha = methods.info_max_alpha(method)
        rows = subset.encode(keep(config) if alpha is None else _keep_info_max(config, fraction, alpha))
        store.write_bytes(str(path), _to_npy(rows[subset.order(rows)]))
    return path


def keep(config: RunConfig) -> list[str]:
    """Return the uids that a run keeps."""
    result = run(config, stop_after="select", use_ray=False)
    units = {"embed": result.manifests["embed"].units, "select": result.manifests["select"].units}
    return [
        uid
        for _, table in Parts(config.work_dir, units).read_all(DECISIONS, ["uid", "kept"])
        for uid in table.filter(table["kept"])["uid"].to_pylist()
    ]


def _keep_info_max(config: RunConfig, fraction: float, alpha: float) -> list[str]:
    """Return the uids that InfoMax's objective keeps, on the graph and the CLIP score of a run."""
    parts = Parts.of(config.work_dir, run(config, stop_after="graph", use_ray=False).manifests)
    graph, _ = read_graph(parts.folder(NEIGHBORS), parts.units("graph"))
    score_N = read_score(parts, range(parts.spans.n_parts), "clip_score", "score.difficulty")
    uids = parts.column(SAMPLES, "uid").to_pylist()
    return [uids[row] for row in info_max(graph, score_N, alpha, int(fraction * len(uids)))]


def choose(
    folder: Path, teacher: str, pool: data.Icons, method: str, fraction: float, seed: int
) -> NDArray[np.int64]:
    """Return the rows of the pool that a method keeps, ascending."""
    n = len(pool.uids)
    if method == methods.ALL:
        return np.arange(n)
    if method == methods.RIGHT:
        right = np.flatnonzero(~pool.wrong)
        return np.sort(np.random.default_rng(seed).permutation(right)[: int(fraction * n)])
    kept = subset.decode(np.load(subset_file(folder, teacher, method, fraction, seed)))
    return np.flatnonzero(np.isin(pool.uids, np.array(kept)))


def _to_npy(rows: subset.UidArray) -> bytes:
    import io

    sink = io.BytesIO()
    np.save(sink, rows, allow_pickle=False)
    return sink.getvalue()
