"""A model's engine: started, charged to the device's memory, given to the dispatcher, watched, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mlx_grpc.engine.link.interface import StartLink
from mlx_grpc.engine.messages import Load, Loaded
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.service.hosting.dispatcher import Dispatcher
from mlx_grpc.service.hosting.keeper import EngineKeeper
from mlx_grpc.service.hosting.memory import DeviceMemory
from mlx_grpc.service.hosting.settings import Settings

GATHER_SECONDS = {"cuda": 0.025}
"""How long an arrival waits for company while rows run. On an NVIDIA GPU four prompts take about as long as one; on a
CPU four times as long. Nothing was measured on a Mac, whose GPU is bound by computing as a CPU is."""


class HostedEngine:
    """One engine at a time. `on_lost` hears once why it ended by itself, `on_stall` that it is about to be ended."""

    def __init__(
        self,
        model: str,
        settings: Settings,
        start_link: StartLink,
        dispatcher: Dispatcher,
        memory: DeviceMemory,
        on_lost: Callable[[str], None],
        on_stall: Callable[[], None],
    ) -> None:
        self.info: Loaded | None = None
        """What it said of the model; it outlives the engine, until the next one says it."""
        self._model = model
        self._settings = settings
        self._dispatcher = dispatcher
        self._memory = memory
        self._on_stall = on_stall
        self._keeper = EngineKeeper(start_link, dispatcher.on_step, on_lost)
        self._watchdog: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self._keeper.pid

    async def start(self, path: str) -> None:
        """Start an engine and let it load the model. Raises EngineFailed; then no engine is left."""
        settings = self._settings
        self.info = await self._keeper.start(
            Load(
                path=path,
                max_rows=settings.max_batch,
                prefill_step_tokens=settings.prefill_step_tokens,
                memory_limit_bytes=self._memory.limit_for_next(),
                prefix_cache_bytes=settings.prefix_cache_bytes,
                trust_remote_code=settings.trust_remote_code,
                stall_seconds=settings.stall_seconds,
            )
        )

    def serve(self) -> None:
        """Let calls enter the engine that has been started."""
        info, dispatcher = self.info, self._dispatcher
        assert info is not None
        fixed_bytes = info.weights_bytes + info.prefix_cache_bytes
        self._memory.loaded(self._model, info.memory_bytes, fixed_bytes, dispatcher.changed)
        dispatcher.scheduler.budget = KvBudget(self._memory.kv_bytes(), info.kv_bytes_per_token)
        dispatcher.scheduler.gather_seconds = GATHER_SECONDS.get(info.backend, 0.0)
        dispatcher.attach(self._keeper.send, info.max_rows or self._settings.max_batch)
        watch = self._keeper.watch(lambda: dispatcher.overdue_seconds, self._settings.stall_seconds, self._on_stall)
        self._watchdog = asyncio.create_task(watch, name=f"watchdog {self._model}")

    def lost(self) -> tuple[int, ...]:
        """It has ended by itself; returns the keys of the calls that were running, which wait again."""
        running = self._dispatcher.detach()
        self._memory.unloaded(self._model)
        return running

    async def end(self) -> None:
        """End the engine, if there is one; returns when it has gone."""
        self._dispatcher.detach()
        if self._watchdog:
            self._watchdog.cancel()
        await self._keeper.close()
        self._memory.unloaded(self._model)

    async def close(self) -> None:
        """End it for good, and all that watches it."""
        await self.end()
        if self._watchdog:
            await asyncio.gather(self._watchdog, return_exceptions=True)
