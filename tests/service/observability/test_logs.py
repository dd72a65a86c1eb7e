"""Claims about what the service tells of itself: request ids, logs, metrics, traces, settings, the dashboard."""

import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.observability import logs, tracing
from service.observability.logs import MAX_ACCESS_LINES, AccessLog, request_id
from service.settings import Settings, markdown_table
from tests.service.conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "gan-atelier.json"


def test_a_sane_request_id_is_echoed_and_any_other_replaced(serve, folder: Path) -> None:
    client = serve(folder)
    for path in ("/v1/models", "/nowhere", "/v1/models/nope"):
        assert client.get(path, headers={"X-Request-Id": "abc-1.2:x/y+z="}).headers["X-Request-Id"] == "abc-1.2:x/y+z="
        for insane in ("", "a b", 'x"y', "a" * 129, "{}"):
            body = client.get(path, headers={"X-Request-Id": insane}).headers["X-Request-Id"]
            assert re.fullmatch("[0-9a-f]{16}", body)
    assert request_id(None) != request_id(None)


def access_log(**settings: object) -> tuple[AccessLog, io.StringIO]:
    stream = io.StringIO()
    return AccessLog(Settings(log_format="json", **settings), stream), stream  # type: ignore[arg-type]


def test_each_request_is_one_line_of_json(serve, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = serve(folder, log_format="json")
    client.post("/v1/generate", json={"seed": 1, "n": 3, "model": "tiny"}, headers={"X-Request-Id": "one"})
    client.post("/v1/generate", json={"n": 0})
    client.get("/a path/" + "x" * 500)
    client.get("/livez")
    body = ""

    def written() -> list[dict[str, object]]:
        nonlocal body
        body += capsys.readouterr().out
        return [json.loads(line) for line in body.splitlines() if line.startswith('{"time":"')]

    wait_until(lambda: len(written()) == 3)
    first, second, third = written()
    assert isinstance(first.pop("ms"), float)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(first.pop("time")))
    assert first == {
        "level": "info", "event": "request", "request_id": "one", "method": "POST", "route": "/v1/generate",
        "status": 200, "rows": 3, "model": "tiny",
    }  # fmt: skip
    assert (second["status"], second["route"]) == (422, "/v1/generate")
    assert (third["status"], third["route"]) == (404, "unmatched")
    assert "a path" not in body


def test_what_is_logged_is_a_setting() -> None:
    everything, _ = access_log()
    assert everything.is_logged("/v1/generate", 200)
    assert not everything.is_logged("/livez", 200)
    assert everything.is_logged("/readyz", 503)
    errors, _ = access_log(access_log="errors")
    assert (errors.is_logged("/v1/generate", 200), errors.is_logged("/v1/generate", 422)) == (False, True)
    off, _ = access_log(access_log="off")
    assert not off.is_logged("/v1/generate", 500)
    some, _ = access_log(access_log_sample=0.25)
    assert 2000 < sum(some.is_logged("/v1/generate", 200) for _ in range(10_000)) < 3000
    assert some.is_logged("/v1/generate", 500)


def test_a_log_that_nobody_reads_stays_small_and_says_what_it_lost() -> None:
    import asyncio

    async def flood() -> None:
        log, stream = access_log()
        for _ in range(MAX_ACCESS_LINES + 5):
            log.log("GET", "/", 200, 0.1, "id", 'a "model"', 1)
        log.flush()
        body = stream.getvalue().splitlines()
        assert len(body) == MAX_ACCESS_LINES + 1
        assert json.loads(body[0])["model"] == 'a "model"'
        assert json.loads(body[-1]) == {"level": "warning", "event": "access lines dropped", "lines": 5}

    asyncio.run(flood())


def test_a_record_is_one_line_with_its_traceback_and_request() -> None:
    token = logs.current_request.set("req-1")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "it %s", ("failed",), sys.exc_info())
    body = logs.JsonFormatter().format(record)
    logs.current_request.reset(token)
    assert "\n" not in body
    read = json.loads(body)
    assert (read["level"], read["event"], read["request_id"]) == ("error", "it failed", "req-1")
    assert "ValueError: two" in read["traceback"]


def test_strangers_paths_methods_and_ids_add_no_series(serve, folder: Path) -> None:
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


@pytest.fixture
def spans():
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    tracing.shutdown()
    exporter = InMemorySpanExporter()
    tracing.configure("1", exporter)
    yield exporter
    tracing.shutdown()


def test_a_traced_request_tells_its_queue_inference_and_encoding(serve, folder: Path, spans) -> None:
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


def test_a_client_that_samples_nothing_is_not_traced(serve, folder: Path, spans) -> None:
    client = serve(folder)
    sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
    assert client.post("/v1/generate", json={"n": 1}, headers=sent).status_code == 200
    assert client.post("/v1/generate", json={"n": 1}, headers={"traceparent": "garbage"}).status_code == 200
    wait_until(lambda: spans.get_finished_spans())
    assert {format(s.context.trace_id, "032x") for s in spans.get_finished_spans()} != {sent["traceparent"][3:35]}


def test_the_standard_variables_switch_tracing() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}
    assert not tracing.is_requested({})
    assert tracing.is_requested(endpoint)
    assert tracing.is_requested({"OTEL_TRACES_EXPORTER": "otlp"})
    assert not tracing.is_requested(endpoint | {"OTEL_TRACES_EXPORTER": "none"})
    assert not tracing.is_requested(endpoint | {"OTEL_SDK_DISABLED": "true"})


def test_settings_page_has_the_table_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    import reference

    assert markdown_table() in reference.settings(), "python -m service settings --markdown"
    assert set(re.findall(r"`ATELIER_(\w+)`", markdown_table())) >= {name.upper() for name in Settings.model_fields}
    assert all(field.description for field in Settings.model_fields.values())


def test_the_command_lists_values_but_no_secret() -> None:
    env = {"PATH": "/bin", "ATELIER_API_KEYS": "hush", "ATELIER_WORKERS": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "service", "settings"], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ATELIER_WORKERS=3 " in done.stdout
    assert "ATELIER_API_KEYS=(secret)" in done.stdout
    assert "hush" not in done.stdout
    assert len(done.stdout.splitlines()) == len(Settings.model_fields)


def test_every_metric_of_the_dashboard_and_of_the_docs_exists(serve, folder: Path) -> None:
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
