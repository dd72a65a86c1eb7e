"""OpenTelemetry traces, when the standard OTEL_* variables ask for them: a request, and in it what it waited for.

BentoML has tracing of its own, set up by its own configuration file; its spans know neither the queue nor the
inference, so it stays off (it samples nothing unless told to) and these spans stand beside it.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from starlette.types import Scope

log = logging.getLogger("bentoml.atelier")

current: ContextVar["Trace | None"] = ContextVar("current_trace", default=None)
_tracer: Any = None
_provider: Any = None
_PROBES = frozenset({"/livez", "/readyz", "/metrics", "/v1/status"})


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an OTLP endpoint is named, and neither the SDK nor its traces are switched off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    named = "OTEL_EXPORTER_OTLP_ENDPOINT" in environ or "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in environ
    return exporter == "otlp" or (named and exporter != "none")


def install(version: str, exporter: Any = None) -> None:
    """Begin to trace, if that is wanted or an `exporter` is given. OTEL_* variables choose all the rest:
    endpoint, headers, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, batch sizes."""
    global _tracer, _provider
    if exporter is None and not wanted():
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            processor: Any = BatchSpanProcessor(OTLPSpanExporter())
        else:
            processor = SimpleSpanProcessor(exporter)
    except ImportError as error:
        log.error("OTEL_* variables ask for traces, which need: pip install 'gan-atelier[otel]' (%s)", error)
        return
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over these
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "gan-atelier"}
    _provider = TracerProvider(resource=Resource.create({**named, "service.version": version}))
    _provider.add_span_processor(processor)
    _tracer = _provider.get_tracer("gan-atelier", version)


def shutdown() -> None:
    """Send what is kept, and trace no more."""
    global _tracer, _provider
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


class Trace:
    """One request's span. Times are of `time.perf_counter`, as the batcher's and the metrics' are."""

    def __init__(self, span: Any, context: Any):
        self._span, self._context = span, context
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()
        self.trace_id = format(span.get_span_context().trace_id, "032x")

    def add(self, name: str, began: float, ended: float, **attributes: Any) -> None:
        """A part of the request from `began` to `ended`; from any thread."""
        span = _tracer and _tracer.start_span(
            name, self._context, attributes=attributes, start_time=self._epoch_ns + int(began * 1e9)
        )
        if span:
            span.end(self._epoch_ns + int(ended * 1e9))

    def end(self, method: str, route: str, status: int, request: str, model: str | None, rows: int | None) -> None:
        from opentelemetry.trace import Status, StatusCode

        span = self._span
        span.update_name(f"{method} {route}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("atelier.request_id", request)
        if rows is not None:
            span.set_attribute("atelier.model", model)
            span.set_attribute("atelier.rows", rows)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()


def start(scope: Scope, headers: dict[bytes, bytes]) -> Trace | None:
    """A request's trace, the child of its W3C `traceparent`; None when nothing is traced, or not this one."""
    if _tracer is None or scope["path"] in _PROBES:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    told = {k: headers[k.encode()].decode("latin-1") for k in ("traceparent", "tracestate") if k.encode() in headers}
    parent = TraceContextTextMapPropagator().extract(told, Context())
    span = _tracer.start_span(scope["method"][:20], parent, kind=SpanKind.SERVER)
    if not span.is_recording():
        return None
    trace = Trace(span, set_span_in_context(span, parent))
    current.set(trace)
    return trace


@contextmanager
def part(name: str, **attributes: Any) -> Iterator[None]:
    """Trace what is done in a `with`, if the request is traced."""
    trace = current.get()
    began = time.perf_counter()
    try:
        yield
    finally:
        if trace is not None:
            trace.add(name, began, time.perf_counter(), **attributes)
