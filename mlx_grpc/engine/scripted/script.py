"""The scripted model: its small vocabulary, and the script that says how it behaves. No MLX.

It stands in for a real model in tests, ours and those of the package's users. `Script` is the JSON after
`script:` in a model's path. Where the prompt has no reply of its own, a row says pseudo-random words until
max_tokens, and the same words whenever prompt, position and (at a temperature above 0) seed are the same, so
that a resumed row goes on as it would have.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

VOCAB_SIZE = 512
EOS_ID = 256
START_ID = 257
FIRST_WORD_ID = 258
SPECIALS = {"<|end|>": EOS_ID, "<|start|>": START_ID}
_WORDS = """
the of and to in is that it was for on are as with his they at be this have from or one had by word
but not what all were we when your can said there use an each which she do how their if will up
other about out many then them these so some her would make like him into time has look two more
write go see number no way could people my than first water been call who oil its now find long down
day did get come made may part
"""
WORDS = tuple(f" {word}" for word in _WORDS.split())
_PIECES = SPECIALS | {word: FIRST_WORD_ID + index for index, word in enumerate(WORDS)}
_SCANNER = re.compile("|".join(re.escape(piece) for piece in sorted(_PIECES, key=len, reverse=True)))


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something goes wrong in each row whose prompt contains `text`, when its next token has position
    `at_output` (tokens of an earlier engine count); -1 is the row's first step of prefill.

    `abort` ends the process as a failed assertion in Metal does, `hang` stops stepping for ever, `slow` adds
    `seconds` to that step and each later one, `allocate` takes memory until the kernel kills the process (or
    until `limit_bytes`, where it kills itself), `error` raises an exception that no engine should, `fail`
    fails this row alone, `nonfinite` as a model does whose logits are not finite. With `once_path` it happens
    only when that file does not exist yet, and makes it: the engine that is started next is then a good one.
    """

    text: str
    action: Literal["abort", "hang", "slow", "allocate", "fail", "error", "nonfinite"]
    at_output: int = 0
    seconds: float = 0.0
    limit_bytes: int = 0
    once_path: str = ""

    def strikes(self, text: str, position: int) -> bool:
        """Whether it happens to the row with this prompt text at this position."""
        reached = position >= self.at_output if self.action == "slow" else position == self.at_output
        return reached and self.text in text


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the scripted model behaves. `replies` maps the end of a prompt's text to what is said, byte by
    byte, and then `<|end|>`. Each step takes `step_seconds`; with `gate_path`, a FIFO or a unix socket, each
    step first reads one byte from it, so that a test steps the engine."""

    replies: dict[str, str] = {}
    faults: list[Fault] = []
    context_length: int = 4096
    prefill_tokens_per_step: int = 256
    step_seconds: float = 0.0
    kv_bytes_per_token: int = 1024
    weights_bytes: int = 0
    memory_bytes: int = 1 << 30
    load_seconds: float = 0.0
    load_error: str = ""
    gate_path: str = ""
    batching: Literal["PADDED", "ALIGNED", "ALONE"] = "PADDED"

    def reply_to(self, text: str) -> bytes | None:
        """The reply for the longest key that ends the prompt's text, as UTF-8, or None."""
        keys = [key for key in self.replies if text.endswith(key)]
        return self.replies[max(keys, key=len)].encode() if keys else None


def encode(text: str) -> list[int]:
    """Token ids, the longest match first: specials and words, then bytes."""
    ids: list[int] = []
    end = 0
    for match in _SCANNER.finditer(text):
        ids += text[end : match.start()].encode()
        ids.append(_PIECES[match.group()])
        end = match.end()
    return ids + list(text[end:].encode())


def token_bytes(token: int) -> bytes:
    """The bytes that a token stands for: none for specials and unused ids."""
    if token < EOS_ID:
        return bytes([token])
    index = token - FIRST_WORD_ID
    return WORDS[index].encode() if 0 <= index < len(WORDS) else b""


def prompt_text(tokens: list[int]) -> str:
    """The prompt as the script sees it."""
    return b"".join(map(token_bytes, tokens)).decode(errors="replace")
