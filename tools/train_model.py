"""Train the demo model.

    python -m tools.train_model --root / --out pipeline/d2prune/bundled/model

Reads Debian's clip art, emoji and WordNet packages, icon sets from npm, a sentence encoder and an
ImageNet classifier. Writes the open_clip config ``demo.json``, the weights ``weights.safetensors``
and ``training.json`` (seed, versions, counts, AUC). Runs on a CPU: the trunk of the classifier is
frozen, so its features are computed once, and a linear map of them and the text tower are trained.
Invariant: training uses no image of the pool, no other image of its content groups, and no
near-copy of either.
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

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from d2prune.bundled import MODEL_DIR, MODEL_NAME, MODEL_WEIGHTS
from tools.clipart import ImageRecord, caption
from tools.dataset import SEED, ImageSet, load
from tools.demo_model import CONFIG, TOKENIZER, Model, open_clip, tokenise
from tools.evaluation import ImageFeatures, held_out_auc
from tools.meaning import principal_axes, sentence_vectors, whole_words
from tools.trunk import load_trunk, trunk_features
from tools.wording import collect_wordings, random_caption
from tools.wordnet import read_nouns

__all__ = ["TextVectors", "TrainParams", "contrastive_loss", "train"]

# The size of the pool's images.
_PIXELS = 112
_MAX_LOGIT_SCALE = math.log(50.0)
_MAX_VALIDATED = 40

_log = logging.getLogger("tools.train_model")


@dataclass(frozen=True)
class TrainParams:
    """All parameters that change the weights.

    Attributes:
        epochs: passes over the Open Clip Art in the training set.
        batch_size: images per step.
        extra_share: share of the images from other sources in an epoch, sampled for each epoch.
        max_per_title: maximum number of images with one title in an epoch, sampled for each epoch.
        meaning_batch_size: texts per step in the second loss, the distance between sentence vectors
            and a linear map of the text features.
        meaning_weight: weight of that loss.
        token_std: standard deviation of the initial token table.
        learning_rate: peak value, with warm-up and cosine decay.
        weight_decay: of AdamW, for matrices only, and not for the token table, where it would erase
            words that do not occur in training.
        average: decay per step of the running average of the weights, which is the result.
        seed: of all random numbers.
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
class TextVectors:
    """Texts and their sentence vectors for the second loss.

    Attributes:
        texts: N texts, sorted.
        vectors: float32 [N, 384], unit rows, not centred.
    """

    texts: list[str]
    vectors: np.ndarray


def make_text_vectors(training: ImageFeatures, root: Path) -> TextVectors:
    """Return sentence vectors of titles, keywords, captions, and WordNet nouns."""
    texts = {caption(record).lower() for record in training.records}
    for record in training.records:
        texts.update(word.lower() for word in (record.title, *record.keywords))
    known = set(whole_words(TOKENIZER.encoder)[0])
    texts.update(noun for noun in read_nouns(root) if known.issuperset(noun.split()))
    ordered = sorted(texts)
    return TextVectors(ordered, sentence_vectors(ordered))


def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, same: torch.Tensor
) -> torch.Tensor:
    """Return CLIP's loss (Radford et al. 2021, figure 3) without false negatives.

    Args:
        image: unit rows [N, D].
        text: unit rows [N, D].
        scale: factor of the cosines.
        same: bool [N, N], pairs with equal caption or content group; ignored outside the diagonal.
    """
    logits = scale * image @ text.T
    blocked = same & ~torch.eye(len(same), dtype=torch.bool)
    logits = logits.masked_fill(blocked, -torch.inf)
    labels = torch.arange(len(logits))
    loss = nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)
    return loss / 2


def train(
    training: ImageFeatures, meanings: TextVectors, held_out: ImageFeatures, params: TrainParams
) -> Model:
    """Train the text tower, starting from word vectors, and a linear map of the trunk's features.

    Args:
        training: training images.
        meanings: texts and sentence vectors, for the text tower.
        held_out: images whose AUC is logged during training; the result does not depend on it.
        params: training parameters.

    Returns:
        The model with averaged weights, in evaluation mode; the weights of its trunk are not set.
    """
    torch.manual_seed(params.seed)
    rng = np.random.default_rng(params.seed)
    model = open_clip.model.CLIP(**CONFIG)
    _init_tokens(model, meanings, params.token_std)
    model.visual.lock()
    to_meaning = nn.Linear(CONFIG["embed_dim"], meanings.vectors.shape[1])
    averaged = copy.deepcopy(model).eval()
    optimizer = _make_optimizer(model, to_meaning, params)
    # The map is learned faster from standardised features.
    mean, std = training.features.mean(0), training.features.std(0) + 1e-3
    features = (training.features - mean) / std
    words = collect_wordings(training.records)
    titles = np.unique([titles[0].lower() for titles, _ in words], return_inverse=True)[1]
    ids = torch.from_numpy(np.stack([titles, training.groups], 1))
    captions = [caption(record) for record in training.records]
    text_tokens = tokenise(meanings.texts)
    vectors = torch.from_numpy(meanings.vectors - meanings.vectors.mean(0))
    steps = len(_sample_epoch(training.records, params, rng)) // params.batch_size
    start = time.monotonic()
    done = 0
    model.visual.head.train()
    for epoch in range(params.epochs):
        total = 0.0
        order = _sample_epoch(training.records, params, rng)
        for step in range(steps):
            rows = order[step * params.batch_size : (step + 1) * params.batch_size]
            # Half of the captions have the form of those in the pool.
            tokens = tokenise(
                [captions[row] if rng.random() < 0.5 else random_caption(words[row], rng) for row in rows]
            )
            same = (ids[rows][:, None] == ids[rows][None]).any(2)
            picked = torch.from_numpy(rng.integers(len(text_tokens), size=params.meaning_batch_size))
            _set_rate(optimizer, params.learning_rate, done / (steps * params.epochs))
            meaning = (text_tokens[picked], vectors[picked], to_meaning, params.meaning_weight)
            total += _train_step(model, optimizer, (features[rows], tokens, same), meaning)
            done += 1
            _update_average(averaged, model, min(params.average, done / (done + 10)))
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


