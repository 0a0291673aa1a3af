"""Write the figures of docs/concepts.md, computed by the real kernel: `python docs/make_figures.py`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2prune.d2.api import select
from d2prune.d2.budget import top
from d2prune.d2.fixed_point import SCALE
from d2prune.knn.csr import Graph
from d2prune.knn.in_memory import knn_graph

SIDE, GAP, TOP = 260, 24, 34
KEPT, DROPPED, SOFT, INK = "#0072b2", "#d55e00", "#8a8f96", "#1d2126"
Floats = NDArray[np.float64]


def make_pool() -> tuple[Floats, Floats, Graph]:
    """Return points of a plane (three clusters and some outliers), their difficulty, and their graph."""
    rng = np.random.default_rng(4)
    clusters = (((-0.5, -0.45), 0.14, 16), ((0.45, 0.5), 0.16, 12), ((0.55, -0.5), 0.12, 8))
    points_N2 = np.concatenate(
        [rng.normal(centre, spread, (count, 2)) for centre, spread, count in clusters]
        + [rng.uniform(-0.9, 0.9, (9, 2))]
    )
    difficulty_N = np.clip(
        np.where(points_N2[:, 0] < 0, 0.6, 0.42) + rng.normal(0, 0.15, len(points_N2)), 0.05, 1
    )
    # Lift the plane to unit vectors, like embeddings.
    return points_N2, difficulty_N, knn_graph(np.c_[points_N2, np.ones(len(points_N2))].astype(np.float32), 3)


def to_pixels(points_N2: Floats) -> Floats:
    """Map points to pixel coordinates of a panel."""
    return SIDE / 2 + points_N2 * (SIDE / 2 - 12)


def draw_panel(
    index: int,
    title: str,
    at_N2: Floats,
    radius_N: Floats,
    colours: list[str],
    lines: list[tuple[int, int, str, float]],
) -> str:
    """Return the SVG of one panel: title, edges, dots."""
    body = f'<g transform="translate({index * (SIDE + GAP) + 8} {TOP})"><text x="0" y="-12">{title}</text>'
    body += f'<rect width="{SIDE}" height="{SIDE}" rx="8" fill="none" stroke="#e2dfd9"/>'
    for i, j, colour, width in lines:
        (x1, y1), (x2, y2) = at_N2[i], at_N2[j]
        body += (
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:.2f}" stroke-opacity=".7"/>'
        )
    for (x, y), radius, colour in zip(at_N2, radius_N, colours, strict=True):
        body += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" stroke="#fff"/>'
    return body + "</g>"


def write_figure(name: str, panels: list[str], description: str) -> None:
    """Write the panels side by side as one SVG."""
    width, height = len(panels) * (SIDE + GAP) - GAP + 16, SIDE + TOP + 8
    (Path(__file__).parent / "images" / f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{description}"><rect width="{width}" height="{height}" fill="#fff"/>'
        f'<g font-family="system-ui, sans-serif" font-size="14" fill="{INK}">{"".join(panels)}</g></svg>\n',
        encoding="utf-8",
    )


def main() -> None:
    """Write both figures."""
    points_N2, difficulty_N, graph = make_pool()
    at_N2 = to_pixels(points_N2)
    found = select(graph, difficulty_N, gamma_forward=4.0, gamma_reverse=4.0)
    n, m = len(difficulty_N), 12
    kept_N = np.zeros(n, bool)
    kept_N[top(found.selection_score, m)] = True
    edges = [
        (i, int(j), SOFT, 0.8)
        for i in range(n)
        for j in graph.indices[graph.indptr[i] : graph.indptr[i + 1]]
        if i < j
    ]
    messages = [
        (int(found.suppressed_by[i]), i, DROPPED, 0.8 + 2 * found.suppression[i] / SCALE / 3)
        for i in range(n)
        if found.suppressed_by[i] >= 0
    ]
    by_kept = [KEPT if kept else DROPPED for kept in kept_N]
    write_figure(
        "passes",
        [
            draw_panel(
                0, "1. difficulty, and nearest neighbours", at_N2, 3 + 6 * difficulty_N, [SOFT] * n, edges
            ),
            draw_panel(
                1,
                "2. forward: neighbours support",
                at_N2,
                3 + 2 * found.forward_score / SCALE,
                [INK] * n,
                edges,
            ),
            draw_panel(2, "3. reverse: picks suppress", at_N2, 3 + 6 * difficulty_N, by_kept, messages),
        ],
        "Difficulty, the forward pass and the reverse pass on 45 points",
    )
    by_score = np.zeros(n, bool)
    by_score[np.argsort(-difficulty_N, kind="stable")[:m]] = True
    at_random = np.zeros(n, bool)
    at_random[np.random.default_rng(0).permutation(n)[:m]] = True
    write_figure(
        "choices",
        [
            draw_panel(
                at, title, at_N2, 3 + 6 * difficulty_N, [KEPT if kept else "#d9d6d0" for kept in chosen], []
            )
            for at, (title, chosen) in enumerate(
                (("the 12 highest scores", by_score), ("12 by D2", kept_N), ("12 at random", at_random))
            )
        ],
        "The same 45 points, twelve kept: by score, by D2, at random",
    )


if __name__ == "__main__":
    main()
