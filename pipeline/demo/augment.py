"""Training examples for the demo model: random views of pictures and random wordings of captions.

Pure functions of arrays, records and generators.
"""

from collections import Counter

import numpy as np
import torch

from pipeline.demo.clipart import Picture
from pipeline.demo.dataset import Decoded

__all__ = ["canvas", "random_views", "whole_views", "worded", "wordings"]


def canvas(decoded: list[Decoded], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures centred on transparent squares.

    Args:
        decoded: N pictures of at most `size` pixels on each side.
        size: side S of the squares.

    Returns:
        uint8 [N, 4, S, S] with the colour premultiplied by alpha; float32 [N, 2], width and height of each picture
        as shares of S.
    """
    squares = torch.zeros(len(decoded), 4, size, size, dtype=torch.uint8)
    shares = torch.zeros(len(decoded), 2)
    for row, one in enumerate(decoded):
        height, width = one.pixels.shape[:2]
        top, left = (size - height) // 2, (size - width) // 2
        pixels = one.pixels.astype(np.uint16)
        pixels[..., :3] = pixels[..., :3] * pixels[..., 3:] // 255
        squares[row, :, top : top + height, left : left + width] = torch.from_numpy(pixels.astype(np.uint8)).permute(
            2, 0, 1
        )
        shares[row] = torch.tensor([width / size, height / size])
    return squares, shares


def random_views(squares: torch.Tensor, shares: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Random crops, turns, flips, colours and backgrounds.

    Args:
        squares: uint8 [N, 4, S, S], from :func:`canvas`.
        shares: float32 [N, 2], from :func:`canvas`.
        size: side V of the views.
        generator: source of chance.

    Returns:
        float32 [N, 3, V, V] in 0..1.
    """
    n = len(squares)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    # From the whole letterboxed picture (1) down to the largest square inside it, then a crop of that.
    inner = shares.min(1).values
    side = (inner + (1 - inner) * uniform(0, 1) ** 0.5) * uniform(0.75, 1.08)
    stretch = torch.exp(uniform(-0.15, 0.15))
    turn = uniform(-0.2, 0.2)
    flip = 1 - 2 * (uniform(0, 1) < 0.3).float()
    reach = (shares - (side.unsqueeze(1) * 0.9)).clamp(min=0.06)
    shift = uniform(-1, 1, 2) * reach
    cos, sin = torch.cos(turn) * side, torch.sin(turn) * side
    theta = torch.stack(
        [
            torch.stack([cos * stretch * flip, -sin, shift[:, 0]], 1),
            torch.stack([sin * flip, cos / stretch, shift[:, 1]], 1),
        ],
        1,
    )
    views = _sample(squares, theta, size)
    white = (uniform(0, 1, 1) < 0.75).float()
    background = white + (1 - white) * uniform(0, 1, 3)
    colour = views[:, :3] + (1 - views[:, 3:]) * background[:, :, None, None]
    mix = torch.eye(3) + uniform(-0.12, 0.12, 3, 3) * (uniform(0, 1, 1, 1) < 0.5)
    colour = torch.einsum("ncd,ndhw->nchw", mix / mix.sum(2, keepdim=True), colour)
    grey = (uniform(0, 1, 1, 1, 1) < 0.08).float()
    colour = colour * (1 - grey) + colour.mean(1, keepdim=True) * grey
    return ((colour - 0.5) * uniform(0.8, 1.1, 1, 1, 1) + 0.5 + uniform(-0.06, 0.06, 1, 1, 1)).clamp(0, 1)


def whole_views(squares: torch.Tensor, size: int) -> torch.Tensor:
    """What open_clip's default preprocessing sees of a picture of the pool, which is a white square.

    Args:
        squares: uint8 [N, 4, S, S].
        size: side V of the views.

    Returns:
        float32 [N, 3, V, V] in 0..1.
    """
    theta = torch.eye(2, 3).expand(len(squares), 2, 3)
    views = _sample(squares, theta, size)
    return views[:, :3] + (1 - views[:, 3:])


def _sample(squares: torch.Tensor, theta: torch.Tensor, size: int) -> torch.Tensor:
    grid = torch.nn.functional.affine_grid(theta, [len(squares), 4, size, size], align_corners=False)
    return torch.nn.functional.grid_sample(squares.float() / 255, grid, align_corners=False)


def wordings(pictures: list[Picture], common: int = 12) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Titles and keywords to word each picture's captions with.

    A title that more than `common` pictures bear ("Part of the Flat Icon Collection") says nothing about any of them,
    so the words of the file name stand beside it.

    Returns:
        For each picture its titles, the best first, and its keywords.
    """
    count = Counter(picture.title for picture in pictures)
    chosen = []
    for picture in pictures:
        titles = [picture.title]
        if count[picture.title] > common and len(picture.name) > 1:
            titles.insert(0, picture.name)
        chosen.append((tuple(titles), picture.keywords))
    return chosen


def worded(words: tuple[tuple[str, ...], tuple[str, ...]], rng: np.random.Generator) -> str:
    """One random wording: the title, some keywords in some order, or both."""
    titles, keywords = words
    title = titles[0] if len(titles) == 1 or rng.random() < 0.7 else titles[1]
    if not keywords or rng.random() < 0.25:
        return title
    count = int(rng.integers(1, min(len(keywords), 7) + 1))
    chosen = [keywords[index] for index in rng.permutation(len(keywords))[:count]]
    if rng.random() < 0.5:
        chosen = [word for word in keywords if word in chosen]
    return ", ".join(chosen if rng.random() < 0.2 else [title, *chosen])
