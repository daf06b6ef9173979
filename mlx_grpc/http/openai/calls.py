"""Runs one OpenAI call against the service: whole, or as server-sent events written straight to the connection.

What goes wrong before the first byte becomes a status; after it, a last event of the stream. A client that goes away
ends the call, and leaving the generation's context frees its row.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from mlx_grpc.errors import MlxGrpcError, SlowReader
from mlx_grpc.http.limits import HOLDING
from mlx_grpc.http.openai.access import headers_of
from mlx_grpc.http.openai.answers import DONE, Answer
from mlx_grpc.http.openai.errors import ApiError, api_error, internal_error
from mlx_grpc.http.openai.requests import Call, Headers, ReadCall, openai_name
from mlx_grpc.http.openai.sizes import hold_parsed
from mlx_grpc.http.openai.structure import check_structure
from mlx_grpc.http.token_check import client_of
from mlx_grpc.http.turns import LARGE_BYTES, Turns, turns_of
from mlx_grpc.request import Completed, Delta, Event, Finished, Prefill, Queued, Started
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.intake.resolved import ResolvedRequest
from mlx_grpc.service.service import Service

log = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 10.0
"""Between two comments while there is nothing to send: proxies and clients give up on a silent stream."""
KEEPALIVE = b": keepalive\n\n"

MakeAnswer = Callable[[str, str, bool, bool], Answer]
"""From the generation's id, the model, whether there are logprobs, and whether to stream the usage."""


class Completions:
    """An endpoint: reads calls with one function, and words answers with another. A raw ASGI app, since a framework's
    layers would be paid for each token."""

    def __init__(
        self, service: Service, read_call: ReadCall, make_answer: MakeAnswer, slow_reader_seconds: float
    ) -> None:
        self._service = service
        self._read_call = read_call
        self._make_answer = make_answer
        self._slow_reader_seconds = slow_reader_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Raises ApiError before the first byte."""
        headers = headers_of(scope)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # Besides telling people, this keeps pages of other sites out, which may send all other types unasked.
            raise ApiError(415, "send a JSON body with the header Content-Type: application/json", code="no_json")
        call = await self._read(await _read_body(receive), headers, turns_of(scope))
        hold_parsed(scope.get(HOLDING), call.request)
        await _unless_gone(receive, self._serve(call, client_of(scope), send))

    async def _read(self, raw: bytearray, headers: Headers, turns: Turns) -> Call:
        """In pieces of work none of which holds the event loop for long."""
        await turns.run_each(check_structure(raw))
        run = turns.run_alone if len(raw) > LARGE_BYTES else turns.run
        return await run(self._read_call, raw, headers)

    async def _serve(self, call: Call, client: str, send: Send) -> None:
        writer = _Writer(send, self._slow_reader_seconds)
        try:
            await self._generate(call, client, writer)
        except MlxGrpcError as error:
            await writer.fail(api_error(error, openai_name(call, error)))
        except Exception as error:
            await writer.fail(internal_error("an OpenAI call", error))

    async def _generate(self, call: Call, client: str, writer: _Writer) -> None:
        timeout = call.timeout_seconds
        deadline_seconds = None if timeout is None else asyncio.get_running_loop().time() + timeout
        async with self._service.generation(call.request, deadline_seconds, client) as generation:
            resolved = generation.request
            log.info(
                "%s accepted over HTTP: model %s, %d prompt tokens",
                resolved.generation_id,
                resolved.model,
                len(resolved.prompt),
            )
            logprobs = resolved.output.logprobs
            answer = self._make_answer(resolved.generation_id, resolved.model, logprobs, call.include_usage)
            writer.headers = _headers_for(resolved)
            if call.stream:
                await _stream(generation, answer, writer, call.include_usage)
            else:
                await writer.whole(await _collect(generation, answer))


async def _collect(generation: Generation, answer: Answer) -> bytes:
    deltas: list[Delta] = []
    while events := await generation.next_events():
        deltas += [event for event in events if isinstance(event, Delta)]
    assert generation.finished is not None
    assert generation.completed is not None
    return answer.whole(deltas, generation.finished, generation.completed)


async def _stream(generation: Generation, answer: Answer, writer: _Writer, include_usage: bool) -> None:
    """Everything that has happened goes out as one write; what comes while it waits for the reader is merged."""
    while True:
        try:
            async with asyncio.timeout(KEEPALIVE_SECONDS):
                events = await generation.next_events()
        except TimeoutError:
            await writer.write(KEEPALIVE)
            continue
        if not events:
            break
        if chunk := b"".join([_chunk(event, answer, include_usage) for event in events]):
            await writer.write(chunk)
    await writer.write(DONE, more=False)


def _chunk(event: Event, answer: Answer, include_usage: bool) -> bytes:
    match event:
        case Delta():
            return answer.delta(event)
        case Started():
            return answer.start()
        case Prefill():
            return KEEPALIVE
        case Finished():
            return answer.finished(event)
        case Completed():
            return answer.usage(event) if include_usage else b""
        case Queued():
            # No byte goes out for it: while the call waits, an error still has a status that SDKs understand.
            return b""


class _Writer:
    """The answer's way out: the status line goes with the first bytes."""

    def __init__(self, send: Send, slow_reader_seconds: float) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self._send = send
        self._slow_reader_seconds = slow_reader_seconds
        self._started = False
        self._stuck = False

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """A part of an event stream. Raises SlowReader."""
        if not self._started:
            await self._start([*_STREAM_HEADERS, *self.headers])
        await self._body(data, more)

    async def whole(self, data: bytes) -> None:
        """All of an answer. Raises SlowReader."""
        await self._start([*_JSON_HEADERS, (b"content-length", b"%d" % len(data)), *self.headers])
        await self._body(data, more=False)

    async def fail(self, error: ApiError) -> None:
        """The end of a stream that fails. Raises the error when nothing was sent, so that it becomes a status."""
        if not self._started:
            error.headers.update((name.decode(), value.decode()) for name, value in self.headers)
            raise error
        if not self._stuck:
            await self.write(b"data: " + error.body() + b"\n\n", more=False)

    async def _start(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _body(self, data: bytes, more: bool) -> None:
        try:
            async with asyncio.timeout(self._slow_reader_seconds):
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            self._stuck = True
            raise SlowReader(f"the client read nothing for {self._slow_reader_seconds:g} s") from None


_JSON_HEADERS = [(b"content-type", b"application/json")]
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]


def _headers_for(resolved: ResolvedRequest) -> list[tuple[bytes, bytes]]:
    request_id = resolved.request_id or resolved.generation_id
    return [
        (b"x-request-id", request_id.encode()),
        (b"x-generation-id", resolved.generation_id.encode()),
        (b"x-seed", b"%d" % resolved.sampling.seed),
    ]


async def _read_body(receive: Receive) -> bytearray:
    """The whole body; the server around this app bounds its size and its time. One growing block of memory goes back
    to the system as a whole, where thousands of parts would leave holes."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "the connection was closed within the body", code="no_body")
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _unless_gone(receive: Receive, work: Any) -> None:
    """Do the work, or give it up when the client closes its connection. Raises what the work raises."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
