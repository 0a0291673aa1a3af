"""What decides the embed artifact of a pool of tars, and its units."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from d2prune.embed.decode.decoder import FieldKind
from d2prune.embed.decode.resize import Method
from d2prune.embed.filters import Filters
from d2prune.inputs.shards import Shard
from d2prune.inputs.tar.reader import DEFAULT_MAX_MEMBER_BYTES
from d2prune.store import artifacts


@dataclass(frozen=True)
class EmbedParams:
    """What decides the content of a part.

    Attributes:
        model: from `models.identity`; paths do not count.
        pretrained: likewise.
        precision: fp32, bf16, fp16, or auto (by the device of the worker; its receipt tells which).
        batch_size: samples per forward pass: a matrix product of another shape may round
            differently. `auto`: see `batch_size`.
        resize: see `resize`.
        max_pixels: see `decode.Decoder`.
        max_member_bytes: images, captions and json above are not loaded.
        fields: json values to carry along as columns, (name, kind).
        filters: what captions and images must have.
        compile: whether the models are compiled, which moves the last bits.
        others: (model, pretrained) of further models, whose embeddings are made in the same pass.
        names: of all models, the first's included; empty where there is but one.
    """

    model: str
    pretrained: str | None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: int | Literal["auto"] = 64
    resize: Method = "exact"
    max_pixels: int = 100_000_000
    max_member_bytes: int = DEFAULT_MAX_MEMBER_BYTES
    fields: tuple[tuple[str, FieldKind], ...] = ()
    filters: Filters = field(default_factory=Filters)
    compile: bool = False
    others: tuple[tuple[str, str | None], ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmbedUnit:
    """One shard to embed; `key` changes with the shard's content and with the params."""

    key: str
    shard: Shard


def plan(shards: Sequence[Shard], params: EmbedParams) -> list[EmbedUnit]:
    """One unit per shard, in the pool's order."""
    return [
        EmbedUnit(artifacts.unit_key(shard.name, params, shard.size, shard.version), shard)
        for shard in shards
    ]
