"""One model's life: its engine, its tokenizer, its calls.

Health is what the state says: a model that is READY takes calls, all others refuse them with the error of their state.
When the engine is lost, calls that were accepted wait, `recovery` decides who goes on when, and the host starts
another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from mlx_grpc.engine.link.interface import StartLink
from mlx_grpc.engine.messages import Load, Loaded
from mlx_grpc.errors import (
    Draining,
    InternalError,
    ModelFailed,
    PoisonRequest,
)
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.observe.stats import Stats
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.entry import Limits
from mlx_grpc.schedule.scheduler import Scheduler
from mlx_grpc.service.hosting.dispatcher import Dispatcher
from mlx_grpc.service.hosting.keeper import EngineFailed, EngineKeeper
from mlx_grpc.service.hosting.memory import DeviceMemory
from mlx_grpc.service.hosting.model_state import Located, ModelLife, ModelSource, ModelState, Settings
from mlx_grpc.service.hosting.recovery import MAX_RESUMES, Recovery
from mlx_grpc.service.intake.defaults import SamplingDefaults, read_sampling_defaults
from mlx_grpc.service.intake.tokenizer import SCRIPT_PREFIX, Tokenizer, load_tokenizer

log = logging.getLogger(__name__)

GATHER_SECONDS = {"cuda": 0.025}
"""How long an arrival waits for company while rows run. On an NVIDIA GPU four prompts take about as long as one; on a
CPU four times as long. Nothing was measured on a Mac, whose GPU is bound by computing as a CPU is."""


class ModelHost(ModelLife):
    """A model that the server knows, in memory or not."""

    def __init__(
        self,
        source: ModelSource,
        settings: Settings,
        start_link: StartLink,
        on_change: Callable[[ModelHost], None],
        memory: DeviceMemory,
        stats: Stats,
    ) -> None:
        super().__init__(source.id, lambda: on_change(self))
        self.source = source
        self.located: Located | None = None
        self.info: Loaded | None = None
        self.tokenizer: Tokenizer | None = None
        self.defaults = SamplingDefaults()
        limits = Limits(
            max_waiting=settings.max_queue,
            max_waiting_tokens=settings.max_queue_tokens,
            max_rows=settings.max_batch,
            ageing_seconds=settings.ageing_seconds,
        )
        self._recovery = Recovery(settings.max_batch)
        self.dispatcher = Dispatcher(source.id, Scheduler(limits), self._recovery, memory, stats)
        self._keeper = EngineKeeper(start_link, self.dispatcher.on_step, self._on_lost)
        self._settings = settings
        self._memory = memory
        self._stats = stats
        self._task: asyncio.Task[None] | None = None
        self._watchdog: asyncio.Task[None] | None = None

    @property
    def context_length(self) -> int:
        """Tokens of prompt and output together; 0 until loaded."""
        if self.info is None:
            return 0
        own, wanted = self.info.context_length, self._settings.context_length
        return min(own, wanted) if wanted else own

    @property
    def vocab_size(self) -> int:
        """How many token ids there are; 0 until loaded."""
        return self.info.vocab_size if self.info else 0

    @property
    def engine_pid(self) -> int | None:
        """The engine's process, while there is one."""
        return self._keeper.pid

    # Life.

    def load(self) -> None:
        """Start to load, and return. `settled` tells the end."""
        self.error = ""
        self.move(ModelState.LOADING)
        self._run(self._first_start())

    def unload(self, force: bool = False) -> None:
        """Start to let calls finish and then free the memory; with `force`, end them."""
        if self.state is not ModelState.UNLOADING:
            self.move(ModelState.UNLOADING)
            self._run(self._stop())
        if force:
            self.dispatcher.fail_all(lambda: Draining(f"model {self.source.id} is being unloaded"))

    async def close(self) -> None:
        """End the engine and all that waits for it, whatever the state."""
        tasks = [task for task in (self._task, self._watchdog) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.dispatcher.fail_all(lambda: Draining("the server has stopped"))
        await self._end_engine()
        self.dispatcher.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if self._task:
            self._task.cancel()
        self._task = asyncio.create_task(work, name=f"model {self.source.id}")

    async def _first_start(self) -> None:
        try:
            self.located = await asyncio.to_thread(self.source.locate)
            path = self.located.path
            # The tokenizer loads beside the engine: each takes a second or more.
            reading = asyncio.create_task(asyncio.to_thread(load_tokenizer, path))
            try:
                await self._start_engine()
            finally:
                await asyncio.wait([reading])
            self.tokenizer = reading.result()
        except (ModelSourceError, EngineFailed, ValueError, OSError) as error:
            await self._end_engine()
            self._give_up(str(error))
            return
        self.defaults = SamplingDefaults() if path.startswith(SCRIPT_PREFIX) else read_sampling_defaults(Path(path))
        self._ready()

    async def _start_engine(self) -> None:
        assert self.located is not None
        self.info = await self._keeper.start(
            Load(
                path=self.located.path,
                max_rows=self._settings.max_batch,
                prefill_step_tokens=self._settings.prefill_step_tokens,
                memory_limit_bytes=self._memory.limit_for_next(),
                prefix_cache_bytes=self._settings.prefix_cache_bytes,
                trust_remote_code=self._settings.trust_remote_code,
            )
        )

    def _ready(self) -> None:
        info = self.info
        assert info is not None
        name, dispatcher = self.source.id, self.dispatcher
        fixed_bytes = info.weights_bytes + info.prefix_cache_bytes
        self._memory.loaded(name, info.memory_bytes, fixed_bytes, dispatcher.changed)
        dispatcher.scheduler.budget = KvBudget(self._memory.kv_bytes(), info.kv_bytes_per_token)
        dispatcher.scheduler.gather_seconds = GATHER_SECONDS.get(info.backend, 0.0)
        self._recovery.started(asyncio.get_running_loop().time())
        self.move(ModelState.READY)
        dispatcher.attach(self._keeper.send)
        watch = self._keeper.watch(lambda: dispatcher.stalled_seconds, self._settings.stall_seconds, self._on_stall)
        self._watchdog = asyncio.create_task(watch, name=f"watchdog {name}")

    async def _stop(self) -> None:
        if self.dispatcher.attached:
            await self.dispatcher.idle()
        self.dispatcher.fail_all(lambda: Draining(f"model {self.source.id} is being unloaded"))
        await self._end_engine()
        self.tokenizer = None
        self.info = None
        self.move(ModelState.UNLOADED)

    async def _end_engine(self) -> None:
        self.dispatcher.detach()
        if self._watchdog:
            self._watchdog.cancel()
        await self._keeper.close()
        self._memory.unloaded(self.source.id)

    # Losses.

    def _on_stall(self) -> None:
        """Not SERVING from here on; the loss follows when the old engine has been reaped."""
        self._stats.stalls[self.source.id] += 1
        if self.state is ModelState.READY:
            self.move(ModelState.LOADING)

    def _on_lost(self, why: str) -> None:
        name = self.source.id
        log.error("model %s lost its engine: %s", name, why)
        self._stats.crashes[name] += 1
        running = self.dispatcher.detach()
        self._memory.unloaded(name)
        if self.state is ModelState.UNLOADING:
            self.dispatcher.fail_all(lambda: ModelFailed(f"the engine of model {name} ended: {why}"))
            return
        self._decide(running, why)

    def _decide(self, running: tuple[int, ...], why: str) -> None:
        """Carry out what the recovery says of a crash."""
        verdict = self._recovery.crashed(running, why, asyncio.get_running_loop().time())
        if verdict.gave_up:
            self._give_up(verdict.gave_up)
            return
        dispatcher = self.dispatcher
        dispatcher.fail_keys(verdict.poison, lambda: PoisonRequest("the request crashed the engine, alone, twice"))
        dispatcher.fail_keys(
            verdict.exhausted,
            lambda: InternalError(f"the engine died under the request, and under {MAX_RESUMES} attempts to resume it"),
        )
        resumed = len(running) - len(verdict.poison) - len(verdict.exhausted)
        self._stats.resumed[self.source.id] += resumed
        log.warning(
            "model %s: another engine in %.1f s, %d requests go on there",
            self.source.id,
            verdict.backoff_seconds,
            resumed,
        )
        if self.state is ModelState.READY:
            self.move(ModelState.LOADING)
        self._run(self._restart(verdict.backoff_seconds))

    async def _restart(self, backoff_seconds: float) -> None:
        await asyncio.sleep(backoff_seconds)
        if self.tokenizer is None:  # lost before the first start was through
            await self._first_start()
            return
        try:
            await self._start_engine()
        except EngineFailed as error:
            self._decide((), str(error))
            return
        self._stats.restarts[self.source.id] += 1
        self._ready()

    def _give_up(self, reason: str) -> None:
        self.error = reason
        self.dispatcher.fail_all(lambda: ModelFailed(f"model {self.source.id} has failed: {reason}"))
        self.move(ModelState.FAILED)
