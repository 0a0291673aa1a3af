"""Commands that train on an output folder, and the script `train.sh`.

open_clip (3.x, `open_clip_train`) takes the shards as a brace range and the number of samples as an
option (it reads `sizes.json` from local folders only), and requires at least one shard per
data-loader worker of every process. DataComp's train.py takes the folder.

On its way, the name of a folder is read several times: by the shell that runs the command, by
open_clip (which splits at `::`, replaces `${NAME}` and expands braces), and, after `pipe:`, by the
shell that webdataset starts. Each layer of quotes below is for one of them; ordinary names need
none and get none.
"""

import re
import shlex
from collections.abc import Sequence

from d2prune import store
from d2prune.console import printable
from d2prune.output import layout
from d2prune.store import schemas

DEFAULT_WORKERS = 4
"""Data-loader workers of each training process, open_clip's own default."""


def train_data(output: str, shards: int, shared: Sequence[str] = ()) -> str:
    """Return open_clip's `--train-data` argument for an output folder.

    Args:
        output: URL of the folder.
        shards: number of tars, at least 1.
        shared: their names, if outputs share them.
    """
    folder = store.redact((layout.shared_folder(output) if shared else output).rstrip("/"))
    tars = layout.brace_list(shared) if shared else layout.brace_range(shards)
    if folder.startswith("s3://"):
        return f"pipe:aws s3 cp {_quote_twice(folder)}/{tars} -"
    if folder.startswith(("gs://", "gcs://")):
        return f"pipe:gcloud storage cat {_quote_twice(folder)}/{tars}"
    return f"{_escape_braces(folder.removeprefix('file://'))}/{tars}"


def _quote_twice(folder: str) -> str:
    """Quote a folder for the shell that `pipe:` starts, and that text for open_clip."""
    return re.sub(":(?=:)", ":''", _escape_braces(shlex.quote(folder)))


def _escape_braces(text: str) -> str:
    """Escape what braceexpand would expand; `${` is not a variable then, either."""
    return re.sub(r"[\\{}]", r"\\\g<0>", text)


def command(
    output: str,
    shards: int,
    samples: int,
    workers: int | None = None,
    model: str = "ViT-B-32",
) -> str:
    """Return the open_clip command that trains on the folder, quoted for a shell.

    Args:
        output: URL of the folder.
        shards: number of tars.
        samples: number of samples in them.
        workers: data-loader workers; default: 4, or the number of shards if there are fewer.
        model: the architecture to train.
    """
    arguments = [
        "--dataset-type=webdataset",
        f"--train-data={train_data(output, shards)}",
        f"--train-num-samples={samples}",
        f"--workers={min(DEFAULT_WORKERS, shards) if workers is None else workers}",
        f"--model={model}",
    ]
    return "python -m open_clip_train.main " + " ".join(shlex.quote(argument) for argument in arguments)


def script_command(output: str) -> str:
    """Return the command that runs the folder's `train.sh`, quoted for a shell; it lists shared tars."""
    url = store.redact(store.join(output, layout.TRAIN))
    if url.startswith("s3://"):
        return f"aws s3 cp {shlex.quote(url)} - | sh"
    if url.startswith(("gs://", "gcs://")):
        return f"gcloud storage cat {shlex.quote(url)} | sh"
    return f"sh {shlex.quote(url.removeprefix('file://'))}"


def reshard_command(output: str) -> str:
    """Return the command that writes tars for a selection made from tables, quoted for a shell.

    Args:
        output: URL of the folder with the subset file.
    """
    url = shlex.quote(store.redact(store.join(output, layout.SUBSET)))
    return f"d2prune reshard --subset {url} --input TARS --output FOLDER"


def datacomp_command(output: str, scale: str = "small") -> str:
    """Return the command that runs DataComp's train.py on the folder, quoted for a shell.

    Args:
        output: URL of the folder.
        scale: DataComp's name for the size of the pool, which sets the model and the number of
            steps.
    """
    folder = shlex.quote(store.redact(output.rstrip("/")).removeprefix("file://"))
    return f"python train.py --scale {scale} --data_dir {folder} --output_dir RUNS --exp_name NAME"


def describe_idle_workers(shards: int, workers: int, world_size: int = 1) -> str | None:
    """Describe data-loader workers that would get no shard, which open_clip refuses; None if there are none.

    Args:
        shards: number of tars.
        workers: data-loader workers of each process.
        world_size: training processes.
    """
    readers = workers * world_size
    if shards >= readers:
        return None
    return (
        f"with {shards} {'shard' if shards == 1 else 'shards'}, {readers - shards} of {readers} data-loader "
        "workers are idle, so train.sh starts fewer; for more shards, lower write.samples_per_shard"
    )


