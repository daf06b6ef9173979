"""What may be said about a generation, once for all methods that generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from mlx_grpc.request import Chat, Message, Priority

MessageLike = Message | Mapping[str, Any]
"""A turn: a `mlx_grpc.request.Message`, or {"role": "user", "content": "text"} as OpenAI has it."""


class GenerateOptions(TypedDict, total=False):
    """Keyword arguments of `generate` and `stream`. What is not given is not sent: the server's default
    holds.

    Ranges are the server's to check, since some depend on the model; a value of a type that cannot be sent
    raises `mlx_grpc.errors.InvalidField` at once.
    """

    messages: Sequence[MessageLike]
    """Turns of a conversation, instead of a prompt."""
    chat: Chat
    """The same as `mlx_grpc.request.Chat`, with the template's arguments in it."""
    token_ids: Sequence[int]
    """Token ids, instead of a prompt."""
    template_args: Mapping[str, Any]
    """Arguments of the chat template, for `messages`; anything that JSON can hold."""
    continue_final_message: bool
    """Continue the last message, one of the assistant's, instead of starting a new one; for `messages`."""

    model: str
    """The model's id. Default: the server's default model."""
    request_id: str
    """Your own name for the call: it comes back in the answer and is in the server's log."""
    priority: Priority | str
    """`Priority` or "high", "normal", "low"."""

    cache_bypass: bool
    """Neither read nor write the prefix cache."""
    cache_salt: str
    """Share the prefix cache only with requests of the same salt."""

    temperature: float
    """0 is greedy, 1 the model's own distribution."""
    top_p: float
    """Keep the likeliest tokens whose probabilities reach this sum."""
    top_k: int
    """Keep this many of the likeliest tokens; 0 keeps all."""
    min_p: float
    """Keep tokens at least this many times as likely as the likeliest."""
    repetition_penalty: float
    """Above 1: tokens seen in the window get less likely."""
    repetition_window: int
    """How many of the last tokens the repetition penalty looks at."""
    presence_penalty: float
    """Subtracted once from the logit of each token that the output has."""
    frequency_penalty: float
    """Subtracted from a token's logit for each time that the output has it."""
    logit_bias: Mapping[int, float]
    """Added to the logits of these token ids."""
    seed: int
    """Makes the random choices repeatable. Not given: the server draws one and says which."""

    max_tokens: int
    """At most this many tokens."""
    min_tokens: int
    """No end before this many tokens."""
    stop_strings: Sequence[str] | str
    """End where one of these appears; nothing of it is returned."""
    stop_token_ids: Sequence[int]
    """End at one of these tokens."""
    ignore_eos: bool
    """Go on past the model's end tokens."""
    max_duration_seconds: float
    """End this long after the request entered the batch and keep the text, unlike a timeout."""

    output_token_ids: bool
    """Return token ids beside the text."""
    logprobs: bool
    """Return each token's log-probability."""
    top_logprobs: int
    """Return this many of the likeliest tokens at each position; needs `logprobs`."""
