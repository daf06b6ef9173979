"""Spans: one for each call, with what became of it and nothing of what was said."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the packages of the extra `otel`")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mlx_grpc import server as server_module
from mlx_grpc.config import Config
from mlx_grpc.observe.traces import NoTracing, Tracing, open_tracing
from tests.helpers.rpc import Api, Request, Sampling, Stop, in_loop, refused, serving

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Keeps the spans of the servers that the test starts."""
    kept = InMemorySpanExporter()

    def traced(config: Config) -> Tracing:
        return open_tracing(config, kept)

    monkeypatch.setattr(server_module, "open_tracing", traced)
    return kept


async def ask(api: Api) -> None:
    await api.answer(Request(prompt="secret words", stop=Stop(max_tokens=3)), metadata=(("traceparent", PARENT),))


def test_a_call_has_one_span_in_its_callers_trace(exporter: InMemorySpanExporter) -> None:
    """With model, tokens and finish reason; its parent is what `traceparent` names; no text is in it."""

    @in_loop
    async def run() -> None:
        async with serving() as (_, api):
            await ask(api)

    run()
    (span,) = exporter.get_finished_spans()
    found = dict(span.attributes or {})
    assert (found["mlx_grpc.model"], found["mlx_grpc.completion_tokens"]) == ("scripted", 3)
    assert found["mlx_grpc.finish_reason"] == "length"
    assert trace_of(span) == (TRACE_ID, "b7ad6b7169203331")
    assert "secret" not in span.to_json()


def test_a_refused_call_is_an_error_span(exporter: InMemorySpanExporter) -> None:
    """Its status says the reason."""

    @in_loop
    async def run() -> None:
        async with serving() as (_, api):
            await refused(api.answer(Request(prompt="x", sampling=Sampling(temperature=-1))))

    run()
    (span,) = exporter.get_finished_spans()
    assert (span.status.is_ok, span.status.description) == (False, "INVALID_FIELD")


def test_without_being_asked_there_is_none() -> None:
    """And opentelemetry is not imported by the whole server."""
    assert isinstance(open_tracing(Config()), NoTracing)
    check = "import sys, mlx_grpc.server; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def trace_of(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    assert span.parent is not None
    return f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}"
