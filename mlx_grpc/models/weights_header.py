"""Reads and checks the header of a safetensors file, before anything believes it.

The format: eight bytes with the length of a JSON header, which names each tensor's type, shape and place in the rest of
the file.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpc.models.json_file import HEADER, parse_object
from mlx_grpc.models.sources import ModelSourceError

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6,
    "F4": 4,
}  # fmt: skip
_PACKING = {"U32": 32, "I32": 32, "U8": 8, "I8": 8}
"""How many weights a number of these types may hold: they are packed with one bit or more each."""
_MOST_DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """Of all files of a model. `most_weights` and `largest_dimension` count packed numbers as weights of one bit."""

    size_bytes: int = 0
    tensors: int = 0
    most_weights: int = 0
    largest_dimension: int = 0

    def __add__(self, other: WeightFacts) -> WeightFacts:
        return WeightFacts(
            self.size_bytes + other.size_bytes,
            self.tensors + other.tensors,
            self.most_weights + other.most_weights,
            max(self.largest_dimension, other.largest_dimension),
        )


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_weight_facts(file: Path) -> WeightFacts:
    """What the header says, if it is true of the file. Raises ModelSourceError."""
    header, data_bytes, size_bytes = _read_header(file)
    tensors = list(_tensors(file, header))
    if not tensors:
        raise _damaged(file, "it holds no tensor")
    _check_places(file, tensors, data_bytes)
    return WeightFacts(
        size_bytes,
        len(tensors),
        sum(math.prod(tensor.shape) * _PACKING.get(tensor.dtype, 1) for tensor in tensors),
        max(max(tensor.shape, default=1) * _PACKING.get(tensor.dtype, 1) for tensor in tensors),
    )


def _read_header(file: Path) -> tuple[dict[str, Any], int, int]:
    """The header, the bytes after it, and those of the file."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise ModelSourceError(f"{file} is not an ordinary file; copy the model again")
            prefix = stream.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            data_bytes = facts.st_size - 8 - header_bytes
            if header_bytes < 2 or data_bytes < 0:
                raise _damaged(file, "its header does not fit in it")
            if header_bytes > HEADER.most_bytes:
                raise ModelSourceError(f"{file}: its header has {header_bytes} bytes, and may have {HEADER.most_bytes}")
            return parse_object(file, stream.read(header_bytes), HEADER), data_bytes, facts.st_size
    except OSError as error:
        raise ModelSourceError(f"{file}: {error.strerror or error}; make it readable") from error


def _tensors(file: Path, header: dict[str, Any]) -> Iterator[_Tensor]:
    for name, entry in header.items():
        if name != "__metadata__":
            try:
                yield _tensor(entry)
            except (LookupError, TypeError, ValueError) as error:
                raise _damaged(file, f"what it says of tensor {name[:100]!r}") from error


def _tensor(entry: Any) -> _Tensor:
    """Raises LookupError, TypeError or ValueError for an entry that is none."""
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (*shape, start, end)):
        raise ValueError("a number")
    bits = math.prod(shape) * _BITS[entry["dtype"]]
    if len(shape) > _MOST_DIMENSIONS or -(-bits // 8) != end - start:
        raise ValueError("a shape")
    return _Tensor(entry["dtype"], shape, start, end)


def _check_places(file: Path, tensors: Iterable[_Tensor], data_bytes: int) -> None:
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start < end:
            raise _damaged(file, "two tensors lie in one place")
        end = max(end, tensor.end)
    if end != data_bytes:
        raise _damaged(file, f"{end} bytes of tensors expected, {data_bytes} there")


def _damaged(file: Path, what: str) -> ModelSourceError:
    return ModelSourceError(f"{file} is cut short or damaged ({what}); download or copy it again")
