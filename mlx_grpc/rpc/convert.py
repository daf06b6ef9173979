"""Protobuf to the project's own request, and events back. Pure; checks only what protobuf alone can express."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage

from mlx_grpc.errors import InvalidField
from mlx_grpc.request import (
    CacheControl,
    Chat,
    Completed,
    Delta,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Input,
    Message,
    Output,
    Prefill,
    Priority,
    Queued,
    Sampling,
    Started,
    Stop,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from mlx_grpc.v1 import chat_pb2, generation_pb2, inference_service_pb2

_ROLES = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "developer",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}
_PRIORITIES = {
    generation_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    generation_pb2.PRIORITY_HIGH: Priority.HIGH,
    generation_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    generation_pb2.PRIORITY_LOW: Priority.LOW,
}
_FINISH_REASONS = {
    FinishReason.STOP: generation_pb2.FINISH_REASON_STOP,
    FinishReason.STOP_SEQUENCE: generation_pb2.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.TIME_LIMIT: generation_pb2.FINISH_REASON_TIME_LIMIT,
}


def generation_request(proto: generation_pb2.GenerateRequest) -> GenerationRequest:
    """The request as it was sent. Raises InvalidField for enums and shapes that mean nothing."""
    if proto.priority not in _PRIORITIES:
        raise InvalidField(f"{proto.priority} is no priority", field="priority")
    return GenerationRequest(
        input=_input(proto),
        model=proto.model,
        request_id=proto.request_id,
        sampling=_sampling(proto.sampling),
        stop=_stop(proto.stop),
        output=Output(proto.output.token_ids, proto.output.logprobs, proto.output.top_logprobs),
        priority=_PRIORITIES[proto.priority],
        cache=CacheControl(proto.cache.bypass, proto.cache.salt),
    )


def chat(proto: chat_pb2.Chat) -> Chat:
    """The conversation as it was sent. Raises InvalidField for a role or a part that means nothing."""
    messages = []
    for position, message in enumerate(proto.messages):
        path = f"chat.messages[{position}]"
        if message.role not in _ROLES:
            raise InvalidField(f"{message.role} is no role, or none was sent", field=f"{path}.role")
        for part_position, part in enumerate(message.content):
            if part.WhichOneof("part") is None:
                raise InvalidField("the part is empty", field=f"{path}.content[{part_position}]")
        if not message.content:
            raise InvalidField("the message has no content", field=f"{path}.content")
        messages.append(Message(_ROLES[message.role], "".join(part.text for part in message.content)))
    return Chat(tuple(messages), proto.template_args_json, proto.continue_final_message)


def _input(proto: generation_pb2.GenerateRequest) -> Input | None:
    match proto.WhichOneof("input"):
        case "prompt":
            return proto.prompt
        case "chat":
            return chat(proto.chat)
        case "token_ids":
            return tuple(proto.token_ids.ids[:])  # as a list first: it is half the time
    return None


def _sent(proto: ProtoMessage, name: str) -> bool:
    return proto.HasField(name)


def _sampling(proto: generation_pb2.Sampling) -> Sampling:
    return Sampling(
        temperature=proto.temperature if _sent(proto, "temperature") else None,
        top_p=proto.top_p if _sent(proto, "top_p") else None,
        top_k=proto.top_k if _sent(proto, "top_k") else None,
        min_p=proto.min_p if _sent(proto, "min_p") else None,
        repetition_penalty=proto.repetition_penalty if _sent(proto, "repetition_penalty") else None,
        repetition_window=proto.repetition_window if _sent(proto, "repetition_window") else None,
        presence_penalty=proto.presence_penalty if _sent(proto, "presence_penalty") else None,
        frequency_penalty=proto.frequency_penalty if _sent(proto, "frequency_penalty") else None,
        logit_bias=dict(proto.logit_bias),
        seed=proto.seed if _sent(proto, "seed") else None,
    )


def _stop(proto: generation_pb2.Stop) -> Stop:
    duration = proto.max_duration
    return Stop(
        max_tokens=proto.max_tokens if _sent(proto, "max_tokens") else None,
        min_tokens=proto.min_tokens if _sent(proto, "min_tokens") else None,
        stop_strings=tuple(proto.stop_strings),
        stop_token_ids=tuple(proto.stop_token_ids),
        ignore_eos=proto.ignore_eos,
        max_duration_seconds=duration.seconds + duration.nanos / 1e9 if _sent(proto, "max_duration") else None,
    )


def stream_response(event: Event) -> inference_service_pb2.StreamGenerateResponse:
    """One event as a message of the stream."""
    make = inference_service_pb2.StreamGenerateResponse
    match event:
        case Delta():
            return make(
                delta=inference_service_pb2.DeltaEvent(
                    index=event.index, text=event.text, token_ids=event.token_ids, logprobs=logprobs(event.logprobs)
                )
            )
        case Queued(position, wait_seconds):
            estimated_wait = None if wait_seconds is None else duration(wait_seconds)
            return make(queued=inference_service_pb2.QueuedEvent(position=position, estimated_wait=estimated_wait))
        case Started():
            return make(
                started=inference_service_pb2.StartedEvent(
                    generation_id=event.generation_id,
                    request_id=event.request_id,
                    model=event.model,
                    prompt_tokens=event.prompt_tokens,
                    cached_prompt_tokens=event.cached_prompt_tokens,
                    seed=event.seed,
                )
            )
        case Prefill(processed, total):
            return make(prefill=inference_service_pb2.PrefillEvent(processed_tokens=processed, total_tokens=total))
        case Finished():
            return make(
                finished=inference_service_pb2.FinishedEvent(
                    index=event.index, finish_reason=finish_reason(event), stop_detail=stop_detail(event)
                )
            )
        case Completed():
            return make(
                completed=inference_service_pb2.CompletedEvent(usage=usage(event.usage), timings=timings(event.timings))
            )


def duration(seconds: float) -> Duration:
    """Seconds, to the nanosecond; never negative."""
    result = Duration()
    result.FromNanoseconds(max(0, round(seconds * 1e9)))
    return result


def finish_reason(event: Finished) -> generation_pb2.FinishReason:
    """The proto's word for why it ended."""
    return _FINISH_REASONS[event.reason]


