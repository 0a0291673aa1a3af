"""The output as trainers read it: webdataset, open_clip's data loader, DataComp's train.py."""

import collections
import inspect
import io
import json
import re
import subprocess
import sys
import types
from functools import partial
from pathlib import Path

import braceexpand
import pytest
import webdataset
from PIL import Image

from d2prune import torchvision_shim
from d2prune.output import layout, training
from tests.output.pools import Made, build, jpeg, naive, sample
from tests.output.runs import write

SAMPLES_PER_SHARD = 5


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An output with every kind of sample: (folder, the samples of the pool)."""
    folder = tmp_path_factory.mktemp("trainers")
    first = [sample(f"{i:04d}", number=i) for i in range(12)]
    first[3] = sample("ü/名前", number=3, image="PNG", text="TXT")
    first[4] = Made("broken", "4" * 32, (("jpg", jpeg(4)), ("txt", b"caf\xe9"), ("json", b"{not json")))
    first[5] = Made("bare", "5" * 32, (("webp", _webp()), ("txt", b"no json")))
    first[6] = sample("twin", uid="4" * 32, number=6)
    made = [first, [sample(f"{i:04d}", number=100 + i) for i in range(11, 20)]]
    pool = build(folder, made, [[True] * 12, [True] * 9])
    write(pool, str(folder / "out"), SAMPLES_PER_SHARD)
    return folder / "out", made


def _webp():
    sink = io.BytesIO()
    Image.new("RGB", (9, 9), (200, 10, 10)).save(sink, "WEBP")
    return sink.getvalue()


def test_webdataset_reads_every_sample(written):
    out, made = written
    data = webdataset.WebDataset(str(out / layout.brace_range(5)), shardshuffle=False).decode("pil")
    keys = [item["__key__"] for item in data]
    expected = naive(made, [[True] * 12, [True] * 9], SAMPLES_PER_SHARD)
    assert keys == [key for tar in expected for key in dict.fromkeys(name.split(".")[0] for name, _ in tar)]
    assert len(keys) == 21


@pytest.mark.parametrize("workers", [0, 2])
def test_open_clip_trains_on_every_sample(written, workers, monkeypatch):
    """One epoch in training mode yields each caption once; batch size 1, so that no batch is dropped."""
    out, made = written
    torchvision_shim.install_if_needed()
    from open_clip_train import data as open_clip_data

    # open_clip's training extra pins webdataset 0.2, and does not know the marker that 1.x adds after
    # each shard.
    expander = open_clip_data.tar_file_expander
    if "eof_value" in inspect.signature(expander).parameters:
        monkeypatch.setattr(open_clip_data, "tar_file_expander", partial(expander, eof_value=None))
    args = types.SimpleNamespace(
        train_data=str(out / layout.brace_range(5)),
        train_num_samples=None,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        batch_size=1,
        workers=workers,
        world_size=1,
        seed=0,
    )
    info = open_clip_data.get_wds_dataset(args, _pixels, is_train=True, tokenizer=_caption)
    assert info.dataloader.num_samples == 21 + (21 % 2 if workers else 0)
    captions = {texts[0] for _, texts in info.dataloader}
    if workers == 0:
        # With two workers and shards of different sizes, open_clip repeats some samples and drops others.
        assert captions == {
            dict((e.lower(), p) for e, p in item.members)["txt"].decode(errors="replace")
            for shard in made
            for item in shard
        }


def _pixels(image):
    return image.convert("RGB").size[0]


def _caption(text):
    return [text]


def datacomp_input_shards(folder):
    """Find shards as DataComp's train.py does for `--data_dir` (get_input_shards, for a local folder)."""
    components, prefixes = [], collections.defaultdict(list)
    for path in Path(folder).iterdir():
        if path.suffix == ".tar":
            stem = str(path.with_suffix(""))
            position = re.search(r"\d+$", stem).start()
            prefixes[stem[:position]].append(stem[position:])
        elif path.is_dir():
            meta = path / "meta.json"
            if meta.exists():
                record = json.loads(meta.read_text())
                names = [
                    record["output_shard_format"].format(i).replace(".tar", "")
                    for i in (0, record["output_shard_count"] - 1)
                ]
                components.append(str(path / f"{{{names[0]}..{names[1]}}}.tar"))
            else:
                components.extend(datacomp_input_shards(path).split("::"))
    for prefix, numbers in sorted(prefixes.items()):
        width = len(numbers[0])
        components.append(f"{prefix}{{{0:0{width}d}..{max(map(int, numbers)):0{width}d}}}.tar")
    return "::".join(components)


