"""OpenTelemetry traces, if the standard OTEL_* variables request them: a span per request, with its parts as children.

BentoML has its own tracing, set up by its own configuration file. Its spans know neither the queue nor the inference,
so it stays off (it samples nothing by default), and these spans are independent of it.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry import context, trace
from opentelemetry.context import Context
from starlette.types import ASGIApp

log = logging.getLogger("bentoml.atelier")

PROBES = "^[^/]*//[^/]*/(livez|readyz|metrics|v1/status)$"  # requested every few seconds, and not traced
_provider: Any = None


def is_requested(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether an OTLP endpoint is named, and neither the SDK nor its traces are switched off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    named = "OTEL_EXPORTER_OTLP_ENDPOINT" in environ or "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in environ
    return exporter == "otlp" or (named and exporter != "none")


def configure(version: str, exporter: Any = None) -> None:
    """Start tracing if it is requested or an `exporter` is given, once per process.

    OTEL_* variables decide the rest: endpoint, headers, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME,
    OTEL_RESOURCE_ATTRIBUTES, batch sizes.
    """
    global _provider
    if _provider is not None or (exporter is None and not is_requested()):
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
        log.error("OTEL_* variables request traces, which need: pip install '.[otel]' in the checkout (%s)", error)
        return
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence over these.
    name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "gan-atelier"}
    _provider = TracerProvider(resource=Resource.create({**name, "service.version": version}))
    _provider.add_span_processor(processor)
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # http.request.method instead of http.method


def shutdown() -> None:
    """Send the spans that are kept, and stop tracing."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
    _provider = None


def instrument(app: ASGIApp) -> ASGIApp:
    """Return an app whose requests are spans, children of their W3C `traceparent`; the app itself if tracing is off."""
    if _provider is None:
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return OpenTelemetryMiddleware(
        app, excluded_urls=PROBES, tracer_provider=_provider, exclude_spans=["receive", "send"]
    )


class Parent(NamedTuple):
    """The span of a request, to which parts are added, and the time at which `time.perf_counter` is 0."""

    context: Context
    epoch_ns: int


def current_span() -> Parent | None:
    """Return the request's span, for `add_span`; None if the request is not traced."""
    if _provider is None or not trace.get_current_span().is_recording():
        return None
    return Parent(context.get_current(), time.time_ns() - time.perf_counter_ns())


def describe_request(name: str, attributes: Mapping[str, Any]) -> str:
    """Name the span of a traced request, set its attributes other than None, and return the id of its trace."""
    span = trace.get_current_span()
    span.update_name(name)
    span.set_attributes({key: value for key, value in attributes.items() if value is not None})
    return format(span.get_span_context().trace_id, "032x")


def add_span(name: str, parent: Parent, began: float, ended: float, **attributes: Any) -> None:
    """Add a part of a request, from any thread; times are of `time.perf_counter`."""
    if _provider is not None:
        tracer = _provider.get_tracer("gan-atelier")
        start_ns, end_ns = parent.epoch_ns + int(began * 1e9), parent.epoch_ns + int(ended * 1e9)
        tracer.start_span(name, parent.context, attributes=attributes, start_time=start_ns).end(end_ns)


@contextmanager
def span(name: str) -> Iterator[None]:
    """Trace the body of a `with` as a part of the request, if it is traced."""
    parent, began = current_span(), time.perf_counter()
    try:
        yield
    finally:
        if parent is not None:
            add_span(name, parent, began, time.perf_counter())
