"""Traces by OpenTelemetry, switched on by its own variables and by nothing else.

Spans carry names, numbers and times; never a question, a passage or an answer. Names of attributes are
those of the semantic conventions for HTTP and for generative AI (`gen_ai`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.errors import MissingDependencyError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_SWITCHES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
_NANOSECONDS = 1_000_000_000


class Tracing:
    """Makes spans, or does nothing where there is no provider."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("longleaf") if provider else None

    @classmethod
    def from_environment(cls) -> Tracing:
        """As the standard variables say. Raises MissingDependencyError when they ask for what is not
        installed."""
        exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none"
        if disabled or not any(os.environ.get(name) for name in _SWITCHES):
            return cls()
        return cls(_provider(exporter))

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """A span of one request. What is put into the dictionary by its end becomes its attributes;
        ``http.route`` also its name."""
        told: dict[str, Any] = {}
        if self._tracer is None:
            yield told
            return
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        attributes = {"http.request.method": method, "url.scheme": "http"}
        with self._tracer.start_as_current_span(
            method, parent, trace.SpanKind.SERVER, attributes, record_exception=False
        ) as span:
            try:
                yield told
            finally:
                if "http.route" in told:
                    span.update_name(f"{method} {told['http.route']}")
                span.set_attributes(told)
                if told.get("http.response.status_code", 0) >= 500:
                    span.set_status(trace.StatusCode.ERROR)

    def done(self, operation: str, model: str, seconds: float, attributes: Mapping[str, Any]) -> None:
        """A span of an operation of `gen_ai` that has just ended, below the current one."""
        if self._tracer is None:
            return
        from opentelemetry import trace

        now = time.time_ns()
        span = self._tracer.start_span(
            f"{operation} {model}",
            kind=trace.SpanKind.INTERNAL,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "longleaf",
                "gen_ai.request.model": model,
                **attributes,
            },
            start_time=now - int(seconds * _NANOSECONDS),
        )
        span.end(now)

    def close(self) -> None:
        """Send what has not been sent."""
        if self._provider is not None:
            self._provider.shutdown()


def _provider(exporter: str) -> TracerProvider:
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

        if exporter == "console":
            chosen: SpanExporter = ConsoleSpanExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            chosen = OTLPSpanExporter()
    except ImportError as error:
        raise MissingDependencyError(
            "The environment asks for OpenTelemetry traces, and its packages are not installed.",
            remedy="pip install 'longleaf[otel]', or unset the OTEL_* variables.",
        ) from error
    # The resource reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, which win over the name here.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "longleaf"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(chosen))
    return provider
