"""A model's engine: started, charged to the device's memory, given to the dispatcher, watched, ended."""

from __future__ import annotations

from collections.abc import Callable

from mlx_grpc.engine.link.interface import StartLink
from mlx_grpc.engine.messages import Load, Loaded
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.service.hosting.dispatcher import Dispatcher
from mlx_grpc.service.hosting.keeper import EngineFailed, EngineKeeper
from mlx_grpc.service.hosting.memory import DeviceMemory, NoRoom
from mlx_grpc.service.hosting.settings import Settings
from mlx_grpc.service.hosting.watchdog import Watchdog

GATHER_SECONDS = {"cuda": 0.025}
"""How long an arrival waits for company while rows run. On an NVIDIA GPU four prompts take about as long as one; on a
CPU four times as long. Nothing was measured on a Mac, whose GPU is bound by computing as a CPU is."""

SHORT_REQUEST_TOKENS = 16
"""Prompt and output of a request that any model must have room for."""


class HostedEngine:
    """One engine at a time. When it has ended by itself `on_lost` hears the keys of the calls that were running, which
    wait again, and why; `on_stall` hears that one is about to be ended."""

    def __init__(
        self,
        model: str,
        settings: Settings,
        start_link: StartLink,
        dispatcher: Dispatcher,
        memory: DeviceMemory,
        on_lost: Callable[[tuple[int, ...], str], None],
        on_stall: Callable[[], None],
    ) -> None:
        self.info: Loaded | None = None
        """What it said of the model; it outlives the engine, until the next one says it."""
        self._model = model
        self._settings = settings
        self._dispatcher = dispatcher
        self._memory = memory
        self._on_lost = on_lost
        self._on_stall = on_stall
        self._keeper = EngineKeeper(start_link, dispatcher.on_step, self._ended_by_itself)
        self._watchdog = Watchdog(
            model, settings.stall_seconds, lambda: dispatcher.overdue_seconds, self._ended_by_watchdog
        )

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self._keeper.pid

    async def start(self, path: str) -> None:
        """Start an engine and let it load the model. Raises EngineFailed; then no engine is left."""
        settings = self._settings
        info = await self._keeper.start(
            Load(
                path=path,
                max_rows=settings.max_batch,
                prefill_step_tokens=settings.prefill_step_tokens or 0,
                memory_limit_bytes=self._memory.limit_for_next(),
                prefix_cache_bytes=settings.prefix_cache_bytes,
                trust_remote_code=settings.trust_remote_code,
                stall_seconds=settings.stall_seconds,
            )
        )
        try:
            self._charge(info)
        except NoRoom as error:
            await self._keeper.close()
            raise EngineFailed(str(error), permanent=True) from None
        self.info = info

    def _charge(self, info: Loaded) -> None:
        """Raises NoRoom where one short request would never fit."""
        fixed_bytes = info.weights_bytes + info.prefix_cache_bytes
        short_tokens = min(SHORT_REQUEST_TOKENS, info.context_length)
        least_bytes = KvBudget(0, info.kv_bytes_per_token).batch_bytes(1, short_tokens)
        self._memory.loaded(self._model, info.memory_bytes, fixed_bytes, least_bytes, self._dispatcher.changed)

    def serve(self) -> None:
        """Let calls enter the engine that has been started."""
        info, dispatcher = self.info, self._dispatcher
        assert info is not None
        dispatcher.scheduler.budget = KvBudget(self._memory.kv_bytes(), info.kv_bytes_per_token)
        dispatcher.scheduler.gather_seconds = GATHER_SECONDS.get(info.backend, 0.0)
        dispatcher.attach(self._keeper.send, info.max_rows or self._settings.max_batch)
        self._watchdog.start()

    async def end(self) -> None:
        """End the engine, if there is one; returns when it has gone."""
        self._detach()
        await self._keeper.close()
        self._memory.unloaded(self._model)

    def _detach(self) -> tuple[int, ...]:
        self._watchdog.stop()
        return self._dispatcher.detach()

    def _ended_by_itself(self, why: str) -> None:
        running = self._detach()
        self._memory.unloaded(self._model)
        self._on_lost(running, why)

    def _ended_by_watchdog(self) -> None:
        self._on_stall()
        self._keeper.kill(f"it had work and delivered nothing for {self._settings.stall_seconds:g} s")
