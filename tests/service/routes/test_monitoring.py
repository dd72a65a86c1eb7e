"""Readiness and metrics."""

from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from tests.support.service.responses import refusal

Serve = Callable[..., TestClient]


def test_readyz_not_ready_gives_the_reason(serve: Serve, tmp_path: Path) -> None:
    client = serve(tmp_path / "missing")
    assert "does not exist" in refusal(client.get("/readyz"), 503, "not_ready")["message"]
    answer = client.post("/v1/generate", json={})
    refusal(answer, 503, "not_ready")
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/livez").status_code == 200
    assert "missing" in client.get("/v1/models").json()["not_ready"]


def test_metrics_count_by_route_template(client: TestClient) -> None:
    for i in range(20):
        client.get(f"/v1/models/tiny/images/{i}.png")
        client.get(f"/nothing/{i}")
    client.post("/v1/generate", json={"n": 3})
    text = client.get("/metrics").text
    assert (
        'atelier_requests_total{method="GET",route="/v1/models/{name}/images/{seed}.{form}",status="200"} 20.0' in text
    )
    assert 'atelier_requests_total{method="GET",route="unmatched",status="404"} 20.0' in text
    assert 'atelier_images_total{model="tiny"} 23.0' in text
    assert "/nothing/" not in text
