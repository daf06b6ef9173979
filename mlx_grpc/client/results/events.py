"""A stream's messages -> the events of `mlx_grpc.request`, and events -> a `Generation`. Pure."""

from __future__ import annotations

from mlx_grpc.client.results import responses
from mlx_grpc.client.results.data import Generation
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import Completed, Delta, Event, Finished, Prefill, Queued, Started, TokenLogprob
from mlx_grpc.v1 import inference_service_pb2 as inference


def event(message: inference.StreamGenerateResponse) -> Event | None:
    """The event of a message; None for one that this client does not know, which it passes over."""
    match message.WhichOneof("event"):
        case "queued":
            return _queued(message.queued)
        case "started":
            return _started(message.started)
        case "prefill":
            return Prefill(message.prefill.processed_tokens, message.prefill.total_tokens)
        case "delta":
            return _delta(message.delta)
        case "finished":
            return _finished(message.finished)
        case "completed":
            return Completed(responses.usage(message.completed.usage), responses.timings(message.completed.timings))
        case _:
            return None


def _queued(message: inference.QueuedEvent) -> Queued:
    measured = message.HasField("estimated_wait")
    return Queued(message.position, responses.seconds(message.estimated_wait) if measured else None)


def _started(message: inference.StartedEvent) -> Started:
    return Started(
        generation_id=message.generation_id,
        request_id=message.request_id,
        model=message.model,
        prompt_tokens=message.prompt_tokens,
        cached_prompt_tokens=message.cached_prompt_tokens,
        seed=message.seed,
    )


def _delta(message: inference.DeltaEvent) -> Delta:
    return Delta(message.text, tuple(message.token_ids), responses.logprobs(message.logprobs), index=message.index)


def _finished(message: inference.FinishedEvent) -> Finished:
    return Finished(
        responses.finish_reason(message.finish_reason),
        message.stop_detail.stop_string,
        responses.stop_token_id(message.stop_detail),
        index=message.index,
    )


class Gatherer:
    """Puts a stream's events together again: the same facts that `generate` returns at once."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._completed: Completed | None = None

    def add(self, event: Event) -> None:
        """Takes in one event."""
        match event:
            case Delta():
                self._texts.append(event.text)
                self._token_ids += event.token_ids
                self._logprobs += event.logprobs
            case Started():
                self._started = event
            case Finished():
                self._finished = event
            case Completed():
                self._completed = event
            case _:
                pass

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def generation(self) -> Generation:
        """The whole generation; MlxGrpcError when the stream ended, or was left, before its last event."""
        if self._started is None or self._finished is None or self._completed is None:
            raise MlxGrpcError("the stream ended before the generation did")
        return Generation(
            text=self.text,
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs),
            finish_reason=self._finished.reason,
            stop_string=self._finished.stop_string,
            stop_token_id=self._finished.stop_token_id,
            usage=self._completed.usage,
            timings=self._completed.timings,
            seed=self._started.seed,
            generation_id=self._started.generation_id,
            request_id=self._started.request_id,
            model=self._started.model,
        )
