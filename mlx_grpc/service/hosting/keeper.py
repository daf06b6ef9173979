"""Keeps one engine: starts it, passes on what it says, ends it. Starting another after a loss is the host's
decision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mlx_grpc.engine.link.interface import Link, StartLink
from mlx_grpc.engine.messages import FromWorker, Load, Loaded, LoadFailed, Step, StepBegan, ToWorker

log = logging.getLogger(__name__)

MIN_RESTART_SECONDS = 60.0
RESTART_FACTOR = 5.0
"""A start that takes this many times as long as the first one did is stuck."""


class EngineFailed(Exception):
    """An engine could not be started; one line says why. `permanent`: the model itself is at fault."""

    def __init__(self, reason: str, permanent: bool) -> None:
        super().__init__(reason)
        self.permanent = permanent


class EngineKeeper:
    """One engine at a time. `on_step` hears what it delivers, and that a long step has begun; `on_lost` once why it
    ended by itself."""

    def __init__(
        self, start_link: StartLink, on_step: Callable[[Step | StepBegan], None], on_lost: Callable[[str], None]
    ) -> None:
        self._start_link = start_link
        self._on_step = on_step
        self._on_lost = on_lost
        self._link: Link | None = None
        self._loaded: asyncio.Future[Loaded] | None = None
        self._first_start_seconds: float | None = None
        self._killed_for = ""
        self._broken_off = False
        """Nothing more is taken in from this engine."""

    @property
    def pid(self) -> int | None:
        """The engine's process, while there is one."""
        return self._link.pid if self._link else None

    async def start(self, load: Load) -> Loaded:
        """Start an engine and let it load. Raises EngineFailed; then no engine is left.

        The first start may take as long as it takes; a later one has a bound, taken from the first.
        """
        loop = asyncio.get_running_loop()
        began_seconds = loop.time()
        self._killed_for, self._broken_off = "", False
        self._loaded = loop.create_future()
        self._link = self._start_link(self._on_message, self._on_link_lost)
        bound = None
        if self._first_start_seconds is not None:
            bound = max(MIN_RESTART_SECONDS, RESTART_FACTOR * self._first_start_seconds)
        try:
            await self._link.start()
            self._link.send(load)
            async with asyncio.timeout(bound):
                loaded = await self._loaded
        except TimeoutError:
            await self.close(now=True)
            raise EngineFailed(f"it did not load the model within {bound:.0f} s", permanent=False) from None
        except OSError as error:
            await self.close()
            raise EngineFailed(f"no process could be started: {error}", permanent=False) from None
        except BaseException:
            await self.close()
            raise
        self._first_start_seconds = self._first_start_seconds or loop.time() - began_seconds
        return loaded

    def send(self, message: ToWorker) -> None:
        """To the engine; into nothing when it is lost, since `on_lost` tells of that."""
        if self._link:
            self._link.send(message)

    def kill(self, why: str) -> None:
        """End an engine that cannot be trusted any more; `on_lost` hears `why`, when the process has been reaped."""
        if self._link and not self._killed_for:
            self._killed_for = why
            self._link.kill()

    async def close(self, now: bool = False) -> None:
        """End the engine; returns when it has gone. One that is still loading has nothing to finish."""
        link, self._link = self._link, None
        loading = self._loaded is not None and not self._loaded.done()
        if link:
            if now or loading:
                link.kill()
            await link.close()

    def _on_message(self, message: FromWorker) -> None:
        waiting = self._loaded if self._loaded and not self._loaded.done() else None
        match message:
            case Step() | StepBegan():
                self._take(message)
            case Loaded() if waiting:
                waiting.set_result(message)
            case LoadFailed() if waiting:
                waiting.set_exception(EngineFailed(message.reason, permanent=True))

    def _take(self, step: Step | StepBegan) -> None:
        if self._broken_off:
            return
        try:
            self._on_step(step)
        except Exception as error:
            # Some calls may have heard of the step and some not. A new engine, which is told what each call has had,
            # brings them together again.
            log.exception("a bug of this server: it could not take in a step of its engine")
            self._broken_off = True
            self.kill(f"a bug of this server, which could not take in its step: {type(error).__name__}: {error}")

    def _on_link_lost(self, why: str) -> None:
        self._link = None
        why = self._killed_for or why
        if self._loaded and not self._loaded.done():
            self._loaded.set_exception(EngineFailed(f"it ended while it loaded the model: {why}", permanent=False))
        elif self._loaded and self._loaded.exception() is None:  # else it could not load: `start` tells that
            self._on_lost(why)
