"""One model: its state, its engine, its tokenizer, its calls.

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
from mlx_grpc.engine.messages import Loaded
from mlx_grpc.errors import Draining, ModelFailed
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.observe.stats import Stats
from mlx_grpc.schedule.entry import Limits
from mlx_grpc.schedule.scheduler import Scheduler
from mlx_grpc.service.hosting.crashes import CrashHandler
from mlx_grpc.service.hosting.dispatcher import Dispatcher
from mlx_grpc.service.hosting.hosted_engine import HostedEngine
from mlx_grpc.service.hosting.keeper import EngineFailed
from mlx_grpc.service.hosting.memory import DeviceMemory
from mlx_grpc.service.hosting.model_state import ModelLife, ModelState
from mlx_grpc.service.hosting.recovery import Recovery
from mlx_grpc.service.hosting.settings import Settings
from mlx_grpc.service.hosting.sources import Located, ModelSource
from mlx_grpc.service.intake.defaults import SamplingDefaults, read_sampling_defaults
from mlx_grpc.service.intake.tokenizer import SCRIPT_PREFIX, Tokenizer, load_tokenizer

log = logging.getLogger(__name__)


class ModelHost:
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
        self.source = source
        self.life = ModelLife(source.id, lambda: on_change(self))
        self.located: Located | None = None
        self.tokenizer: Tokenizer | None = None
        self.defaults = SamplingDefaults()
        limits = Limits(
            max_waiting=settings.max_queue,
            max_waiting_tokens=settings.max_queue_tokens,
            max_rows=settings.max_batch,
            ageing_seconds=settings.ageing_seconds,
        )
        recovery = Recovery(settings.max_batch)
        self.dispatcher = Dispatcher(source.id, Scheduler(limits), recovery, memory, stats)
        self._crashes = CrashHandler(source.id, recovery, self.dispatcher.calls, stats)
        self._engine = HostedEngine(
            source.id, settings, start_link, self.dispatcher, memory, self._on_lost, self._on_stall
        )
        self._settings = settings
        self._stats = stats
        self._task: asyncio.Task[None] | None = None

    @property
    def info(self) -> Loaded | None:
        """What the engine said of the model; None until loaded."""
        return self._engine.info

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
        return self._engine.pid

    # Life.

    def load(self) -> None:
        """Start to load, and return. `life.settled` tells the end."""
        self.life.error = ""
        self.life.move(ModelState.LOADING)
        self._run(self._first_start())

    def unload(self, force: bool = False) -> None:
        """Start to let calls finish and then free the memory; with `force`, end them."""
        if self.life.state is not ModelState.UNLOADING:
            self.life.move(ModelState.UNLOADING)
            self._run(self._stop())
        if force:
            self.dispatcher.calls.fail_all(lambda: Draining(f"model {self.source.id} is being unloaded"))

    async def close(self) -> None:
        """End the engine and all that waits for it, whatever the state."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.dispatcher.calls.fail_all(lambda: Draining("the server has stopped"))
        await self._engine.close()
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
                await self._engine.start(path)
            finally:
                await asyncio.wait([reading])
            self.tokenizer = reading.result()
        except (ModelSourceError, EngineFailed, ValueError, OSError) as error:
            await self._engine.end()
            self._give_up(str(error))
            return
        self.defaults = SamplingDefaults() if path.startswith(SCRIPT_PREFIX) else read_sampling_defaults(Path(path))
        self._ready()

    def _ready(self) -> None:
        self._crashes.engine_started()
        self.life.move(ModelState.READY)
        self._engine.serve()

    async def _stop(self) -> None:
        if self.dispatcher.attached:
            await self.dispatcher.idle()
        self.dispatcher.calls.fail_all(lambda: Draining(f"model {self.source.id} is being unloaded"))
        await self._engine.end()
        self.tokenizer = None
        self._engine.info = None
        self.life.move(ModelState.UNLOADED)

    # Losses.

    def _on_stall(self) -> None:
        """Not SERVING from here on; the loss follows when the old engine has been reaped."""
        self._stats.stalls[self.source.id] += 1
        if self.life.state is ModelState.READY:
            self.life.move(ModelState.LOADING)

    def _on_lost(self, why: str) -> None:
        name = self.source.id
        log.error("model %s lost its engine: %s", name, why)
        self._stats.crashes[name] += 1
        running = self._engine.lost()
        if self.life.state is ModelState.UNLOADING:
            self.dispatcher.calls.fail_all(lambda: ModelFailed(f"the engine of model {name} ended: {why}"))
            return
        self._recover(running, why)

    def _recover(self, running: tuple[int, ...], why: str) -> None:
        """Start another engine, unless that has failed too often."""
        verdict = self._crashes.crashed(running, why)
        if verdict.gave_up:
            self._give_up(verdict.gave_up)
            return
        if self.life.state is ModelState.READY:
            self.life.move(ModelState.LOADING)
        self._run(self._restart(verdict.backoff_seconds))

    async def _restart(self, backoff_seconds: float) -> None:
        await asyncio.sleep(backoff_seconds)
        if self.located is None or self.tokenizer is None:  # lost before the first start was through
            await self._first_start()
            return
        try:
            await self._engine.start(self.located.path)
        except EngineFailed as error:
            self._recover((), str(error))
            return
        self._stats.restarts[self.source.id] += 1
        self._ready()

    def _give_up(self, reason: str) -> None:
        self.life.error = reason
        self.dispatcher.calls.fail_all(lambda: ModelFailed(f"model {self.source.id} has failed: {reason}"))
        self.life.move(ModelState.FAILED)