def script(output: str, shards: int, samples: int, shared: Sequence[str] = ()) -> str:
    """Return the text of `train.sh`, which runs open_clip and passes its arguments on to it.

    Args:
        output: URL of the folder. The script finds a local folder from its own path, so that the
            folder may be moved.
        shards: number of tars.
        samples: number of samples in them.
        shared: their names, if outputs share them.
    """
    if shards == 0:
        return "#!/bin/sh\necho 'no sample was kept: nothing to train on' >&2\nexit 1\n"
    if shared and len(layout.brace_list(shared)) > _MAX_LIST:
        return _TOO_MANY.format(shards=shards, samples=samples)
    # In a comment, a newline would end it.
    datacomp = printable(datacomp_command(output))
    if store.is_local(output):
        datacomp = datacomp_command("FOLDER")
        path = output + store.resolve(output)
        folder = '$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)'
        shown = '"$FOLDER/"' if _escape_braces(path) == path else f'"{_ESCAPED_FOLDER}/"'
        tars = (
            f"../{schemas.SHARED_FOLDER}/{layout.brace_list(shared)}"
            if shared
            else layout.brace_range(shards)
        )
        data = f"{shown}{shlex.quote(tars)}"
    else:
        folder = shlex.quote(store.redact(output.rstrip("/")))
        data = shlex.quote(train_data(output, shards, shared))
    return _SCRIPT.format(
        shards=shards,
        samples=samples,
        folder=folder,
        data=data,
        workers=DEFAULT_WORKERS,
        note=_SHARED_NOTE if shared else _DATACOMP_NOTE.format(datacomp=datacomp),
    )


# `_escape_braces`, in the shell.
_ESCAPED_FOLDER = r"""$(printf '%s' "$FOLDER" | sed 's/[\{}]/\\&/g')"""

_MAX_LIST = 2**17 - 2**13
"""Characters of a list of tars; Linux passes at most 128 KiB in one argument."""

_TOO_MANY = """\
#!/bin/sh
SHARDS={shards}
SAMPLES={samples}
echo "the list of $SHARDS shards, with $SAMPLES samples, is too long for one argument; expected fewer: raise \
write.samples_per_shard, or read the list from manifest.json" >&2
exit 1
"""

_DATACOMP_NOTE = """\
# With DataComp's own program, from its checkout:
#     {datacomp}"""

_SHARED_NOTE = f"""\
# The tars are in ../{schemas.SHARED_FOLDER}, with those of other runs; this list has the ones of this run.
# DataComp's own program reads whole folders: `d2prune reshard` copies the samples of subset.npy into one."""

_SCRIPT = """\
#!/bin/sh
# Trains CLIP on the {samples} samples in the {shards} shards of this folder, with open_clip:
#     pip install 'open_clip_torch[training]'
#     sh train.sh --batch-size 256 --lr 5e-4 --epochs 32
# All arguments go to open_clip. MODEL, WORKERS (data-loader workers of each process) \
and WORLD_SIZE (processes, one a
# GPU) may be set in the environment.
#
{note}
set -eu
FOLDER={folder}
DATA={data}
SHARDS={shards}
SAMPLES={samples}
MODEL="${{MODEL:-ViT-B-32}}"
WORKERS="${{WORKERS:-{workers}}}"
WORLD_SIZE="${{WORLD_SIZE:-1}}"

if [ "$SHARDS" -lt "$((WORKERS * WORLD_SIZE))" ]; then
    echo "warning: $SHARDS shards are fewer than $WORKERS workers \
x $WORLD_SIZE processes, which open_clip refuses" >&2
    if [ "$SHARDS" -ge "$WORLD_SIZE" ]; then
        WORKERS="$((SHARDS / WORLD_SIZE))"
        echo "warning: going on with WORKERS=$WORKERS" >&2
    else
        set -- --dataset-resampled "$@"
        echo "warning: going on with --dataset-resampled (sampling with replacement)" >&2
    fi
fi

echo "training on $FOLDER: $SAMPLES samples in $SHARDS shards" >&2
set -- -m open_clip_train.main --dataset-type webdataset --train-data "$DATA" \
--train-num-samples "$SAMPLES" \\
    --workers "$WORKERS" --model "$MODEL" "$@"
if [ "$WORLD_SIZE" -gt 1 ]; then
    exec "${{PYTHON:-python}}" -m torch.distributed.run --nproc_per_node "$WORLD_SIZE" "$@"
fi
exec "${{PYTHON:-python}}" "$@"
"""
