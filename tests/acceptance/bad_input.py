"""The table of bad input: each row sends something that no call may send, and says what must come back.

`run_table(api)` runs it against any server; as a program it prints a table in Markdown:

    python -m tests.acceptance.bad_input HOST:PORT
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mlx_grpc.v1 import chat_pb2, generation_pb2, model_pb2, model_service_pb2
from tests.helpers.rpc import Api, Output, Refusal, Request, Sampling, Stop, connected, refused

METHOD = "/mlx_grpc.v1.InferenceService/"
USER, SYSTEM = chat_pb2.ROLE_USER, chat_pb2.ROLE_SYSTEM
NAN = float("nan")
Make = Callable[[model_pb2.Model], Request]


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent and what must come: code, reason, field. grpc's own refusals have no reason."""

    name: str
    send: Callable[[Api, model_pb2.Model], Awaitable[Any]]
    code: str
    reason: str = ""
    field: str = ""

    def fits(self, refusal: Refusal) -> bool:
        """Whether what came back is what must."""
        return (refusal.code, refusal.reason, refusal.field) == (self.code, self.reason, self.field)


def message(role: int, text: str = "hi") -> chat_pb2.Message:
    role_value: Any = role
    return chat_pb2.Message(role=role_value, content=[chat_pb2.ContentPart(text=text)])


def chat(*messages: chat_pb2.Message, **more: Any) -> Request:
    return Request(chat=chat_pb2.Chat(messages=messages, **more))


def ids(*numbers: int) -> Request:
    return Request(token_ids=generation_pb2.TokenIds(ids=numbers))


def asking(make: Make) -> Callable[[Api, model_pb2.Model], Awaitable[Any]]:
    return lambda api, model: api.answer(make(model))


def raw(data: bytes, method: str = "Generate", **call: Any) -> Callable[[Api, model_pb2.Model], Awaitable[Any]]:
    def send(api: Api, model: model_pb2.Model) -> Awaitable[Any]:
        make: Any = api.channel.unary_unary
        answered: Awaitable[Any] = make(METHOD + method)(data, **call)
        return answered

    return send


def invalid(name: str, field: str, make: Make) -> Case:
    return Case(name, asking(make), "INVALID_ARGUMENT", "INVALID_FIELD", field)


def sampling(**settings: Any) -> Make:
    return lambda _: Request(prompt="hi", sampling=Sampling(**settings))


def stop(**settings: Any) -> Make:
    return lambda _: Request(prompt="hi", stop=Stop(**settings))


def unsupported(name: str, field: str, request: Request, data: bytes) -> Case:
    """A field that a newer client's schema has and ours has not."""
    return Case(name, raw(request.SerializeToString() + data), "UNIMPLEMENTED", "UNSUPPORTED_FIELD", field)