def stop_detail(event: Finished) -> generation_pb2.StopDetail | None:
    """What ended it; None where nothing did."""
    if event.stop_string:
        return generation_pb2.StopDetail(stop_string=event.stop_string)
    if event.stop_token_id is not None:
        return generation_pb2.StopDetail(stop_token_id=event.stop_token_id)
    return None


def logprobs(found: Iterable[TokenLogprob]) -> list[generation_pb2.TokenLogprob]:
    """Log-probabilities of a delta's tokens."""
    return [
        generation_pb2.TokenLogprob(
            token_id=one.token_id, token=one.token, logprob=one.logprob, top=[_top(top) for top in one.top]
        )
        for one in found
    ]


def _top(top: TopLogprob) -> generation_pb2.TopLogprob:
    return generation_pb2.TopLogprob(token_id=top.token_id, token=top.token, logprob=top.logprob)


def usage(found: Usage) -> generation_pb2.Usage:
    """Token counts."""
    return generation_pb2.Usage(
        prompt_tokens=found.prompt_tokens,
        cached_prompt_tokens=found.cached_prompt_tokens,
        completion_tokens=found.completion_tokens,
    )


def timings(found: Timings) -> generation_pb2.Timings:
    """Where the time went."""
    return generation_pb2.Timings(
        queue=duration(found.queue_seconds),
        prefill=duration(found.prefill_seconds),
        time_to_first_token=duration(found.first_token_seconds),
        decode=duration(found.decode_seconds),
        total=duration(found.total_seconds),
    )
