"""Pools of embeddings in every layout that is understood."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Rows:
    """One file's worth of samples."""

    uid: Sequence[str]
    caption: Sequence[str]
    score: np.ndarray
    image: np.ndarray
    text: np.ndarray

    def __len__(self) -> int:
        return len(self.uid)


def make_rows(count: int, seed: int = 0, width: int = 16, dtype=np.float16) -> Rows:
    """Clustered unit vectors with scores."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((8, width))
    label = rng.integers(0, 8, count)

    def unit(noise: float) -> np.ndarray:
        rows = centres[label] + noise * rng.standard_normal((count, width))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)

    return Rows(
        [rng.bytes(16).hex() for _ in range(count)],
        [f"thing {k}, number {i}" for i, k in enumerate(label)],
        rng.random(count),
        unit(0.5),
        unit(0.7),
    )


def datacomp_table(rows: Rows) -> pa.Table:
    """The columns of DataComp's metadata."""
    count = len(rows)
    return pa.table(
        {
            "uid": rows.uid,
            "url": [f"https://host/{uid}.jpg" for uid in rows.uid],
            "text": rows.caption,
            "original_width": np.arange(count) + 100,
            "original_height": np.arange(count) + 200,
            "clip_b32_similarity_score": np.linspace(0, 1, count),
            "clip_l14_similarity_score": rows.score,
            "face_bboxes": [[[0.1, 0.2, 0.3, float("nan")]] if i % 3 else [] for i in range(count)],
            "sha256": [uid * 2 for uid in rows.uid],
        }
    )


def write_datacomp(folder: Path, parts: Sequence[Rows], compressed: bool = False) -> Path:
    """NAME.parquet + NAME.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, rows in enumerate(parts):
        # Small row groups, so that parts and row groups do not coincide.
        pq.write_table(datacomp_table(rows), folder / f"{index:08d}.parquet", row_group_size=13)
        half = rows.image.shape[1] // 2
        save = np.savez_compressed if compressed else np.savez
        save(
            folder / f"{index:08d}.npz",
            b32_img=rows.image[:, :half],
            b32_txt=rows.text[:, :half],
            l14_img=rows.image,
            l14_txt=rows.text,
        )
    return folder


def write_clip_retrieval(folder: Path, parts: Sequence[Rows], text: bool = True) -> Path:
    """img_emb/, text_emb/ and metadata/."""
    for name in ("img_emb", "metadata", *(["text_emb"] if text else [])):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, rows in enumerate(parts):
        np.save(folder / "img_emb" / f"img_emb_{index}.npy", rows.image)
        if text:
            np.save(folder / "text_emb" / f"text_emb_{index}.npy", rows.text)
        table = {
            "image_path": [f"{uid}.jpg" for uid in rows.uid],
            "caption": rows.caption,
            "similarity": rows.score,
            "uid": rows.uid,
        }
        pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{index}.parquet")
    return folder


def write_arrays(folder: Path, parts: Sequence[Rows]) -> Path:
    """NAME.parquet + NAME.image_emb.npy + NAME.text_emb.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, rows in enumerate(parts):
        table = {"uid": rows.uid, "caption": rows.caption, "clip_score": rows.score}
        pq.write_table(pa.table(table), folder / f"part-{index}.parquet")
        np.save(folder / f"part-{index}.image_emb.npy", rows.image)
        np.save(folder / f"part-{index}.text_emb.npy", rows.text)
    return folder


def write_columns(folder: Path, parts: Sequence[Rows], fixed: bool = True) -> Path:
    """NAME.parquet with everything in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, rows in enumerate(parts):
        kind = pa.from_numpy_dtype(rows.image.dtype)
        kind = pa.list_(kind, rows.image.shape[1]) if fixed else pa.list_(kind)
        table = {
            "image_emb": pa.array(list(rows.image), kind),
            "text_emb": pa.array(list(rows.text), kind),
            "uid": rows.uid,
            "caption": rows.caption,
            "clip_score": rows.score,
        }
        pq.write_table(pa.table(table), folder / f"part-{index}.parquet", row_group_size=17)
    return folder
