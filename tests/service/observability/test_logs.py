"""Claims about what the service tells of itself: request ids, logs, metrics, traces, settings, the dashboard."""

import io
import json
import logging
import re
import sys
from pathlib import Path

import pytest

from service.observability import logs
from service.observability.access_log import MAX_ACCESS_LINES, AccessLog
from service.observability.logs import request_id
from service.settings import Settings
from tests.support.polling import wait_until


def test_request_id_valid_is_echoed_others_replaced(serve, folder: Path) -> None:
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


def test_access_log_has_one_json_line_per_request(serve, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_access_log_setting_decides_what_is_logged() -> None:
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


def test_access_log_unread_stays_small_and_counts_losses() -> None:
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


def test_log_record_is_one_line_with_traceback_and_request() -> None:
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
