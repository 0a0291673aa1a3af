"""Train the demo model: ``python -m tools.train_model --root / --out pipeline/d2prune/bundled/model``.

Reads Debian's clip art, emoji and WordNet packages, icon sets from npm, a sentence encoder and an
ImageNet classifier; writes the open_clip config ``demo.json``, the weights ``weights.safetensors``
and ``training.json`` (seed, versions, counts, AUC). One run on the CPU: the classifier's trunk
stays as it is, so its features are computed once; a linear map of them and the text tower are
trained. Invariant: no picture of the pool, of its content groups, and no near-copy of one, is ever
trained on.
"""

import argparse
import copy
import hashlib
import json
import logging
import math
import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from d2prune.bundled import MODEL_DIR, MODEL_NAME, MODEL_WEIGHTS
from d2prune.torchvision_shim import install_if_needed
from tools.clipart import Picture, caption
from tools.dataset import SEED, Pictures, load
from tools.make_pool import shuffled
from tools.meaning import principal_axes, sentence_vectors, whole_words
from tools.trunk import load_trunk, trunk_features
from tools.wording import worded, wordings
from tools.wordnet import nouns

install_if_needed()

import open_clip  # noqa: E402  # isort: skip

__all__ = ["CONFIG", "TrainParams", "auc", "contrastive_loss", "train"]

# Most of the bytes are the trunk, in float16, and the token table of CLIP's 49,408-word vocabulary,
# which is kept so that open_clip's tokenizer fits; in 8 bits, or it would leave room for 32 columns only.
CONFIG: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": 80,
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "timm_drop": 0.3,
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 1},
}

# As the pool's.
_PIXELS = 112
_MAX_LOGIT_SCALE = math.log(50.0)
_MAX_VALIDATED = 40

# open_clip ships no types.
Model = Any

_log = logging.getLogger("tools.train_model")


@dataclass(frozen=True)
class TrainParams:
    """What changes the weights.

    Attributes:
        epochs: passes over the Open Clip Art of the training set.
        batch_size: pictures per step.
        extra_share: share of the pictures from elsewhere than Open Clip Art that an epoch sees,
            drawn anew each time.
        max_per_title: pictures of one title that an epoch sees at most, drawn anew each time.
        meaning_batch_size: texts per step whose features are pulled to a linear map of their
            sentence vectors.
        meaning_weight: weight of that loss.
        token_std: spread of the token table at the start.
        learning_rate: its peak; warm-up and a cosine around it.
        weight_decay: of AdamW, on matrices only, and not on the token table: it would wipe out
            words not trained on.
        average: decay per step of the running average of the weights, which is what is kept.
        seed: of everything.
    """

    epochs: int = 12
    batch_size: int = 256
    extra_share: float = 0.35
    max_per_title: int = 150
    meaning_batch_size: int = 256
    meaning_weight: float = 1.0
    token_std: float = 0.05
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.2
    average: float = 0.995
    seed: int = SEED


@dataclass(frozen=True)
class Meanings:
    """Texts and their sentence vectors, to learn from.

    Attributes:
        texts: N texts, sorted.
        vectors: float32 [N, 384], unit rows about no particular mean.
    """

    texts: list[str]
    vectors: np.ndarray


@dataclass(frozen=True)
class Seen:
    """Pictures as the trunk sees them.

    Attributes:
        pictures: N records.
        groups: int64 [N], content groups.
        features: float32 [N, 1280], from :func:`tools.trunk.trunk_features`.
    """

    pictures: list[Picture]
    groups: np.ndarray
    features: torch.Tensor

    def take(self, rows: np.ndarray) -> "Seen":
        """The pictures at `rows`, int64 [M]."""
        return Seen([self.pictures[row] for row in rows], self.groups[rows], self.features[rows])


def meanings(training: Seen, root: Path) -> Meanings:
    """Titles, keywords and captions of the training set, and WordNet's drawable nouns, with their sentence vectors."""
    texts = {caption(picture).lower() for picture in training.pictures}
    for picture in training.pictures:
        texts.update(word.lower() for word in (picture.title, *picture.keywords))
    known = set(whole_words(_TOKENIZER.encoder)[0])
    texts.update(noun for noun in nouns(root) if known.issuperset(noun.split()))
    ordered = sorted(texts)
    return Meanings(ordered, sentence_vectors(ordered))


