"""The one service that gRPC and the HTTP bridge call: requests in, live generations out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlx_grpc.bounds.rates import ClientRates
from mlx_grpc.errors import (
    CancelledByAdmin,
    Draining,
    InvalidField,
    MlxGrpcError,
    ModelLoading,
    RateLimited,
    UnsupportedField,
)
from mlx_grpc.observe.stats import RecentError, Stats
from mlx_grpc.observe.traces import CallSpan, NoTracing, Tracing
from mlx_grpc.request import Chat, GenerationRequest
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.hosting.catalog import Catalog
from mlx_grpc.service.hosting.host import ModelHost
from mlx_grpc.service.hosting.model_state import RETRY_LOADING_SECONDS
from mlx_grpc.service.intake.defaults import resolve_max_tokens, resolve_sampling
from mlx_grpc.service.intake.encode import encode_prompt
from mlx_grpc.service.intake.resolved import ResolvedRequest
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.validate import validate, validate_for_model


class Service:
    """Accepts calls until it drains."""

    def __init__(
        self,
        catalog: Catalog,
        default_max_tokens: int,
        stats: Stats,
        tracing: Tracing | None = None,
        rates: ClientRates | None = None,
    ) -> None:
        self._tracing = tracing or NoTracing()
        self.catalog = catalog
        self.stats = stats
        self.draining = False
        self._default_max_tokens = default_max_tokens
        self._rates = rates or ClientRates()

    @asynccontextmanager
    async def generation(
        self, request: GenerationRequest, deadline_seconds: float | None = None, client: str = ""
    ) -> AsyncIterator[Generation]:
        """A live generation for as long as the context is open; leaving it early frees its row.

        `deadline_seconds` is on the event loop's clock; `client` says who asks, as `auth.clients` names them. Raises
        the errors of DESIGN's table that a request can meet before it is accepted.
        """
        with self._tracing.call() as span:
            try:
                host, generation = await self._accept(request, deadline_seconds, client)
            except MlxGrpcError as error:
                self.stats.refused[error.reason] += 1
                self._remember(error, request.model)
                span.failed(error.reason)
                raise
            try:
                yield generation
            except MlxGrpcError as error:  # the reader's own, such as SlowReader: so it counts, and as such
                generation.fail(error)
                raise
            finally:
                host.dispatcher.calls.drop(generation)
                self._count(generation)
                note_end(span, generation)

    async def _accept(
        self, request: GenerationRequest, deadline_seconds: float | None, client: str
    ) -> tuple[ModelHost, Generation]:
        loop = asyncio.get_running_loop()
        arrived_seconds = loop.time()
        self._check_accepting()
        self._rates.check_tokens(client, arrived_seconds)
        self._rates.take_request(client, arrived_seconds)
        host = self.catalog.get(request.model)
        host.life.check_ready()
        validate(request)
        validate_for_model(request, host.vocab_size, host.context_length)
        with host.dispatcher.preparing(client):
            resolved, tokenizer = await self._resolve(request, host, client, arrived_seconds, deadline_seconds)
            # Tokenizing may have taken a while: what was true before it may not be now.
            self._check_accepting()
            host.life.check_ready()
            self._rates.check_tokens(client, loop.time())
            generation = Generation(resolved, tokenizer)
            host.dispatcher.submit(generation)
            self._rates.spend_tokens(client, len(resolved.prompt), loop.time())
        self.stats.accepted[resolved.model] += 1
        self.stats.prompt_tokens[resolved.model] += len(resolved.prompt)
        return host, generation

    def _count(self, generation: Generation) -> None:
        """Count how an accepted call ended."""
        stats, model = self.stats, generation.request.model
        if generation.error is not None:
            stats.failed[generation.error.reason] += 1
            self._remember(generation.error, model, generation.request.generation_id)
        elif generation.finished is None:
            stats.abandoned[model] += 1
        else:
            stats.completed[generation.finished.reason.value] += 1
        if generation.completed is not None:
            timings = generation.completed.timings
            stats.cached_prompt_tokens[model] += generation.completed.usage.cached_prompt_tokens
            stats.record_latencies(timings.queue_seconds, timings.first_token_seconds)

    def _remember(self, error: MlxGrpcError, model: str, generation_id: str = "") -> None:
        """Keep the error for people to look at. What it says of a field may quote the request, so there the name is
        all."""
        text = f"field {error.field}" if isinstance(error, InvalidField | UnsupportedField) else error.message[:200]
        name = (model or self.catalog.default_id)[:100]
        self.stats.recent_errors.append(RecentError(time.time(), name, error.reason, text, generation_id))

    def cancel(self, generation_id: str) -> bool:
        """An operator ends a call; False where none with that id is live."""
        for host in self.catalog.hosts:
            for generation in host.dispatcher.calls:
                if generation.request.generation_id == generation_id:
                    host.dispatcher.calls.fail(
                        generation, CancelledByAdmin("an operator of the server ended the request")
                    )
                    return True
        return False

    def refusal(self) -> MlxGrpcError | None:
        """Why a call for the default model would not be taken now; None when it would."""
        try:
            self._check_accepting()
            return self.catalog.get("").life.refusal()
        except MlxGrpcError as error:
            return error

    def tokenizer(self, model: str, client: str) -> tuple[ModelHost, Tokenizer]:
        """A model's tokenizer, which outlives its engine's crashes, for one call. Raises as a generation would."""
        try:
            self._rates.take_request(client, asyncio.get_running_loop().time())
        except RateLimited as error:
            self.stats.refused[error.reason] += 1
            raise
        host = self.catalog.get(model)
        if host.tokenizer is None:
            host.life.check_ready()
            raise ModelLoading(f"model {host.source.id} is loading", retry_after_seconds=RETRY_LOADING_SECONDS)
        return host, host.tokenizer

    async def drain(self, grace_seconds: float) -> bool:
        """Refuse new calls, let the accepted ones finish, and end the rest after the grace; True when none was left."""
        self.draining = True
        dispatchers = [host.dispatcher for host in self.catalog.hosts]
        try:
            async with asyncio.timeout(grace_seconds):
                await asyncio.gather(*(dispatcher.idle() for dispatcher in dispatchers))
            return True
        except TimeoutError:
            for dispatcher in dispatchers:
                dispatcher.calls.fail_all(lambda: Draining("the server is going down, and the time to finish is over"))
            return False

    def _check_accepting(self) -> None:
        if self.draining:
            raise Draining("the server is going down")

    async def _resolve(
        self,
        request: GenerationRequest,
        host: ModelHost,
        client: str,
        arrived_seconds: float,
        deadline_seconds: float | None,
    ) -> tuple[ResolvedRequest, Tokenizer]:
        info, tokenizer, context_length = host.info, host.tokenizer, host.context_length
        assert info is not None
        assert tokenizer is not None
        assert request.input is not None
        prompt = await encode_prompt(request.input, tokenizer, context_length, info.vocab_size, host.turns, client)
        stop = request.stop
        resolved = ResolvedRequest(
            generation_id=f"gen-{uuid.uuid4().hex}",
            request_id=request.request_id,
            client=client,
            model=host.source.id,
            prompt=prompt,
            sampling=resolve_sampling(request.sampling, host.defaults, info.vocab_size),
            max_tokens=resolve_max_tokens(stop, len(prompt), context_length, self._default_max_tokens),
            min_tokens=stop.min_tokens or 0,
            eos_ids=frozenset() if stop.ignore_eos else frozenset(info.eos_ids) | frozenset(tokenizer.eos_ids),
            stop_token_ids=frozenset(stop.stop_token_ids),
            stop_strings=stop.stop_strings,
            max_duration_seconds=stop.max_duration_seconds,
            output=request.output,
            priority=request.priority,
            cache=request.cache,
            start_of_text=isinstance(request.input, Chat) and not request.input.continue_final_message,
            arrived_seconds=arrived_seconds,
            deadline_seconds=deadline_seconds,
        )
        return resolved, tokenizer


def note_end(span: CallSpan, generation: Generation) -> None:
    """What a span may know of a call that has ended: numbers and names, no content."""
    resolved = generation.request
    span.note(
        model=resolved.model,
        generation_id=resolved.generation_id,
        prompt_tokens=len(resolved.prompt),
        completion_tokens=len(generation.output_ids),
    )
    if generation.error is not None:
        span.failed(generation.error.reason)
    elif generation.completed is not None and generation.finished is not None:
        timings = generation.completed.timings
        span.note(
            finish_reason=generation.finished.reason.value,
            queue_seconds=timings.queue_seconds,
            first_token_seconds=timings.first_token_seconds,
        )
    else:
        span.note(finish_reason="abandoned")
