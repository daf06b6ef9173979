"""What a conformance runner does to a server: start it, look at it, break it. For tests alone.

One server runs at a time; it ends when the next one starts. `testing.commands` is the way in, over HTTP.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import msgspec

from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.errors import CancelledByAdmin
from mlx_grpc.testing import Engine, LocalServer, security, serve
from mlx_grpc.testing.observed import Observer

WAIT_SECONDS = 20.0
LOOK_EVERY_SECONDS = 0.005
"""A waiting runner is told this late at most; the server has no event for every number of the state."""


class Spec(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /server`."""

    script: Script = Script()
    settings: dict[str, Any] = {}
    engine: Engine = "thread"
    tls: bool = False
    mutual_tls: bool = False
    tokens: dict[str, list[str]] = {}


class Refused(Exception):
    """A command that cannot be carried out; one line for a person."""


class Control:
    """Owns the server that runs now, and ends it. `port` is of the first server; later ones take free ports."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._server: LocalServer | None = None
        self._observer = Observer()
        self._draining: asyncio.Task[bool] | None = None
        self._lock = asyncio.Lock()

    async def start(self, spec: Spec) -> dict[str, str]:
        """End the server before, start this one; its address, and PEM texts where it speaks TLS."""
        async with self._lock:
            await self.close()
            self._observer = Observer(in_process=spec.engine == "process")
            settings, texts = self._secured(spec)
            self._server = await self._stack.enter_async_context(
                serve(spec.script, start_link=self._observer.start_link, **settings)
            )
            return {"grpc": self._server.target, **texts}

    def _secured(self, spec: Spec) -> tuple[dict[str, Any], dict[str, str]]:
        """The settings with those for TLS and tokens; and what a client needs for them."""
        settings = dict(spec.settings)
        texts: dict[str, str] = {}
        files = self._stack.enter_context(ExitStack())
        if spec.tokens:
            settings |= security.token_file(spec.tokens, files)
        if spec.tls:
            if not security.can_make_certificates():
                raise Refused("there is nothing here to make certificates with: pip install trustme")
            tls, texts = security.certificates(spec.mutual_tls, files)
            settings |= tls
        return settings, texts

    async def close(self) -> None:
        """End the server, if one runs."""
        if self._draining:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)
        self._draining = self._server = None
        await self._stack.aclose()

    @property
    def server(self) -> LocalServer:
        """The one that runs. Raises Refused."""
        if self._server is None:
            raise Refused("no server runs; POST /server starts one")
        return self._server

    def state(self) -> dict[str, int]:
        """Whole numbers, counted since the server started."""
        server = self.server
        stats, dispatcher = server.server.stats, server.catalog.get("").dispatcher
        return {
            "active_rows": server.active_rows,
            "waiting": dispatcher.scheduler.ledger.waiting,
            "accepted": stats.accepted.total(),
            "refused": stats.refused.total(),
            "completed": stats.completed.total(),
            "abandoned": stats.abandoned.total(),
            "failed": stats.failed.total(),
            "generated_tokens": stats.generated_tokens.total(),
            "crashes": self._observer.crashes,
            "late_steps": self._observer.late_steps,
        }

    async def wait(self, name: str, at_least: int | None, at_most: int | None) -> dict[str, int] | None:
        """The state, as soon as that number is in these bounds; None when it took too long."""
        if name not in self.state():
            raise Refused(f"the state has no {name!r}; it has {', '.join(self.state())}")
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    number = self.state()[name]
                    if (at_least is None or number >= at_least) and (at_most is None or number <= at_most):
                        return self.state()
                    await asyncio.sleep(LOOK_EVERY_SECONDS)
        except TimeoutError:
            return None

    def kill_engine(self) -> None:
        """SIGKILL, as the kernel does it when memory runs out."""
        pid = self.server.engine_pid
        if pid is None:
            raise Refused('there is no engine process; start the server with "engine": "process"')
        os.kill(pid, signal.SIGKILL)

    def drain(self, grace_seconds: float) -> None:
        """Refuse new calls from now on; the accepted ones have this long."""
        server = self.server.server
        server.health.drain()
        self._draining = asyncio.create_task(server.service.drain(grace_seconds))

    def cancel(self, request_id: str) -> None:
        """End a call as an operator would."""
        dispatcher = self.server.catalog.get("").dispatcher
        found = [generation for generation in dispatcher.calls if generation.request.request_id == request_id]
        if not found:
            raise Refused(f"no call of request id {request_id!r} runs")
        for generation in found:
            dispatcher.calls.fail(generation, CancelledByAdmin("an operator cancelled the request"))


def features() -> list[str]:
    """What vectors may need and this build has."""
    return ["resume", "tokens", *(["tls"] if security.can_make_certificates() else [])]
