"""Plot the speed of the selection against the size of the pool, from the table in docs/results/selection.md.

    python -m benchmarks.selection_plot docs/results/selection.md docs/images/selection_speed.svg

Reads the rows `| nodes | near or random | ... |` of the section "Speed and memory"; writes an SVG
image of nodes per second against nodes, in which linear time is a horizontal line.
"""

import argparse
import math
import re
from pathlib import Path

from d2prune.report.plots import WIDTH, Axes, short

HEIGHT, AIM = 270, 2.0
_ROW = re.compile(r"^\| ([\d,]+) \| (near|random) \| [\d.]+ \| [\d.]+ \| \**([\d.]+)\** \|")
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.axis{stroke:#888}.label{fill:#555}"
    ".mark{stroke:#888;stroke-dasharray:4 4}.near{stroke:#0072b2;fill:none;stroke-width:2}"
    ".random{stroke:#d55e00;fill:none;stroke-width:2;stroke-dasharray:7 3}"
)


def read_rows(text: str) -> dict[str, list[tuple[int, float]]]:
    """Return order -> (nodes, million nodes per CPU second), ascending."""
    rows: dict[str, dict[int, float]] = {"near": {}, "random": {}}
    for line in text.partition("## Speed and memory")[2].partition("\n|---")[2].splitlines():
        if found := _ROW.match(line):
            rows[found[2]][int(found[1].replace(",", ""))] = float(found[3])
        elif not line:
            break  # reads the first table only
    return {order: sorted(speeds.items()) for order, speeds in rows.items()}


def draw(rows: dict[str, list[tuple[int, float]]]) -> str:
    """Return the plot as SVG."""
    points = [point for speeds in rows.values() for point in speeds]
    exponents = [math.log10(nodes) for nodes, _ in points]
    axes = Axes(
        (min(exponents) - 0.1, max(exponents) + 0.1), (0, max(speed for _, speed in points) * 1.1), HEIGHT
    )

    def nodes_of(exponent: float) -> str:
        return short(10**exponent) if exponent == round(exponent) else ""

    body = axes.frame("nodes (k = 5)", "million nodes per second of one core", nodes_of)
    aim = axes.at_y(AIM)
    left, right = axes.at_x(axes.x[0]), axes.at_x(axes.x[1])
    body += f'<line class="mark" x1="{left:.1f}" x2="{right:.1f}" y1="{aim:.1f}" y2="{aim:.1f}"/>'
    body += f'<text x="{left + 4:.1f}" y="{aim - 5:.1f}">the aim</text>'
    for index, (order, speeds) in enumerate(rows.items()):
        line = [(axes.at_x(math.log10(nodes)), axes.at_y(speed)) for nodes, speed in speeds]
        body += f'<path class="{order}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in line)}"/>'
        # The legend is below the aim, where there are no lines.
        y = axes.at_y(AIM * (0.65 - 0.3 * index))
        body += f'<path class="{order}" d="M{left + 6:.1f} {y:.1f}h24"/>'
        body += f'<text x="{left + 36:.1f}" y="{y + 4:.1f}">neighbours {order} in memory</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{2 * WIDTH}" '
        f'role="img" aria-label="Speed of the selection against the size of the pool"><style>{_STYLE}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{body}</svg>\n'
    )


def main() -> None:
    """Read the table and write the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="Markdown file with the table")
    parser.add_argument("target", type=Path, help="SVG file to write")
    options = parser.parse_args()
    options.target.write_text(draw(read_rows(options.source.read_text())))


if __name__ == "__main__":
    main()
