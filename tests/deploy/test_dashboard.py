"""The dashboard and the operations page name exactly the metrics that exist."""

import json
import re
from pathlib import Path
from typing import Any

import ray

from d2prune.execution import metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
METRICS = set(metrics.DESCRIPTIONS)


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "d2prune.json").read_text())


def test_dashboard_shows_exactly_the_metrics():
    expressions = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    variables = [variable["query"] for variable in dashboard()["templating"]["list"]]
    named = set(re.findall(r"\bray_(d2prune_\w+)", " ".join([*expressions, *variables])))
    assert named == METRICS
    assert not re.search(r"(?<!ray_)\bd2prune_", " ".join(expressions))
    # The others are Ray's own.
    folder = Path(ray.__file__).parent / "dashboard" / "modules"
    places = [folder / "reporter" / "reporter_agent.py", *(folder / "metrics" / "dashboards").glob("*.py")]
    known = " ".join(path.read_text() for path in places)
    others = {name for name in re.findall(r"\bray_(\w+)", " ".join(expressions)) if "d2prune" not in name}
    assert len(others) >= 6
    assert [name for name in others if not re.search(rf"\b(ray_)?{name}\b", known)] == []


def test_operations_page_lists_exactly_the_metrics():
    text = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"`ray_(d2prune_\w+)", text)) == METRICS


def test_dashboard_is_well_formed():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        position = panel["gridPos"]
        assert 0 <= position["x"] and position["x"] + position["w"] <= 24
        for target in panel["targets"]:
            for opening, closing in ("()", "{}", "[]"):
                assert target["expr"].count(opening) == target["expr"].count(closing)
