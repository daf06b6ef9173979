"""From an OpenAI body and headers to the project's own request, and the project's field names back. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.http.openai.bodies import CompletionBody, GenerationBody
from mlx_grpc.http.openai.errors import ApiError
from mlx_grpc.http.openai.parse import parse_chat, parse_completion
from mlx_grpc.request import Chat, GenerationRequest, Input, Message, Output, Priority, Sampling, Stop

Headers = Mapping[str, str]

_PRIORITIES = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW}
MAX_TIMEOUT_SECONDS = 1e9
SEED_VALUES = 2**64


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the bridge serves it. `names` gives OpenAI's names for the beginnings of the service's field paths."""

    request: GenerationRequest
    stream: bool
    include_usage: bool
    timeout_seconds: float | None
    names: Mapping[str, str]


ReadCall = Callable[[bytes | bytearray, Headers], Call]


def read_chat(raw: bytes | bytearray, headers: Headers) -> Call:
    """A chat completion. Raises ApiError 400."""
    body = parse_chat(raw)
    messages = tuple(Message(message.role, message.text()) for message in body.messages)
    arguments = json.dumps(body.chat_template_kwargs) if body.chat_template_kwargs else ""
    newer = body.max_completion_tokens
    if newer is not None and body.max_tokens is not None and newer != body.max_tokens:
        raise ApiError(400, "max_tokens and max_completion_tokens say different things", param="max_tokens")
    logprobs = bool(body.logprobs)
    return _call(
        body,
        headers,
        Chat(messages, arguments),
        Output(logprobs=logprobs, top_logprobs=_small(body.top_logprobs, "top_logprobs")),
        max_tokens=body.max_tokens if newer is None else newer,
        names={
            "input": "messages",
            "chat.messages": "messages",
            "chat.template_args_json": "chat_template_kwargs",
            "chat": "messages",
            "stop.max_tokens": "max_tokens" if newer is None else "max_completion_tokens",
            "output.top_logprobs": "top_logprobs",
        },
    )


def read_completion(raw: bytes | bytearray, headers: Headers) -> Call:
    """A plain completion. Raises ApiError 400."""
    body = parse_completion(raw)
    return _call(
        body,
        headers,
        _prompt(body),
        Output(logprobs=body.logprobs is not None, top_logprobs=_small(body.logprobs, "logprobs")),
        max_tokens=body.max_tokens,
        names={
            "input": "prompt",
            "token_ids.ids": "prompt",
            "stop.max_tokens": "max_tokens",
            "output.top_logprobs": "logprobs",
        },
    )


def openai_name(call: Call, error: MlxGrpcError) -> str:
    """The field at fault in OpenAI's names."""
    return translated(error.field, call.names)


_ALWAYS = {
    "request_id": "X-Request-Id",
    "priority": "X-Priority",
    "stop.stop_strings": "stop",
    "stop.min_tokens": "min_tokens",
    "stop.stop_token_ids": "stop_token_ids",
}


def translated(field: str, names: Mapping[str, str]) -> str:
    """A path of the service in the caller's names: the longest beginning that has one; `sampling.` goes away."""
    known = {**_ALWAYS, **names}
    for start in sorted(known, key=len, reverse=True):
        if field == start or field.startswith((f"{start}[", f"{start}.")):
            return known[start] + field[len(start) :]
    return field.removeprefix("sampling.")


def _call(
    body: GenerationBody,
    headers: Headers,
    source: Input,
    output: Output,
    max_tokens: int | None,
    names: Mapping[str, str],
) -> Call:
    options = body.stream_options
    if options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream to be true", param="stream_options")
    request = GenerationRequest(
        input=source,
        model=body.model or "",
        request_id=headers.get("x-request-id", ""),
        sampling=_sampling(body),
        stop=Stop(
            max_tokens=max_tokens,
            min_tokens=_not_negative(body.min_tokens, "min_tokens"),
            stop_strings=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
            stop_token_ids=tuple(body.stop_token_ids or ()),
            ignore_eos=bool(body.ignore_eos),
        ),
        output=output,
        priority=read_priority(headers),
    )
    return Call(
        request, bool(body.stream), bool(options and options.include_usage), read_timeout_seconds(headers), names
    )


def _sampling(body: GenerationBody) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        repetition_window=body.repetition_window,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias={_token_id(key): bias for key, bias in (body.logit_bias or {}).items()},
        # OpenAI's seeds are signed.
        seed=body.seed % SEED_VALUES if body.seed is not None and -SEED_VALUES // 2 <= body.seed < 0 else body.seed,
    )


def _prompt(body: CompletionBody) -> str | tuple[int, ...]:
    prompt = body.prompt
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        if len(prompt) > 1:
            raise ApiError(400, "one prompt a call", param="prompt", code="unsupported_parameter")
        prompt = prompt[0]
    return prompt if isinstance(prompt, str) else tuple(one for one in prompt if isinstance(one, int))


def _token_id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 10):
        raise ApiError(400, f"{key[:32]!r} is no token id", param="logit_bias")
    return int(key)


def _small(value: int | None, name: str) -> int:
    return _not_negative(value, name) or 0


def _not_negative(value: int | None, name: str) -> int | None:
    if value is not None and value < 0:
        raise ApiError(400, f"{name} is {value}, which must be at least 0", param=name)
    return value


def read_priority(headers: Headers) -> Priority:
    """X-Priority. Raises ApiError 400."""
    sent = headers.get("x-priority", "normal")
    if sent.lower() not in _PRIORITIES:
        raise ApiError(400, f"X-Priority is high, normal or low, not {sent[:32]!r}", param="X-Priority")
    return _PRIORITIES[sent.lower()]


def read_timeout_seconds(headers: Headers) -> float | None:
    """X-Timeout, the call's deadline from now; None when there is none. Raises ApiError 400."""
    sent = headers.get("x-timeout")
    if sent is None:
        return None
    try:
        seconds = float(sent) if len(sent) <= 32 and "_" not in sent else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise ApiError(400, f"X-Timeout is a number of seconds above 0, not {sent[:32]!r}", param="X-Timeout")
    return seconds
