"""All that may cross the engine boundary: ints, floats, strings, and lists of them.

The server's end is `engine.link`, the child's `engine.worker`. On a pipe each message is a four-byte big-endian length
and that many bytes of MessagePack; in a thread the structs travel as they are. Results cross once a step: one `Step`
holds what the step did for every row.
"""

from __future__ import annotations

import msgspec

FRAME_HEADER_BYTES = 4
MAX_FRAME_BYTES = 64 * 1024 * 1024


class SamplingParams(msgspec.Struct, frozen=True, array_like=True):
    """One row's sampler settings, complete: no field is left to a default any more. The order in which they apply is
    the proto's: bias, penalties, top-p, min-p, top-k, temperature. Neutral values: top_p 1, top_k 0, min_p 0,
    repetition_penalty 1, the others 0; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 20
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int = 0


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A request as the engine sees it. `output` is what an earlier engine already generated: sampling goes on at
    position len(output), and penalties over the output know where the prompt ends. `max_tokens` counts all output
    tokens, those in `output` included. `stop_ids` end the row, and are never sampled before `min_tokens` tokens.
    `top_logprobs` below 0 asks for no log-probabilities, 0 for the chosen token's alone. The prefix cache is neither
    read nor written without `use_cache`, and shared with rows of the same `cache_salt` alone."""

    row_id: int
    prompt: list[int]
    output: list[int]
    max_tokens: int
    min_tokens: int
    stop_ids: list[int]
    sampling: SamplingParams
    top_logprobs: int = -1
    use_cache: bool = True
    cache_salt: str = ""


class Load(msgspec.Struct, frozen=True, tag="load"):
    """First message to a worker: load this. `path` is a model folder, or `script:` and JSON for the scripted model.
    `memory_limit_bytes` 0 leaves the device's own. `stall_seconds`: an engine that is silent for longer is taken for
    hung, so that its steps have to be much shorter; 0 says nothing about that."""

    path: str
    max_rows: int
    prefill_step_tokens: int = 0
    memory_limit_bytes: int = 0
    prefix_cache_bytes: int = 0
    trust_remote_code: bool = False
    stall_seconds: float = 0.0


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Rows that enter the batch together."""

    rows: list[Row]


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Rows to take out of the batch between two steps. Unknown ids are ignored: the row may just have ended."""

    row_ids: list[int]


class Close(msgspec.Struct, frozen=True, tag="close"):
    """End the worker. The closing of its inbox means the same."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The model is ready. `memory_bytes` is what the device lets the process use, `kv_bytes_per_token` what one row
    takes for one token in the batch's own type, `eos_ids` the model's end tokens, `backend` "cpu", "cuda" or "metal",
    `prefix_cache_bytes` the most that the prefix cache will take, `batching` how rows may share the device ("PADDED",
    "ALIGNED" or "ALONE"), `max_rows` how many rows run at once, 0 for as many as `Load` said."""

    context_length: int
    vocab_size: int
    dtype: str
    weights_bytes: int
    kv_bytes_per_token: int
    memory_bytes: int
    device: str
    mlx_version: str
    mlx_lm_version: str
    eos_ids: list[int]
    reproducible: bool
    notes: list[str] = []
    backend: str = "cpu"
    prefix_cache_bytes: int = 0
    batching: str = ""
    max_rows: int = 0


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded; `reason` is one line for a person."""

    reason: str


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """The chosen token's log-probability, and the likeliest tokens with theirs, best first."""

    logprob: float
    top_ids: list[int]
    top_logprobs: list[float]


class RowToken(msgspec.Struct, frozen=True, array_like=True):
    """One row's new token. `finish` is 0 while it goes on, 1 when a stop id ended it, 2 at max_tokens; a finished row
    has left the batch."""

    row_id: int
    token: int
    finish: int = 0
    logprobs: TokenLogprobs | None = None


RUNNING, STOPPED, LENGTH = 0, 1, 2


class RowPrefill(msgspec.Struct, frozen=True, array_like=True):
    """How much of a row's prompt has been processed; `cached` of it came from the prefix cache."""

    row_id: int
    processed: int
    total: int
    cached: int = 0


class RowFailed(msgspec.Struct, frozen=True, array_like=True):
    """A row that the engine could not take or go on with; the others were not touched. Not `finite`: the model's logits
    for it were not finite."""

    row_id: int
    reason: str
    finite: bool = True


class StepBegan(msgspec.Struct, frozen=True, tag="began"):
    """A step has begun that may take so long, by what earlier ones took. Sent for long steps alone."""

    expected_seconds: float


class Step(msgspec.Struct, frozen=True, tag="step"):
    """What one engine step did. `removed` are cancelled rows that have left the batch; `active_rows` counts those still
    in it, in prefill or decoding; `seconds` is the step's time."""

    tokens: list[RowToken] = []
    prefill: list[RowPrefill] = []
    removed: list[int] = []
    failed: list[RowFailed] = []
    active_rows: int = 0
    seconds: float = 0.0
    kv_bytes: int = 0
    memory_bytes: int = 0
    prefix_cache_bytes: int = 0


ToWorker = Load | Submit | Cancel | Close
FromWorker = Loaded | LoadFailed | StepBegan | Step

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """The message as a frame, its length in front."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is over the frame limit of {MAX_FRAME_BYTES}")
    return len(body).to_bytes(FRAME_HEADER_BYTES, "big") + body


def decode_to_worker(body: bytes) -> ToWorker:
    """A frame's body, as the worker reads it. Raises msgspec.ValidationError or DecodeError."""
    message: ToWorker = _to_worker.decode(body)
    return message


def decode_from_worker(body: bytes) -> FromWorker:
    """A frame's body, as the server reads it. Raises msgspec.ValidationError or DecodeError."""
    message: FromWorker = _from_worker.decode(body)
    return message
