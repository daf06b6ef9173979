"""One live call, from its acceptance to its end.

The dispatcher tells it what happens, in the event loop and without waiting; one reader takes the events. Between the
two lies a bounded store: text that the reader has not taken yet is merged into one delta, and there is never more of it
than max_tokens.
"""

from __future__ import annotations

import asyncio

from mlx_grpc.engine import messages
from mlx_grpc.engine.messages import RowPrefill, RowToken
from mlx_grpc.errors import MlxGrpcError, SlowReader
from mlx_grpc.request import (
    Completed,
    Delta,
    Event,
    Finished,
    FinishReason,
    PlacedLogprob,
    Prefill,
    Queued,
    Started,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from mlx_grpc.service.generation.text import TextStream
from mlx_grpc.service.intake.resolved import ResolvedRequest
from mlx_grpc.service.intake.tokenizer import Tokenizer

MAX_UNREAD_TOKENS = 8192
"""Kept for a reader that is behind; with 20 alternatives each that is about 20 MB."""
MIN_LOGPROB = -9999.0
"""JSON has no infinity; OpenAI's API sends this for a token that cannot be."""


class Generation:
    """A call that was accepted. Ends once: finished, failed, or dropped by its reader."""

    def __init__(self, request: ResolvedRequest, tokenizer: Tokenizer) -> None:
        self.request = request
        self.key = 0
        """The dispatcher's name for it, and the engine's row id."""
        self.output_ids: list[int] = []
        self.ended = False
        self.admitted_seconds: float | None = None
        self._tokenizer = tokenizer
        self._text = TextStream(
            tokenizer, request.stop_strings, start_of_text=request.start_of_text, min_tokens=request.min_tokens
        )
        self._started = False
        self._first_token_seconds: float | None = None
        self._unread_tokens = 0
        self._processed_tokens = 0
        self._cached_tokens = 0
        self._prefill: Prefill | None = None
        self._before: list[Event] = []
        self._after: list[Event] = []
        self.error: MlxGrpcError | None = None
        self.finished: Finished | None = None
        self.completed: Completed | None = None
        self._news = asyncio.Event()

    # What the dispatcher says.

    def row(self) -> messages.Row:
        """The call as the engine sees it, with what earlier engines generated."""
        request = self.request
        return messages.Row(
            row_id=self.key,
            prompt=request.prompt,
            output=list(self.output_ids),
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens,
            stop_ids=sorted(request.eos_ids | request.stop_token_ids),
            sampling=request.sampling,
            top_logprobs=request.output.top_logprobs if request.output.logprobs else -1,
            use_cache=not request.cache.bypass,
            cache_salt=request.cache.salt,
        )

    @property
    def time_limit_seconds(self) -> float | None:
        """When max_duration is over; None while it has not begun or there is none."""
        if self.request.max_duration_seconds is None or self.admitted_seconds is None:
            return None
        return self.admitted_seconds + self.request.max_duration_seconds

    def queued(self, event: Queued) -> None:
        """It has to wait."""
        self._before.append(event)
        self._news.set()

    def admitted(self, now_seconds: float) -> None:
        """It entered the batch; again after an engine's crash, which changes nothing for the reader."""
        self._processed_tokens = 0
        if self.admitted_seconds is None:
            self.admitted_seconds = now_seconds

    def prefilled(self, progress: RowPrefill) -> int:
        """A chunk of its prompt was processed; returns how many tokens it had."""
        new_tokens = max(0, progress.processed - max(self._processed_tokens, progress.cached))
        self._processed_tokens = progress.processed
        self._cached_tokens = progress.cached
        if self._first_token_seconds is None and not self.ended:
            self._start()
            if progress.processed < progress.total:
                self._prefill = Prefill(progress.processed, len(self.request.prompt))
                self._news.set()
        return new_tokens

    def token(self, token: RowToken, now_seconds: float) -> None:
        """It has a new token; sees whether that ends it."""
        self._start()
        if self._first_token_seconds is None:
            self._first_token_seconds = now_seconds
        self.output_ids.append(token.token)
        if token.finish == messages.STOPPED:
            self._text.push_end(token.token)
            self._finish(self._ended_by(token.token), now_seconds)
            return
        self._text.push((token.token,), self._logprobs(token))
        if self._text.matched is not None:
            self._finish(Finished(FinishReason.STOP_SEQUENCE, stop_string=self._text.matched), now_seconds)
        elif token.finish == messages.LENGTH:
            self._finish(Finished(FinishReason.LENGTH), now_seconds)
        self._unread_tokens += 1
        if self._unread_tokens > MAX_UNREAD_TOKENS:
            self.fail(SlowReader(f"the client has left more than {MAX_UNREAD_TOKENS} tokens unread"))
        self._news.set()

    def time_is_up(self, now_seconds: float) -> None:
        """max_duration is over: what there is, is the answer."""
        self._start()
        self._finish(Finished(FinishReason.TIME_LIMIT), now_seconds)

    def fail(self, error: MlxGrpcError) -> None:
        """It ends with an error, after what was generated before."""
        if not self.ended:
            self.ended = True
            self.error = error
            self._news.set()

    def drop(self) -> None:
        """Its reader has gone."""
        self.ended = True

    # What the reader takes.

    async def next_events(self) -> list[Event]:
        """Everything that has happened since the last call, at least one event; [] when all has been taken.

        Raises the error that ended the call, when all before it has been taken.
        """
        while True:
            self._news.clear()
            if events := self._take():
                return events
            if self.error is not None:
                raise self.error
            if self.ended:
                return []
            await self._news.wait()

    def _take(self) -> list[Event]:
        self._unread_tokens = 0
        events, self._before = self._before, []
        if self._prefill is not None:
            events.append(self._prefill)
            self._prefill = None
        delta = self._text.take()
        if delta is not None:
            events += self._asked_for(delta)
        events += self._after
        self._after = []
        return events

    def _asked_for(self, delta: Delta) -> list[Event]:
        token_ids = delta.token_ids if self.request.output.token_ids else ()
        if not (delta.text or token_ids or delta.logprobs):
            return []
        return [Delta(delta.text, token_ids, delta.logprobs)]

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        request = self.request
        self._before.append(
            Started(
                generation_id=request.generation_id,
                request_id=request.request_id,
                model=request.model,
                prompt_tokens=len(request.prompt),
                cached_prompt_tokens=self._cached_tokens,
                seed=request.sampling.seed,
            )
        )
        self._news.set()

    def _ended_by(self, token_id: int) -> Finished:
        """The end at one of the end tokens, or at the stop string that it completes."""
        if self._text.matched is not None:
            return Finished(FinishReason.STOP_SEQUENCE, stop_string=self._text.matched)
        eos = token_id in self.request.eos_ids
        return Finished(FinishReason.STOP if eos else FinishReason.STOP_SEQUENCE, stop_token_id=token_id)

    def _finish(self, finished: Finished, now_seconds: float) -> None:
        self.ended = True
        self._text.finish()
        usage = Usage(len(self.request.prompt), self._cached_tokens, len(self.output_ids))
        self.finished, self.completed = finished, Completed(usage, self._timings(now_seconds))
        self._after = [self.finished, self.completed]
        self._news.set()

    def _timings(self, now_seconds: float) -> Timings:
        arrived = self.request.arrived_seconds
        admitted = now_seconds if self.admitted_seconds is None else self.admitted_seconds
        first = now_seconds if self._first_token_seconds is None else self._first_token_seconds
        return Timings(
            queue_seconds=admitted - arrived,
            prefill_seconds=first - admitted,
            first_token_seconds=first - arrived,
            decode_seconds=now_seconds - first,
            total_seconds=now_seconds - arrived,
        )

    def _logprobs(self, token: RowToken) -> tuple[TokenLogprob, ...]:
        found = token.logprobs
        if found is None or not self.request.output.logprobs:
            return ()
        name = self._tokenizer.token_bytes
        top = tuple(
            TopLogprob(token_id, name(token_id), max(logprob, MIN_LOGPROB))
            for token_id, logprob in zip(found.top_ids, found.top_logprobs, strict=True)
        )
        logprob, offset = max(found.logprob, MIN_LOGPROB), self._text.text_chars
        return (PlacedLogprob(token.token, name(token.token), logprob, top, offset),)
