"""A sweep as one HTML page with two charts and a table: what a setting gains, and what it costs.

Self-contained like the report, and in its style. Every point bears the number of its row; points of
one k and pair of gammas are joined, from the smallest fraction to the largest.
"""

import itertools
from html import escape
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from d2prune import report, store
from d2prune.report import plots
from d2prune.store import artifacts
from d2prune.sweep.sweep import Outcome, Sweep, table

_HEIGHT = 330
_STYLES = 6
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>d2prune sweep</title><style>{{ styles }}</style></head><body>
<header><p class="kicker">d2prune sweep of {{ place }}</p><h1>{{ rows|length }} settings on {{ samples }} samples</h1>
<p class="lead">What each setting would keep, from the stored embeddings and scores. The lines join the fractions of one
k and pair of gammas; the numbers are those of the table.</p></header>
<main><section aria-label="Charts">
<ul class="legend" aria-label="Legend">{% for label in series %}<li><svg viewBox="0 0 26 12" aria-hidden="true"><path
class="line line-{{ loop.index0 % 6 }}" d="M1 6H25"/></svg>{{ label }}</li>{% endfor %}</ul>
<div class="columns">
<figure>{{ coverage }}<figcaption>Up and to the left is better: high scores, and no sample far from a kept one.
</figcaption></figure>
<figure>{{ duplicates }}<figcaption>Up and to the left is better: high scores, and little repetition.</figcaption>
</figure></div></section>
<section aria-labelledby="table-h"><h2 id="table-h">All settings</h2>
<div class="scroll" tabindex="0" role="region" aria-label="All settings"><table>
<thead><tr><th scope="col">Nr</th>{% for name in head %}<th scope="col" class="n">{{ name or "Note" }}</th>{% endfor %}
</tr></thead><tbody>{% for row in rows %}<tr{{ ' class="here"'|safe if loop.index0 in here }}><th scope="row">
{{ loop.index }}</th>{% for cell in row %}<td class="n">{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table>
</div>
<p class="about">Duplicates left: share of the kept that have a kept near-duplicate (cosine 0.95 or more) among their
neighbours. Coverage gap: mean distance from any sample to the nearest kept one, in a sample of the pool (0 to 2). As
the run: share of the smaller of both selections that the run's own selection keeps too.</p></section></main>
<footer>Made by d2prune. This page needs no network and runs no script.</footer></body></html>"""
_CSS = """
.line-3 { stroke: var(--kept); stroke-dasharray: 2 3; } .line-4 { stroke: var(--dropped); }
.line-5 { stroke: var(--third); stroke-dasharray: 8 3 2 3; } .dot { fill: var(--ink); }
"""


def write_page(found: Sweep) -> str:
    """Write the page to `work_dir/sweep/`; the same outcomes have the same name. Returns its URL."""
    identity = artifacts.fingerprint(
        [artifacts.canonical_json(outcome).decode() for outcome in found.outcomes]
    )
    url = store.join(found.config.work_dir, "sweep", f"{identity}.html")
    store.write_bytes(url, render(found).encode())
    return url


def render(found: Sweep) -> str:
    """The page as HTML."""
    head, rows = table(found)
    groups = [
        (label, list(members)) for label, members in itertools.groupby(enumerate(found.outcomes, 1), _series)
    ]
    css = (Path(report.__file__).parent / "page.css").read_text(encoding="utf-8") + _CSS
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    score = f"mean {found.score_name} of the kept (no unit)"
    return environment.from_string(_PAGE).render(
        styles=Markup(css),
        place=store.redact(found.config.work_dir),
        samples=f"{found.samples:,}",
        series=[label for label, _ in groups],
        coverage=_trade(groups, "coverage", "coverage gap (distance, 0 to 2)", score),
        duplicates=_trade(groups, "duplicates", "near-duplicates left (share of the kept)", score),
        head=head,
        rows=rows,
        here={at for at, outcome in enumerate(found.outcomes) if outcome.setting == found.current},
    )


def _series(numbered: tuple[int, Outcome]) -> str:
    setting = numbered[1].setting
    return f"k {setting.n_neighbors}, gammas {setting.gamma_forward:g} and {setting.gamma_reverse:g}"


def _trade(
    groups: list[tuple[str, list[tuple[int, Outcome]]]], name: str, x_label: str, y_label: str
) -> Markup:
    """Mean score against a cost, one line for each series."""
    outcomes = [outcome for _, members in groups for _, outcome in members]
    x = np.array([getattr(outcome, name) for outcome in outcomes])
    y = np.array([outcome.mean_score for outcome in outcomes])
    pads = [max(float(np.ptp(values)) * 0.1, 1e-4) for values in (x, y)]
    axes = plots.Axes((x.min() - pads[0], x.max() + pads[0]), (y.min() - pads[1], y.max() + pads[1]), _HEIGHT)
    body = axes.frame(x_label, y_label)
    # Settings that come to the same share a point and a label.
    marks: dict[tuple[int, int], list[int]] = {}
    for style, (_, members) in enumerate(groups):
        points = [(axes.at_x(getattr(o, name)), axes.at_y(o.mean_score), number) for number, o in members]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b, _ in sorted(points, key=lambda p: p[2]))
        body += f'<path class="line line-{style % _STYLES}" d="M{path}"/>'
        for a, b, number in points:
            marks.setdefault((round(a), round(b)), []).append(number)
    for (a, b), numbers in marks.items():
        body += f'<circle class="dot" cx="{a}" cy="{b}" r="3"/>'
        body += f'<text class="strong" x="{a + 5}" y="{b - 5}">{", ".join(map(str, numbers))}</text>'
    told = f"{len(outcomes)} settings; the table has their numbers"
    return plots.svg(f"{escape(y_label)} against {escape(x_label)}", told, _HEIGHT, body)
