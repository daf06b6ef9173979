"""OpenTelemetry: one span for each call, from its arrival to the engine's last token. No prompt and no output is in it.

Off, and opentelemetry not imported, unless the settings ask for it. The service opens spans through `Tracing.call`; who
takes a call off the wire tells whose child its span is by `incoming`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from mlx_grpc.config import Config, ConfigError, asks_for_traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

Attribute = str | int | float
_PARENT_KEYS = ("traceparent", "tracestate")
_parent: ContextVar[Mapping[str, str]] = ContextVar("parent", default={})  # noqa: B039  (never changed)


class CallSpan(Protocol):
    """A call's span, for those who know what becomes of it."""

    def note(self, **attributes: Attribute) -> None:
        """Facts of the call: `finish_reason` becomes the attribute `mlx_grpc.finish_reason`, and so on."""

    def failed(self, reason: str) -> None:
        """The call was refused or ended with the error of this reason."""


class Tracing(Protocol):
    """Makes spans."""

    def call(self) -> AbstractContextManager[CallSpan]:
        """A span for as long as the context is open."""

    def close(self) -> None:
        """Send what is not sent yet. Blocks, for the exporter's own time limit at most."""


def incoming(metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """The headers of the call that the current task serves."""
    parent = {key: value for key, value in metadata if key in _PARENT_KEYS and isinstance(value, str)}
    if parent:
        _parent.set(parent)


class NoTracing:
    """What is there when nobody asked for traces: costs a call two empty methods."""

    @contextmanager
    def call(self) -> Iterator[CallSpan]:
        """Nothing."""
        yield self

    def note(self, **attributes: Attribute) -> None:
        """Nothing."""

    def failed(self, reason: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class OtelTracing:
    """Spans through a provider of our own: the process's global one is left alone."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("mlx_grpc")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def call(self) -> Iterator[CallSpan]:
        """The span ends with the context. It is never the current one: a call's parts run in several tasks."""
        from opentelemetry.trace import SpanKind

        parent = self._propagator.extract(dict(_parent.get()))
        span = self._tracer.start_span("mlx_grpc.generate", context=parent, kind=SpanKind.SERVER)
        try:
            yield _OtelSpan(span)
        finally:
            span.end()

    def close(self) -> None:
        """Flush and end the exporter's thread."""
        self._provider.shutdown()


class _OtelSpan:
    def __init__(self, span: object) -> None:
        from opentelemetry.trace import Span

        assert isinstance(span, Span)
        self._span = span

    def note(self, **attributes: Attribute) -> None:
        self._span.set_attributes({f"mlx_grpc.{name}": value for name, value in attributes.items()})

    def failed(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("error.type", reason)
        self._span.set_status(Status(StatusCode.ERROR, reason))


def open_tracing(config: Config, exporter: SpanExporter | None = None) -> Tracing:
    """What the settings ask for.

    Raises ConfigError where `--traces` asks for packages that are not here; where only the environment does, a warning
    says so.
    """
    if not (config.traces or exporter or asks_for_traces()):
        return NoTracing()
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        text = "traces need the packages of the extra `otel`: install `mlx-grpc[otel]` beside the server"
        if config.traces:
            raise ConfigError(f"--traces: {text}") from None
        log.warning("%s", text)
        return NoTracing()
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "mlx-grpc"}).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtelTracing(provider)
