"""The bundled model's filter on emoji: how many wrong captions and exact copies each method keeps.

    python -m benchmarks.icons.emoji --out DIR

Reads emoji of the same npm package as `pool`, without skin tones and flags; a seeded share of the
captions is exchanged, and some pairs are there four times. Trains nothing; prints a table per set.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.icons import filtering, methods, plan, pool
from benchmarks.icons.pool import Pair
from benchmarks.icons.report import describe
from d2prune.config.model import RunConfig

SETS = ("openmoji", "emojione")
"""The bundled model was trained on other drawings of emoji (Noto, Twemoji, Fluent)."""
METHODS = ("score", plan.DEFAULT, plan.WIDE, plan.OFFSET, "d2:5:1")
PIXELS = 112
SIZE, WRONG, FRACTION = 1398, 0.21, 0.4
COPIED, COPIES = 40, 3
_LEFT_OUT = re.compile(r"skin-tone|(?:^|-)(?:light|dark|medium)(?:-|$)|^flag")


def build(out: Path, name: str) -> list[Pair]:
    """Write the tars of a set of emoji and return their pairs."""
    package = out / "iconify.tgz"
    pool.download(package)
    icons = [icon for icon in pool.read_set(package, name) if not _LEFT_OUT.search(icon.name)]
    rng = np.random.default_rng(pool.SEED)
    icons = [icons[row] for row in rng.permutation(len(icons))[:SIZE]]
    pairs = [
        Pair(icon.uid, icon.prefix, png, caption, caption)
        for icon, png in zip(icons, pool.render(icons, pixels=PIXELS), strict=True)
        for caption in [icon.name.replace("-", " ")]
        if png
    ]
    copied = [pairs[row] for row in rng.permutation(len(pairs))[:COPIED] for _ in range(COPIES)]
    pairs = pool.plant(pairs, WRONG)
    pairs += [replace(pair, uid=f"{number:032x}") for number, pair in enumerate(copied)]
    pool.write(pairs, out / name / "pool", PIXELS)
    return pairs


def tabulate(folder: Path, pairs: Sequence[Pair]) -> str:
    """Filter the tars of a folder by each method; return a table."""
    lines = [
        "| method | wrong captions kept | right captions kept | surplus exact copies kept |",
        "|---|---|---|---|",
    ]
    for method in METHODS:
        kept = set(filtering.keep(_configure(folder, method)))
        shares = []
        for wrong in (True, False):
            uids = [pair.uid for pair in pairs if pair.is_wrong == wrong]
            shares.append(f"{len(kept.intersection(uids)) / len(uids):.1%}")
        images = Counter(pair.png for pair in pairs if pair.uid in kept)
        lines.append(f"| {describe(method)} | {' | '.join(shares)} | {sum(images.values()) - len(images)} |")
    return "\n".join(lines)


def _configure(folder: Path, method: str) -> RunConfig:
    values = {
        "input": str(folder / "pool" / "*.tar"),
        "work_dir": str(folder / "work"),
        "output": str(folder / "output" / "{run_id}"),
        "embed": {"model": "demo"},
    } | methods.settings(method)
    values["select"] = {"fraction": FRACTION} | values["select"]
    return filtering.with_offset(RunConfig.parse(values, method), method)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the pools and all artifacts")
    parser.add_argument("--sets", nargs="+", default=SETS, help="prefixes of Iconify's sets (%(default)s)")
    args = parser.parse_args(arguments)
    for name in args.sets:
        pairs = build(args.out, name)
        wrong = sum(pair.is_wrong for pair in pairs)
        print(f"{name}: {len(pairs):,} pairs, {wrong:,} wrong captions, {FRACTION:.0%} kept\n")
        print(tabulate(args.out / name, pairs) + "\n", flush=True)


if __name__ == "__main__":
    main()
