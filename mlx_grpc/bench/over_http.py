"""The driver for OpenAI-compatible HTTP servers: completions and chats, streamed as server-sent events."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from mlx_grpc.bench.http_stream import Answer, BadAnswer, Server, post
from mlx_grpc.bench.record import Ask, Record

DATA = b"data:"
LAST = b"[DONE]"

# The first kind that an error is an instance of names it.
_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectionError, "connection reset"),
    (asyncio.IncompleteReadError, "ended early"),
    (socket.gaierror, "unknown host"),
    (ssl.SSLError, "TLS"),
    (OSError, "connection failed"),
)


class HttpDriver:
    """Posts to /v1/completions, and to /v1/chat/completions where there are messages; each over a new connection.

    What OpenAI's API does not have is not sent, so an answer may end before its `max_tokens`. Raises ValueError for a
    URL that is none.
    """

    def __init__(
        self, url: str, *, model: str | None = None, token: str | None = None, timeout_seconds: float | None = None
    ) -> None:
        self._server = Server.parse(url)
        self._model = model
        self._timeout_seconds = timeout_seconds
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    async def ask(self, ask: Ask, record: Record) -> None:
        """As `Driver.ask`."""
        path = "/v1/chat/completions" if ask.messages else "/v1/completions"
        body = json.dumps(self._body(ask)).encode()
        try:
            async with asyncio.timeout(self._timeout_seconds), post(self._server, path, self._headers, body) as answer:
                record.failure = await _read(answer, record)
        except (OSError, asyncio.IncompleteReadError) as error:
            record.failure = next(name for kind, name in _FAILURES if isinstance(error, kind))
        except (BadAnswer, ValueError, LookupError, TypeError, AttributeError):
            record.failure = "bad answer"
        finally:
            record.ended_seconds = time.perf_counter()

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(ask.messages) or None,
            "prompt": None if ask.messages else ask.prompt,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "seed": ask.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return {name: value for name, value in body.items() if value is not None}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing stays open between requests."""


async def _read(answer: Answer, record: Record) -> str:
    """The answer into the record; returns what went wrong."""
    if answer.status != 200:
        return f"HTTP {answer.status}"
    ended = False
    async with aclosing(answer.lines()) as lines:
        async for line in lines:
            if not line.startswith(DATA):
                continue  # a comment that keeps the connection alive, an empty line
            data = line[len(DATA) :].strip()
            if data == LAST:
                return ""
            event = json.loads(data)
            if "error" in event:
                return "error in the stream"
            ended |= _note(event, record)
    return "" if ended else "ended early"


def _note(event: dict[str, Any], record: Record) -> bool:
    """An event into the record; returns whether it is the last with output."""
    usage = event.get("usage")
    if usage:
        record.prompt_tokens = usage["prompt_tokens"]
        record.completion_tokens = usage["completion_tokens"]
        record.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    ended = False
    for choice in event.get("choices", ()):
        delta = choice.get("delta") or {}
        text = choice.get("text") or delta.get("content") or delta.get("reasoning") or ""
        if text:
            record.deliver(text)
        ended |= choice.get("finish_reason") is not None
    return ended
