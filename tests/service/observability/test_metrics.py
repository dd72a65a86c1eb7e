"""The series of /metrics, and the dashboard that reads them."""

import json
import re
from pathlib import Path

from tests.support.paths import ROOT

DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "gan-atelier.json"


def test_metrics_of_unknown_paths_and_methods_add_no_series(serve, folder: Path) -> None:
    client = serve(folder)
    client.get("/metrics")
    before = None
    for i in range(3):
        for path in (f"/{i}", f"/v1/models/{i}", f"/v1/models/tiny/images/{i}.png", f"/v1/models/{i}/images/1.png"):
            for method in ("GET", "POST", "BREW"):
                client.request(method, path, headers={"X-Request-Id": f"r{i}"})
        series = {line.rpartition(" ")[0] for line in client.get("/metrics").text.splitlines() if line[0] != "#"}
        before = before or series
    assert series == before


def test_metrics_of_the_dashboard_and_docs_exist(serve, folder: Path) -> None:
    client = serve(folder)
    client.post("/v1/generate", json={"n": 1})
    exposed = set(re.findall(r"^# TYPE (\w+) ", client.get("/metrics").text, re.M))
    suffixes = re.compile(r"_(bucket|sum|count)$")
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    assert len(queries) > 15
    for body in (*queries, (ROOT / "docs" / "operations" / "operations.md").read_text(encoding="utf-8")):
        for name in re.findall(r"\batelier_[a-z_]+", body):
            assert suffixes.sub("", name) in exposed, name
    for query in queries:
        assert re.search(r"\batelier_", query)
