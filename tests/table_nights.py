"""A pool of tables that changes between runs: no model, so that a run takes a second."""

import os
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.report.stage import run_record
from d2prune.runs import history
from d2prune.runs.driver import run
from d2prune.runs.plan import plan_run
from tests.tables import Rows


def write(folder, shards: dict[str, Rows], written: dict[str, Rows]) -> None:
    """Write the tables that differ from those `written` before, and delete the others."""
    folder.mkdir(exist_ok=True)
    for name in written.keys() - shards.keys():
        (folder / f"{name}.parquet").unlink()
        del written[name]
    for name, rows in shards.items():
        if written.get(name) is rows:
            continue
        written[name] = rows
        values = pa.list_(pa.float16(), rows.image.shape[1])
        table = {
            "image_emb": pa.array(list(rows.image), values),
            "text_emb": pa.array(list(rows.text), values),
            "uid": rows.uid,
            "caption": rows.caption,
            "clip_score": rows.score,
        }
        path = folder / f"{name}.parquet"
        pq.write_table(pa.table(table), path)
        # The same rows are the same version of the file.
        written_at = 10**18 + crc32("".join(rows.uid).encode())
        os.utime(path, ns=(written_at, written_at))


def copy_of(rows: Rows, row: int, score: float, uid: str) -> Rows:
    """One sample with the embeddings of another."""
    one = slice(row, row + 1)
    return Rows([uid], ["copy"], np.array([score]), rows.image[one], rows.text[one])


class Nights:
    """Runs over a folder of tables that changes in between."""

    def __init__(self, folder):
        self.folder, self.written = folder, {}

    def configure(self, shards, **settings) -> RunConfig:
        """Write the pool, and return the configuration."""
        write(self.folder / "pool", shards, self.written)
        values = {
            "input": str(self.folder / "pool"),
            "work_dir": str(self.folder / "work"),
            "output": f"{self.folder}/out/{{run_id}}",
            "graph": {"n_neighbors": 3},
            "select": {"fraction": 0.3},
            "report": {"gallery": 8},
        }
        values |= {name: values.get(name, {}) | value for name, value in settings.items()}
        return RunConfig.parse(values, "test")

    def run(self, shards, **settings):
        """Filter the pool; returns the record of its report, and the result."""
        config = self.configure(shards, **settings)
        result = run(config, InProcess())
        entry = next(e for _, e in history.read_runs(config.work_dir) if e.output == result.output)
        config = config.model_copy(update={"output": result.output})
        pool = plan_run(config).pool
        record = run_record(config, pool, result.manifests, {}, history.find_earlier(config.work_dir, entry))
        return record, result
