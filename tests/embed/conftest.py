"""Fixtures of the embed stage."""

import pytest

from d2prune.embed import params as embed_params
from d2prune.embed import worker as stage
from d2prune.embed.model import sources


@pytest.fixture
def setting(tiny_model, tmp_path):
    """(pool folder, stage folder, params, make_worker)."""
    model, pretrained = sources.identity(str(tiny_model), None)
    params = embed_params.EmbedParams(
        model, pretrained, batch_size=4, max_pixels=50_000, max_member_bytes=40_000
    )
    pool = tmp_path / "pool"
    pool.mkdir()

    def make_worker(params=params, folder="embed", **options):
        return stage.EmbedWorker(
            str(tmp_path / folder), params, str(tiny_model), None, device="cpu", **options
        )

    return pool, str(tmp_path / "embed"), params, make_worker