def auc(matched: np.ndarray, shuffled: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a right caption scores above a wrong one; ties count half.

    Args:
        matched: scores of right captions [N].
        shuffled: scores of wrong captions, of any shape.
    """
    ordered = np.sort(shuffled, axis=None)
    below = np.searchsorted(ordered, matched, side="left") + np.searchsorted(ordered, matched, side="right")
    return float(below.mean() / 2 / len(ordered))


def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, same: torch.Tensor
) -> torch.Tensor:
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


def train(training: Seen, meant: Meanings, held_out: Seen, params: TrainParams) -> Model:
    """Train the text tower, from word vectors, and a linear map of the trunk's features, from random weights.

    Args:
        training: what to learn from.
        meant: texts and their meaning, for the text tower.
        held_out: its AUC is logged as the run goes, and nothing depends on it.
        params: see there.

    Returns:
        The model with averaged weights, in evaluation mode; its trunk is still to be filled.
    """
    torch.manual_seed(params.seed)
    rng = np.random.default_rng(params.seed)
    model = open_clip.model.CLIP(**CONFIG)
    _start_tokens(model, meant, params.token_std)
    model.visual.lock()
    to_meaning = nn.Linear(CONFIG["embed_dim"], meant.vectors.shape[1])
    averaged = copy.deepcopy(model).eval()
    optimizer = _optimizer(model, to_meaning, params)
    # The map learns faster from features of one scale.
    mean, std = training.features.mean(0), training.features.std(0) + 1e-3
    features = (training.features - mean) / std
    words = wordings(training.pictures)
    titles = np.unique([titles[0].lower() for titles, _ in words], return_inverse=True)[1]
    ids = torch.from_numpy(np.stack([titles, training.groups], 1))
    captions = [caption(picture) for picture in training.pictures]
    text_tokens = _tokens(meant.texts)
    vectors = torch.from_numpy(meant.vectors - meant.vectors.mean(0))
    steps = len(_epoch(training.pictures, params, rng)) // params.batch_size
    start = time.monotonic()
    done = 0
    model.visual.head.train()
    for epoch in range(params.epochs):
        total = 0.0
        order = _epoch(training.pictures, params, rng)
        for step in range(steps):
            rows = order[step * params.batch_size : (step + 1) * params.batch_size]
            # Half of the time the caption is worded as the pool's are.
            tokens = _tokens(
                [captions[row] if rng.random() < 0.5 else worded(words[row], rng) for row in rows]
            )
            same = (ids[rows][:, None] == ids[rows][None]).any(2)
            picked = torch.from_numpy(rng.integers(len(text_tokens), size=params.meaning_batch_size))
            _set_rate(optimizer, params.learning_rate, done / (steps * params.epochs))
            meaning = (text_tokens[picked], vectors[picked], to_meaning, params.meaning_weight)
            total += _step(model, optimizer, (features[rows], tokens, same), meaning)
            done += 1
            _average(averaged, model, min(params.average, done / (done + 10)))
        if epoch % 4 == 3 or epoch == params.epochs - 1:
            image = averaged.visual.head((held_out.features - mean) / std)
            value = held_out_auc(averaged, image, held_out, np.random.default_rng(params.seed))
            minutes = (time.monotonic() - start) / 60
            _log.info(
                "epoch %d: loss %.3f, held-out AUC %.4f, %.1f min", epoch + 1, total / steps, value, minutes
            )
        else:
            _log.info("epoch %d: loss %.3f", epoch + 1, total / steps)
    with torch.no_grad():
        proj = averaged.visual.head.proj
        proj.weight.div_(std)
        proj.bias.sub_(proj.weight @ mean)
    return averaged


def _epoch(pictures: list[Picture], params: TrainParams, rng: np.random.Generator) -> np.ndarray:
    """Rows of one epoch in random order: a share of the extra pictures, and not all of a title's hundreds."""
    order = rng.permutation(len(pictures))
    is_art = np.array([picture.source.startswith("openclipart") for picture in pictures])
    extras = order[~is_art[order]]
    seen: Counter[str] = Counter()
    art = []
    for row in order[is_art[order]].tolist():
        title = pictures[row].title
        seen[title] += 1
        if seen[title] <= params.max_per_title:
            art.append(row)
    return rng.permutation(
        np.concatenate([art, extras[: round(params.extra_share * len(extras))]]).astype(np.int64)
    )


def _start_tokens(model: Model, meant: Meanings, std: float) -> None:
    """Give the tokens that are whole words of the texts the main axes of their sentence vectors; the others, noise."""
    used = {word for text in meant.texts for word in re.findall("[a-z]+", text)}
    words, numbers = whole_words(_TOKENIZER.encoder)
    kept = [(word, number) for word, number in zip(words, numbers.tolist(), strict=True) if word in used]
    vectors = principal_axes(sentence_vectors([word for word, _ in kept]), CONFIG["text_cfg"]["width"])
    with torch.no_grad():
        model.token_embedding.weight.normal_(std=std)
        model.token_embedding.weight[[number for _, number in kept]] = torch.from_numpy(vectors * std)


@torch.no_grad()
def _average(averaged: Model, model: Model, decay: float) -> None:
    for kept, new in zip(averaged.parameters(), model.parameters(), strict=True):
        if new.requires_grad:
            kept.lerp_(new, 1 - decay)


@torch.inference_mode()
def held_out_auc(model: Model, image: torch.Tensor, held_out: Seen, rng: np.random.Generator) -> float:
    """AUC of right captions against those of another content group, over all held-out pictures' features [N, D]."""
    image = nn.functional.normalize(image, dim=1)
    tokens = _tokens([caption(picture) for picture in held_out.pictures])
    text = torch.cat([model.encode_text(part, normalize=True) for part in torch.split(tokens, 256)])
    matched = (image * text).sum(1).numpy()
    wrong = np.concatenate([(image * text[shuffled(held_out.groups, rng)]).sum(1).numpy() for _ in range(5)])
    return auc(matched, wrong)


def _step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    captioned: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    meaning: tuple[torch.Tensor, torch.Tensor, nn.Linear, float],
) -> float:
    """One step on (features, tokens, no negatives) and on (tokens, sentence vectors, map to them, weight)."""
    features, tokens, same = captioned
    text_tokens, vectors, to_meaning, weight = meaning
    image = nn.functional.normalize(model.visual.head(features), dim=1)
    text = model.encode_text(torch.cat([tokens, text_tokens]), normalize=True)
    loss = contrastive_loss(image, text[: len(tokens)], model.logit_scale.exp(), same)
    apart = 1 - nn.functional.cosine_similarity(to_meaning(text[len(tokens) :]), vectors)
    optimizer.zero_grad(set_to_none=True)
    (loss + weight * apart.mean()).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)
    return float(loss.detach())