def test_datacomp_finds_the_shards_by_folder_and_by_parent(written):
    out, _ = written
    shards = [str(out / f"{i:08d}.tar") for i in range(5)]
    for data_dir in (out, out.parent):
        found = [
            url
            for part in datacomp_input_shards(data_dir).split("::")
            for url in braceexpand.braceexpand(part)
        ]
        # Searching the parent also finds the pool and work_dir; only the output counts here.
        assert [url for url in found if str(out) in url] == shards
    assert "" not in datacomp_input_shards(out).split("::")


def test_train_sh_starts_open_clip_with_the_shards_and_the_sample_count(written, tmp_path):
    out, _ = written
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a"; done\n')
    fake.chmod(0o755)

    def run(*args, **env):
        done = subprocess.run(
            ["sh", str(out / "train.sh"), *args],
            env={"PATH": "/usr/bin:/bin", "PYTHON": str(fake), **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines(), done.stderr

    arguments, errors = run("--lr", "1e-3")
    assert arguments == [
        "-m",
        "open_clip_train.main",
        "--dataset-type",
        "webdataset",
        "--train-data",
        f"{out}/{{00000000..00000004}}.tar",
        "--train-num-samples",
        "21",
        "--workers",
        "4",
        "--model",
        "ViT-B-32",
        "--lr",
        "1e-3",
    ]
    assert "warning" not in errors
    arguments, errors = run(WORLD_SIZE="2")
    assert arguments[:4] == ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    assert (
        arguments[arguments.index("--workers") + 1] == "2"
        and "warning: 5 shards are fewer than 4 workers x 2" in errors
    )
    arguments, errors = run(WORLD_SIZE="8")
    assert "--dataset-resampled" in arguments


def test_the_commands_for_object_stores():
    assert training.train_data("s3://b/out/", 3) == "pipe:aws s3 cp s3://b/out/{00000000..00000002}.tar -"
    assert (
        training.train_data("gs://b/out", 1) == "pipe:gcloud storage cat gs://b/out/{00000000..00000000}.tar"
    )
    assert "'--train-data=pipe:aws s3 cp s3://b/o/{00000000..00000002}.tar -'" in training.command(
        "s3://b/o", 3, 21
    )
    assert "--workers=3" in training.command("s3://b/o", 3, 21)
    script = training.script("s3://b/o", 3, 21)
    assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0
    assert "'pipe:aws s3 cp s3://b/o/{00000000..00000002}.tar -'" in script
    datacomp = "python train.py --scale small --data_dir s3://b/o --output_dir RUNS --exp_name NAME"
    assert training.datacomp_command("s3://b/o/") == datacomp and f"#     {datacomp}\n" in script
    assert "--data_dir '/my pool' " in training.datacomp_command("/my pool")


def test_idle_data_loader_workers_are_described():
    assert training.describe_idle_workers(4, 4) is None
    assert training.describe_idle_workers(1, 4).startswith(
        "with 1 shard, 3 of 4 data-loader workers are idle"
    )
    assert training.describe_idle_workers(5, 4, 2).startswith("with 5 shards, 3 of 8")


def test_train_sh_of_an_empty_output_fails(tmp_path):
    path = tmp_path / "train.sh"
    path.write_text(training.script(str(tmp_path), 0, 0))
    assert subprocess.run(["sh", str(path)], capture_output=True).returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sh")
def test_the_brace_range_of_one_shard_is_that_shard(tmp_path):
    assert list(braceexpand.braceexpand(layout.brace_range(1))) == ["00000000.tar"]
