"""InferenceService over gRPC."""

from __future__ import annotations

import asyncio

from mlx_grpc.errors import SlowReader
from mlx_grpc.request import Completed, Delta, Finished, GenerationRequest, Started, TokenLogprob
from mlx_grpc.rpc import convert, large
from mlx_grpc.rpc.context import Context, client_of, deadline_seconds, name_call
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Hands requests to the service and events to the client. A handler that is cancelled, for whatever reason, leaves
    the generation's context, and that frees the row."""

    def __init__(self, service: Service, slow_reader_seconds: float) -> None:
        self._service = service
        self._slow_reader_seconds = slow_reader_seconds

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> inference_service_pb2.GenerateResponse:
        """Collects the events of a stream."""
        wanted = await large.generation_request(request, self._service)
        async with self._service.generation(wanted, deadline_seconds(context), client_of(context)) as generation:
            name_call(context, generation.request)
            answer = _Answer()
            while events := await generation.next_events():
                for event in events:
                    answer.add(event)
            return answer.response(wanted)

    # A coroutine that writes, where the generated base has a generator: one that is blocked in a write is closed late.
    async def StreamGenerate(  # type: ignore[override]
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> None:
        """Writes the events as they come: one write waits for the one before, and what comes meanwhile is merged."""
        wanted = await large.generation_request(request, self._service)
        async with self._service.generation(wanted, deadline_seconds(context), client_of(context)) as generation:
            name_call(context, generation.request)
            while events := await generation.next_events():
                for event in events:
                    await self._write(context, convert.stream_response(event))

    async def _write(self, context: Context, message: inference_service_pb2.StreamGenerateResponse) -> None:
        """grpc takes some 10,000 small messages before a write waits for the reader; one that then waits for long is
        the end of the call. The batch never waits: the generation keeps what comes meanwhile, up to a bound."""
        try:
            async with asyncio.timeout(self._slow_reader_seconds):
                await context.write(message)
        except TimeoutError:
            raise SlowReader(f"the client read nothing for {self._slow_reader_seconds:g} s") from None


class _Answer:
    """The events of a generation, collected."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._completed: Completed | None = None
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    def add(self, event: object) -> None:
        match event:
            case Delta():
                self._text.append(event.text)
                self._token_ids += event.token_ids
                self._logprobs += event.logprobs
            case Started():
                self._started = event
            case Finished():
                self._finished = event
            case Completed():
                self._completed = event

    def response(self, wanted: GenerationRequest) -> inference_service_pb2.GenerateResponse:
        started, finished, completed = self._started, self._finished, self._completed
        assert started is not None
        assert finished is not None
        assert completed is not None
        candidate = inference_service_pb2.Candidate(
            index=finished.index,
            text="".join(self._text),
            token_ids=self._token_ids,
            logprobs=convert.logprobs(self._logprobs),
            finish_reason=convert.finish_reason(finished),
            stop_detail=convert.stop_detail(finished),
        )
        return inference_service_pb2.GenerateResponse(
            generation_id=started.generation_id,
            request_id=wanted.request_id,
            model=started.model,
            seed=started.seed,
            candidates=[candidate],
            usage=convert.usage(completed.usage),
            timings=convert.timings(completed.timings),
        )
