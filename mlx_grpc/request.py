"""What a generation request is, and what happens to it: plain frozen data, no protobuf, no MLX.

Everything between the wire and the engine speaks in these. `None` means "not sent": the defaults are filled in by
`service.defaults`, which knows the model.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Priority(enum.IntEnum):
    """Lower runs first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class FinishReason(enum.Enum):
    """Why a candidate ended."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    TIME_LIMIT = "time_limit"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `role` is the template's word: system, developer, user, assistant, tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation to be rendered by the model's template."""

    messages: tuple[Message, ...]
    template_args_json: str = ""
    continue_final_message: bool = False


Input = str | Chat | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; see `Sampling` in the proto for each one's unit, range and default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repetition_window: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """When to end."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    max_duration_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What to send besides text."""

    token_ids: bool = False
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class CacheControl:
    """Whether and with whom the prefix cache is shared."""

    bypass: bool = False
    salt: str = ""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request as the client sent it, field for field."""

    input: Input | None
    model: str = ""
    request_id: str = ""
    sampling: Sampling = Sampling()
    stop: Stop = Stop()
    output: Output = Output()
    priority: Priority = Priority.NORMAL
    cache: CacheControl = CacheControl()


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the likeliest tokens at a position."""

    token_id: int
    token: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token, its bytes, its natural-log probability, and the likeliest alternatives."""

    token_id: int
    token: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacedLogprob(TokenLogprob):
    """With the place of the token's text, as the server knows it: how many characters of the candidate's text come
    before. It is not sent over gRPC."""

    text_offset: int = 0


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits. `position` counts those that run before it; with other clients there, by their turns."""

    position: int
    estimated_wait_seconds: float | None


@dataclass(frozen=True, slots=True)
class Started:
    """The request entered the batch."""

    generation_id: str
    request_id: str
    model: str
    prompt_tokens: int
    cached_prompt_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Prefill:
    """Prompt tokens processed so far."""

    processed_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What came since the last delta. One may carry several tokens, or text alone."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    index: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The candidate's end. `stop_string` or `stop_token_id` says what ended it, where something did."""

    reason: FinishReason
    stop_string: str = ""
    stop_token_id: int | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `completion_tokens` counts every sampled token, the one that ended it included."""

    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds on the server's clock, from the call's arrival in the service."""

    queue_seconds: float
    prefill_seconds: float
    first_token_seconds: float
    decode_seconds: float
    total_seconds: float


@dataclass(frozen=True, slots=True)
class Completed:
    """The last event of a generation that succeeded."""

    usage: Usage
    timings: Timings


Event = Queued | Started | Prefill | Delta | Finished | Completed
