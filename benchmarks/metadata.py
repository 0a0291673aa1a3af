"""Time and peak memory of each stage on metadata shaped like DataComp's small pool.

    python -m benchmarks.metadata --rows 1280000 2560000 --folder DIR

Runs the pipeline from a folder of parquet and npz files to a subset file, with the paper's settings
for DataComp: image+text features, k = 1, recall 0.95, both gammas 1, 30 % kept. Every stage runs in
a fresh process, as on a separate worker. The peak is that of the largest process as reported by the
kernel. For comparison with the import, also times a copy of the same bytes.

Writes the synthetic pool to `--folder`, where later calls find it, and prints a markdown table.
"""

import argparse
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STAGES = ("embed", "graph", "rank", "select", "write", "report")
LATENT = 96


def make_pool(folder: Path, n_rows: int, n_dims: int, rows_per_file: int) -> None:
    """Write the pool file by file: clusters as in `benchmarks.graph.pool`, captions near images."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    scale = (1.0 + np.arange(LATENT)) ** -0.75
    bases = [np.linalg.qr(rng.normal(size=(n_dims, LATENT)))[0].T.astype(np.float32) for _ in range(2)]
    centres = rng.normal(size=(max(1, n_rows // 500), LATENT)).astype(np.float32)
    weights = rng.pareto(1.5, len(centres)) + 0.2
    cumulative = np.cumsum(weights / weights.sum())
    for start in range(0, n_rows, rows_per_file):
        count = min(rows_per_file, n_rows - start)
        sides: list[list[Any]] = [[], []]
        for first in range(0, count, 20_000):
            size = min(20_000, count - first)
            label = np.minimum(np.searchsorted(cumulative, rng.random(size)), len(centres) - 1)
            latent = centres[label] + rng.standard_normal((size, LATENT), np.float32)
            for side, basis in zip(sides, bases, strict=True):
                own = (latent + 0.5 * rng.standard_normal((size, LATENT), np.float32)) * scale.astype(
                    np.float32
                )
                block = own @ basis / np.float32(np.linalg.norm(scale))
                block += rng.standard_normal((size, n_dims), np.float32) * np.float32(0.15 / n_dims**0.5)
                side.append((block / np.linalg.norm(block, axis=1, keepdims=True)).astype(np.float16))
        name = folder / f"{start // rows_per_file:08d}"
        np.savez(f"{name}.npz", l14_img=np.concatenate(sides[0]), l14_txt=np.concatenate(sides[1]))
        text = rng.bytes(16 * count).hex()
        uid = [text[32 * i : 32 * i + 32] for i in range(count)]
        table = {
            "uid": uid,
            "url": [f"https://images.example.org/{value[:12]}/{value}.jpg" for value in uid],
            "text": [f"a photo of object {value[:6]}, seen from the {value[6:9]} side" for value in uid],
            "original_width": rng.integers(200, 2000, count),
            "original_height": rng.integers(200, 2000, count),
            "clip_b32_similarity_score": rng.normal(0.22, 0.06, count),
            "clip_l14_similarity_score": rng.normal(0.19, 0.06, count),
            "face_bboxes": [[] for _ in uid],
            "sha256": [value + value for value in uid],
        }
        pq.write_table(pa.table(table), f"{name}.parquet")


def make_config(folder: Path, name: str, features: str) -> dict[str, Any]:
    """Return a configuration with the paper's settings for DataComp."""
    return {
        "input": str(folder / name),
        "work_dir": str(folder / f"{name}-work"),
        "output": str(folder / f"{name}-output"),
        "score": {"offset": 0.115},
        "graph": {"features": features, "n_neighbors": 1, "target_recall": 0.95},
        "columns": {} if features == "image+text" else {"text_emb": None},
        "select": {"fraction": 0.3, "gamma_forward": 1.0, "gamma_reverse": 1.0},
        "report": {"gallery": 12},
    }


def run_stage(values: dict[str, Any], stage: str) -> dict[str, Any]:
    """Run one stage, after all earlier ones are complete, and return its measurements."""
    from d2prune.config.model import RunConfig
    from d2prune.execution import InProcess
    from d2prune.runs.driver import run

    before = resource.getrusage(resource.RUSAGE_SELF)
    result = run(RunConfig.parse(values, "benchmark"), InProcess(), stop_after=stage)
    after = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "seconds": result.seconds[stage],
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "mib": max(after.ru_maxrss, children) / 1024,
        "counters": dict(result.manifests[stage].counters) if stage in result.manifests else {},
        "facts": dict(result.manifests["graph"].facts) if stage == "graph" else {},
    }


def time_copy(folder: Path) -> float:
    """Return the seconds that copying the pool's arrays takes, a lower bound for the import."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder.parent) as target:
        for path in folder.glob("*.npz"):
            shutil.copyfile(path, Path(target) / "copy")
    return time.perf_counter() - start


def main() -> None:
    """Run the stages at every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000], help="sizes of the pool")
    parser.add_argument("--dims", type=int, default=768, help=f"at least {LATENT} (%(default)s)")
    parser.add_argument("--rows-per-file", type=int, default=100_000)
    parser.add_argument("--features", choices=["image", "image+text"], default="image+text")
    parser.add_argument("--folder", type=Path, help="keeps the pools (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="d2prune-metadata-") as temporary:
        folder = options.folder or Path(temporary)
        print("| rows | measure | import | " + " | ".join(STAGES[1:]) + " | sum or peak |")
        print("|---" * (len(STAGES) + 3) + "|")
        for n_rows in options.rows:
            name = f"{n_rows}x{options.dims}"
            if not (folder / name).exists():
                make_pool(folder / name, n_rows, options.dims, options.rows_per_file)
            for kind in ("work", "output"):
                shutil.rmtree(folder / f"{name}-{kind}", ignore_errors=True)
            values = make_config(folder, name, options.features)
            found = []
            for stage in STAGES:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    found.append(process.submit(run_stage, values, stage).result())
            for measure, key, total, digits in (
                ("s", "seconds", sum, 1),
                ("CPU s", "cpu", sum, 1),
                ("MiB", "mib", max, 0),
            ):
                numbers = [one[key] for one in found]
                cells = " | ".join(f"{number:,.{digits}f}" for number in [*numbers, total(numbers)])
                print(f"| {n_rows:,} | {measure} | {cells} |", flush=True)
            graph = found[1]["facts"]
            imported = n_rows / found[0]["cpu"]
            size = sum(path.stat().st_size for path in Path(values["work_dir"]).rglob("*") if path.is_file())
            copied = time_copy(folder / name)
            print(
                f"<!-- import: {imported:,.0f} rows per CPU second; copy of the arrays: {copied:.1f} s; "
                f"nprobe {graph['nprobe']} of {graph['nlist']}, recall {graph['recall']:.3f}; kept: "
                f"{found[4]['counters']['written']:,}; work_dir: {size / 2**30:.1f} GiB -->",
                flush=True,
            )
            for kind in ("work", "output"):
                shutil.rmtree(folder / f"{name}-{kind}", ignore_errors=True)


if __name__ == "__main__":
    main()
