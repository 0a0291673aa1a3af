"""`embed.compile` changes the last bits only, whatever the batch size, and needs a compiler."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from d2prune.embed.decode.resize import Pixels
from d2prune.embed.model.encoder import ClipEncoder
from d2prune.embed.model.sources import import_open_clip, resolve
from d2prune.errors import UserError
from tests.conftest import CONFIG
from tests.embed.faulty_samples import with_little_memory
from tests.embed.images import make_image


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model with one layer in one tower, since a kernel takes a second to compile."""
    import safetensors.torch

    open_clip = import_open_clip()
    folder = tmp_path_factory.mktemp("thin")
    vision, text = {**CONFIG["vision_cfg"], "layers": 0}, CONFIG["text_cfg"]
    (folder / "thin.json").write_text(json.dumps({**CONFIG, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder / "thin.json")
    safetensors.torch.save_file(open_clip.create_model("thin").state_dict(), folder / "weights.safetensors")
    return resolve(str(folder), None)


@pytest.fixture
def _kept_kernels(pytestconfig, monkeypatch):
    """torch keeps compiled kernels by their source, its version and the compiler's; here from run to run."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pytestconfig.cache.mkdir("inductor")))


@pytest.mark.usefixtures("_kept_kernels")
def test_compiled_model_differs_in_the_last_bits_only(source):
    from torch._dynamo.utils import counters

    plain, compiled = ClipEncoder(source, device="cpu"), ClipEncoder(source, device="cpu", compiled_rows=4)
    pixels = np.stack([plain.preprocess(Pixels.of(make_image(i))) for i in range(4)])
    captions = [f"picture {i}" for i in range(4)]
    expected, found = (encoder.encode(pixels, captions) for encoder in (plain, compiled))
    np.testing.assert_allclose(found.clip_score_N, expected.clip_score_N, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.image_ND, expected.image_ND, rtol=0, atol=1e-3)
    # The last batch of a shard is padded, so that it runs the same kernels and its rows have the same
    # bits. Nothing is compiled again in another thread, where a worker embeds its next shard.
    graphs = counters["stats"]["unique_graphs"]
    with ThreadPoolExecutor(1) as pool:
        short = pool.submit(compiled.encode, pixels[:3], captions[:3]).result()
    assert counters["stats"]["unique_graphs"] == graphs
    assert short.image_ND.tobytes() == found.image_ND[:3].tobytes()
    assert short.clip_score_N.tobytes() == found.clip_score_N[:3].tobytes()
    # A batch that does not fit is still halved, and padded to the size that fits. The plain model runs
    # here, since otherwise that size would be compiled as well.
    compiled._model.encode_image, compiled._model.encode_text = (
        plain._model.encode_image,
        plain._model.encode_text,
    )
    tried = with_little_memory(compiled, 3)
    cut = compiled.encode(pixels[:3], captions[:3])
    assert tried == [4, 2, 2]
    np.testing.assert_allclose(cut.clip_score_N, expected.clip_score_N[:3], rtol=0, atol=1e-6)


def test_missing_compiler_is_a_one_line_error(source, monkeypatch, tmp_path):
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr(inductor.cpp, "cxx", ("/nonexistent/g++",))
    with pytest.raises(
        UserError, match=r"embed\.compile: thin cannot be compiled on this machine's cpu.* C\+\+ compiler"
    ):
        ClipEncoder(source, device="cpu", compiled_rows=2)
