"""The bodies that the OpenAI-compatible calls take: what is honoured, what is accepted without effect, what is refused.

Types are strict: a boolean is no number, a number no text, and NaN is nothing. The descriptions go into /openapi.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_MESSAGES = 4096
MAX_PARTS = 4096
"""Of all messages together."""
MAX_ENTRIES = 1024


class Body(BaseModel):
    """What all bodies share. Fields that are not named here never reach it: `openai_parse` refuses them before."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """A turn. Its text is one string, or text parts that are put together."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True, min_length=1, max_length=MAX_PARTS)]
    tool_call_id: str | None = Field(None, description="Accepted without effect: templates get role and text.")

    def text(self) -> str:
        """The turn's text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Body):
    """How to stream."""

    include_usage: bool | None = Field(None, description="Send the token counts in a last chunk.")


_Extension = "An extension of this server's. "
_WithoutEffect = "Accepted without effect."


class GenerationBody(Body):
    """What chat and plain completions share. null is the same as not sent."""

    model: str | None = Field(None, description="A model's id; empty or not sent: the server's default.")
    stream: bool | None = Field(None, description="Send server-sent events.")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, description="At most this many tokens, at least 1. Default: 512.")
    temperature: float | None = Field(
        None, description="0 is greedy. From 0 to 100. Default: the model's own, as over gRPC."
    )
    top_p: float | None = Field(None, description="Above 0, up to 1. Default: the model's own.")
    presence_penalty: float | None = Field(None, description="From -100 to 100. Default: 0.")
    frequency_penalty: float | None = Field(None, description="From -100 to 100. Default: 0.")
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = Field(None, description="One text, or up to 16.")
    seed: int | None = Field(None, description="Repeats random choices. Negative ones count modulo 2^64.")
    logit_bias: dict[str, float] | None = Field(None, description="Token id to a bias from -1000 to 1000; up to 1024.")
    top_k: int | None = Field(None, description=_Extension + "Keep this many of the likeliest tokens; 0 keeps all.")
    min_p: float | None = Field(None, description=_Extension + "From 0 to 1.")
    repetition_penalty: float | None = Field(None, description=_Extension + "Above 0, up to 100.")
    repetition_window: int | None = Field(None, description=_Extension + "Tokens that the penalty looks at.")
    min_tokens: int | None = Field(None, description=_Extension + "No end before this many tokens.")
    ignore_eos: bool | None = Field(None, description=_Extension + "Go on past the model's end tokens.")
    stop_token_ids: Annotated[list[int], Field(fail_fast=True)] | None = Field(
        None, description=_Extension + "End at these, too."
    )
    user: str | None = Field(None, description=_WithoutEffect)


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = Field(None, description="The newer name of max_tokens.")
    logprobs: bool | None = Field(None, description="Send each token's log-probability.")
    top_logprobs: int | None = Field(
        None, description="Of this many of the likeliest tokens, up to 20; needs logprobs."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description=_Extension + "Further arguments of the model's chat template."
    )
    metadata: dict[str, Any] | None = Field(None, description=_WithoutEffect)
    store: bool | None = Field(None, description=_WithoutEffect + " Nothing is stored.")
    parallel_tool_calls: bool | None = Field(None, description=_WithoutEffect + " There are no tools.")
    safety_identifier: str | None = Field(None, description=_WithoutEffect)
    prompt_cache_key: str | None = Field(None, description=_WithoutEffect + " Prompts are cached by their tokens.")
    prompt_cache_retention: str | None = Field(None, description=_WithoutEffect)


class CompletionBody(GenerationBody):
    """POST /v1/completions. One prompt: a text or its token ids, alone or in a list of one."""

    prompt: (
        str
        | Annotated[list[int], Field(fail_fast=True)]
        | Annotated[list[str], Field(fail_fast=True)]
        | Annotated[list[Annotated[list[int], Field(fail_fast=True)]], Field(fail_fast=True)]
    )
    logprobs: int | None = Field(None, description="Log-probabilities of the token and this many others, up to 20.")


Neutral = Mapping[str, tuple[Any, ...]]
"""Fields that this server does not have, and their values that ask for nothing; null always does."""

_NEUTRAL: Neutral = {"n": (1,), "service_tier": ("auto", "default")}
NEUTRAL_CHAT: Neutral = {
    **_NEUTRAL,
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "web_search_options": (),
}
NEUTRAL_COMPLETION: Neutral = {**_NEUTRAL, "best_of": (1,), "echo": (False,), "suffix": ("",)}
NEUTRAL_MESSAGE: Neutral = {
    "name": (),
    "refusal": ("",),
    "tool_calls": ([],),
    "function_call": (),
    "audio": (),
    "annotations": ([],),
    "reasoning_content": ("",),
}
NEUTRAL_STREAM: Neutral = {"include_obfuscation": (False,)}
