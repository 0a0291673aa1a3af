"""A sweep as a table for the terminal, and as one HTML page with two charts and the same table.

The page is self-contained and in the report's style. Every point is labelled with the number of its
row; recommended settings have a ring.
"""

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from d2prune import report, store
from d2prune.d2.gamma import describe_gamma
from d2prune.redaction import redact_markup
from d2prune.report import tradeoff
from d2prune.store import artifacts
from d2prune.sweep.evaluate import SweepResult
from d2prune.sweep.links import PORT, comparison_links
from d2prune.sweep.measure import FEW_LOW_SCORES, Outcome, Setting

_FOLDER = Path(__file__).parent


def outcome_table(result: SweepResult) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The outcomes as text: head and rows, without columns that would be empty."""
    outcomes = result.outcomes
    columns: list[tuple[str, list[str]]] = [
        ("method", [o.setting.method for o in outcomes]),
        ("k", [str(o.setting.n_neighbors or "-") for o in outcomes]),
        ("gamma_f", [_gamma_cell(o, 0) for o in outcomes]),
        ("gamma_r", [_gamma_cell(o, 1) for o in outcomes]),
        ("fraction", [f"{o.setting.fraction:g}" for o in outcomes]),
        ("note", [_describe_note(o.setting, result) for o in outcomes]),
        ("kept", [f"{o.kept:,}" for o in outcomes]),
        (f"mean {result.score_name}", [f"{o.mean_score:.4f}" for o in outcomes]),
        ("low scores", [f"{o.low_scores:.1%}" for o in outcomes]),
        ("duplicates left", [f"{o.duplicates:.1%}" for o in outcomes]),
        ("pairs", [f"{o.duplicate_pairs:,}" for o in outcomes]),
        ("contents", [f"{o.contents:,}" for o in outcomes]),
        ("coverage gap", [f"{o.coverage:.4f}" for o in outcomes]),
        ("flagged dropped", ["" if o.flagged is None else f"{o.flagged:.1%}" for o in outcomes]),
        ("overlap with run", ["" if o.overlap is None else f"{o.overlap:.1%}" for o in outcomes]),
        ("seconds", [f"{o.seconds:.2f}" for o in outcomes]),
    ]
    shown = [(name, cells) for name, cells in columns if any(cells)]
    rows = zip(*(cells for _, cells in shown), strict=True)
    return [name for name, _ in shown], [list(row) for row in rows]


def _gamma_cell(outcome: Outcome, number: int) -> str:
    setting = outcome.setting
    if setting.method != "d2":
        return "-"
    return describe_gamma((setting.gamma_forward, setting.gamma_reverse)[number], outcome.gammas[number])


def _describe_note(setting: Setting, result: SweepResult) -> str:
    notes = ["this run"] if setting == result.current else []
    return ", ".join(notes + (["recommended"] if setting in result.recommended else []))


def write_page(result: SweepResult) -> str:
    """Write the page to `work_dir/sweep/`, named after its outcomes; returns its URL."""
    identity = artifacts.fingerprint(
        [artifacts.canonical_json(outcome).decode() for outcome in result.outcomes]
    )
    url = store.join(result.config.work_dir, "sweep", f"{identity}.html")
    store.write_bytes(url, render(result).encode())
    return url


def render(result: SweepResult) -> str:
    """The page as HTML."""
    head, rows = outcome_table(result)
    series = _join_series(result.outcomes)
    report_css = Path(report.__file__).parent / "page.css"
    css = "".join(path.read_text(encoding="utf-8") for path in (report_css, _FOLDER / "page.css"))
    loader = jinja2.FileSystemLoader(_FOLDER)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, finalize=redact_markup, undefined=jinja2.StrictUndefined
    )
    score = f"mean {result.score_name} of the kept samples"
    return environment.get_template("page.html").render(
        styles=Markup(css),
        line_styles=tradeoff.LINE_STYLES,
        work_dir=store.redact(result.config.work_dir),
        samples=f"{result.samples:,}",
        series=[(index, label) for index, (label, members) in enumerate(series) if len(members) > 1],
        coverage=_draw_tradeoff(series, result, "coverage", "coverage gap (distance, 0 to 2)", score),
        duplicates=_draw_tradeoff(series, result, "duplicates", "duplicates left (share of the kept)", score),
        reasons=explain_recommendations(result),
        few=f"{FEW_LOW_SCORES:.0%}",
        links=comparison_links(result),
        port=PORT,
        head=head,
        rows=rows,
        has_flagged=any(outcome.flagged is not None for outcome in result.outcomes),
        has_overlap=any(outcome.overlap is not None for outcome in result.outcomes),
        current={row for row, outcome in enumerate(result.outcomes) if outcome.setting == result.current},
    )


def explain_recommendations(result: SweepResult) -> list[str]:
    """Say in a sentence per fraction which setting is recommended, and why."""
    sentences = []
    numbered = enumerate(result.outcomes, 1)
    for number, outcome in sorted(numbered, key=lambda item: item[1].setting.fraction):
        if outcome.setting in result.recommended:
            if outcome.low_scores <= FEW_LOW_SCORES:
                reason = (
                    f"of the settings with at most {FEW_LOW_SCORES:.0%} low scores it has the smallest "
                    f"coverage gap, {outcome.coverage:.4f}"
                )
            else:
                reason = f"no setting keeps fewer low scores, {outcome.low_scores:.1%}"
            sentences.append(
                f"Recommended at fraction {outcome.setting.fraction:g}: row {number}, "
                f"{_describe_setting(outcome)}: {reason}."
            )
    return sentences


def _join_series(outcomes: Sequence[Outcome]) -> list[tuple[str, list[tuple[int, Outcome]]]]:
    """Group the numbered outcomes to lines, each with its label.

    Where gamma_reverse has several values, a line is its path at one fraction; else a line joins the
    fractions of one setting.
    """
    has_path = len({o.setting.gamma_reverse for o in outcomes if o.setting.method == "d2"}) > 1
    series: dict[str, list[tuple[int, Outcome]]] = {}
    for number, outcome in enumerate(outcomes, 1):
        label = _describe_setting(outcome, with_reverse=not has_path)
        if has_path:
            label += f", fraction {outcome.setting.fraction:g}"
        series.setdefault(label, []).append((number, outcome))
    if has_path:
        for members in series.values():
            members.sort(key=lambda numbered: numbered[1].gammas[1])
    return list(series.items())


def _describe_setting(outcome: Outcome, with_reverse: bool = True) -> str:
    setting, gammas = outcome.setting, outcome.gammas
    if setting.method != "d2":
        return setting.method
    text = f"d2, k = {setting.n_neighbors}, gamma_f = {describe_gamma(setting.gamma_forward, gammas[0])}"
    return text + (f", gamma_r = {describe_gamma(setting.gamma_reverse, gammas[1])}" if with_reverse else "")


def _draw_tradeoff(
    series: list[tuple[str, list[tuple[int, Outcome]]]],
    result: SweepResult,
    cost: str,
    x_label: str,
    y_label: str,
) -> Markup:
    """Draw the mean score against a cost, one line per series, a ring around recommended settings.

    Args:
        series: label, and the numbered outcomes.
        result: whose settings are recommended.
        cost: the field of `Outcome` on the x axis.
        x_label: of the cost, with its unit.
        y_label: of the mean score.
    """
    lines = [
        tradeoff.Line(
            [getattr(outcome, cost) for _, outcome in members],
            [outcome.mean_score for _, outcome in members],
            [_name_point(number, outcome) for number, outcome in members],
        )
        for _, members in series
    ]
    recommended = [o for o in result.outcomes if o.setting in result.recommended]
    return tradeoff.draw(
        lines,
        x_label,
        y_label,
        f"{len(result.outcomes)} settings; their values are in the table",
        recommended=[(getattr(outcome, cost), outcome.mean_score) for outcome in recommended],
    )


def _name_point(number: int, outcome: Outcome) -> str:
    method = outcome.setting.method
    return str(number) if method == "d2" else f"{number} {method}"
