"""Train the demo model: ``python -m pipeline.demo.train_model --root / --out pipeline/demo/model``.

Reads Debian's clip art, stamp, emoji and icon packages; writes the open_clip config ``demo.json``, the float16 weights
``weights.safetensors`` and ``training.json`` (seed, versions, counts, AUC). One run from random weights, on the CPU.
Invariant: no picture of the pool, of its content groups, and no near-copy of one, is ever trained on.
"""

import argparse
import hashlib
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.demo import MODEL_DIR, MODEL_NAME, MODEL_WEIGHTS
from pipeline.demo.augment import canvas, centre_views, random_views, worded, wordings
from pipeline.demo.clipart import caption
from pipeline.demo.dataset import SEED, Pictures, load
from pipeline.demo.make_pool import shuffled
from pipeline.demo.wordnet import noun_descriptions
from pipeline.embed.torchvision_shim import install

install()

import open_clip  # noqa: E402  # isort: skip

__all__ = ["CONFIG", "TrainParams", "auc", "contrastive_loss", "train"]

# A slim ResNet learns more from ten thousand pictures than a ViT, and runs four times as fast on a CPU. Two thirds of
# the bytes are the token table of CLIP's 49,408-word vocabulary, which is kept so that open_clip's tokenizer fits.
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 2, 1], "width": 16, "head_width": 64, "patch_size": None},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 1},
}

_CANVAS = 88
_MAX_LOGIT_SCALE = math.log(50.0)

# open_clip ships no types.
Model = Any
Nouns = list[tuple[str, tuple[str, ...]]]

_log = logging.getLogger("pipeline.demo.train_model")


@dataclass(frozen=True)
class TrainParams:
    """What changes the weights.

    Attributes:
        epochs: passes over the training set.
        batch_size: pictures per step.
        extra_share: share of the pictures from elsewhere than Open Clip Art that an epoch sees, drawn anew each time.
        noun_batch_size: nouns per step, each with a description from WordNet.
        noun_weight: weight of their loss.
        learning_rate: its peak; warm-up and a cosine around it.
        weight_decay: of AdamW, on matrices only.
        seed: of everything.
    """

    epochs: int = 29
    batch_size: int = 256
    extra_share: float = 0.55
    noun_batch_size: int = 64
    noun_weight: float = 0.5
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.2
    seed: int = SEED


def auc(matched: np.ndarray, shuffled: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a right caption scores above a wrong one; ties count half.

    Args:
        matched: scores of right captions [N].
        shuffled: scores of wrong captions [M].
    """
    ordered = np.sort(shuffled)
    below = np.searchsorted(ordered, matched, side="left") + np.searchsorted(ordered, matched, side="right")
    return float(below.mean() / 2 / len(ordered))


def contrastive_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """CLIP's loss (Radford et al. 2021, figure 3) without the negatives that are none.

    Args:
        image: unit rows [N, D].
        text: unit rows [N, D].
        scale: factor of the cosines.
        same: bool [N, N], pairs with one caption or content group; off the diagonal they count neither way.
    """
    logits = scale * image @ text.T
    blocked = same & ~torch.eye(len(same), dtype=torch.bool)
    logits = logits.masked_fill(blocked, -torch.inf)
    labels = torch.arange(len(logits))
    loss = nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)
    return loss / 2


def train(training: Pictures, nouns: Nouns, pool: Pictures, params: TrainParams) -> Model:
    """Train from random weights.

    Args:
        training: what to learn from.
        nouns: words and what they mean, for the text tower.
        pool: held out; its AUC is logged as the run goes, and nothing depends on it.
        params: see there.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(params.seed)
    generator = torch.Generator().manual_seed(params.seed)
    rng = np.random.default_rng(params.seed)
    model = open_clip.model.CLIP(**CONFIG).to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, params)
    squares, shares = canvas(training.decoded, _CANVAS)
    words = wordings(training.pictures)
    titles = np.unique([titles[0].lower() for titles, _ in words], return_inverse=True)[1]
    ids = torch.from_numpy(np.stack([titles, training.groups], 1))
    is_art = np.array([picture.source.startswith("openclipart") for picture in training.pictures])
    extras = np.flatnonzero(~is_art)
    n_extras = round(params.extra_share * len(extras))
    steps = (int(is_art.sum()) + n_extras) // params.batch_size
    start = time.monotonic()
    for epoch in range(params.epochs):
        model.train()
        total = 0.0
        order = rng.permutation(np.concatenate([np.flatnonzero(is_art), rng.permutation(extras)[:n_extras]]))
        for step in range(steps):
            rows = order[step * params.batch_size : (step + 1) * params.batch_size]
            _set_rate(optimizer, params.learning_rate, (epoch * steps + step) / (params.epochs * steps))
            views = _normalised(random_views(squares[rows], shares[rows], _image_size(), generator))
            tokens = _tokens([worded(words[row], rng) for row in rows])
            same = (ids[rows][:, None] == ids[rows][None]).any(2) | _equal_rows(tokens)
            picked = [nouns[row] for row in rng.integers(len(nouns), size=params.noun_batch_size)]
            meant = [texts[int(rng.integers(len(texts)))] for _, texts in picked]
            pairs = _tokens([noun for noun, _ in picked] + meant)
            loss = _step(model, optimizer, (views, tokens, same), (pairs, params.noun_weight))
            total += loss
        if epoch % 4 == 3 or epoch == params.epochs - 1:
            value = evaluate(model, pool, np.random.default_rng(params.seed))
            minutes = (time.monotonic() - start) / 60
            _log.info("epoch %d: loss %.3f, held-out AUC %.4f, %.1f min", epoch + 1, total / steps, value, minutes)
        else:
            _log.info("epoch %d: loss %.3f", epoch + 1, total / steps)
    return model.eval()