def _sample_epoch(records: list[ImageRecord], params: TrainParams, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of one epoch in random order, with the limits of `params`."""
    order = rng.permutation(len(records))
    is_art = np.array([record.source.startswith("openclipart") for record in records])
    extras = order[~is_art[order]]
    seen: Counter[str] = Counter()
    art = []
    for row in order[is_art[order]].tolist():
        title = records[row].title
        seen[title] += 1
        if seen[title] <= params.max_per_title:
            art.append(row)
    return rng.permutation(
        np.concatenate([art, extras[: round(params.extra_share * len(extras))]]).astype(np.int64)
    )


def _init_tokens(model: Model, meanings: TextVectors, std: float) -> None:
    """Initialise the token table.

    Tokens that are complete words of the texts start from their sentence vectors, projected on the
    principal axes; all others start from noise.
    """
    used = {word for text in meanings.texts for word in re.findall("[a-z]+", text)}
    words, numbers = whole_words(TOKENIZER.encoder)
    kept = [(word, number) for word, number in zip(words, numbers.tolist(), strict=True) if word in used]
    vectors = principal_axes(sentence_vectors([word for word, _ in kept]), CONFIG["text_cfg"]["width"])
    with torch.no_grad():
        model.token_embedding.weight.normal_(std=std)
        model.token_embedding.weight[[number for _, number in kept]] = torch.from_numpy(vectors * std)


@torch.no_grad()
def _update_average(averaged: Model, model: Model, decay: float) -> None:
    for kept, new in zip(averaged.parameters(), model.parameters(), strict=True):
        if new.requires_grad:
            kept.lerp_(new, 1 - decay)


def _train_step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    captioned: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    meaning: tuple[torch.Tensor, torch.Tensor, nn.Linear, float],
) -> float:
    """Make one step and return the loss on captioned images.

    Args:
        model: the model.
        optimizer: its optimizer.
        captioned: features, caption tokens, and the mask of `contrastive_loss`.
        meaning: text tokens, their sentence vectors, the map to them, and the weight of this loss.
    """
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


def _make_optimizer(model: Model, to_meaning: nn.Linear, params: TrainParams) -> torch.optim.Optimizer:
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


def _compute_features(images: ImageSet, trunk: nn.Module) -> ImageFeatures:
    features = trunk_features(trunk, images.decoded, _image_size())
    return ImageFeatures(images.records, images.groups, features)


def _compress_weights(name: str, value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    return value.to(torch.float8_e4m3fn if name == "token_embedding.weight" else torch.float16).contiguous()


def main() -> None:
    """Train on the training set, or on nine tenths of it with `--validate`, and write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, default=Path("/"), help="folder with the unpacked packages (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="folder for the model")
    parser.add_argument(
        "--epochs", type=int, default=TrainParams.epochs, help="epochs of the training (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (%(default)s)")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="hold out a tenth of the training set's content groups instead of the pool; writes no files",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    params = replace(TrainParams(), epochs=args.epochs)
    start = time.monotonic()
    pool_images, training_images = load(args.root, _PIXELS, seed=params.seed)
    trunk = load_trunk(CONFIG["vision_cfg"]["timm_model_name"])
    training = _compute_features(training_images, trunk)
    if args.validate:
        chosen = _choose_validation(training, params.seed)
        rest = training.take(np.flatnonzero(~chosen))
        train(rest, make_text_vectors(rest, args.root), training.take(np.flatnonzero(chosen)), params)
        return
    pool = _compute_features(pool_images, trunk)
    model = train(training, make_text_vectors(training, args.root), pool, params)
    model.visual.trunk.load_state_dict(trunk.state_dict())
    weights = {name: _compress_weights(name, value) for name, value in model.state_dict().items()}
    # Evaluate the compressed weights, which are those that are written.
    model.load_state_dict(weights)
    image = model.visual.head(trunk_features(model.visual.trunk, pool_images.decoded, _image_size()))
    value = held_out_auc(model, image, pool, np.random.default_rng(params.seed))
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.out / MODEL_WEIGHTS.name)
    (args.out / f"{MODEL_NAME}.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    facts = {
        "params": asdict(params),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "training_pictures": len(training.records),
        "training_sources": _count_sources(training.records),
        "held_out_pictures": len(pool.records),
        "held_out_sources_sha256": hashlib.sha256(
            "\n".join(sorted(record.source for record in pool.records)).encode()
        ).hexdigest(),
        "held_out_auc": round(value, 4),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "threads": args.threads,
    }
    (args.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    _log.info("held-out AUC %.4f", value)


def _choose_validation(training: ImageFeatures, seed: int) -> np.ndarray:
    """Choose a tenth of Open Clip Art's content groups, without very large ones; bool [N]."""
    is_art = np.array([record.source.startswith("openclipart") for record in training.records])
    groups, counts = np.unique(training.groups[is_art], return_counts=True)
    small = np.random.default_rng(seed).permutation(groups[counts <= _MAX_VALIDATED])
    return np.isin(training.groups, small[: len(small) // 10])


def _count_sources(records: list[ImageRecord]) -> dict[str, int]:
    names = [record.source.partition(":")[0] for record in records]
    return {name: names.count(name) for name in sorted(set(names))}


if __name__ == "__main__":
    main()