def _optimizer(model: Model, to_meaning: nn.Linear, params: TrainParams) -> torch.optim.Optimizer:
    tokens = model.token_embedding.weight
    others = [p for p in model.parameters() if p is not tokens and p.requires_grad] + list(
        to_meaning.parameters()
    )
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [tokens, *(p for p in others if p.ndim <= 1)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.learning_rate, betas=(0.9, 0.98), fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float, warm_up: float = 0.04) -> None:
    if progress < warm_up:
        rate = peak * (progress + 1e-3) / warm_up
    else:
        rate = peak * (0.5 + 0.5 * math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))
    for group in optimizer.param_groups:
        group["lr"] = rate


def _image_size() -> int:
    return int(CONFIG["vision_cfg"]["image_size"])


def _seen(pictures: Pictures, trunk: nn.Module) -> Seen:
    return Seen(pictures.pictures, pictures.groups, trunk_features(trunk, pictures.decoded, _image_size()))


def _published(name: str, value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    return value.to(torch.float8_e4m3fn if name == "token_embedding.weight" else torch.float16).contiguous()


def _tokens(captions: list[str]) -> torch.Tensor:
    tokens: torch.Tensor = _TOKENIZER(captions)
    return tokens


_TOKENIZER = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the Debian packages are unpacked")
    parser.add_argument("--out", type=Path, default=MODEL_DIR)
    parser.add_argument("--epochs", type=int, default=TrainParams.epochs)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--validate",
        action="store_true",
        help="hold out a tenth of the content groups instead of the pool; no files",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    params = replace(TrainParams(), epochs=args.epochs)
    start = time.monotonic()
    pool_pictures, pictures = load(args.root, _PIXELS, seed=params.seed)
    trunk = load_trunk(CONFIG["vision_cfg"]["timm_model_name"])
    training = _seen(pictures, trunk)
    if args.validate:
        chosen = _validation(training, params.seed)
        rest = training.take(np.flatnonzero(~chosen))
        train(rest, meanings(rest, args.root), training.take(np.flatnonzero(chosen)), params)
        return
    pool = _seen(pool_pictures, trunk)
    model = train(training, meanings(training, args.root), pool, params)
    model.visual.trunk.load_state_dict(trunk.state_dict())
    weights = {name: _published(name, value) for name, value in model.state_dict().items()}
    # What is published is what is measured.
    model.load_state_dict(weights)
    image = model.visual.head(trunk_features(model.visual.trunk, pool_pictures.decoded, _image_size()))
    value = held_out_auc(model, image, pool, np.random.default_rng(params.seed))
    args.out.mkdir(parents=True, exist_ok=True)
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


def _validation(training: Seen, seed: int) -> np.ndarray:
    """A tenth of Open Clip Art's content groups, the few that fill hundreds of pictures apart; bool [N]."""
    is_art = np.array([picture.source.startswith("openclipart") for picture in training.pictures])
    groups, counts = np.unique(training.groups[is_art], return_counts=True)
    small = np.random.default_rng(seed).permutation(groups[counts <= _MAX_VALIDATED])
    return np.isin(training.groups, small[: len(small) // 10])


def _sources(pictures: Seen) -> dict[str, int]:
    names = [picture.source.partition(":")[0] for picture in pictures.pictures]
    return {name: names.count(name) for name in sorted(set(names))}


if __name__ == "__main__":
    main()
