"""One model's life: its engine, its tokenizer, its calls.

The host owns the engine link and starts another when it is lost; it is the only one that does. Health is what its state
says: a model that is READY takes calls, all others refuse them with the error of their state.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Coroutine, Protocol

from mlx_grpc.engine.link import Link, StartLink
from mlx_grpc.engine.messages import FromWorker, Load, Loaded, LoadFailed, Step
from mlx_grpc.errors import Draining, MlxGrpcError, ModelFailed, ModelLoading, ModelNotFound
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.observe.stats import Stats
from mlx_grpc.schedule.budget import KvBudget
from mlx_grpc.schedule.entry import Limits
from mlx_grpc.schedule.scheduler import Scheduler
from mlx_grpc.service.defaults import SamplingDefaults, read_sampling_defaults
from mlx_grpc.service.dispatch import Dispatcher
from mlx_grpc.service.recovery import GiveUp, Recovery
from mlx_grpc.service.tokenizer import SCRIPT_PREFIX, Tokenizer, load_tokenizer

log = logging.getLogger(__name__)

RETRY_LOADING_SECONDS = 2.0
KV_SHARE_OF_FREE_MEMORY = 0.9
"""The rest is left to activations and to everybody else."""


class ModelState(enum.Enum):
    """Where a model is in its life. LOADING also means: its engine is being started again."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


_NEXT: Mapping[ModelState, frozenset[ModelState]] = {
    ModelState.UNLOADED: frozenset({ModelState.LOADING}),
    ModelState.LOADING: frozenset({ModelState.READY, ModelState.FAILED, ModelState.UNLOADING}),
    ModelState.READY: frozenset({ModelState.LOADING, ModelState.UNLOADING, ModelState.FAILED}),
    ModelState.UNLOADING: frozenset({ModelState.UNLOADED}),
    ModelState.FAILED: frozenset({ModelState.LOADING, ModelState.UNLOADING}),
}


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model lies on this machine: a folder, or `script:` and JSON."""

    path: str
    revision: str = ""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's id, and how to have it here: `locate` may fetch and import, blocks, and raises ModelSourceError."""

    id: str
    locate: Callable[[], Located]


class Settings(Protocol):
    """What a host needs of the server's settings; `config.Config` has it all."""

    context_length: int
    max_batch: int
    max_queue: int
    max_queue_tokens: int
    ageing_seconds: float
    prefill_step_tokens: int
    memory_limit_bytes: int
    trust_remote_code: bool


