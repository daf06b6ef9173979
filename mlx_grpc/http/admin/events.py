"""The live page's server-sent events: each frame is encoded once, and all watchers get the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from mlx_grpc.errors import IntakeFull
from mlx_grpc.http.errors import plain_error
from mlx_grpc.observe.snapshot import Snapshot
from mlx_grpc.service.monitor import Frame, Monitor

MAX_WATCHERS = 1000
MAX_WRITE_SECONDS = 30.0
"""A watcher that reads nothing for so long is let go; until then it only misses frames."""
MAX_RUNNING_SHOWN = 50
RETRY_MILLISECONDS = 1000
WATCHERS_A_TURN = 10
TURN_SECONDS = 0.01
"""Watchers are written to in turns: 500 at once would hold the event loop, and all tokens with it, for 25 ms."""


class EventStream:
    """An ASGI app. Plain ASGI, since a streaming response costs each watcher two tasks more."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._watchers = 0
        self._frame: tuple[int, bytes] = (0, b"")
        self._past: tuple[int, bytes] = (0, b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if self._watchers >= MAX_WATCHERS:
            refusal = plain_error(
                503, "UNAVAILABLE", "TOO_MANY_WATCHERS", f"more than {MAX_WATCHERS} pages watch already"
            )
            await refusal(scope, receive, send)
            return
        turn_seconds = self._watchers // WATCHERS_A_TURN * TURN_SECONDS
        self._watchers += 1
        watching = asyncio.current_task()
        assert watching is not None
        leaving = asyncio.create_task(_cancel_when_gone(receive, watching))
        try:
            await self._stream(send, turn_seconds)
        except asyncio.CancelledError:
            if not leaving.done():  # it is not the browser that went: the server cuts off
                raise
            watching.uncancel()
        finally:
            self._watchers -= 1
            leaving.cancel()

    async def _stream(self, send: Send, turn_seconds: float) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _write(send, self._history())
        number = self._monitor.history[-1].number if self._monitor.history else 0
        with contextlib.suppress(TimeoutError):
            while (frame := await self._monitor.after(number)) is not None:
                if turn_seconds:
                    await asyncio.sleep(turn_seconds)
                number = frame.number
                await _write(send, self._encoded(frame))
        # Without an end: the browser then takes it for a broken connection, and tries again until there is a server.
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _encoded(self, frame: Frame) -> bytes:
        if frame.number != self._frame[0]:
            self._frame = frame.number, _event("snapshot", frame.number, shown(frame.snapshot))
        return self._frame[1]

    def _history(self) -> bytes:
        """What a page that opens needs: the curves so far, and the last frame."""
        history = self._monitor.history
        number = history[-1].number if history else 0
        if number != self._past[0]:
            points = [curve_point(frame.snapshot) for frame in history]
            data = {"points": points, "snapshot": shown(history[-1].snapshot)}
            self._past = number, b"retry: %d\n" % RETRY_MILLISECONDS + _event("history", number, data)
        return self._past[1]


def curve_point(snapshot: Snapshot) -> dict[str, float | None]:
    """One second of the page's curves."""
    return {
        "time": round(snapshot.unix_seconds, 2),
        "queue": snapshot.queue_depth,
        "rows": snapshot.active_rows,
        "tokens": round(snapshot.tokens_per_second, 2),
        "first": snapshot.first_token_seconds.p50,
        "memory": snapshot.kv_reserved_bytes,
    }


def shown(snapshot: Snapshot) -> dict[str, object]:
    """The snapshot with no more running requests than a page can show."""
    facts = snapshot.as_json()
    return {**facts, "running": facts["running"][:MAX_RUNNING_SHOWN], "recent_errors": facts["recent_errors"][:20]}


def _event(name: str, number: int, data: object) -> bytes:
    text = json.dumps(data, separators=(",", ":"))
    return f"event: {name}\nid: {number}\ndata: {text}\n\n".encode()


async def _write(send: Send, body: bytes) -> None:
    async with asyncio.timeout(MAX_WRITE_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _cancel_when_gone(receive: Receive, watching: asyncio.Task[object]) -> None:
    with contextlib.suppress(HTTPException, IntakeFull):  # a body that is over a bound: its sender is let go
        while (await receive())["type"] != "http.disconnect":
            pass
    watching.cancel()
