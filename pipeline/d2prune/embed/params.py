"""Parameters of the embed stage for a pool of tars, and its units."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from d2prune.embed.decode.fields import FieldKind
from d2prune.embed.filters import Filters
from d2prune.inputs.shards import TarShard
from d2prune.inputs.tar.reader import DEFAULT_MAX_MEMBER_BYTES
from d2prune.store import artifacts


@dataclass(frozen=True)
class EmbedParams:
    """Everything that determines the content of a part; hashed into unit keys and fingerprints.

    Attributes:
        model: see `sources.identity`; hashes instead of local paths.
        pretrained: as `model`.
        precision: fp32, bf16, fp16, or auto (chosen by the worker's device and recorded in its
            receipt).
        batch_size: samples per forward pass. It is hashed because matrix products of different
            shapes may round differently. `auto`: see `batch_size.py`.
        resize: where images are resized. `exact`: by decode processes, to Pillow's pixels; `device`:
            on the model's device, see `device_resize.py`.
        max_pixels: see `Decoder`.
        max_member_bytes: larger images, captions and JSON members are not loaded.
        fields: JSON values to carry along as columns, (name, kind).
        filters: what captions and images must have.
        compile: whether the models are compiled, which changes the last bits of embeddings.
        others: (model, pretrained) of further models that embed in the same pass.
        names: of all models, the first included; empty where there is only one.
    """

    model: str
    pretrained: str | None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: int | Literal["auto"] = 64
    resize: Literal["exact", "device"] = "exact"
    max_pixels: int = 100_000_000
    max_member_bytes: int = DEFAULT_MAX_MEMBER_BYTES
    fields: tuple[tuple[str, FieldKind], ...] = ()
    filters: Filters = field(default_factory=Filters)
    compile: bool = False
    others: tuple[tuple[str, str | None], ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmbedUnit:
    """One shard to embed; `key` identifies the shard's content and the params."""

    key: str
    shard: TarShard


def plan(shards: Sequence[TarShard], params: EmbedParams) -> list[EmbedUnit]:
    """Return one unit per shard, in the pool's order."""
    return [
        EmbedUnit(artifacts.unit_key(shard.name, params, shard.size, shard.version), shard)
        for shard in shards
    ]
