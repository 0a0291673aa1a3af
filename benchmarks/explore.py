"""Response times of the explorer on a synthetic run.

    python -m benchmarks.explore --rows 1000000

Writes the artifacts of a run to a temporary folder (synthetic captions and scores, a graph with 6
neighbours per row, ranked by the real kernel), serves it, and times requests over HTTP, most of them
different each time, as a user's are. Prints one line per kind of request. A million rows take about a
minute and 1 GB of disk.
"""

import argparse
import contextlib
import io
import resource
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from d2prune.d2.api import select
from d2prune.d2.budget import top
from d2prune.d2.fixed_point import to_float
from d2prune.explore.api import Explorer
from d2prune.explore.server import Server
from d2prune.explore.terminal import print_explanations
from d2prune.knn.csr import Graph
from d2prune.parts.neighbors import to_table
from d2prune.runs.finished import open_run
from d2prune.search.searcher import Hits
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest, Receipt

WORDS = (
    "red green blue old new small large happy tree house river dog cat car boat market street sky night photo"
).split()


def make_graph(n: int, rng: np.random.Generator) -> Graph:
    """Return a ring with chords: symmetric, 6 neighbours per node."""
    steps = np.array([1, 2, 5])
    near_N6 = np.sort((np.arange(n)[:, None] + np.concatenate([-steps, steps])) % n, axis=1)
    pair = np.minimum(near_N6, np.arange(n)[:, None]) * 31 + np.abs(near_N6 - np.arange(n)[:, None])
    sq = rng.random(1 << 16, np.float32)[pair % (1 << 16)]
    return Graph(np.arange(n + 1) * 6, near_N6.reshape(-1), sq.reshape(-1))


def make_rejects(part: int, count: int) -> pa.Table:
    """Return rejects of two reasons, of which users search for the details."""
    reasons = ["undecodable-image" if i % 2 else "too-small" for i in range(count)]
    details = [f"found image {i} of part {part}" for i in range(count)]
    return pa.table(
        [[f"{part:08d}"] * count, [f"r{i:06d}" for i in range(count)], reasons, details][
            : len(schemas.REJECTS)
        ],
        schema=schemas.REJECTS,
    )