class ModelHost:
    """A model that the server knows, in memory or not."""

    def __init__(
        self,
        source: ModelSource,
        settings: Settings,
        start_link: StartLink,
        on_change: Callable[[ModelHost], None],
        stats: Stats,
    ) -> None:
        self.source = source
        self.located: Located | None = None
        self.state = ModelState.UNLOADED
        self.error = ""
        self.info: Loaded | None = None
        self.tokenizer: Tokenizer | None = None
        self.defaults = SamplingDefaults()
        limits = Limits(
            max_waiting=settings.max_queue,
            max_waiting_tokens=settings.max_queue_tokens,
            max_rows=settings.max_batch,
            ageing_seconds=settings.ageing_seconds,
        )
        self.dispatcher = Dispatcher(source.id, Scheduler(limits), stats)
        self._settings = settings
        self._start_link = start_link
        self._on_change = on_change
        self._stats = stats
        self._link: Link | None = None
        self._loaded: asyncio.Future[Loaded] | None = None
        self._recovery = Recovery()
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

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
        return self._link.pid if self._link else None

    def check_ready(self) -> None:
        """Raises the error of a state in which no new call is taken."""
        error = self.refusal()
        if error is not None:
            raise error

    def refusal(self) -> MlxGrpcError | None:
        """Why no new call is taken now; None when one is."""
        name = self.source.id
        match self.state:
            case ModelState.READY:
                return None
            case ModelState.LOADING:
                return ModelLoading(f"model {name} is loading", retry_after_seconds=RETRY_LOADING_SECONDS)
            case ModelState.FAILED:
                return ModelFailed(f"model {name} has failed: {self.error}")
            case ModelState.UNLOADED | ModelState.UNLOADING:
                return ModelNotFound(f"model {name} is not loaded", resource=name)

    # Life.

    def load(self) -> None:
        """Start to load, and return. `settled` tells the end."""
        self.error = ""
        self._recovery = Recovery()
        self._move(ModelState.LOADING)
        self._run(self._first_start())

    async def settled(self) -> None:
        """Returns when the model is READY, FAILED or UNLOADED."""
        await self._settled.wait()

    def unload(self, force: bool = False) -> None:
        """Start to let calls finish and then free the memory; with `force`, end them."""
        self._move(ModelState.UNLOADING)
        if force:
            self.dispatcher.fail_all(lambda: Draining(f"model {self.source.id} is being unloaded"))
        self._run(self._stop())

    async def close(self) -> None:
        """End the engine and all that waits for it, whatever the state."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.dispatcher.fail_all(lambda: Draining("the server has stopped"))
        await self._end_link()
        self.dispatcher.detach()
        self.dispatcher.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if self._task:
            self._task.cancel()
        self._task = asyncio.create_task(work, name=f"model {self.source.id}")

    def _move(self, state: ModelState) -> None:
        if state not in _NEXT[self.state]:
            raise ModelLoading(
                f"model {self.source.id} is {self.state.value}", retry_after_seconds=RETRY_LOADING_SECONDS
            )
        self.state = state
        if state in (ModelState.LOADING, ModelState.UNLOADING):
            self._settled.clear()
        else:
            self._settled.set()
        self._on_change(self)

    async def _first_start(self) -> None:
        try:
            self.located = await asyncio.to_thread(self.source.locate)
            path = self.located.path
            # The tokenizer loads beside the engine: each takes a second or more.
            reading = asyncio.create_task(asyncio.to_thread(load_tokenizer, path))
            try:
                await self._start_engine(path)
            finally:
                await asyncio.wait([reading])
            tokenizer = reading.result()
        except (ModelSourceError, ModelFailed, ValueError, OSError) as error:
            await self._end_link()
            self._give_up(str(error))
            return
        self.tokenizer = tokenizer
        self.defaults = SamplingDefaults() if path.startswith(SCRIPT_PREFIX) else read_sampling_defaults(Path(path))
        self._ready()

    async def _restart(self, backoff_seconds: float) -> None:
        await asyncio.sleep(backoff_seconds)
        try:
            await self._start_engine(self.located.path if self.located else "")
        except (OSError, ModelFailed) as error:
            await self._end_link()
            self._lost(str(error))
            return
        self._stats.restarts[self.source.id] += 1
        self._ready()

    async def _start_engine(self, path: str) -> None:
        """Raises ModelFailed when the worker cannot load the model, or dies of it."""
        self._loaded = asyncio.get_running_loop().create_future()
        link = self._link = self._start_link(self._on_message, self._on_link_lost)
        await link.start()
        link.send(
            Load(
                path=path,
                max_rows=self._settings.max_batch,
                prefill_step_tokens=self._settings.prefill_step_tokens,
                memory_limit_bytes=self._settings.memory_limit_bytes,
                trust_remote_code=self._settings.trust_remote_code,
            )
        )
        self.info = await self._loaded

    def _ready(self) -> None:
        link, info = self._link, self.info
        assert link is not None and info is not None
        free_bytes = int(max(0, info.memory_bytes - info.weights_bytes) * KV_SHARE_OF_FREE_MEMORY)
        self.dispatcher.scheduler.set_budget(KvBudget(max(1, free_bytes), info.kv_bytes_per_token))
        self._move(ModelState.READY)
        self.dispatcher.attach(link.send)

    async def _stop(self) -> None:
        if self.dispatcher.attached:
            await self.dispatcher.idle()
        self.dispatcher.fail_all(lambda: Draining(f"model {self.source.id} is being unloaded"))
        self.dispatcher.detach()
        await self._end_link()
        self.tokenizer = None
        self.info = None
        self._move(ModelState.UNLOADED)

    async def _end_link(self) -> None:
        link, self._link = self._link, None
        if link:
            await link.close()

    # What the engine says.

    def _on_message(self, message: FromWorker) -> None:
        match message:
            case Step():
                if message.tokens:
                    self._recovery.progress()
                self.dispatcher.on_step(message)
            case Loaded() if self._loaded and not self._loaded.done():
                self._loaded.set_result(message)
            case LoadFailed() if self._loaded and not self._loaded.done():
                self._loaded.set_exception(ModelFailed(message.reason))

    def _on_link_lost(self, why: str) -> None:
        self._link = None
        if self._loaded and not self._loaded.done():
            self._loaded.set_exception(ModelFailed(f"the engine ended while it loaded the model: {why}"))
            return
        log.error("model %s lost its engine: %s", self.source.id, why)
        if self.state is ModelState.UNLOADING:
            self.dispatcher.detach()
            self.dispatcher.fail_all(lambda: ModelFailed(f"the engine of model {self.source.id} ended: {why}"))
        elif self.state is ModelState.READY:
            self._lost(why)

    def _lost(self, why: str) -> None:
        running = self.dispatcher.detach()
        decision = self._recovery.crashed(why)
        if isinstance(decision, GiveUp):
            self._give_up(decision.reason)
            return
        log.warning(
            "model %s: %d requests will go on in another engine in %.1f s",
            self.source.id, len(running), decision.backoff_seconds,
        )  # fmt: skip
        if self.state is ModelState.READY:
            self._move(ModelState.LOADING)
        self._run(self._restart(decision.backoff_seconds))

    def _give_up(self, reason: str) -> None:
        self.error = reason
        self.dispatcher.fail_all(lambda: ModelFailed(f"model {self.source.id} has failed: {reason}"))
        self._move(ModelState.FAILED)
