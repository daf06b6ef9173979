"""Rows as Submit messages that fit a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mlx_grpc.engine import messages
from mlx_grpc.engine.messages import Row, Submit

# What MessagePack takes at most.
TOKEN_BYTES = 5
BIAS_BYTES = TOKEN_BYTES + 9
CHARACTER_BYTES = 4
REST_OF_ROW_BYTES = 256
"""The numbers of a row, and the heads of its lists."""
SUBMIT_BYTES = 64


def bytes_at_most(row: Row, output_tokens: int | None = None) -> int:
    """What the row takes in a message, at most; with `output_tokens` as if it had so much output already."""
    tokens = len(row.prompt) + len(row.stop_ids) + (len(row.output) if output_tokens is None else output_tokens)
    biases, characters = len(row.sampling.logit_bias), len(row.cache_salt)
    return tokens * TOKEN_BYTES + biases * BIAS_BYTES + characters * CHARACTER_BYTES + REST_OF_ROW_BYTES


def row_bytes_limit() -> int:
    """A row that may come to take more can never be sent."""
    return messages.MAX_FRAME_BYTES - SUBMIT_BYTES


def submits(rows: Iterable[Row]) -> Iterator[Submit]:
    """As few messages as hold the rows, in their order."""
    together: list[Row] = []
    total_bytes = 0
    for row in rows:
        row_bytes = bytes_at_most(row)
        if together and total_bytes + row_bytes > row_bytes_limit():
            yield Submit(together)
            together, total_bytes = [], 0
        together.append(row)
        total_bytes += row_bytes
    if together:
        yield Submit(together)