HI = Request(prompt="hi")
CASES = (
    invalid("empty prompt", "prompt", lambda _: Request(prompt="")),
    invalid("no input", "input", lambda _: Request()),
    invalid("no token ids", "token_ids.ids", lambda _: ids()),
    Case(
        "prompt past the context", asking(lambda model: ids(*[1] * model.context_length)),
        "INVALID_ARGUMENT", "PROMPT_TOO_LONG", "input",
    ),
    Case(
        "text far past the context", asking(lambda model: Request(prompt="x" * (64 * model.context_length + 1))),
        "INVALID_ARGUMENT", "PROMPT_TOO_LONG", "input",
    ),
    invalid("token id outside the vocabulary", "token_ids.ids[1]", lambda model: ids(1, model.vocab_size)),
    Case(
        "unknown model", asking(lambda _: Request(prompt="hi", model="nobody")),
        "NOT_FOUND", "MODEL_NOT_FOUND", "model",
    ),
    invalid(
        "top_k of the vocabulary", "sampling.top_k",
        lambda model: Request(prompt="hi", sampling=Sampling(top_k=model.vocab_size)),
    ),
    invalid("top_k far above the vocabulary", "sampling.top_k", sampling(top_k=2**32 - 1)),
    invalid("negative temperature", "sampling.temperature", sampling(temperature=-0.5)),
    invalid("temperature NaN", "sampling.temperature", sampling(temperature=NAN)),
    invalid("temperature infinite", "sampling.temperature", sampling(temperature=float("inf"))),
    invalid("top_p NaN", "sampling.top_p", sampling(top_p=NAN)),
    invalid("top_p 0", "sampling.top_p", sampling(top_p=0.0)),
    invalid("min_p above 1", "sampling.min_p", sampling(min_p=1.5)),
    invalid("repetition_penalty 0", "sampling.repetition_penalty", sampling(repetition_penalty=0.0)),
    invalid("repetition_window 0", "sampling.repetition_window", sampling(repetition_window=0)),
    invalid("presence_penalty NaN", "sampling.presence_penalty", sampling(presence_penalty=NAN)),
    invalid("a bias NaN", "sampling.logit_bias[1]", sampling(logit_bias={1: NAN})),
    invalid("a bias for no token", f"sampling.logit_bias[{2**31}]", sampling(logit_bias={2**31: 1.0})),
    invalid("2,000 biases", "sampling.logit_bias", sampling(logit_bias=dict.fromkeys(range(2000), 1.0))),
    invalid("10,000 stop strings", "stop.stop_strings", stop(stop_strings=["x"] * 10_000)),
    invalid("empty stop string", "stop.stop_strings[0]", stop(stop_strings=[""])),
    invalid("stop token outside the vocabulary", "stop.stop_token_ids[0]", stop(stop_token_ids=[2**31])),
    invalid("max_tokens 0", "stop.max_tokens", stop(max_tokens=0)),
    invalid("min_tokens above max_tokens", "stop.min_tokens", stop(min_tokens=9, max_tokens=8)),
    invalid("max_duration 0", "stop.max_duration", stop(max_duration={})),
    invalid(
        "21 top_logprobs", "output.top_logprobs",
        lambda _: Request(prompt="hi", output=Output(logprobs=True, top_logprobs=21)),
    ),
    invalid("request_id of two lines", "request_id", lambda _: Request(prompt="hi", request_id="a\nb")),
    Case(
        "unknown priority", raw(HI.SerializeToString() + b"\x68\x63"), "INVALID_ARGUMENT", "INVALID_FIELD", "priority"
    ),
    invalid("chat with no message", "chat.messages", lambda _: chat()),
    invalid("chat with no user turn", "chat.messages", lambda _: chat(message(SYSTEM))),
    invalid("chat with a role that is none", "chat.messages[0].role", lambda _: chat(message(99))),
    invalid(
        "chat with a message without content", "chat.messages[0].content",
        lambda _: chat(chat_pb2.Message(role=USER)),
    ),
    invalid(
        "a user's message to be continued", "chat.continue_final_message",
        lambda _: chat(message(USER), continue_final_message=True),
    ),
    invalid(
        "template arguments that are no JSON", "chat.template_args_json",
        lambda _: chat(message(USER), template_args_json="{"),
    ),
    invalid("5,000 messages", "chat.messages", lambda _: chat(*[message(USER)] * 5000)),
    unsupported("tools, of a newer schema", "tools", HI, b"\x7a\x00"),
    unsupported("a field that nobody knows", "#999", HI, b"\xba\x3e\x00"),
    unsupported(
        "an image in a chat", "chat.messages[0].content[0].image",
        Request(), b"\x22\x08\x0a\x06\x08\x03\x12\x02\x12\x00",
    ),
    Case("invalid UTF-8", raw(b"\x1a\x02\xff\xfe"), "INVALID_ARGUMENT", "INVALID_FIELD", "request"),
    Case("bytes that are no message", raw(b"\xff" * 64), "INVALID_ARGUMENT", "INVALID_FIELD", "request"),
    Case("a message of 100 MB", raw(b"\x1a" + b"x" * 100_000_000), "RESOURCE_EXHAUSTED"),
    Case("headers of 1 MB", raw(b"", metadata=(("x-large", "x" * 1_000_000),)), "RESOURCE_EXHAUSTED"),
    Case("a method that there is not", raw(b"", "Degenerate"), "UNIMPLEMENTED"),
)  # fmt: skip

RAISING_TEMPLATE = invalid(
    "a template that raises", "chat", lambda _: chat(message(USER), template_args_json='{"raise": "no"}')
)
"""Only where the template raises for this argument, as the scripted model's does."""


async def model_of(api: Api) -> model_pb2.Model:
    response: model_service_pb2.GetModelResponse = await api.models.GetModel(model_service_pb2.GetModelRequest())
    return response.model


async def print_table(target: str, write: Callable[[str], object]) -> int:
    """Run all cases one after another; returns how many got something else than they must."""
    wrong = 0
    async with connected(target) as api:
        model = await model_of(api)
        write("| input | code | reason | field |\n|---|---|---|---|")
        for case in CASES:
            refusal = await refused(case.send(api, model))
            wrong += not case.fits(refusal)
            mark = "" if case.fits(refusal) else f" (must be {case.code} {case.reason} {case.field})"
            write(f"| {case.name} | {refusal.code} | {refusal.reason or '(grpc itself)'} | {refusal.field}{mark} |")
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, asyncio.run(print_table(sys.argv[1], lambda line: sys.stdout.write(line + "\n")))))
