"""Reads the JSON files of a model folder, which anybody may have made: their size is looked at before they are read."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpc.models.sources import ModelSourceError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bound:
    """What a file may have at most. Each value may take 64 bytes of memory, so both are bounded."""

    most_bytes: int
    most_values: int


BOUNDS = {
    "config.json": Bound(4 * MIB, 200_000),
    "generation_config.json": Bound(MIB, 20_000),
    "tokenizer_config.json": Bound(32 * MIB, 1_000_000),
    "model.safetensors.index.json": Bound(32 * MIB, 1_000_000),
}
OTHER = Bound(4 * MIB, 200_000)
"""Of all other files that are read as JSON."""
HEADER = Bound(64 * MIB, 2_000_000)
"""Of a safetensors file."""


def bound_of(name: str) -> Bound:
    """Of the file of this name."""
    return BOUNDS.get(name, OTHER)


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in the file. Raises ModelSourceError, and FileNotFoundError."""
    bound = bound_of(file.name)
    return parse_object(file, read_bytes(file, bound.most_bytes), bound)


def read_bytes(file: Path, most_bytes: int) -> bytes:
    """The whole file, which has to be an ordinary one. Raises ModelSourceError, and FileNotFoundError."""
    try:
        # A pipe would be waited for, were it not for O_NONBLOCK.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise ModelSourceError(f"{file} is not an ordinary file; copy the model again")
            if facts.st_size > most_bytes:
                raise ModelSourceError(f"{file} has {facts.st_size} bytes, and such a file may have {most_bytes}")
            return stream.read(most_bytes)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelSourceError(f"{file}: {error.strerror or error}; make it readable") from error


def parse_object(file: Path, content: bytes, bound: Bound) -> dict[str, Any]:
    """The JSON object that `content`, of `file`, is. Raises ModelSourceError."""
    if sum(map(content.count, (b",", b"[", b"{"))) > bound.most_values:
        raise ModelSourceError(f"{file} holds more than {bound.most_values} values, the most that such a file may have")
    try:
        parsed = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelSourceError(f"{file} is not valid JSON ({error}); download or copy it again") from error
    if not isinstance(parsed, dict):
        raise ModelSourceError(f"{file} holds no JSON object; download or copy it again")
    return parsed
