"""A short real training: filter the bundled pool, run the output's `train.sh`, check the loss.

    python -m benchmarks.train_check --folder /tmp/train-check

`train.sh` starts open_clip's training program (`open_clip_train.main`, part of the open_clip_torch
wheel) on a CPU, with a CLIP of a million parameters. open_clip's training extra pins webdataset
0.2, whose interface it uses, while d2prune needs 1.x. webdataset 0.2 is therefore installed to a
separate folder that comes first on the trainer's path, as if the trainer had its own environment.

Writes everything to `--folder` and prints a markdown table. Exits with 1 if the loss did not fall.
Takes about two minutes on two cores and needs PyPI once, for webdataset 0.2.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.processes import PYTHONPATH
from d2prune.bundled import POOL_DIR
from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.runs.driver import run

WEBDATASET = "webdataset==0.2.86"

MODEL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 96, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}

SETUP = """\
# Imported by every Python process with this folder on its path; prepares it as a trainer's
# environment.
from d2prune import torchvision_shim

torchvision_shim.install_if_needed()
import open_clip

open_clip.add_model_config({config!r})
"""

_LOSS = re.compile(r"Train Epoch: (\d+) \[\s*(\d+)/(\d+).*Contrastive_loss: ([0-9.]+)")


def filter_pool(folder: Path) -> Path:
    """Run the pipeline on the bundled pool and return the output folder."""
    for name in ("work", "out"):
        shutil.rmtree(folder / name, ignore_errors=True)
    config = RunConfig.parse(
        {
            "input": str(POOL_DIR),
            "work_dir": str(folder / "work"),
            "output": str(folder / "out"),
            "embed": {"model": "demo"},
            "graph": {"n_neighbors": 1},
            "select": {"fraction": 0.5},
            "write": {"samples_per_shard": 100},
        },
        "train_check",
    )
    run(config, InProcess(), "write")
    return folder / "out"


def prepare_trainer(folder: Path) -> Path:
    """Create and return the folder for the trainer's path: webdataset 0.2 and the tiny model."""
    path = folder / "trainer"
    if not (path / "webdataset").exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(path),
            WEBDATASET,
        ]
        subprocess.run(command, check=True)
    config = path / "check-clip.json"
    config.write_text(json.dumps(MODEL))
    (path / "sitecustomize.py").write_text(SETUP.format(config=str(config)))
    return path


def train(output: Path, folder: Path, epochs: int) -> list[tuple[int, float]]:
    """Run `train.sh` and return (epoch, loss of its last batch) for every epoch, in order."""
    path = prepare_trainer(folder)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(path), PYTHONPATH]),
        "PYTHON": sys.executable,
        "MODEL": "check-clip",
        "WORKERS": "1",
        "OMP_NUM_THREADS": "2",
    }
    options = (
        "--batch-size 50 --lr 1e-3 --warmup 5 --wd 0.1 --precision fp32 --seed 0 --save-frequency 0".split()
    )
    options += [
        "--epochs",
        str(epochs),
        "--logs",
        str(folder / "logs"),
        "--name",
        "check",
        "--log-every-n-steps",
        "100",
    ]
    done = subprocess.run(
        ["sh", str(output / "train.sh"), *options], env=environment, capture_output=True, text=True
    )
    log = done.stdout + done.stderr
    if done.returncode:
        raise SystemExit(f"train.sh: exit code {done.returncode}; the end of its log:\n{log[-4000:]}")
    losses = {int(epoch): float(loss) for epoch, _, _, loss in _LOSS.findall(log)}
    return sorted(losses.items())


def main() -> int:
    """Filter, train and print the losses. Returns 1 if the loss did not fall."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for everything that is written")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    output = filter_pool(arguments.folder)
    samples = sum(json.loads((output / "sizes.json").read_text()).values())
    start = time.perf_counter()
    losses = train(output, arguments.folder, arguments.epochs)
    seconds = time.perf_counter() - start
    shards = len(list(output.glob("*.tar")))
    print(
        f"{samples} samples in {shards} shards, {arguments.epochs} epochs with batches of 50 in "
        f"{seconds:.0f} s, {os.cpu_count()} cores, {platform.machine()}; loss when guessing: ln 50 = 3.91.\n"
    )
    print("| epoch | contrastive loss at its end |\n|---|---|")
    for epoch, loss in losses:
        print(f"| {epoch + 1} | {loss:.3f} |")
    fell = len(losses) == arguments.epochs and losses[-1][1] < losses[0][1] - 0.1
    print(f"\nthe loss {'fell' if fell else 'did NOT fall'}")
    return 0 if fell else 1


if __name__ == "__main__":
    sys.exit(main())
