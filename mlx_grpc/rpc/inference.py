"""InferenceService over gRPC."""

from __future__ import annotations

import asyncio
import logging

from grpc.aio import ServicerContext

from mlx_grpc.request import Completed, Delta, Finished, GenerationRequest, Started, TokenLogprob
from mlx_grpc.rpc import convert
from mlx_grpc.service.generation import Generation
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc

log = logging.getLogger(__name__)


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Hands requests to the service and events to the client. A handler that is cancelled, for whatever reason, leaves
    the generation's context, and that frees the row."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: ServicerContext
    ) -> inference_service_pb2.GenerateResponse:
        """Collects the events of a stream."""
        wanted = convert.generation_request(request)
        async with self._service.generation(wanted, deadline_seconds(context)) as generation:
            name_call(context, generation)
            answer = _Answer()
            while events := await generation.next_events():
                for event in events:
                    answer.add(event)
            return answer.response(wanted)

    async def StreamGenerate(self, request: generation_pb2.GenerateRequest, context: ServicerContext) -> None:
        """Writes the events as they come: one write waits for the one before, and what comes meanwhile is merged."""
        wanted = convert.generation_request(request)
        async with self._service.generation(wanted, deadline_seconds(context)) as generation:
            name_call(context, generation)
            while events := await generation.next_events():
                for event in events:
                    await context.write(convert.stream_response(event))


def deadline_seconds(context: ServicerContext) -> float | None:
    """The call's deadline on the loop's clock; None when it has none."""
    remaining_seconds: float | None = context.time_remaining()
    return None if remaining_seconds is None else asyncio.get_running_loop().time() + remaining_seconds


def name_call(context: ServicerContext, generation: Generation) -> None:
    """Put the call's ids into the trailing metadata and the log."""
    plan = generation.plan
    context.set_trailing_metadata(
        (("x-generation-id", plan.generation_id), ("x-request-id", plan.request_id or plan.generation_id))
    )
    log.info(
        "%s accepted: model %s, %d prompt tokens, at most %d new ones%s",
        plan.generation_id, plan.model, len(plan.prompt), plan.max_tokens,
        f", request {plan.request_id}" if plan.request_id else "",
    )  # fmt: skip


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
        assert started is not None and finished is not None and completed is not None
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
