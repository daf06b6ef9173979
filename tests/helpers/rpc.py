"""Real stubs over a real server, an engine that the test steps, and statuses in a form that tests can compare."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlx_grpc import testing
from mlx_grpc.engine.link.interface import OnLost, OnMessage
from mlx_grpc.engine.link.thread import ThreadLink
from mlx_grpc.engine.messages import Cancel, Row, Submit, ToWorker
from mlx_grpc.engine.scripted.engine import open_scripted
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.v1 import (
    generation_pb2,
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_service_pb2_grpc,
    server_service_pb2_grpc,
    tokenizer_service_pb2_grpc,
)

PATIENCE_SECONDS = 30.0
"""How long a test waits for what must come; reaching it is a failure."""

Request = generation_pb2.GenerateRequest
Sampling = generation_pb2.Sampling
Stop = generation_pb2.Stop
Output = generation_pb2.Output
StreamEvent = inference_service_pb2.StreamGenerateResponse
Parameters = ParamSpec("Parameters")


def in_loop(test: Callable[Parameters, Awaitable[None]]) -> Callable[Parameters, None]:
    """Run a coroutine as a test, in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


class Api:
    """A channel and all the stubs on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.inference: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        self.tokenizer: Any = tokenizer_service_pb2_grpc.TokenizerServiceStub(channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        self.info: Any = server_service_pb2_grpc.ServerServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)

    def stream(self, request: Request | str, **call: Any) -> Any:
        """A live StreamGenerate call; a string is a prompt."""
        return self.inference.StreamGenerate(asked(request), **call)

    async def answer(self, request: Request | str, **call: Any) -> inference_service_pb2.GenerateResponse:
        """What Generate answers."""
        response: inference_service_pb2.GenerateResponse = await self.inference.Generate(asked(request), **call)
        return response

    async def text(self, request: Request | str, **call: Any) -> str:
        """The text of Generate's answer."""
        return (await self.answer(request, **call)).candidates[0].text


def asked(request: Request | str) -> Request:
    return Request(prompt=request) if isinstance(request, str) else request


@asynccontextmanager
async def connected(target: str) -> AsyncIterator[Api]:
    """Stubs on a channel of their own: no other test's connection is reused."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield Api(channel)


@asynccontextmanager
async def serving(script: Script | None = None, **settings: Any) -> AsyncIterator[tuple[testing.LocalServer, Api]]:
    """A server in this loop, and stubs for it."""
    async with testing.serve(script, **settings) as server, connected(server.target) as api:
        yield server, api


class Gate:
    """An engine in a thread that makes a step only when the test says so; remembers what it was told."""

    def __init__(self) -> None:
        self._allowed = threading.Semaphore(0)
        self._open = threading.Event()
        self.submitted: list[Row] = []
        self.cancel_sent = asyncio.Event()
        """The server has told the engine to let a row go."""
        self.submit_sent = asyncio.Event()

    def step(self, count: int = 1) -> None:
        """Allow so many more steps."""
        self._allowed.release(count)

    def open(self) -> None:
        """Allow all steps from now on."""
        self._open.set()
        self._allowed.release()

    def __call__(self) -> None:
        if not self._open.is_set():
            self._allowed.acquire()

    def start_link(self, on_message: OnMessage, on_lost: OnLost) -> ThreadLink:
        """For `testing.serve`."""
        return _WatchedLink(self, on_message, on_lost)


class _WatchedLink(ThreadLink):
    def __init__(self, gate: Gate, on_message: OnMessage, on_lost: OnLost) -> None:
        super().__init__(on_message, on_lost, lambda load: open_scripted(load, gate))
        self._gate = gate

    def send(self, message: ToWorker) -> None:
        if isinstance(message, Submit):
            self._gate.submitted += message.rows
            self._gate.submit_sent.set()
        elif isinstance(message, Cancel):
            self._gate.cancel_sent.set()
        super().send(message)


@asynccontextmanager
async def stepped(
    script: Script | None = None, **settings: Any
) -> AsyncIterator[tuple[testing.LocalServer, Api, Gate]]:
    """A server whose engine the test steps; at the end all steps are allowed."""
    gate = Gate()
    async with testing.serve(script, start_link=gate.start_link, **settings) as server:
        try:
            async with connected(server.target) as api:
                yield server, api, gate
        finally:
            gate.open()


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A status with its details, in plain data."""

    code: str
    reason: str = ""
    field: str = ""
    message: str = ""
    retry_seconds: float | None = None
    resource: str = ""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    trailing: dict[str, str | bytes] = dataclasses.field(default_factory=dict)


async def until(api: Api, condition: Callable[[], bool], at_least: int = 0) -> None:
    """Ask for the server's health until the condition holds, so often at least: each answer is a turn of its loop."""
    while at_least > 0 or not condition():
        at_least -= 1
        await api.health.Check(health_pb2.HealthCheckRequest())


async def refused(call: Awaitable[Any]) -> Refusal:
    """The status that a call must end with; fails when it ends well."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError("the call was not refused")


async def read_all(call: Any) -> list[StreamEvent]:
    """All events of a stream. Raises what it ends with."""
    events: list[StreamEvent] = []
    while (event := await call.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


async def read_until(call: Any, kind: str) -> list[StreamEvent]:
    """The events up to the first of that kind, it included."""
    events: list[StreamEvent] = []
    while not events or events[-1].WhichOneof("event") != kind:
        event = await call.read()
        assert event is not grpc.aio.EOF, f"the stream ended before {kind}"
        events.append(event)
    return events


def kinds(events: Sequence[StreamEvent]) -> list[str]:
    """What the events are, rows of deltas as one."""
    names = [str(event.WhichOneof("event")) for event in events]
    return [
        name for position, name in enumerate(names) if name != "delta" or names[position - 1 : position] != ["delta"]
    ]


def text_of(events: Sequence[StreamEvent]) -> str:
    return "".join(event.delta.text for event in events)


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Unpack google.rpc.Status out of the trailing metadata."""
    trailing: dict[str, str | bytes] = dict(error.trailing_metadata())
    status = status_pb2.Status()
    packed = trailing.pop("grpc-status-details-bin", b"")
    assert isinstance(packed, bytes)
    status.ParseFromString(packed)
    found = {kind.DESCRIPTOR.name: _unpacked(status.details, kind) for kind in _DETAILS}
    info, retry, bad, resource = (found[kind.DESCRIPTOR.name] for kind in _DETAILS)
    return Refusal(
        code=error.code().name,
        reason=info.reason if info else "",
        field=bad.field_violations[0].field if bad else "",
        message=error.details() or "",
        retry_seconds=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
        resource=resource.resource_name if resource else "",
        metadata=dict(info.metadata) if info else {},
        trailing=trailing,
    )


_DETAILS: tuple[type[Message], ...] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.ResourceInfo,
)


def _unpacked(details: Sequence[PackedAny], kind: type[Message]) -> Any:
    for detail in details:
        message = kind()
        if detail.Unpack(message):
            return message
    return None
