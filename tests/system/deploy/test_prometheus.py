"""A real Prometheus, with the configuration of this repository, scrapes a real service."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.kubernetes_manifests import KUBERNETES
from tests.support.paths import ROOT
from tests.support.process_cleanup import end_with_parent
from tests.support.programs import find_program
from tests.support.service.service_process import Server

CONFIGURATION = ROOT / "docker" / "prometheus" / "prometheus.yml"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "gan-atelier.json"
QUIET = ("atelier_rejected_total", "atelier_model_load_failures_total")  # nothing to tell while all is well

pytestmark = pytest.mark.slow


class Prometheus:
    def __init__(self, port: int) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = self.client.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        return answer.json()["data"]["result"]

    def until_ready(self, seconds: float = 60) -> None:
        """While it starts it answers any query with 503."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.client.get("/-/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, "Prometheus does not start"
            time.sleep(0.1)

    def until(self, expression: str, seconds: float = 60) -> list[dict[str, Any]]:
        end = time.monotonic() + seconds
        while True:
            try:
                if found := self.query(expression):
                    return found
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, f"{expression}: nothing"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def prometheus(service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Its configuration is the repository's but for where the service is, and how often."""
    place = tmp_path_factory.mktemp("prometheus")
    result = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    (scrape,) = result["scrape_configs"]
    del scrape["dns_sd_configs"]
    labels = {"namespace": "here", "pod": "gan-atelier-1"}  # as a cluster's Prometheus adds them
    scrape["static_configs"] = [{"targets": [service.url.removeprefix("http://")], "labels": labels}]
    result["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (place / "prometheus.yml").write_text(yaml.safe_dump(result), encoding="utf-8")
    port = free()
    command = [find_program("prometheus"), f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/data"]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, preexec_fn=end_with_parent
        )
        try:
            found = Prometheus(port)
            found.until_ready()
            found.until('up{job="gan-atelier"} == 1')
            yield found
        finally:
            process.terminate()
            process.wait(30)


def free() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_prometheus_configuration_is_valid(tmp_path: Path) -> None:
    def check(path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([find_program("promtool"), "check", "config", str(path)], capture_output=True, text=True)

    done = check(CONFIGURATION)
    assert done.returncode == 0, done.stderr
    (tmp_path / "wrong.yml").write_text(
        CONFIGURATION.read_text(encoding="utf-8").replace("metrics_path", "metric_path"), encoding="utf-8"
    )
    assert "metric_path not found" in check(tmp_path / "wrong.yml").stdout + check(tmp_path / "wrong.yml").stderr


def test_prometheus_answers_every_dashboard_query(prometheus: Prometheus, service: Server) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = {"$instance": ".*", "$__rate_interval": "30s"}
    for name, value in variables.items():
        queries = [query.replace(name, value) for query in queries]
    end = time.monotonic() + 60
    while not (seen := prometheus.query("rate(atelier_images_total[30s]) > 0")):  # a rate needs two scrapes that differ
        assert time.monotonic() < end, "no rate of images"
        httpx.post(f"{service.url}/v1/generate", json={"seed": 1, "n": 4}, timeout=30).raise_for_status()
        time.sleep(0.2)
    assert seen[0]["metric"]["job"] == "gan-atelier"
    for query in queries:
        assert "$" not in query
        found = prometheus.query(query)  # a mistake in it is a 400
        assert found or any(word in query for word in QUIET), f"no series: {query}"
    (variable,) = (v for v in dashboard["templating"]["list"] if v["name"] == "instance")
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore
    assert prometheus.query(metric)[0]["metric"][label]


def test_prometheus_has_the_autoscalers_metric_per_pod(prometheus: Prometheus) -> None:
    """The adapter's rule with its template filled in as the adapter does for a pod of a namespace."""
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text(encoding="utf-8"))["rules"]["custom"]
    (series,) = prometheus.until(rule["seriesQuery"])
    for resource in rule["resources"]["overrides"]:
        assert series["metric"][resource]
    query = rule["metricsQuery"].replace("<<.Series>>", series["metric"]["__name__"])
    query = query.replace("<<.LabelMatchers>>", 'namespace="here",pod=~"gan-atelier-1|gan-atelier-2"')
    query = query.replace("<<.GroupBy>>", "pod")
    assert "<<" not in query
    (found,) = prometheus.query(query)
    assert found["metric"] == {"pod": "gan-atelier-1"}
    assert float(found["value"][1]) >= 0
