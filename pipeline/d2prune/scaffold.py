"""Write a first configuration for what a folder holds: `d2prune init`.

Reads the listing of the folder and, of tables, the first file; writes one commented YAML file.
Invariant: a file that is written names an input that exists and passes every check of a run's plan.
"""

import posixpath
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from d2prune import extras, store
from d2prune.config.model import RunConfig
from d2prune.config.yaml_text import read_document
from d2prune.console import format_bytes
from d2prune.errors import UserError
from d2prune.inputs.pool import InputPool, open_pool
from d2prune.inputs.tables.column_names import Columns, WantedColumns, resolve_columns
from d2prune.inputs.tables.files import TableFile
from d2prune.inputs.tables.source import open_source
from d2prune.inputs.tables.values import NUMBER, can_be_read
from d2prune.runs.plan import plan_run

DEFAULT_MODEL = ("ViT-B-32", "datacomp_xl_s13b_b90k")

_TARS = """
# Any open_clip model (`d2prune models`), `hf-hub:org/name` or a folder. Downloaded once, 600 MB.
# `model: demo`, without `pretrained`, is a toy that needs no download, to try things out.
embed:
  model: {model}
  pretrained: {pretrained}
"""
_SCORE = """
# {why}
score:
  difficulty: {difficulty}
"""
_FEATURES = """
# The tables have no {missing} embeddings.
graph:
  features: {features}
"""
_SPECIAL = re.compile(r"[^\w.@%+=,-]+")
_END = """
select:
  fraction: 0.3             # share of the embedded samples to keep; another one later takes seconds
  # groups: shard           # keep this share of every shard

# dedup:
#   near: 0.95              # first drop samples with at least this cosine to a neighbour
# ray:
#   num_gpus: 1             # GPUs per worker
"""


def write_config(folder: str, file: str) -> tuple[str, str]:
    """Write a configuration for a pool.

    Args:
        folder: path or URL of the pool.
        file: path of the file to write; it must not exist.

    Returns:
        What was found, in words, and the text of the file.

    Raises:
        UserError: the folder holds no pool or more than one kind of files, no column can be the score,
            or the file exists.
    """
    target = Path(file)
    if target.exists() or target.is_symlink():
        raise UserError(f"{file}: exists already; expected a new file (--file NAME)")
    if not store.is_local(folder):
        place = folder.rstrip("/")
    else:
        place = store.resolve(folder)
    pool = open_pool(place)
    found = _describe(pool)
    text = _compose(place, pool, f"{found}. Run it with: d2prune run --config {shlex.quote(file)}")
    config = RunConfig.parse(read_document(text).value, f"init {store.redact(folder)}")
    if not pool.has_images or extras.is_installed("open_clip"):
        plan_run(config)
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror or error}") from error
    return found, text


def _describe(pool: InputPool) -> str:
    if pool.has_images:
        size = sum(getattr(shard, "size", 0) for shard in pool.shards)
        return f"{len(pool.shards):,} tars, {format_bytes(size)}"
    first = pool.tables[0]
    if first.npz:
        layout = "DataComp's metadata: tables with arrays in .npz files"
    elif posixpath.basename(posixpath.dirname(first.table.url)) == "metadata" and first.arrays:
        layout = "a clip-retrieval folder"
    elif first.arrays:
        layout = "tables with arrays in .npy files"
    else:
        layout = "tables with columns of embeddings"
    return f"{len(pool.tables):,} tables, {layout}"


def _compose(place: str, pool: InputPool, title: str) -> str:
    stem = _find_stem(place)
    lines = [
        f"# {_one_comment(title)}",
        f"input: {_quote(place)}",
        "# Intermediate artifacts: keep it to resume, and to try other fractions.",
        f"work_dir: {_quote(f'{stem}-work')}",
        f"output: {_quote(f'{stem}-filtered')}",
    ]
    head = "\n".join(lines) + "\n"
    if pool.has_images:
        model, pretrained = DEFAULT_MODEL
        return head + _TARS.format(model=model, pretrained=pretrained) + _END
    return head + _compose_tables(pool.tables) + _END


def _compose_tables(tables: Sequence[TableFile]) -> str:
    columns = resolve_columns(tables, WantedColumns())
    text = ""
    if columns.clip_score is None and len(columns.embeddings) < 2:
        name = _find_score(tables, columns)
        why = f"The tables have no clip_score; {name} is their first other number. Higher = more wanted."
        text += _SCORE.format(why=_one_comment(why), difficulty=_quote(name))
        text += f"embed:\n  fields: {{{_quote(name)}: number}}\n"
    if len(columns.embeddings) < 2:
        features, missing = ("image", "text") if columns.image_emb else ("text", "image")
        text += _FEATURES.format(features=features, missing=missing)
    return text


def _find_score(tables: Sequence[TableFile], columns: Columns) -> str:
    """Return the first column of numbers that is no known property of the samples.

    Raises:
        UserError: there is none.
    """
    with open_source(tables[0]) as source:
        schema = source.table.schema
        for field in schema:
            usable = re.fullmatch(r"[A-Za-z_]\w*", field.name) and field.name not in columns.values
            if usable and can_be_read(field.type, NUMBER):
                return str(field.name)
        raise UserError(
            f"{source.table.shown}: found no score; expected clip_score, image and text embeddings, or "
            "another column of numbers"
        )


def _find_stem(place: str) -> str:
    """Return the beginning of names beside the pool, which no run reads as input."""
    parent, _, name = place.rpartition("/")
    if not parent or parent.endswith("/"):  # the root, or a whole bucket
        parent, name = str(Path.cwd()), name or "pool"
    name = name.removesuffix(".tar").removesuffix(".parquet")
    # Braces and wildcards mean something in `output`.
    return f"{parent}/{_SPECIAL.sub('_', name) or 'pool'}"


def _quote(text: str) -> str:
    """Return text as a YAML scalar on one line."""
    return yaml.safe_dump(text, width=10**6, allow_unicode=True).removesuffix("\n...\n").rstrip("\n")


def _one_comment(text: str) -> str:
    return " ".join(text.split())
