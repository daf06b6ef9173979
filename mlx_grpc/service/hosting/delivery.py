"""From an engine's step to the calls: each is told what the engine did for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from mlx_grpc.engine.messages import RowFailed, RowPrefill, RowToken
from mlx_grpc.errors import InternalError, MlxGrpcError, NonfiniteLogits
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.hosting.calls import LiveCalls
from mlx_grpc.service.hosting.recovery import Recovery

log = logging.getLogger(__name__)

CACHED_SHARE_FADE = 0.98
"""Per prompt: after 34 prompts without a hit, half is still hoped for."""


class Delivery:
    """Tells the calls, and the recovery that they came on."""

    def __init__(self, calls: LiveCalls, recovery: Recovery) -> None:
        self.cached_share = 0.0
        """How much of a prompt the prefix cache held at best, lately."""
        self._calls = calls
        self._recovery = recovery

    def prefill(self, rows: Iterable[RowPrefill]) -> int:
        """Returns how many prompt tokens were processed."""
        processed = 0
        for progress in rows:
            generation = self._calls.get(progress.row_id)
            if generation is not None:
                try:
                    processed += generation.prefilled(progress)
                except Exception:
                    self._fail(generation)
                if progress.processed == progress.total:
                    share = progress.cached / progress.total
                    self.cached_share = max(share, self.cached_share * CACHED_SHARE_FADE)
        return processed

    def tokens(self, tokens: Sequence[RowToken], now_seconds: float) -> list[int]:
        """Returns the keys of calls that ended here and whose rows go on in the engine."""
        leaving = []
        for token in tokens:
            generation = self._calls.get(token.row_id)
            if generation is not None:
                try:
                    generation.token(token, now_seconds)
                except Exception:
                    self._fail(generation)
                self._recovery.progress(token.row_id)
                if generation.ended and not token.finish:
                    leaving.append(token.row_id)
        return leaving

    def failure(self, failed: RowFailed) -> None:
        """The engine could not take the row, or go on with it."""
        generation = self._calls.get(failed.row_id)
        if generation is not None:
            generation.fail(_error_of(failed, generation.request.generation_id))

    def _fail(self, generation: Generation) -> None:
        """A bug of ours that one call brings to light is the end of that call alone."""
        name = generation.request.generation_id
        log.exception("%s: a bug of this server", name)
        error = InternalError(f"an error of this server ({name} in its log)", metadata={"error_id": name})
        self._calls.fail(generation, error)


def _error_of(failed: RowFailed, generation_id: str) -> MlxGrpcError:
    if not failed.finite:
        return NonfiniteLogits("the model's logits for this request are not finite, so that it cannot go on")
    log.error("%s: the engine could not take it: %s", generation_id, failed.reason)
    return InternalError(
        f"the engine could not take the request: {failed.reason}", metadata={"error_id": generation_id}
    )
