"""What a body costs before it is refused: time of the event loop, and memory."""

import asyncio
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from starlette.datastructures import Headers

from service.errors import ApiError
from service.routes import negotiation, request_parsing
from service.routes.schemas import GenerateRequest, ImageSpec
from tests.support.paths import ROOT
from tests.support.service.body_costs import SIZE, outcome


@pytest.mark.slow
def test_parse_json_of_4_mib_costs_below_half_a_second_and_100_mb() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.service.body_costs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    seconds, megabytes, name = done.stdout.split(" ", 2)
    assert float(seconds) < 0.5, name
    assert float(megabytes) < 100, done.stdout


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"seeds":[' + b"1," * 2**18 + b"1]}", "too_many_values"),
        (b'{"latents":[' + b"[1]," * 2**17 + b"[1]]}", "too_many_values"),
        (b"{" + b'"a":1,' * 2**15 + b'"a":1}', "too_many_values"),
        (b'{"seeds":[' + b"1," * 2**16 + b"1]}", "invalid_field"),
        (b'{"latents":[[' + b"0.25," * (2**18 - 8) + b"0.25]]}", ""),
    ],
    ids=["values", "lists", "keys", "seeds", "latents"],
)
def test_parse_json_counts_values_not_bytes(body: bytes, code: str) -> None:
    assert outcome(body, GenerateRequest) == code


def test_parse_json_of_a_longer_body_may_have_more_values() -> None:
    row = b"[" + b",".join([b"0.1234567890123456"] * 512) + b"]"
    body = b'{"latents":[' + b",".join([row] * 1024) + b"]}"
    assert len(body) > 2 * SIZE
    assert len(request_parsing.parse_json(body, ImageSpec).latents or ()) == 1024


@pytest.mark.parametrize("field", ["seeds", "labels", "latents"])
def test_parse_json_list_stops_at_its_first_invalid_value(field: str) -> None:
    with pytest.raises(ApiError) as error:
        request_parsing.parse_json(b'{"%b": ["","",""]}' % field.encode(), GenerateRequest)
    assert (error.value.param, "more)" in error.value.message) == (f"{field}.0", False)


def test_read_body_large_is_parsed_on_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def parse_json(body: bytes, schema: Any) -> Any:
        threads.append(threading.current_thread().name)

    class Request:
        def __init__(self, size: int):
            self.size, self.headers = size, Headers({"content-type": "application/json"})

        async def body(self) -> bytes:
            return b" " * self.size

    monkeypatch.setattr(request_parsing, "parse_json", parse_json)
    for size in (100, request_parsing.LARGE_BODY + 1):
        asyncio.run(request_parsing.read_body(Request(size), ImageSpec))  # type: ignore[arg-type]
    assert threads[0] == "MainThread"
    assert threads[1].startswith("parsing")


def test_choose_media_type_long_header_takes_bounded_time() -> None:
    accept = ",".join(f"a/b{i};q=0.1" for i in range(6000))
    began = time.process_time()
    assert negotiation.choose_media_type("image/png," + accept, negotiation.GENERATE_MEDIA_TYPES) == negotiation.PNG
    assert time.process_time() - began < 0.02
