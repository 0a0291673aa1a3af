"""A small run built by hand: real images in tars, synthetic embeddings, a naive D2, and the artifacts."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from d2prune.report.record import RunRecord, WrittenOutput
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest
from d2prune.store.columns import vector_column


@dataclass(frozen=True)
class Item:
    """A sample before it is written: image bytes, caption, and unit vectors float [D]."""

    image: bytes
    caption: str
    image_emb: np.ndarray
    text_emb: np.ndarray
    extension: str = "png"


def encode_image(rng: np.random.Generator, colour: tuple[int, int, int], side: int = 48) -> bytes:
    pixels = np.clip(np.array(colour) + rng.integers(-30, 30, (side, side, 3)), 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def items(count: int, seed: int = 0, groups: int = 5, dimension: int = 12) -> list[Item]:
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(groups, dimension)))
    names = ["red apple", "green tree", "blue sea", "grey stone", "yellow sun", "pink rose"]
    made = []
    for index in range(count):
        group = index % groups
        image = unit(centres[group] + rng.normal(size=dimension) * 0.12)
        # Every seventh caption belongs to another group of images.
        captioned = group if index % 7 else (group + 2) % groups
        text = unit(centres[captioned] + rng.normal(size=dimension) * 0.12)
        colour = (40 * group, 255 - 40 * group, 20 * group + 60)
        made.append(Item(encode_image(rng, colour), f"a {names[captioned]} number {index}", image, text))
    return made


def naive_d2(points: np.ndarray, difficulty: np.ndarray, k: int, gamma: float) -> dict[str, np.ndarray]:
    """D2 as the paper defines it, in floats: forward scores, selection scores, suppressors, suppressions."""
    n = len(points)
    sq = np.maximum(2 - 2 * points @ points.T, 0)
    near = [set() for _ in range(n)]
    for i in range(n):
        for j in np.argsort(sq[i], kind="stable"):
            if j != i:
                near[i].add(int(j))
            if len(near[i]) == k:
                break
    for i in range(n):
        for j in list(near[i]):
            near[j].add(i)
    weight = np.exp(-gamma * sq)
    forward = np.array([difficulty[i] + sum(weight[i, j] * difficulty[j] for j in near[i]) for i in range(n)])
    x, left = forward.copy(), set(range(n))
    t = np.zeros(n)
    by, message = np.full(n, -1), np.zeros(n)
    while left:
        i = max(left, key=lambda node: (x[node], -node))
        left.remove(i)
        t[i] = x[i]
        for j in near[i]:
            if j in left:
                sent = weight[i, j] * max(t[i], 0)
                x[j] -= sent
                if sent > message[j]:
                    by[j], message[j] = i, sent
    neighbors = [sorted(row) for row in near]
    return {"forward": forward, "t": t, "by": by, "message": message, "near": neighbors, "sq": sq}


def write_tar(path: Path, rows: list[tuple[str, Item]]) -> list[tuple[int, int]]:
    """Write a tar; returns (offset, size) of each sample."""
    ranges = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, item in rows:
            start = tar.offset
            for extension, payload in ((item.extension, item.image), ("txt", item.caption.encode())):
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(payload)
                tar.addfile(info, io.BytesIO(payload))
            ranges.append((start, tar.offset - start))
    return ranges


def build_run(
    folder: Path,
    pool: list[Item],
    per_shard: int = 40,
    fraction: float = 0.3,
    empty_shard: bool = True,
    cut_off: int = 0,
    fields: dict[str, list[str]] | None = None,
    detail: str = "",
) -> RunRecord:
    """Write the tars and artifacts of a run over `pool`; `empty_shard` adds a shard with rejects only.

    The first `cut_off` samples are marked as removed by the cut-off, with scores that would be kept.
    `fields` are text columns that the run carries along, and `detail` is that of every reject.
    """
    fields = fields or {}
    work = folder / "work"
    (folder / "in").mkdir(parents=True)
    image = np.array([item.image_emb for item in pool]).astype(np.float16)
    text = np.array([item.text_emb for item in pool]).astype(np.float16)
    score = np.einsum("nd,nd->n", image.astype(np.float32), text.astype(np.float32))
    difficulty = np.maximum(score - score.min(), 0)
    points = unit(np.concatenate([image, text], axis=1).astype(np.float64))
    found = naive_d2(points, difficulty, 5, 1.0)
    order = np.lexsort((np.arange(len(pool)), -found["t"]))
    found["t"][:cut_off], found["by"][:cut_off] = 99, -1
    order = order[order >= cut_off]
    kept = np.zeros(len(pool), bool)
    kept[order[: round(fraction * len(pool))]] = True
    reason_N = np.where(kept, "kept", np.where(np.arange(len(pool)) < cut_off, "cut-off", "below-budget"))
    uids = [f"{index:032x}" for index in range(len(pool))]

    starts = list(range(0, len(pool), per_shard))
    spans = [(start, min(start + per_shard, len(pool))) for start in starts]
    if empty_shard:
        spans.insert(1, (spans[0][1], spans[0][1]))
    shard_urls, embed_units, graph_units, select_units = [], [], [], []
    for number, (start, end) in enumerate(spans):
        name = f"{number:08d}.tar"
        path = folder / "in" / name
        keys = [f"{index:09d}" for index in range(start, end)]
        ranges = write_tar(path, list(zip(keys, pool[start:end], strict=True)))
        shard_urls.append(str(path))
        rows = end - start
        samples = pa.table(
            {
                "shard": [name] * rows,
                "key": keys,
                "uid": uids[start:end],
                "clip_score": score[start:end],
                "caption": [item.caption for item in pool[start:end]],
                "width": [48] * rows,
                "height": [48] * rows,
                "offset": [offset for offset, _ in ranges],
                "size": [size for _, size in ranges],
                "checksum": [None] * rows,
                "image_sha256": [None] * rows,
                **{name: values[start:end] for name, values in fields.items()},
            },
            schema=schemas.samples([(name, "text") for name in fields]),
        )
        embeddings = pa.table(
            {"image_emb": vector_column(image[start:end]), "text_emb": vector_column(text[start:end])},
            schema=schemas.embeddings(image.shape[1]),
        )
        reasons = ["caption-empty", "image-truncated", "caption-empty"] if not rows else ["image-missing"]
        rejects = pa.table(
            {
                "shard": [name] * len(reasons),
                "key": [f"bad{i}" for i in range(len(reasons))],
                "reason": reasons,
                "detail": [detail] * len(reasons),
            },
            schema=schemas.REJECTS,
        )
        counters = {"read": rows + len(reasons), "embedded": rows, "rejected": len(reasons)}
        for reason in reasons:
            counters[f"rejected.{reason}"] = counters.get(f"rejected.{reason}", 0) + 1
        embed_units.append(
            artifacts.commit_unit(
                str(work / "embed"),
                f"u{number}",
                {"samples.parquet": samples, "embeddings.parquet": embeddings, "rejects.parquet": rejects},
                counters,
            )
        )
        near = found["near"][start:end]
        neighbors = pa.table(
            {
                "cut_off": [index < cut_off for index in range(start, end)],
                "indices": near,
                "sq_distances": [found["sq"][start + row, ids] for row, ids in enumerate(near)],
            },
            schema=schemas.NEIGHBORS,
        )
        graph_units.append(
            artifacts.commit_unit(str(work / "graph"), f"u{number}", {"neighbors.parquet": neighbors}, {})
        )
        by = found["by"][start:end]
        decisions = pa.table(
            {
                "uid": uids[start:end],
                "shard": [name] * rows,
                "key": keys,
                "difficulty": difficulty[start:end].astype(np.float32),
                "forward_score": found["forward"][start:end],
                "selection_score": found["t"][start:end],
                "selection_fixed": np.rint(found["t"][start:end] * 2**40).astype(np.int64),
                "kept": kept[start:end],
                "reason": reason_N[start:end].tolist(),
                "suppressed_by": [uids[b] if b >= 0 else None for b in by],
                "suppressor": by.astype(np.int64),
                "suppression": [
                    m if b >= 0 else None for m, b in zip(found["message"][start:end], by, strict=True)
                ],
            },
            schema=schemas.DECISIONS,
        )
        select_units.append(
            artifacts.commit_unit(
                str(work / "select"),
                f"u{number}",
                {"decisions.parquet": decisions},
                {"kept": int(kept[start:end].sum())},
            )
        )
    columns = [[name, "text"] for name in fields]
    embed = _manifest("embed", embed_units, {"model": "demo", "max_pixels": 1000, "fields": columns}, {})
    facts = {"recall": 0.972, "recall_low": 0.961, "recall_high": 0.981, "nlist": 16, "nprobe": 6}
    graph = _manifest(
        "graph", graph_units, {"n_neighbors": 5}, {**facts, "n_neighbors": 5, "edges": 4 * len(pool)}
    )
    select = _manifest(
        "select", select_units, {"fraction": fraction, "gamma_forward": 1.0, "gamma_reverse": 1.0}, {}
    )
    return RunRecord(
        work_dir=str(work),
        embed=embed,
        graph=graph,
        select=select,
        shard_urls=shard_urls,
        is_clamped=False,
        input=["s3://me:secret@pool/{00000000..00000004}.tar"],
        written=WrittenOutput(
            "s3://filtered/run-1", 2, int(kept.sum()), "python -m open_clip_train.main --train-data ..."
        ),
        timings={"embed": 12.5, "graph": 1.0, "select": 0.25, "write": 2.0},
        parameters={manifest.stage: manifest.params for manifest in (embed, graph, select)},
    )


def _manifest(stage: str, units: list[artifacts.Receipt], params: dict, facts: dict) -> Manifest:
    return Manifest(
        stage=stage,
        fingerprint=artifacts.fingerprint(stage, params),
        params=params,
        inputs={},
        units=tuple(units),
        counters=artifacts.sum_counters(units),
        facts=facts,
    )
