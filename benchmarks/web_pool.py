"""A generated pool in the format of DataComp's metadata, file by file: parquet, and npz with l14_img.

Web-like: clusters with Pareto weights, features whose scales fall, and 10 % near-copies (cosine about
0.97) of rows of the same or of an earlier file. A file depends on the seed, the number of rows of the
pool and its own number alone, so that an interrupted call continues, and memory holds one file.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROWS_PER_FILE = 10_000
LATENT = 96
NEAR_COPIES = 0.1
ROWS_PER_CLUSTER = 500
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class WebPool:
    """The pool to generate.

    Attributes:
        rows: N.
        dims: of an embedding.
        seed: of everything.
    """

    rows: int
    dims: int = 768
    seed: int = 0

    @property
    def files(self) -> int:
        """Number of files."""
        return -(-self.rows // ROWS_PER_FILE)

    @cached_property
    def _centres(self) -> tuple[Float32, NDArray[np.float64], Float32]:
        rng = np.random.default_rng([self.seed, 0])
        clusters = max(16, self.rows // ROWS_PER_CLUSTER)
        weights = rng.pareto(1.2, clusters) + 0.1
        basis = np.linalg.qr(rng.standard_normal((self.dims, LATENT)))[0].T.astype(np.float32)
        return rng.standard_normal((clusters, LATENT), np.float32), np.cumsum(weights / weights.sum()), basis

    def _draw(self, file: int) -> Float32:
        """Features of the rows of a file before near-copies are made."""
        centres, cumulative, _ = self._centres
        rng = np.random.default_rng([self.seed, 1, file])
        count = min(ROWS_PER_FILE, self.rows - file * ROWS_PER_FILE)
        label = np.minimum(np.searchsorted(cumulative, rng.random(count)), len(centres) - 1)
        return centres[label] + rng.standard_normal((count, LATENT), np.float32)

    def embeddings(self, file: int) -> NDArray[np.float16]:
        """Unit rows of a file, float16 [M, D]."""
        _, _, basis = self._centres
        latent = self._draw(file)
        rng = np.random.default_rng([self.seed, 2, file])
        sources = [latent, self._draw(int(rng.integers(file)))] if file else [latent]
        source = np.concatenate(sources)
        copies = np.flatnonzero(rng.random(len(latent)) < NEAR_COPIES)
        latent[copies] = source[rng.integers(0, len(source), len(copies))]
        scale = (1.0 + np.arange(LATENT, dtype=np.float32)) ** -0.75
        rows = (latent * scale) @ basis / np.linalg.norm(scale)
        rows += rng.standard_normal(rows.shape, np.float32) * np.float32(0.15 / self.dims**0.5)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)

    def table(self, file: int) -> pa.Table:
        """The columns of a file that a run reads or copies."""
        count = min(ROWS_PER_FILE, self.rows - file * ROWS_PER_FILE)
        rng = np.random.default_rng([self.seed, 3, file])
        text = rng.bytes(16 * count).hex()
        uid = [text[32 * i : 32 * i + 32] for i in range(count)]
        return pa.table(
            {
                "uid": uid,
                "url": [f"https://images.example.org/{value[:12]}/{value}.jpg" for value in uid],
                "text": [f"a photo of object {value[:6]}, seen from the {value[6:9]} side" for value in uid],
                "original_width": rng.integers(200, 2000, count),
                "original_height": rng.integers(200, 2000, count),
                "clip_l14_similarity_score": rng.normal(0.19, 0.06, count),
                "sha256": [value + value for value in uid],
            }
        )

    def write(self, folder: Path, file: int) -> None:
        """Write a file, unless it is there."""
        name = folder / f"{file:08d}"
        if name.with_suffix(".parquet").exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{file:08d}.part").open("wb") as stream:
            np.savez(stream, l14_img=self.embeddings(file))
        Path(stream.name).rename(name.with_suffix(".npz"))
        pq.write_table(self.table(file), stream.name)
        # The table last: with it the file is complete.
        Path(stream.name).rename(name.with_suffix(".parquet"))
