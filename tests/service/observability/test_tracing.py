"""Traces of requests."""

from pathlib import Path

import pytest

from service.observability import tracing
from tests.support.polling import wait_until


@pytest.fixture
def spans():
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    tracing.shutdown()
    exporter = InMemorySpanExporter()
    tracing.configure("1", exporter)
    yield exporter
    tracing.shutdown()


def test_tracing_request_has_queue_inference_encoding_spans(serve, folder: Path, spans) -> None:
    client = serve(folder)
    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "X-Request-Id": "r"}
    assert client.post("/v1/generate", json={"n": 5, "model": "tiny"}, headers=sent).status_code == 200
    client.get("/livez")
    wait_until(lambda: len(spans.get_finished_spans()) == 4)
    body = {span.name: span for span in spans.get_finished_spans()}
    assert set(body) == {"POST /v1/generate", "queue", "inference", "encode"}
    request = body["POST /v1/generate"]
    assert all(format(span.context.trace_id, "032x") == trace for span in body.values())
    assert format(request.parent.span_id, "016x") == "b7ad6b7169203331"
    for name in ("queue", "inference", "encode"):
        assert body[name].parent.span_id == request.context.span_id
        assert request.start_time <= body[name].start_time <= body[name].end_time <= request.end_time + 10**6
    assert body["queue"].end_time <= body["inference"].start_time <= body["encode"].start_time
    assert request.attributes["http.route"] == "/v1/generate"
    assert request.attributes["http.response.status_code"] == 200
    assert (request.attributes["atelier.rows"], request.attributes["atelier.model"]) == (5, "tiny")
    assert body["inference"].attributes["atelier.batch_rows"] == 5


def test_tracing_respects_an_unsampled_parent(serve, folder: Path, spans) -> None:
    client = serve(folder)
    sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
    assert client.post("/v1/generate", json={"n": 1}, headers=sent).status_code == 200
    assert client.post("/v1/generate", json={"n": 1}, headers={"traceparent": "garbage"}).status_code == 200
    wait_until(lambda: spans.get_finished_spans())
    assert {format(s.context.trace_id, "032x") for s in spans.get_finished_spans()} != {sent["traceparent"][3:35]}


def test_tracing_is_switched_by_standard_variables() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}
    assert not tracing.is_requested({})
    assert tracing.is_requested(endpoint)
    assert tracing.is_requested({"OTEL_TRACES_EXPORTER": "otlp"})
    assert not tracing.is_requested(endpoint | {"OTEL_TRACES_EXPORTER": "none"})
    assert not tracing.is_requested(endpoint | {"OTEL_SDK_DISABLED": "true"})