def make_run(folder: Path, n: int, per_part: int = 10_000) -> None:
    """Write the artifacts of a finished run over n samples to `folder`."""
    rng = np.random.default_rng(0)
    graph = make_graph(n, rng)
    difficulty_N = rng.random(n, np.float32)
    found = select(graph, difficulty_N)
    kept_N = np.zeros(n, bool)
    kept_N[top(found.selection_score, int(0.3 * n))] = True
    uids = np.array([value.tobytes().hex() for value in rng.integers(0, 1 << 62, (n, 2))])
    words_N8 = np.array(WORDS)[rng.integers(0, len(WORDS), (n, 8))]
    units: dict[str, list[Receipt]] = {"embed": [], "graph": [], "select": []}
    for part, start in enumerate(range(0, n, per_part)):
        rows = slice(start, min(start + per_part, n))
        size = rows.stop - rows.start
        names = [f"{part:08d}"] * size, [f"{i:09d}" for i in range(rows.start, rows.stop)], uids[rows]
        samples = pa.table(
            [*names, difficulty_N[rows], [" ".join(words) for words in words_N8[rows]], *[[224] * size] * 2,
             np.arange(size) * 30_000, [30_000] * size, [None] * size, [None] * size],
            schema=schemas.samples(),
        )  # fmt: skip
        by = found.suppressed_by[rows]
        decisions = pa.table(
            [names[2], names[0], names[1], difficulty_N[rows], to_float(found.forward_score[rows]),
             to_float(found.selection_score[rows]), found.selection_score[rows], kept_N[rows],
             np.where(kept_N[rows], "kept", "below-budget"), pa.array(uids[by], mask=by < 0), by,
             to_float(found.suppression[rows])],
            schema=schemas.DECISIONS,
        )  # fmt: skip
        near = Graph(np.arange(size + 1) * 6, graph.indices[6 * rows.start : 6 * rows.stop],
                     graph.sq_distances[6 * rows.start : 6 * rows.stop])  # fmt: skip
        for stage, files in (
            ("embed", {"samples.parquet": samples, "rejects.parquet": make_rejects(part, size // 50)}),
            ("graph", {"neighbors.parquet": to_table(near, np.zeros(size, bool))}),
            ("select", {"decisions.parquet": decisions}),
        ):
            units[stage].append(artifacts.commit_unit(str(folder / stage), f"{part:08d}", files))
    rank = {"difficulty": "clip_score", "gamma_forward": 1.0, "gamma_reverse": 1.0}
    for stage, params, inputs, facts in (
        ("embed", {}, {}, {}),
        ("graph", {"n_neighbors": 3}, {"embed": "embed"}, {}),
        ("rank", rank, {"graph": "graph"}, {"offset": 0.0}),
        ("select", {"fraction": 0.3}, {"rank": "rank"}, {}),
    ):
        of = tuple(units.get(stage, []))
        artifacts.commit_manifest(str(folder / stage), Manifest(stage, stage, params, inputs, of, {}, facts))


def give_hits(explorer: Explorer, rows: int) -> None:
    """Have every search by meaning find 1,000 random samples: the run has neither embeddings nor index."""
    chosen = np.random.default_rng(1).choice(rows, 1_000, replace=False).astype(np.int64)
    hits = Hits(chosen, np.linspace(1, 0, len(chosen), dtype=np.float32))
    explorer._meaning.nearest = lambda opened, query: hits  # type: ignore[method-assign]


def time_calls(label: str, calls: Sequence[Callable[[], Any]]) -> None:
    """Print wall and CPU time (of this process) of the first call, the median and the most of the others."""
    spent = []
    for work in calls:
        start = time.perf_counter(), time.process_time()
        work()
        spent.append((time.perf_counter() - start[0], time.process_time() - start[1]))

    def describe(wall_cpu: Any) -> str:
        return f"{1e3 * wall_cpu[0]:>6,.0f} ms ({1e3 * wall_cpu[1]:,.0f} ms CPU)"

    rest = np.array(spent[1:])
    others = (
        f", others {describe(np.median(rest, axis=0))}, most {describe(rest.max(axis=0))}"
        if len(rest)
        else ""
    )
    print(f"{label:<46} {describe(spent[0])}{others}", flush=True)


def list_requests(rows: int, name: str, uids: Sequence[str]) -> dict[str, list[str]]:
    """Return what a user of the page asks for, by kind; requests of a kind differ, as answers are kept."""
    fractions = (0.4, 0.05, 0.2, 0.31, 0.6, 0.9)
    steps = range(rows // 2, rows // 2 + 6)
    pairs = ("tree green", "river blue", "night photo", "small house", "dog cat", "street market")
    lists = [f"q={words.replace(' ', '+')}" for words in pairs]
    return {
        "search two words in any order": [f"api/samples?{q}" for q in lists],
        "search three words": [f"api/samples?{q}+{w}" for q, w in zip(lists, WORDS, strict=False)],
        "search one character": [f"api/samples?q={character}" for character in "eskxa"],
        "search a word of another script": [
            f"api/samples?q={w}" for w in ("%C3%A9t%C3%A9", "%D0%B4%D0%BE%D0%BC")
        ],
        "search a uid prefix": [f"api/samples?q={uid[:6]}" for uid in uids],
        "sort": [
            f"api/samples?sort={sort}&order={order}"
            for sort in ("score", "forward", "suppression", "reason", "position", "selection")
            for order in ("down", "up")
        ],
        "filter by reason": [f"api/samples?reason={r}&sort=score" for r in ("kept", "below-budget")],
        "kept, score in a range, page 100": [
            f"api/samples?reason=kept&low={f / 2}&high={f / 2 + 0.1}&start=480" for f in fractions
        ],
        "page 10,000": [f"api/samples?start={480_000 + 48 * i}" for i in range(4)],
        "slider": [f"api/preview?fraction={f}" for f in fractions],
        "list of what another fraction adds": [f"api/samples?b=@{f}&among=only-b" for f in fractions],
        "compare with another fraction": [f"api/compare?a={name}&b={name}@{f}" for f in fractions],
        "one sample with its neighbours": [f"api/sample/{at}" for at in steps],
        "one sample by its uid": [f"api/sample/{uid}" for uid in uids],
        "arrow keys: its place in the list": [f"api/around?at={at}" for at in steps],
        "arrow keys in a search's list": [f"api/around?q=tree+green&sort=score&at={at}" for at in steps],
        "arrow keys in a list of a comparison": [f"api/around?b=@0.4&among=only-b&at={at}" for at in steps],
        "rejected samples": ["api/rejected", "api/rejected?start=480", "api/rejected?reason=too-small"],
        "search rejected samples": [f"api/rejected?q=image+{i}" for i in range(4)],
        "list of runs": ["api/runs"] * 3,
    }


def read_first_piece(url: str) -> Callable[[], bytes]:
    """Return a call that starts a download and gives it up."""

    def start() -> bytes:
        with urllib.request.urlopen(url) as answer:
            return bytes(answer.read1(1))

    return start


def main() -> None:
    """Write the run, serve it and time requests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="samples of the run (%(default)s)")
    parser.add_argument(
        "--folder", help="keep the run here, and read it if it exists; memory is then the server's"
    )
    arguments = parser.parse_args()
    rows = arguments.rows
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or stack.enter_context(tempfile.TemporaryDirectory())
        if not (Path(folder) / "select").exists():
            time_calls(f"make a run of {rows:,} samples", [lambda: make_run(Path(folder), rows)])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with Server(Explorer(open_run(folder))) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()

            def get(path: str) -> Callable[[], bytes]:
                return lambda: urllib.request.urlopen(server.url + path).read()

            time_calls("start to the first numbers on the page", [get("api/run")])
            time_calls("first page, by selection score", [get("api/samples")] * 5)
            name, index = server.explorer.workspace.default.name, server.explorer.index
            index.load()
            uids = [row["uid"] for row in index.rows(np.arange(1, 6) * rows // 7)]
            for label, paths in list_requests(rows, name, uids).items():
                time_calls(label, [get(path) for path in paths])
            for kind in ("samples.parquet", "subset.npy"):
                for which, query in (("kept", "reason=kept"), ("a search", "q=red+boat")):
                    url = f"{server.url}export/{kind}?{query}"
                    time_calls(f"start of a download, {kind} of {which}", [read_first_piece(url)] * 3)
            give_hits(server.explorer, rows)
            for label, path in (
                ("page by meaning, the nearest samples given", "api/samples?like=1"),
                ("the same, filtered by words", "api/samples?like=1&q=tree+green"),
            ):
                time_calls(label, [get(path)] * 5)
            server.shutdown()
            uid = server.explorer.index.rows(np.array([rows // 3]))[0]["uid"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"peak memory: {before / 2**10:,.0f} MiB before serving, {peak / 2**10:,.0f} MiB after")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            start = time.perf_counter()
            print_explanations(open_run(folder), [uid])
        seconds = time.perf_counter() - start
        n_lines = len(printed.getvalue().splitlines())
        print(f"d2prune explain, {n_lines} lines: {1e3 * seconds:,.0f} ms, excluding start-up")


if __name__ == "__main__":
    main()
