"""What a lost engine means for the calls that it had: carries out what the recovery decides."""

from __future__ import annotations

import asyncio
import logging

from mlx_grpc.errors import InternalError, PoisonRequest
from mlx_grpc.observe.stats import Stats
from mlx_grpc.service.hosting.calls import LiveCalls
from mlx_grpc.service.hosting.recovery import MAX_RESUMES, Recovery, Verdict

log = logging.getLogger(__name__)


class CrashHandler:
    """Of one model's engines."""

    def __init__(self, model: str, recovery: Recovery, calls: LiveCalls, stats: Stats) -> None:
        self._model = model
        self._recovery = recovery
        self._calls = calls
        self._stats = stats

    def forget(self) -> None:
        """The model is loaded anew: what came before counts no more."""
        self._recovery.loaded_anew()

    def engine_started(self) -> None:
        """An engine is ready."""
        self._recovery.started(asyncio.get_running_loop().time())

    def crashed(self, running: tuple[int, ...], why: str) -> Verdict:
        """The engine died with these calls in its batch, or could not be started. Ends those that must not run again;
        returns what is to be done about the engine."""
        verdict = self._recovery.crashed(running, why, asyncio.get_running_loop().time())
        if verdict.gave_up:
            return verdict
        self._calls.fail_keys(verdict.poison, lambda: PoisonRequest("the request crashed the engine, alone, twice"))
        self._calls.fail_keys(
            verdict.exhausted,
            lambda: InternalError(f"the engine died under the request, and under {MAX_RESUMES} attempts to resume it"),
        )
        resumed = len(running) - len(verdict.poison) - len(verdict.exhausted)
        self._stats.resumed[self._model] += resumed
        log.warning(
            "model %s: another engine in %.1f s, %d requests go on there", self._model, verdict.backoff_seconds, resumed
        )
        return verdict
