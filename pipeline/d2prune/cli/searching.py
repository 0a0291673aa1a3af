"""Commands that make the pool searchable by meaning: `index` and `search`."""

import argparse
from typing import TYPE_CHECKING, Any

from d2prune.cli import numbers
from d2prune.cli.locations import location
from d2prune.cli.work_dir import add_selection, add_work_dir
from d2prune.errors import UserError

if TYPE_CHECKING:
    from d2prune.runs.finished import FinishedRun
    from d2prune.search.searcher import Hits, Searcher

_DEFAULT_TOP = 10


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    index = commands.add_parser(
        "index",
        help="write a faiss index of a pool",
        description="Write an index of all samples of a pool, from the lists of its graph: one shard per "
        "partition in the work_dir, and a merged view in a local folder that faiss.read_index opens without "
        "d2prune. The same command resumes.",
    )
    add_work_dir(index)
    add_selection(index)
    index.add_argument(
        "--output",
        type=location,
        metavar="FOLDER",
        help="local folder for the merged view; default: inside the work_dir, if that is local",
    )
    index.add_argument(
        "--workers",
        type=numbers.whole(1, numbers.MAX_WORKERS),
        default=1,
        metavar="N",
        help="number of workers, on Ray if more than 1; default: %(default)s",
    )
    index.set_defaults(command=_index)

    search = commands.add_parser(
        "search",
        help="find samples by meaning",
        description="Find the samples of a pool that match a text or an image, or that are like one of its "
        "samples or near a target set. Needs the index that `d2prune index` writes.",
    )
    add_work_dir(search)
    search.add_argument("text", nargs="?", metavar="TEXT", help="what to find")
    search.add_argument("--image", type=location, metavar="FILE", help="find samples that match an image")
    search.add_argument(
        "--like",
        metavar="UID",
        help="find samples like this one: a uid or its beginning, a key, or SHARD/KEY",
    )
    search.add_argument(
        "--near",
        type=location,
        metavar="FILE",
        help="find the samples nearest to any of the embeddings in an .npy or parquet file",
    )
    search.add_argument(
        "--top",
        type=numbers.whole(1, numbers.MAX_COUNT),
        default=_DEFAULT_TOP,
        metavar="N",
        help="number of samples to find; default: %(default)s",
    )
    search.add_argument(
        "--output",
        type=location,
        metavar="FILE",
        help="subset file (.npy) to write, for `d2prune reshard` and DataComp",
    )
    search.add_argument(
        "--index",
        type=location,
        metavar="FOLDER",
        help="folder of the merged view; default: inside the work_dir",
    )
    search.add_argument(
        "--model",
        type=location,
        metavar="MODEL",
        help="model that encodes the query; default: the one that the run records",
    )
    search.add_argument("--pretrained", type=location, metavar="NAME", help="its weights")
    add_selection(search)
    search.set_defaults(command=_search)


def _index(arguments: argparse.Namespace) -> int:
    from d2prune.console import print_line
    from d2prune.execution import OnRay
    from d2prune.extras import require
    from d2prune.index.build import build_index
    from d2prune.runs.finished import open_run

    require("faiss", "d2prune index")
    run = open_run(arguments.work_dir, arguments.run)
    executor = OnRay(None, arguments.workers) if arguments.workers > 1 else None
    try:
        folder = build_index(run, arguments.output, executor, arguments.workers)
    finally:
        if executor is not None:
            executor.close()
    print_line(f"{folder}: {len(run):,} samples; pool.faiss for faiss, ids.parquet for uids")
    return 0


def _search(arguments: argparse.Namespace) -> int:
    from d2prune import store
    from d2prune.console import print_line
    from d2prune.extras import require
    from d2prune.output import subset
    from d2prune.runs.finished import open_run
    from d2prune.search.searcher import Searcher
    from d2prune.search.terminal import print_found

    given = [name for name in ("text", "image", "like", "near") if getattr(arguments, name) is not None]
    if len(given) != 1:
        found = ", ".join("TEXT" if name == "text" else f"--{name}" for name in given) or "no query"
        raise UserError(f"search: found {found}; expected one of TEXT, --image, --like and --near")
    if arguments.pretrained and not arguments.model:
        raise UserError(f"--pretrained {arguments.pretrained}: expected --model, too")
    require("faiss", "d2prune search")
    run = open_run(arguments.work_dir, arguments.run)
    model = (arguments.model, arguments.pretrained) if arguments.model else None
    searcher = Searcher(run, arguments.index, model)
    hits = _find(run, searcher, arguments)
    print_found(searcher, hits[:_DEFAULT_TOP] if arguments.output else hits)
    if arguments.output:
        subset.write(arguments.output, lambda: map(subset.encode, searcher.read_uids(hits)))
        print_line(f"{store.redact(arguments.output)}: {len(hits):,} samples")
    return 0


def _find(run: "FinishedRun", searcher: "Searcher", arguments: argparse.Namespace) -> "Hits":
    from d2prune import store
    from d2prune.rescore.target import read_rows

    if arguments.text is not None:
        if not arguments.text.strip():
            raise UserError("TEXT: found nothing; expected what to find")
        return searcher.by_text(arguments.text, arguments.top)
    if arguments.image is not None:
        store.check_readable("--image", arguments.image)
        try:
            data = store.read_bytes(arguments.image)
        except FileNotFoundError:
            raise UserError(
                f"--image {store.redact(arguments.image)}: not found; expected an image"
            ) from None
        try:
            return searcher.by_image(data, arguments.top)
        except UserError as error:
            if not str(error).startswith("image: "):
                raise
            raise UserError(f"--image {store.redact(arguments.image)}: {error}") from error
    if arguments.like is not None:
        return searcher.like(_find_sample(run, arguments.like), arguments.top)
    store.check_readable("--near", arguments.near)
    return searcher.near(read_rows(arguments.near, "--near"), arguments.top)


def _find_sample(run: "FinishedRun", name: str) -> int:
    from d2prune.explore.names import find_samples

    match = find_samples(run, [name])[name]
    if len(match.positions) == 1:
        return match.positions[0]
    count = f"{len(match.positions)} samples" if match.positions else "no such sample"
    if match.rejected and not match.positions:
        count = f"a rejected sample ({match.rejected[0].reason})"
    similar = f"; similar uids: {', '.join(match.suggestions)}" if match.suggestions else ""
    raise UserError(
        f"--like {name[:100]}: found {count}; expected one embedded sample: a uid, the unique beginning of "
        f"one, or SHARD/KEY{similar}"
    )
