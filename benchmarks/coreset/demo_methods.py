"""Compare the methods of `select.method` on the bundled pool: mismatches, duplicates, coverage.

    python -m benchmarks.coreset.demo_methods --work-dir WORK

Runs the pipeline on the bundled pool (planted caption mismatches, natural near-duplicates) with the
bundled model, once per method and setting, and prints a markdown table. All artifacts are written
to `--work-dir`, where the runs share embeddings and graphs.
"""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import d2prune
from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.knn.features import unit_rows
from d2prune.parts.reader import Parts
from d2prune.rank.features import read_features
from d2prune.runs.driver import RunResult, run
from d2prune.store import artifacts

POOL = Path(d2prune.__file__).parent / "bundled" / "pool"
FRACTION = 0.3
RUNS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("random", {"method": "random"}, {}),
    ("score (top by clip_score)", {"method": "score"}, {}),
    ("forward, k = 1", {"method": "forward"}, {"n_neighbors": 1}),
    ("forward, k = 5", {"method": "forward"}, {}),
    ("moderate", {"method": "moderate"}, {}),
    ("ccs", {"method": "ccs"}, {}),
    ("k_center", {"method": "k_center"}, {}),
    ("herding", {"method": "herding"}, {}),
    ("facility_location", {"method": "facility_location"}, {}),
    ("semdedup", {"method": "semdedup"}, {}),
    *((f"d2, k = {k}, gammas {gamma}", {"gamma_forward": gamma, "gamma_reverse": gamma}, {"n_neighbors": k})
      for k in (1, 5, 15) for gamma in ("3/median", "5/median", "auto", 0.1, 1.0, 10.0)),
    ("d2, k = 5, gamma_f 10, gamma_r 1", {"gamma_forward": 10.0, "gamma_reverse": 1.0}, {}),
    ("d2, k = 5, gammas auto, lowest 15 % by clip_score removed first",
     {"drop_score": "clip_score", "drop_fraction": 0.15}, {}),
)  # fmt: skip


def read_records() -> dict[str, dict[str, Any]]:
    """Return uid -> JSON record for every sample of the bundled pool."""
    found = {}
    for path in sorted(POOL.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    record = json.loads(tar.extractfile(member).read())  # type: ignore[union-attr]
                    found[record["uid"]] = record
    return found


def read_kept(config: RunConfig, result: RunResult) -> NDArray[np.bool_]:
    """Return for each sample, in canonical order, whether it was kept; bool [N]."""
    folder, units = f"{config.work_dir}/select", result.manifests["select"].units
    tables = [artifacts.read_table(folder, receipt, "decisions.parquet", ["kept"]) for receipt in units]
    return np.concatenate([table["kept"].to_numpy() for table in tables]).astype(bool)


def main() -> None:
    """Run every method and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", required=True, help="for the artifacts of all runs")
    work_dir = parser.parse_args().work_dir
    records = read_records()
    print("| method | mismatches dropped | content groups kept | near-duplicate pairs kept ", end="")
    print("| coverage radius, 90 % |\n|---|---|---|---|---|")
    for name, select, graph in RUNS:
        values = {
            "input": str(POOL),
            "work_dir": work_dir,
            "output": f"{work_dir}-output",
            "embed": {"model": "demo"},
            "graph": {"target_recall": None, **graph},
            "select": {"fraction": FRACTION, **select},
        }
        config = RunConfig.parse(values, name)
        result = run(config, InProcess(), stop_after="select")
        embed = result.manifests["embed"].units
        kept_N = read_kept(config, result)
        uids = np.concatenate(
            [
                artifacts.read_table(f"{work_dir}/embed", receipt, "samples.parquet", ["uid"])["uid"]
                for receipt in embed
            ]
        )
        wrong_N = np.array([bool(records[uid]["planted_mismatch"]) for uid in uids])
        group_N = np.array([records[uid]["group"] for uid in uids])
        rows_ND = unit_rows(read_features(Parts(work_dir, {"embed": embed}), "image"))
        cosine_NM = rows_ND @ rows_ND[kept_N].T
        near_duplicates = int((np.triu(cosine_NM[kept_N], 1) > 0.95).sum())
        radius = np.quantile(np.sqrt(np.maximum(2 - 2 * cosine_NM.max(axis=1), 0)), 0.9)
        groups = f"{len(set(group_N[kept_N]))} of {len(set(group_N))}"
        print(
            f"| {name} | {1 - kept_N[wrong_N].mean():.1%} | {groups} | {near_duplicates} | {radius:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
