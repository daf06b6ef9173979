"""One model: its state, its engine, its tokenizer, its calls.

Health is what the state says: a model that is READY takes calls, all others refuse them with the error of their state.
When the engine is lost, calls that were accepted wait, `recovery` decides who goes on when, and the host starts
another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mlx_grpc.bounds.rates import ClientRates
from mlx_grpc.engine.link.interface import StartLink
from mlx_grpc.engine.messages import Loaded
from mlx_grpc.errors import Draining, MlxGrpcError, ModelFailed
from mlx_grpc.observe.lag import cancelled
from mlx_grpc.observe.stats import Stats
from mlx_grpc.schedule.entry import Limits
from mlx_grpc.schedule.scheduler import Scheduler
from mlx_grpc.service.hosting.crashes import CrashHandler
from mlx_grpc.service.hosting.dispatcher import Dispatcher
from mlx_grpc.service.hosting.hosted_engine import HostedEngine
from mlx_grpc.service.hosting.memory import DeviceMemory
from mlx_grpc.service.hosting.model_state import ModelLife, ModelState
from mlx_grpc.service.hosting.recovery import Recovery
from mlx_grpc.service.hosting.settings import Settings
from mlx_grpc.service.hosting.sources import Located, ModelSource
from mlx_grpc.service.hosting.starter import EngineStarter, StartFailed
from mlx_grpc.service.intake.defaults import SamplingDefaults
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.turns import Turns

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
        rates: ClientRates | None = None,
    ) -> None:
        self.source = source
        self.life = ModelLife(source.id, lambda: on_change(self))
        limits = Limits(
            max_waiting=settings.max_queue,
            max_waiting_tokens=settings.max_queue_tokens,
            max_rows=settings.max_batch,
            ageing_seconds=settings.ageing_seconds,
            max_client_waiting=settings.client_waiting,
            max_client_rows=settings.client_rows,
        )
        recovery = Recovery(settings.max_batch)
        self.dispatcher = Dispatcher(source.id, Scheduler(limits), recovery, memory, stats, rates)
        self._crashes = CrashHandler(source.id, recovery, self.dispatcher.calls, stats)
        self._engine = HostedEngine(
            source.id, settings, start_link, self.dispatcher, memory, self._on_lost, self._on_stall
        )
        self._starter = EngineStarter(source, self._engine, self._crashes, stats)
        self._settings = settings
        self._stats = stats
        self.turns = Turns()
        """The threads in which its prompts are rendered and tokenized."""
        self._starting: asyncio.Task[None] | None = None
        self._unloading: asyncio.Task[None] | None = None

    @property
    def info(self) -> Loaded | None:
        """What the engine said of the model; None until loaded."""
        return self._engine.info

    @property
    def located(self) -> Located | None:
        """Where it lies; None until that is known."""
        return self._starter.located

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None until loaded; it outlives the engine's crashes."""
        return self._starter.files.tokenizer if self._starter.files else None

    @property
    def defaults(self) -> SamplingDefaults:
        """The sampling that the model's authors recommend; neutral until loaded."""
        return self._starter.files.defaults if self._starter.files else SamplingDefaults()

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
        self.life.move(ModelState.LOADING)
        self.life.error = ""
        self._starter.forget()
        self._crashes.forget()
        self._start_engine(0.0)

    def unload(self, force: bool = False) -> None:
        """Start to let calls finish and then free the memory; with `force`, end them. A call that waits for its engine
        to come back finishes, too."""
        if self.life.state is not ModelState.UNLOADING:
            self.life.move(ModelState.UNLOADING)
            self._unloading = asyncio.create_task(self._unload(), name=f"unload {self.source.id}")
        if force:
            self.dispatcher.calls.fail_all(self._being_unloaded)

    async def close(self) -> None:
        """End the engine and all that waits for it, whatever the state."""
        for task in (self._unloading, self._starting):
            if task:
                await cancelled(task)
        self.dispatcher.calls.fail_all(lambda: Draining("the server has stopped"))
        await self._engine.end()
        self._starter.forget()
        await self.turns.close()
        self.dispatcher.close()

    async def _unload(self) -> None:
        await self.dispatcher.idle()
        if self._starting:
            await cancelled(self._starting)
        await self._engine.end()
        self.dispatcher.calls.fail_all(self._being_unloaded)
        self._starter.forget()
        self._engine.info = None
        self.life.move(ModelState.UNLOADED)

    def _being_unloaded(self) -> MlxGrpcError:
        return Draining(f"model {self.source.id} is being unloaded")

    # Starting.

    def _start_engine(self, backoff_seconds: float) -> None:
        if self._starting:
            self._starting.cancel()
        self._starting = asyncio.create_task(self._start(backoff_seconds), name=f"start {self.source.id}")

    async def _start(self, backoff_seconds: float) -> None:
        """Have an engine that serves, or give the model up."""
        try:
            await self._starter.start(backoff_seconds)
        except StartFailed as error:
            self._give_up(str(error))
        else:
            self._ready()

    def _ready(self) -> None:
        self._crashes.engine_started()
        wanted = self._settings.context_length
        if self.info is not None and wanted is not None and wanted > self.info.context_length:
            log.warning(
                "model %s: its context is %d tokens; --context-length %d is more",
                self.source.id,
                self.context_length,
                wanted,
            )
        if self.life.state is ModelState.LOADING:
            self.life.move(ModelState.READY)
        self._engine.serve()

    def _give_up(self, reason: str) -> None:
        self.dispatcher.calls.fail_all(lambda: ModelFailed(f"model {self.source.id} has failed: {reason}"))
        if self.life.state is not ModelState.UNLOADING:
            self.life.error = reason
            self.life.move(ModelState.FAILED)

    # Losses.

    def _on_stall(self) -> None:
        """Not SERVING from here on; the loss follows when the old engine has been reaped."""
        self._stats.stalls[self.source.id] += 1
        self._not_ready()

    def _on_lost(self, running: tuple[int, ...], why: str) -> None:
        name = self.source.id
        log.error("model %s lost its engine: %s", name, why)
        self._stats.crashes[name] += 1
        verdict = self._crashes.crashed(running, why)
        if verdict.gave_up:
            self._give_up(verdict.gave_up)
        else:
            self._not_ready()
            self._start_engine(verdict.backoff_seconds)

    def _not_ready(self) -> None:
        if self.life.state is ModelState.READY:
            self.life.move(ModelState.LOADING)