def evaluate(model: Model, pool: Pictures, rng: np.random.Generator) -> float:
    """AUC of right captions against those of another content group, over all pictures of the pool."""
    model.eval()
    squares, shares = canvas(pool.decoded, _CANVAS)
    tokens = _tokens([caption(picture) for picture in pool.pictures])
    with torch.inference_mode():
        views = _normalised(centre_views(squares, shares, _image_size()))
        image = torch.cat([model.encode_image(part, normalize=True) for part in torch.split(views, 256)])
        text = torch.cat([model.encode_text(part, normalize=True) for part in torch.split(tokens, 256)])
        matched = (image * text).sum(1).numpy()
        wrong = np.concatenate([(image * text[shuffled(pool.groups, rng)]).sum(1).numpy() for _ in range(5)])
    return auc(matched, wrong)


def _step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    captioned: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    described: tuple[torch.Tensor, float],
) -> float:
    """One step on (views, tokens, pairs that are no negatives) and on (tokens of nouns then descriptions, weight)."""
    views, tokens, same = captioned
    pairs, weight = described
    with torch.autocast("cpu", torch.bfloat16):
        image = model.encode_image(views)
        text = model.encode_text(torch.cat([tokens, pairs]))
    image = nn.functional.normalize(image.float(), dim=1)
    text = nn.functional.normalize(text.float(), dim=1)
    scale = model.logit_scale.exp()
    noun, meaning = text[len(tokens) :].chunk(2)
    same_noun = _equal_rows(pairs[: len(noun)]) | _equal_rows(pairs[len(noun) :])
    captions_loss = contrastive_loss(image, text[: len(tokens)], scale, same)
    loss = captions_loss + weight * contrastive_loss(noun, meaning, scale, same_noun)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)
    return float(captions_loss.detach())


def _equal_rows(tokens: torch.Tensor) -> torch.Tensor:
    return (tokens[:, None] == tokens[None]).all(2)


def _optimizer(model: Model, params: TrainParams) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": params.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=params.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float, warm_up: float = 0.04) -> None:
    if progress < warm_up:
        rate = peak * (progress + 1e-3) / warm_up
    else:
        rate = peak * (0.5 + 0.5 * math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))
    for group in optimizer.param_groups:
        group["lr"] = rate


def _image_size() -> int:
    return int(CONFIG["vision_cfg"]["image_size"])


def _normalised(views: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    std = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
    return ((views - mean) / std).contiguous(memory_format=torch.channels_last)


def _tokens(captions: list[str]) -> torch.Tensor:
    tokens: torch.Tensor = _TOKENIZER(captions)
    return tokens


_TOKENIZER = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the Debian packages are unpacked")
    parser.add_argument("--out", type=Path, default=MODEL_DIR)
    parser.add_argument("--epochs", type=int, default=TrainParams.epochs)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    params = TrainParams(epochs=args.epochs)
    start = time.monotonic()
    pool, training = load(args.root, _CANVAS, seed=params.seed)
    model = train(training, noun_descriptions(args.root), pool, params)
    # Float16 is what is published, so float16 is what is measured.
    model.half().float()
    value = evaluate(model, pool, np.random.default_rng(params.seed))
    args.out.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.half().contiguous() for name, value in model.state_dict().items() if value.is_floating_point()
    }
    weights |= {name: value for name, value in model.state_dict().items() if not value.is_floating_point()}
    save_file(weights, args.out / MODEL_WEIGHTS.name)
    (args.out / f"{MODEL_NAME}.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    facts = {
        "params": asdict(params),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "training_pictures": len(training.pictures),
        "training_sources": _sources(training),
        "held_out_pictures": len(pool.pictures),
        "held_out_sources_sha256": hashlib.sha256(
            "\n".join(sorted(picture.source for picture in pool.pictures)).encode()
        ).hexdigest(),
        "held_out_auc": round(value, 4),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "threads": args.threads,
    }
    (args.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    _log.info("held-out AUC %.4f", value)


def _sources(pictures: Pictures) -> dict[str, int]:
    names = [picture.source.partition(":")[0] for picture in pictures.pictures]
    return {name: names.count(name) for name in sorted(set(names))}


if __name__ == "__main__":
    main()
