"""Several models in one pass: each gives the bits that it gives alone."""

import dataclasses
import json

import numpy as np
import pytest

from d2prune.embed import params as embed_params
from d2prune.embed import worker as stage
from d2prune.embed.model import sources
from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.inputs.shards import expand_input
from d2prune.parts import files
from d2prune.parts.reader import Parts
from d2prune.runs.driver import run
from d2prune.scores.column import read_score
from d2prune.store import artifacts, schemas
from d2prune.store.columns import vectors
from tests.conftest import CONFIG
from tests.embed.images import encode_image, make_image, write_tar


def make_model(folder, name, size, seed, width=24):
    """Create a folder with a tiny model of random weights."""
    import safetensors.torch

    open_clip = sources.import_open_clip()
    import torch

    folder.mkdir()
    config = {**CONFIG, "embed_dim": width, "vision_cfg": {**CONFIG["vision_cfg"], "image_size": size}}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(seed)
    safetensors.torch.save_file(open_clip.create_model(name).state_dict(), folder / "weights.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A model with the input size of `tiny_model`, and one with a larger input and another width."""
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "same", "tiny-same", 32, 1), make_model(
        folder / "large", "tiny-large", 48, 2, width=16
    )


@pytest.fixture
def all_models(tiny_model, others):
    return {"tiny": str(tiny_model), "same": others[0], "large": others[1]}


@pytest.mark.parametrize("resize", ["exact", "device"])
def test_each_model_gives_the_bits_of_a_run_alone(all_models, tmp_path, resize):
    images = [encode_image(make_image(i, 150 + 10 * i, 120), "JPEG") for i in range(9)]
    members = [
        (f"{i}.{kind}", data)
        for i, jpg in enumerate(images)
        for kind, data in (("jpg", jpg), ("txt", b"no %d" % i))
    ]
    write_tar(tmp_path / "0.tar", [*members, ("junk.jpg", b"<svg/>"), ("junk.txt", b"a")])
    shards = expand_input(str(tmp_path / "0.tar"))

    def embed(folder, names):
        first, *more = (sources.identity(all_models[name], None) for name in names)
        params = embed_params.EmbedParams(*first, batch_size=4, resize=resize, others=tuple(more))
        if more:
            params = dataclasses.replace(params, names=tuple(names))
        (unit,) = embed_params.plan(shards, params)
        given = [(all_models[name], None) for name in names]
        worker = stage.EmbedWorker(str(tmp_path / folder), params, *given[0], device="cpu", others=given[1:])
        receipt = worker(unit)
        worker.close()
        return receipt

    together = embed("together", ["tiny", "same", "large"])
    assert together.facts["dimensions"] == {"tiny": 24, "same": 24, "large": 16}
    samples = artifacts.read_table(str(tmp_path / "together"), together, files.SAMPLES)
    assert samples.schema.equals(schemas.samples(models=["tiny", "same", "large"]))
    assert samples["clip_score"].equals(samples["clip_tiny"])
    for name, file in (("tiny", None), ("same", "same"), ("large", "large")):
        alone = embed(f"alone-{name}", [name])
        expected = artifacts.read_file(str(tmp_path / f"alone-{name}"), alone, files.EMBEDDINGS)
        found = artifacts.read_file(str(tmp_path / "together"), together, schemas.embeddings_file(file))
        assert found == expected
        own = artifacts.read_table(str(tmp_path / f"alone-{name}"), alone, files.SAMPLES)
        assert samples[f"clip_{name}"].equals(own["clip_score"])
        assert {**alone.counters} == {**together.counters}
        assert samples.select(schemas.samples().names).drop(["clip_score"]).equals(own.drop(["clip_score"]))


def test_run_with_several_models(configure, all_models, tmp_path):
    """A score from both models, graphs from either, and an embed stage that is reused."""
    names = {name: all_models[name] for name in ("tiny", "large")}
    several = {
        "embed": {"models": names, "batch_size": 16},
        "score__difficulty": "0.5*clip_tiny + 0.5*clip_large",
    }
    config = configure(**several, graph__model="large")
    result = run(config, InProcess())
    embed = result.manifests["embed"]
    parts = Parts(config.work_dir, {"embed": embed.units})
    tiny, large, both = (
        read_score(parts, range(len(embed.units)), name, "score")
        for name in ("clip_score", "clip_large", "0.5*clip_tiny + 0.5*clip_large")
    )
    assert (
        both.tobytes() == (0.5 * tiny.astype(float) + 0.5 * large.astype(float)).astype(np.float32).tobytes()
    )
    # The graph is that of a run with the second model alone.
    alone = configure(
        embed={"model": names["large"], "batch_size": 16},
        work_dir=str(tmp_path / "w2"),
        output=str(tmp_path / "o2"),
    )
    own = run(alone, InProcess(), "graph")

    def tables(config, found):
        folder = f"{config.work_dir}/graph"
        return [
            artifacts.read_file(folder, unit, "neighbors.parquet") for unit in found.manifests["graph"].units
        ]

    assert tables(config, result) == tables(alone, own)
    # The first model's graph, from the stored embeddings.
    changed = configure(
        **several, graph__model="tiny", output=str(tmp_path / "o3"), select__method="moderate"
    )
    again = run(changed, InProcess())
    assert "embed" not in again.seconds and "graph" in again.seconds
    assert tables(changed, again) != tables(config, result)
    by_default = configure(**several, output=str(tmp_path / "o3"), select__method="moderate")
    assert "graph" not in run(by_default, InProcess()).seconds
    folder = f"{config.work_dir}/embed"
    second = [artifacts.read_table(folder, unit, schemas.embeddings_file("large")) for unit in embed.units]
    assert {vectors(table[side]).shape for table in second for side in ("image_emb", "text_emb")} == {
        (40, 16)
    }


def test_usage_errors_are_one_line(configure, tiny_model, tmp_path):
    models_of = {"embed": {"models": {"a": "ViT-B-32/openay", "b": str(tiny_model)}}}
    with pytest.raises(
        UserError, match=r"embed\.models: embed\.pretrained = openay: ViT-B-32 has no such weights"
    ):
        run(configure(**models_of), InProcess())
    with pytest.raises(UserError, match=r"graph\.model: found c; expected a name in embed\.models \(a, b\)"):
        configure(**models_of, graph__model="c")
    with pytest.raises(UserError, match=r"graph\.model: found c; expected a name in embed\.models \(none"):
        configure(graph__model="c")
    with pytest.raises(UserError, match=r"expected model .* or models, not both"):
        configure(embed__models=["demo"])
    with pytest.raises(UserError, match="both define the column clip_a"):
        configure(embed={**models_of["embed"], "fields": {"clip_a": "number"}})
