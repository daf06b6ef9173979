"""What a request may hold. Everything here is checked before anything is tokenized or queued.

Field paths are the proto's; the HTTP bridge translates them into its own names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mlx_grpc.errors import InvalidField, PromptTooLong
from mlx_grpc.request import Chat, GenerationRequest, Input, Output, Sampling, Stop

MAX_REQUEST_ID_CHARACTERS = 128
MAX_SALT_CHARACTERS = 128
MAX_STOP_TOKEN_IDS = 64
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_CHARS = 512
MAX_LOGIT_BIAS_ENTRIES = 1024
MAX_LOGIT_BIAS = 1000.0
MAX_TOP_LOGPROBS = 20
MAX_SEED = 2**64 - 1
MAX_CHARACTERS_PER_TOKEN = 64
"""Ordinary text has 1 to 6, rows of spaces or dashes may have some ten."""
LARGE_CHARACTERS = 1024 * 1024
"""A text with more takes about a second to tokenize: it has less of what is not ordinary."""
LARGE_CHARACTERS_PER_TOKEN = 8

# path, how to read it, lowest, highest, whether the lowest itself is allowed, how a person would say it
_Range = tuple[str, Callable[[Sampling], float | None], float, float, bool, str]
_SAMPLING_RANGES: tuple[_Range, ...] = (
    ("temperature", lambda s: s.temperature, 0, 100, True, "from 0 to 100"),
    ("top_p", lambda s: s.top_p, 0, 1, False, "above 0 and at most 1"),
    ("top_k", lambda s: s.top_k, 0, 2**31 - 1, True, "0 or more"),
    ("min_p", lambda s: s.min_p, 0, 1, True, "from 0 to 1"),
    ("repetition_penalty", lambda s: s.repetition_penalty, 0, 100, False, "above 0 and at most 100"),
    ("repetition_window", lambda s: s.repetition_window, 1, 8192, True, "from 1 to 8192"),
    ("presence_penalty", lambda s: s.presence_penalty, -100, 100, True, "from -100 to 100"),
    ("frequency_penalty", lambda s: s.frequency_penalty, -100, 100, True, "from -100 to 100"),
    ("seed", lambda s: s.seed, 0, MAX_SEED, True, "from 0 to 2^64 - 1"),
)


def validate(request: GenerationRequest) -> None:
    """Check all that can be checked without knowing the model. Raises InvalidField."""
    _check_request_id(request.request_id)
    if request.input is None:
        raise InvalidField("one of prompt, chat and token_ids is required", field="input")
    if request.input == "":
        raise InvalidField("prompt is empty", field="prompt")
    if isinstance(request.input, str):
        check_unicode(request.input, "prompt")
    if request.input == ():
        raise InvalidField("token_ids is empty", field="token_ids.ids")
    if len(request.cache.salt) > MAX_SALT_CHARACTERS:
        raise InvalidField(f"a salt has at most {MAX_SALT_CHARACTERS} characters", field="cache.salt")
    _check_sampling(request.sampling)
    _check_stop(request.stop)
    _check_output(request.output)


def check_unicode(text: str, field: str) -> None:
    """JSON can carry halves of surrogate pairs, which no encoding has. Raises InvalidField."""
    if text.isascii():  # which costs nothing, and no copy
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidField("half a surrogate pair is no character", field=field) from None


def characters_of(source: Input) -> int:
    """The characters of a text, or of what is said in a chat; for token ids, how many they are."""
    if isinstance(source, Chat):
        return sum(len(message.content) for message in source.messages)
    return len(source)


def check_characters(characters: int, context_length: int) -> None:
    """Refuse what is far past any context before time goes into its tokens. Raises PromptTooLong."""
    most = max(LARGE_CHARACTERS, LARGE_CHARACTERS_PER_TOKEN * context_length)
    most = min(most, MAX_CHARACTERS_PER_TOKEN * context_length)
    if characters > most:
        raise PromptTooLong(
            f"the prompt has {characters} characters, which may be at most {most} for a context of {context_length}",
            field="input",
            metadata={"prompt_characters": str(characters), "context_length": str(context_length)},
        )


def check_room(prompt_tokens: int, context_length: int) -> int:
    """How many tokens have room after the prompt, at least one. Raises PromptTooLong."""
    room = context_length - prompt_tokens
    if room < 1:
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens, which leaves no room in the context of {context_length}",
            field="input",
            metadata={"prompt_tokens": str(prompt_tokens), "context_length": str(context_length)},
        )
    return room


def check_stop_strings(stops: Sequence[str]) -> None:
    """Raises InvalidField for too many stop strings, an empty one, or one that is too long."""
    if len(stops) > MAX_STOP_STRINGS:
        raise InvalidField(
            f"{len(stops)} stop strings, which may be at most {MAX_STOP_STRINGS}", field="stop.stop_strings"
        )
    for index, stop in enumerate(stops):
        if not 1 <= len(stop) <= MAX_STOP_STRING_CHARS:
            raise InvalidField(
                f"a stop string has {len(stop)} characters, which must be from 1 to {MAX_STOP_STRING_CHARS}",
                field=f"stop.stop_strings[{index}]",
            )


def check_token_ids(ids: Sequence[int], vocab_size: int, field: str) -> None:
    """Raises InvalidField for the first id that the vocabulary does not have."""
    if not ids or (min(ids) >= 0 and max(ids) < vocab_size):
        return
    for position, token_id in enumerate(ids):
        if not 0 <= token_id < vocab_size:
            raise InvalidField(
                f"{token_id} is no token of this model: its ids go from 0 to {vocab_size - 1}",
                field=f"{field}[{position}]",
            )


def validate_for_model(request: GenerationRequest, vocab_size: int, context_length: int) -> None:
    """Check what depends on the model's vocabulary and context. Raises InvalidField, PromptTooLong for ids that leave
    no room in the context: no time goes into such."""
    if isinstance(request.input, tuple):
        check_room(len(request.input), context_length)
        check_token_ids(request.input, vocab_size, "token_ids.ids")
    check_token_ids(request.stop.stop_token_ids, vocab_size, "stop.stop_token_ids")
    top_k = request.sampling.top_k
    if top_k is not None and top_k >= vocab_size:
        raise InvalidField(
            f"top_k is {top_k}, which must be below the vocabulary's {vocab_size}; 0 keeps all tokens",
            field="sampling.top_k",
        )
    for token_id in request.sampling.logit_bias:
        if not 0 <= token_id < vocab_size:
            raise InvalidField(
                f"{token_id} is no token of this model: its ids go from 0 to {vocab_size - 1}",
                field=f"sampling.logit_bias[{token_id}]",
            )


def _check_request_id(request_id: str) -> None:
    if len(request_id) > MAX_REQUEST_ID_CHARACTERS or not all(" " <= character <= "~" for character in request_id):
        raise InvalidField(
            f"request_id must be at most {MAX_REQUEST_ID_CHARACTERS} printable ASCII characters", field="request_id"
        )


def _check_sampling(sampling: Sampling) -> None:
    for name, read, lowest, highest, lowest_allowed, range_text in _SAMPLING_RANGES:
        value = read(sampling)
        if value is None:
            continue
        # NaN compares false with everything, so it falls through to the error.
        if not (lowest <= value <= highest and (lowest_allowed or value > lowest)):
            raise InvalidField(f"{name} is {value}, which must be {range_text}", field=f"sampling.{name}")
    if len(sampling.logit_bias) > MAX_LOGIT_BIAS_ENTRIES:
        raise InvalidField(
            f"logit_bias has {len(sampling.logit_bias)} entries, which may be at most {MAX_LOGIT_BIAS_ENTRIES}",
            field="sampling.logit_bias",
        )
    for token_id, bias in sampling.logit_bias.items():
        if not abs(bias) <= MAX_LOGIT_BIAS:
            raise InvalidField(
                f"the bias of token {token_id} is {bias}, which must be from -{MAX_LOGIT_BIAS:g} to {MAX_LOGIT_BIAS:g}",
                field=f"sampling.logit_bias[{token_id}]",
            )


def _check_stop(stop: Stop) -> None:
    if stop.max_tokens is not None and stop.max_tokens < 1:
        raise InvalidField(f"max_tokens is {stop.max_tokens}, which must be at least 1", field="stop.max_tokens")
    if stop.min_tokens and stop.max_tokens is not None and stop.min_tokens > stop.max_tokens:
        raise InvalidField(
            f"min_tokens is {stop.min_tokens}, which is above max_tokens, {stop.max_tokens}", field="stop.min_tokens"
        )
    check_stop_strings(stop.stop_strings)
    for position, stop_string in enumerate(stop.stop_strings):
        check_unicode(stop_string, f"stop.stop_strings[{position}]")
    if len(stop.stop_token_ids) > MAX_STOP_TOKEN_IDS:
        raise InvalidField(
            f"{len(stop.stop_token_ids)} stop tokens, which may be at most {MAX_STOP_TOKEN_IDS}",
            field="stop.stop_token_ids",
        )
    seconds = stop.max_duration_seconds
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise InvalidField(
            f"max_duration is {seconds:g} s, which must be above 0 and finite", field="stop.max_duration"
        )


def _check_output(output: Output) -> None:
    if not 0 <= output.top_logprobs <= MAX_TOP_LOGPROBS:
        raise InvalidField(
            f"top_logprobs is {output.top_logprobs}, which may be at most {MAX_TOP_LOGPROBS}",
            field="output.top_logprobs",
        )
    if output.top_logprobs and not output.logprobs:
        raise InvalidField("top_logprobs needs logprobs to be true", field="output.top_logprobs")
