"""Reads single numbers of a GGUF file's metadata. Other values are refused by the name of their key."""

from __future__ import annotations

import math
from typing import Any

from mlx_grpc.models.gguf.header import GgufHeader
from mlx_grpc.models.sources import ModelSourceError


def count(header: GgufHeader, key: str, default: int | None = None) -> int:
    """A whole number of 1 to 2^32 - 1. Raises ModelSourceError for another value, and for a missing one that has no
    default."""
    value = header.require(key) if default is None else header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 32:
        raise _refused(header, key, value)
    return value


def number(header: GgufHeader, key: str, default: float | None = None) -> float:
    """A positive number, as the shortest decimal that is the same float32. Raises ModelSourceError as `count` does."""
    value = header.require(key) if default is None else header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise _refused(header, key, value)
    return short_float(value)


def short_float(value: float) -> float:
    """A float32 as the shortest decimal that is the same float32: 1e-05, not 9.99999974e-06."""
    return float(f"{float(value):.7g}")


def _refused(header: GgufHeader, key: str, value: Any) -> ModelSourceError:
    return ModelSourceError(
        f"{header.path}: {key} is {repr(value)[:100]}, not a positive number; convert the model again"
    )
