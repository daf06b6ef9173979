"""Messages of a stream become events, and events a generation."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from mlx_grpc.client.results.data import ModelState
from mlx_grpc.client.results.events import Gatherer, event
from mlx_grpc.client.results.responses import generation, model
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import (
    Completed,
    Delta,
    Finished,
    FinishReason,
    Prefill,
    Queued,
    Started,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from mlx_grpc.v1 import generation_pb2, inference_service_pb2, model_pb2

Message = inference_service_pb2.StreamGenerateResponse
LOGPROB = TokenLogprob(5, b"\xc3", -0.5, (TopLogprob(6, b"x", -1.5),))
STARTED = Started("gen-1", "mine", "tiny", 3, 1, 2**53)
TIMINGS = Timings(0.5, 0.25, 0.75, 1.5, 2.25)


def message(**event: object) -> Message:
    return Message(**event)  # type: ignore[arg-type]


def duration(seconds: float) -> Duration:
    result = Duration()
    result.FromMilliseconds(round(seconds * 1000))
    return result


def wire_logprob() -> generation_pb2.TokenLogprob:
    top = generation_pb2.TopLogprob(token_id=6, token=b"x", logprob=-1.5)
    return generation_pb2.TokenLogprob(token_id=5, token=b"\xc3", logprob=-0.5, top=[top])


def wire_timings() -> generation_pb2.Timings:
    return generation_pb2.Timings(
        queue=duration(0.5),
        prefill=duration(0.25),
        time_to_first_token=duration(0.75),
        decode=duration(1.5),
        total=duration(2.25),
    )


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (message(queued={"position": 2}), Queued(2, None)),
        (message(queued={"position": 2, "estimated_wait": duration(1.5)}), Queued(2, 1.5)),
        (
            message(
                started={
                    "generation_id": "gen-1",
                    "request_id": "mine",
                    "model": "tiny",
                    "prompt_tokens": 3,
                    "cached_prompt_tokens": 1,
                    "seed": 2**53,
                }
            ),
            STARTED,
        ),
        (message(prefill={"processed_tokens": 1, "total_tokens": 3}), Prefill(1, 3)),
        (
            message(delta={"text": "é", "token_ids": [5], "logprobs": [wire_logprob()]}),
            Delta("é", (5,), (LOGPROB,)),
        ),
        (
            message(finished={"finish_reason": 2, "stop_detail": {"stop_string": "END"}}),
            Finished(FinishReason.STOP_SEQUENCE, "END"),
        ),
        (
            message(finished={"finish_reason": 1, "stop_detail": {"stop_token_id": 0}}),
            Finished(FinishReason.STOP, "", 0),
        ),
        (
            message(completed={"usage": {"prompt_tokens": 3}, "timings": wire_timings()}),
            Completed(Usage(3, 0, 0), TIMINGS),
        ),
    ],
)
def test_each_event(sent: Message, expected: object) -> None:
    """Every field of every event arrives."""
    assert event(sent) == expected


def test_an_unknown_event_is_passed_over() -> None:
    """A newer server may send more kinds; field 7 is the first of those left free."""
    assert event(Message.FromString(b"\x3a\x00")) is None


def test_an_unknown_finish_reason_is_an_error() -> None:
    """Taking it for one that we know would be a lie."""
    with pytest.raises(MlxGrpcError, match="finish reason 77"):
        event(Message(finished=inference_service_pb2.FinishedEvent(finish_reason=77)))  # type: ignore[arg-type]


def test_gathered_events_are_the_unary_answer() -> None:
    """A stream that is put together says what Generate says at once."""
    gatherer = Gatherer()
    for one in (
        STARTED,
        Delta("a", (1,), (LOGPROB,)),
        Delta("b", (2,)),
        Finished(FinishReason.LENGTH),
        Completed(Usage(3, 1, 2), TIMINGS),
    ):
        gatherer.add(one)
    candidate = inference_service_pb2.Candidate(
        text="ab", token_ids=[1, 2], logprobs=[wire_logprob()], finish_reason=generation_pb2.FINISH_REASON_LENGTH
    )
    whole = inference_service_pb2.GenerateResponse(
        generation_id="gen-1",
        request_id="mine",
        model="tiny",
        seed=2**53,
        candidates=[candidate],
        usage=generation_pb2.Usage(prompt_tokens=3, cached_prompt_tokens=1, completion_tokens=2),
        timings=wire_timings(),
    )
    assert gatherer.generation() == generation(whole)


def test_half_a_stream_is_no_generation() -> None:
    """Its text is there; a result would claim an end that it never had."""
    gatherer = Gatherer()
    gatherer.add(Delta("a"))
    assert gatherer.text == "a"
    with pytest.raises(MlxGrpcError, match="ended before"):
        gatherer.generation()


def test_a_newer_servers_model_can_be_listed() -> None:
    """States and features that are not known here do not hide the model."""
    sent = model_pb2.Model(id="m", state=9, features=[1, 8])  # type: ignore[arg-type, list-item]
    got = model(sent)
    assert (got.state, got.features) == (ModelState.UNKNOWN, ("chat", "unknown_8"))
