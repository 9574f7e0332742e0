"""The dashboard is what its script writes, fits its grid, and shows metrics that there are: all of them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.test_prometheus_rules import METRICS, asked_for, known_names, promtool, rules

GRAFANA = Path(__file__).resolve().parents[3] / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "keepline.json"


def load() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return board


PANELS = [panel for panel in load()["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_the_file_is_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("dashboard", GRAFANA / "dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert DASHBOARD.read_text() == script.text(), "run python deploy/grafana/dashboard.py"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_metrics_that_there_are(expression: str) -> None:
    assert asked_for(expression) <= known_names()


def test_prometheus_understands_the_expressions(tmp_path: Path) -> None:
    checked = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(EXPRESSIONS)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": checked}]}))
    promtool("check", "rules", str(file))


def test_every_metric_is_shown_somewhere() -> None:
    recorded = {name: asked_for(rule["expr"]) for name, rule in rules("record").items()}
    shown = {name for expression in EXPRESSIONS for name in asked_for(expression)}
    shown |= {name for known in shown & recorded.keys() for name in recorded[known]}
    documented = set(re.findall(r"^\| `(keepline_\w+)`", METRICS.read_text(), re.MULTILINE))
    assert documented - shown == set()


def test_panels_lie_beside_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in load()["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in load()["panels"]}) == len(load()["panels"])


def test_the_dashboard_uses_the_data_source_that_is_provisioned() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in PANELS} == {sources["datasources"][0]["uid"]}
