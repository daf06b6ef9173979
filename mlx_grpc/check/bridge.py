"""The tests of the OpenAI-compatible port, as a chat page uses it."""

from __future__ import annotations

import asyncio
from typing import Any

from mlx_grpc.check.outcome import Failed
from mlx_grpc.check.subject import Subject
from mlx_grpc.check.web import Busy

PATH = "/v1/chat/completions"
QUESTIONS = ("What is the capital of France?", "And what is the capital of Italy?")


async def models(subject: Subject) -> str:
    """The models are listed."""
    web = subject.bridge
    answer = await asyncio.to_thread(web.json, "GET", "/v1/models")
    names = [one.get("id") for one in answer.get("data", ())] if isinstance(answer, dict) else []
    if not names:
        raise Failed("/v1/models lists no model")
    return ", ".join(map(str, names))


async def whole(subject: Subject) -> str:
    """A chat completion at once."""
    return f'"{_shown(await _ask(subject, QUESTIONS[0], stream=False))}"'


async def streamed(subject: Subject) -> str:
    """A chat completion as server-sent events."""
    return f'"{_shown(await _ask(subject, QUESTIONS[0], stream=True))}"'


async def together(subject: Subject) -> str:
    """As a chat page does it: a second question before the first is answered, two of each kind."""
    asked = [(question, stream) for question in QUESTIONS for stream in (True, False)]
    texts = await asyncio.gather(*(_ask(subject, question, stream) for question, stream in asked))
    return f"{len(texts)} answers, {sum(map(len, texts))} characters"


async def _ask(subject: Subject, question: str, stream: bool) -> str:
    """The answer's text. Who is told to come back later, does."""
    web = subject.bridge
    body = {
        "model": subject.settings.model or await _default_model(subject),
        "messages": [{"role": "user", "content": question}],
        "max_tokens": subject.settings.tokens,
        "temperature": 0,
        "stream": stream,
    }
    while True:
        try:
            if stream:
                return _joined(await asyncio.to_thread(web.events, PATH, body))
            return _message(await asyncio.to_thread(web.json, "POST", PATH, body))
        except Busy as error:
            await asyncio.sleep(max(0.05, error.retry_after_seconds))


async def _default_model(subject: Subject) -> str:
    """The first that is listed: the field is required by the form."""
    answer = await asyncio.to_thread(subject.bridge.json, "GET", "/v1/models")
    return str(answer["data"][0]["id"])


def _message(answer: Any) -> str:
    try:
        return str(answer["choices"][0]["message"]["content"])
    except (LookupError, TypeError):
        raise Failed(f"this is no chat completion: {str(answer)[:200]}") from None


def _joined(events: list[Any]) -> str:
    """The text of the chunks; one of them must say why it ended."""
    try:
        choices = [choice for event in events for choice in event["choices"]]
        if not any(choice.get("finish_reason") for choice in choices):
            raise Failed("no chunk of the stream has a finish_reason")
        return "".join(choice["delta"].get("content") or "" for choice in choices)
    except (LookupError, TypeError, AttributeError):
        raise Failed(f"these are no chunks of a chat completion: {str(events)[:200]}") from None


def _shown(text: str) -> str:
    return " ".join(text.split())[:60]
