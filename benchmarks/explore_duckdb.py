"""The explorer's requests in DuckDB, whether it notices damage, and embeddings as lists of numbers.

    pip install duckdb
    python -m benchmarks.explore --folder /scratch/run --rows 1000000
    python -m benchmarks.explore_duckdb --folder /scratch/run

The first command writes the run and times the explorer on it; this one does the same in DuckDB, on
the parquet files and imported. It prints wall and CPU time of the first call and of the others.
"""

import argparse
import contextlib
import functools
import random
import resource
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.explore import time_calls

# Not installed with the other tools: the options can be read without it.
with contextlib.suppress(ImportError):
    import duckdb

_SHOWN = "uid, key, difficulty, forward_score, selection_fixed, kept, reason, caption"
_PAGE = "selection_fixed desc, position limit 48"
_WORDS = "contains(lower(caption), 'green') and contains(lower(caption), 'tree')"
_FILTER = "kept and difficulty between 0.2 and 0.3"
_FLIPS = 200


def time_queries(folder: Path, threads: int) -> None:
    """Time a first page, a search and a filter, on the files and in memory."""
    decisions = sorted(map(str, folder.glob("select/units/*/decisions.parquet")))
    samples = sorted(map(str, folder.glob("embed/units/*/samples.parquet")))
    connection = duckdb.connect(config={"threads": threads})
    rows = f"read_parquet({decisions}) positional join (select caption from read_parquet({samples}))"
    numbered = f"(select row_number() over () - 1 as position, {_SHOWN} from {rows})"

    def ask(query: str, times: int = 3) -> None:
        time_calls(query.replace(numbered, "FILES")[:44], lambda: connection.execute(query).fetchall(), times)

    ask(f"select * from {numbered} order by {_PAGE}")
    ask(f"select count(*) from read_parquet({samples}) where {_WORDS}")
    print(f"peak memory {_peak():,.0f} MiB")
    time_calls("import", lambda: connection.execute(f"create table pool as select * from {numbered}"))
    ask(f"select * from pool order by {_PAGE}", 5)
    ask(f"select position from pool where {_WORDS}", 5)
    ask(f"select * from pool where {_FILTER} order by {_PAGE} offset 4800", 5)
    print(f"peak memory {_peak():,.0f} MiB")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def count_noticed_flips(folder: Path, scratch: Path) -> Counter[str]:
    """Flip single bits of one column of a file, and count what DuckDB makes of each."""
    path = min(folder.glob("select/units/*/decisions.parquet"))
    data, group = path.read_bytes(), pq.read_metadata(path).row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    column = next(column for column in columns if column.path_in_schema == "difficulty")
    start = column.dictionary_page_offset or column.data_page_offset
    expected = _read_column(path)
    rng, found = random.Random(0), Counter[str]()
    for _ in range(_FLIPS):
        damaged = bytearray(data)
        damaged[rng.randrange(start, start + column.total_compressed_size)] ^= 1 << rng.randrange(8)
        (scratch / "damaged.parquet").write_bytes(damaged)
        try:
            same = _read_column(scratch / "damaged.parquet") == expected
            found["same values" if same else "other values, no error"] += 1
        except duckdb.Error:
            found["error"] += 1
    return found


def _read_column(path: Path) -> list[Any]:
    return duckdb.sql(f"select difficulty from '{path}'").fetchall()


def time_vectors(scratch: Path, n: int = 20_000, dimension: int = 512) -> None:
    """Time writing and reading embeddings as bytes and as lists of numbers."""
    vectors = np.random.default_rng(0).normal(size=(n, dimension)).astype(np.float16)
    flat = pa.array(vectors.reshape(-1))
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * dimension)
    data = [None, pa.py_buffer(vectors.tobytes())]
    arrays = {
        "fixed-size binary": pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * dimension), n, data),
        "fixed-size list": pa.FixedSizeListArray.from_arrays(flat, dimension),
        "list": pa.ListArray.from_arrays(offsets, flat),
    }
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    for name, array in arrays.items():
        path, table = scratch / "vectors.parquet", pa.table({"image_emb": array})
        write = functools.partial(pq.write_table, table, path, write_page_checksum=True, **options)
        read = functools.partial(pq.read_table, path, use_threads=False, page_checksum_verification=True)
        time_calls(f"write {name}", write, 4)
        time_calls(f"read {name}", read, 4)
        kind = duckdb.sql(f"select * from '{path}' limit 1").types[0]
        print(f"{name}: {path.stat().st_size:,} bytes; {kind} in DuckDB")


def main() -> None:
    """Run all three measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="a run of benchmarks.explore")
    parser.add_argument("--threads", type=int, default=2, help="of DuckDB (%(default)s)")
    arguments = parser.parse_args()
    time_queries(arguments.folder, arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        print(f"{_FLIPS} flipped bits: {dict(count_noticed_flips(arguments.folder, Path(scratch)))}")
        time_vectors(Path(scratch))


if __name__ == "__main__":
    main()
