"""The model that encodes queries: the one whose embeddings the run's graph was built on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.embed.decode.decoder import Decoder
from d2prune.embed.decode.pool import DecodePool
from d2prune.embed.decode.resize import Preprocess
from d2prune.embed.model import sources
from d2prune.errors import UserError
from d2prune.extras import require
from d2prune.inputs.rejects import Reject
from d2prune.inputs.sample_id import CAPTION_EXTENSION, IMAGE_EXTENSIONS
from d2prune.inputs.tar.reader import TarSample
from d2prune.runs.finished import FinishedRun
from d2prune.store import schemas

Float32 = NDArray[np.float32]
Name = tuple[str, str | None]


class QueryModel:
    """A model that is loaded at the first query; safe to share among threads."""

    def __init__(self, run: FinishedRun, named: Name | None = None) -> None:
        """Load nothing yet.

        Args:
            run: the run.
            named: (model, pretrained) as configured; needed where the run records only a hash of them,
                or, imported from tables, nothing.
        """
        self._run, self._named = run, named
        self._encoder: Any = None
        self._pool: DecodePool | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._encoder is not None

    def check(self) -> None:
        """Check that the model can be found, without loading it.

        Raises:
            UserError: as `find_model`, or what loads it is not installed.
        """
        if not self.loaded:
            self._find()

    def encode_text(self, text: str) -> Float32:
        """Return the unit embedding of a text, float32 [1, D].

        Raises:
            UserError: as `find_model`, or the model cannot be loaded.
        """
        with self._lock:
            found: Float32 = self._load().encode_query(text=text)
            return found

    def encode_image(self, data: bytes) -> Float32:
        """Return the unit embedding of an image file's content, float32 [1, D].

        Raises:
            UserError: as `encode_text`, or the content is no image that can be decoded.
        """
        with self._lock:
            encoder = self._load()
            pool = self._start_decoding(encoder.preprocess)
        # Without the lock: texts need not wait for an image that takes long.
        sample = TarSample("query", 0, 0, {IMAGE_EXTENSIONS[0]: data, CAPTION_EXTENSION: b"query"}, {}, ())
        with pool.lane() as lane:
            (outcome,) = lane.submit([(0, sample)]).result()
            pixels = lane.pixels[0].copy()
        if isinstance(outcome, Reject):
            raise UserError(f"image: found {outcome.reason} ({outcome.detail}); expected an image")
        with self._lock:
            found: Float32 = encoder.encode_query(pixels=pixels)
            return found

    def _start_decoding(self, preprocess: Preprocess) -> DecodePool:
        """One process, which decodes an image at a time, with the limits of the run's own images."""
        if self._pool is None:
            decoder = Decoder(preprocess, self._run.max_pixels)
            self._pool = DecodePool(decoder, 1, preprocess.n_bytes, slots=1)
            weakref.finalize(self, self._pool.close)
        return self._pool

    def _load(self) -> Any:
        if self._encoder is None:
            model, pretrained = self._find()
            # Imports torch, which takes seconds.
            from d2prune.embed.model.encoder import ClipEncoder

            precision = str(self._run.embed.params.get("precision", "auto"))
            self._encoder = ClipEncoder(sources.resolve(model, pretrained), precision)
        return self._encoder

    def _find(self) -> Name:
        found = find_model(self._run, self._named)
        for module in ("torch", "open_clip"):
            require(module, "a search by text or image")
        return found


def find_model(run: FinishedRun, named: Name | None) -> Name:
    """Return the name of the model to load, (model, pretrained).

    Raises:
        UserError: it is not known, or `named` is another one.
    """
    recorded = _read_model(run.embed.params, run.embeddings_file)
    if named is not None:
        if recorded is not None and (found := sources.identity(*named)) != recorded:
            raise UserError(
                f"--model: found {_show(found)}; expected {_show(recorded)}, the model of this run"
            )
        return named
    if recorded is None:
        raise UserError(
            "--model: found nothing; expected the model whose embeddings the tables hold (this pool was "
            "imported from tables, so the run does not know it), or a search by --like or --near"
        )
    if recorded == sources.identity(sources.DEMO, None):
        return sources.DEMO, None
    if any("sha256:" in (part or "") for part in recorded):
        raise UserError(
            f"--model: found nothing; expected the files of {_show(recorded)}, of which the run records only "
            "the hash: name them with --model and --pretrained, as in the configuration"
        )
    return recorded


def _read_model(params: Mapping[str, Any], embeddings: str) -> Name | None:
    """The identity of the model whose embeddings are in a file; None if the pool came from tables."""
    if "model" not in params:
        return None
    models = [(params["model"], params["pretrained"]), *map(tuple, params.get("others", ()))]
    for index, name in enumerate(params.get("names", ())):
        if index and schemas.embeddings_file(name) == embeddings:
            return models[index]
    return models[0]


def _show(name: Name) -> str:
    return " ".join(part for part in name if part)
