"""Has an engine for a model: finds its folder, reads its files, starts its engine, and again where that may help."""

from __future__ import annotations

import asyncio
import logging

from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.models.words import one_line
from mlx_grpc.observe.stats import Stats
from mlx_grpc.service.hosting.crashes import CrashHandler
from mlx_grpc.service.hosting.files import ModelFiles, read_files
from mlx_grpc.service.hosting.hosted_engine import HostedEngine
from mlx_grpc.service.hosting.keeper import EngineFailed
from mlx_grpc.service.hosting.sources import Located, ModelSource

log = logging.getLogger(__name__)


class StartFailed(Exception):
    """There will be no engine; one line says why."""


class EngineStarter:
    """Of one model. What it found and read outlives the engine, until `forget`."""

    def __init__(self, source: ModelSource, engine: HostedEngine, crashes: CrashHandler, stats: Stats) -> None:
        self.located: Located | None = None
        self.files: ModelFiles | None = None
        self._source = source
        self._engine = engine
        self._crashes = crashes
        self._stats = stats

    async def start(self, backoff_seconds: float) -> None:
        """Returns when an engine has loaded the model. Raises StartFailed; then no engine is left."""
        try:
            again_seconds: float | None = backoff_seconds
            while again_seconds is not None:
                again_seconds = await self._attempt(again_seconds)
            return
        except (ModelSourceError, EngineFailed, ValueError, OSError) as error:
            reason = str(error)
        except Exception as error:
            log.exception("model %s: a bug of this server", self._source.id)
            reason = f"a bug of this server: {type(error).__name__}: {error}"
        await self._engine.end()
        raise StartFailed(one_line(reason))

    def forget(self) -> None:
        """The model is to be found and read anew; its template's processes end."""
        if self.files is not None:
            self.files.tokenizer.close()
        self.files = None

    async def _attempt(self, backoff_seconds: float) -> float | None:
        """Start an engine; returns after how many seconds to try again, None when there is one. Raises what cannot be
        helped by trying again."""
        await asyncio.sleep(backoff_seconds)
        is_first = self.files is None
        try:
            await (self._first_start() if is_first else self._restart())
        except EngineFailed as error:
            # Where the model has been loaded before, it is not the model: memory may be short just now.
            if is_first and error.permanent:
                raise
            log.error("model %s has no engine: %s", self._source.id, error)
            verdict = self._crashes.crashed((), str(error))
            if verdict.gave_up:
                raise EngineFailed(verdict.gave_up, permanent=True) from error
            return verdict.backoff_seconds
        return None

    async def _first_start(self) -> None:
        self.located = await asyncio.to_thread(self._source.locate)
        path = self.located.path
        # The tokenizer loads beside the engine: each takes a second or more.
        started, files = await asyncio.gather(
            self._engine.start(path), asyncio.to_thread(read_files, path), return_exceptions=True
        )
        if isinstance(files, BaseException):
            raise started if isinstance(started, BaseException) else files
        if isinstance(started, BaseException):
            files.tokenizer.close()
            raise started
        self.files = files

    async def _restart(self) -> None:
        assert self.located is not None
        await self._engine.start(self.located.path)
        self._stats.restarts[self._source.id] += 1
