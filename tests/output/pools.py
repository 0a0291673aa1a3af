"""Small pools, the embed and select artifacts of a run over them, and a naive writer to compare with."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from d2prune import store
from d2prune.inputs.shards import TarShard
from d2prune.inputs.tar.checksum import combine_digests
from d2prune.inputs.tar.reader import TarReader, TarSample
from d2prune.parts import files
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest
from d2prune.write.plan import plan


def uid_of(text):
    return hashlib.md5(text.encode()).hexdigest()


def jpeg(seed, side=16):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue()


@dataclass(frozen=True)
class Made:
    """A sample of the pool: key in the tar, uid, and members as (extension, payload)."""

    key: str
    uid: str
    members: tuple[tuple[str, bytes], ...]


def sample(key, uid=None, number=0, caption=None, image="jpg", text="txt", meta="json"):
    uid = uid or uid_of(key + str(number))
    caption = f"a drawing of {key}, number {number}" if caption is None else caption
    caption = caption if isinstance(caption, bytes) else caption.encode()
    members = ((image, jpeg(number)), (text, caption), (meta, json.dumps({"uid": uid, "key": key}).encode()))
    return Made(key, uid, members)


def write_tar(path, samples, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for made in samples:
            for extension, payload in made.members:
                header = tarfile.TarInfo(f"{made.key}.{extension}")
                header.size, header.mtime, header.uname = len(payload), 1_700_000_000, "someone"
                tar.addfile(header, io.BytesIO(payload))


def plain_pool(shards=3, per_shard=20):
    return [[sample(f"{s:05d}{i:04d}", number=100 * s + i) for i in range(per_shard)] for s in range(shards)]


@dataclass
class Pool:
    """A pool in storage with its embed and select artifacts."""

    url: str
    work_dir: str
    shards: list
    embed: Manifest
    select: Manifest
    made: list
    kept: list

    def plan(self, params):
        return plan(self.shards, self.embed, self.select, params)


def put_pool(folder, made, format=tarfile.PAX_FORMAT, url=None):
    """Write the tars to a local folder, and copy them to `url` if it is given."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for index, samples in enumerate(made):
        path = folder / f"{index:08d}.tar"
        write_tar(path, samples, format)
        target = str(path)
        if url is not None:
            target = store.join(url, path.name)
            store.write_bytes(target, path.read_bytes())
        info = store.info(target)
        shards.append(TarShard(info.url, f"{index:08d}", info.size, info.version))
    return shards


def build(folder, made, kept, format=tarfile.PAX_FORMAT, url=None, work_dir=None):
    """Write a pool and its artifacts.

    Args:
        folder: local folder for both.
        made: the samples of each shard.
        kept: for each shard, whether each of its samples is kept.
        format: of the tars.
        url: copies the tars there.
        work_dir: of the artifacts; default: inside `folder`.
    """
    shards = put_pool(Path(folder) / "pool", made, format, url)
    work_dir = work_dir or str(Path(folder) / "work")
    embedded, selected = [], []
    for shard, samples, keep in zip(shards, made, kept, strict=True):
        with store.open_read(shard.url) as stream:
            reader = TarReader(stream, with_digests=True)
            found = [item for item in reader if isinstance(item, TarSample)]
        assert [item.key for item in found] == [item.key for item in samples]
        count = len(samples)
        table = pa.table(
            {
                "shard": [shard.name] * count,
                "key": [item.key for item in samples],
                "uid": [item.uid for item in samples],
                "clip_score": np.linspace(0, 1, count, dtype=np.float32),
                "caption": ["caption"] * count,
                "width": [16] * count,
                "height": [16] * count,
                "offset": [item.offset for item in found],
                "size": [item.size for item in found],
                "checksum": [combine_digests(dict(zip(i.extensions, i.digests, strict=True))) for i in found],
                "image_sha256": pa.nulls(count),
            }
        ).cast(schemas.samples())
        key = artifacts.unit_key(shard.name, shard.version)
        embedded.append(
            artifacts.commit_unit(
                store.join(work_dir, "embed"), key, {files.SAMPLES: table}, {"embedded": count}
            )
        )
        decisions = pa.table(
            {
                "uid": table["uid"],
                "shard": table["shard"],
                "key": table["key"],
                "difficulty": table["clip_score"],
                "forward_score": np.linspace(1, 2, count),
                "selection_score": np.linspace(1, 2, count),
                "selection_fixed": np.arange(count),
                "kept": list(keep),
                "reason": ["kept" if flag else "below-budget" for flag in keep],
                "suppressed_by": pa.array([None] * count, pa.string()),
                "suppressor": np.full(count, -1),
                "suppression": np.zeros(count),
            }
        ).cast(schemas.DECISIONS)
        selected.append(
            artifacts.commit_unit(
                store.join(work_dir, "select"),
                key,
                {files.DECISIONS: decisions},
                {"kept": sum(map(bool, keep))},
            )
        )
    embed = Manifest("embed", "e" * 32, {}, {}, tuple(embedded), artifacts.sum_counters(embedded))
    select = Manifest("select", "5" * 32, {}, {}, tuple(selected), artifacts.sum_counters(selected))
    return Pool(url or str(Path(folder) / "pool"), work_dir, shards, embed, select, made, kept)


def naive(made, kept, samples_per_shard):
    """Compute the expected members of every output tar, as (member name, payload), with a plain loop."""
    chosen = [
        item
        for shard, keep in zip(made, kept, strict=True)
        for item, flag in zip(shard, keep, strict=True)
        if flag
    ]
    tars = []
    for start in range(0, len(chosen), samples_per_shard):
        members, seen = [], Counter()
        for item in chosen[start : start + samples_per_shard]:
            name = f"{item.uid}-{seen[item.uid]}"
            seen[item.uid] += 1
            members.extend((f"{name}.{extension.lower()}", payload) for extension, payload in item.members)
        tars.append(members)
    return tars


def read_tars(folder):
    """Read the members of every output tar with tarfile, as (member name, payload)."""
    tars = []
    for path in sorted(Path(folder).glob("*.tar")):
        with tarfile.open(path) as tar:
            tars.append([(header.name, tar.extractfile(header).read()) for header in tar])
    return tars


def tree(folder):
    """Read every file below a folder: relative name -> bytes."""
    root = Path(folder)
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }
