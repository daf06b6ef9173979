"""Reads the front of a GGUF file, versions 2 and 3: metadata and the table of tensors, without MLX.

MLX maps the file into memory and trusts it; a short file would kill the process. So everything is checked
here first: every length against the file's size, every tensor's end too. The format is that of llama.cpp
(ggml's docs/gguf.md).
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlx_grpc.models.sources import ModelSourceError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_COUNT = 1 << 24

# ggml's type number: name, values in a block, bytes in a block. Only those that MLX can read.
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 12: ("Q4_K", 256, 144), 14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One row of the table. `shape` has the fastest dimension last, as MLX has it."""

    name: str
    shape: tuple[int, ...]
    type_number: int
    offset_bytes: int

    @property
    def type_name(self) -> str:
        return TENSOR_TYPES[self.type_number][0]

    @property
    def size_bytes(self) -> int:
        _, block_values, block_bytes = TENSOR_TYPES[self.type_number]
        return math.prod(self.shape) // block_values * block_bytes


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """All that stands before the tensors' data."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def require(self, key: str) -> Any:
        """The metadata under `key`. Raises ModelSourceError when it is missing."""
        if key not in self.metadata:
            raise ModelSourceError(
                f"{self.path}: its metadata has no {key}; convert the model again with a current llama.cpp"
            )
        return self.metadata[key]


def read_header(path: Path) -> GgufHeader:
    """Reads and checks the header. Raises ModelSourceError when the file is no GGUF, cut short or damaged."""
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header()
    except OSError as error:
        raise ModelSourceError(f"{path}: {error.strerror or error}; give the path of a .gguf file") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._left_bytes = self._size_bytes = os.fstat(file.fileno()).st_size

    def header(self) -> GgufHeader:
        if self._size_bytes < 4 or self._bytes(4) != b"GGUF":
            raise ModelSourceError(f"{self._path}: not a GGUF file; give a .gguf file, a model folder or org/name")
        version = self._scalar("I")
        if version not in (2, 3):
            raise ModelSourceError(
                f"{self._path}: GGUF version {version} is not supported, only 2 and 3; convert it again"
            )
        tensor_count, pair_count = self._count("Q"), self._count("Q")
        metadata = {self._string(): self._value(self._scalar("I")) for _ in range(pair_count)}
        tensors = [self._tensor() for _ in range(tensor_count)]
        self._check_data(metadata, tensors)
        return GgufHeader(self._path, metadata, {tensor.name: tensor for tensor in tensors})

    def _check_data(self, metadata: dict[str, Any], tensors: list[TensorInfo]) -> None:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged("its alignment is not a positive number")
        read_bytes = self._size_bytes - self._left_bytes
        data_start = -(-read_bytes // alignment) * alignment
        end = max((tensor.offset_bytes + tensor.size_bytes for tensor in tensors), default=0)
        if data_start + end > self._size_bytes:
            raise self._damaged(f"{data_start + end} bytes expected, {self._size_bytes} there")

    def _tensor(self) -> TensorInfo:
        name = self._string()
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        type_number, offset_bytes = self._scalar("I"), self._scalar("Q")
        if type_number not in TENSOR_TYPES:
            known = ", ".join(entry[0] for entry in TENSOR_TYPES.values())
            raise ModelSourceError(
                f"{self._path}: tensor {name!r} has ggml type {type_number}, which MLX cannot read; "
                f"quantise the model as one of {known}"
            )
        if shape[-1] % TENSOR_TYPES[type_number][1] or not all(shape):
            raise self._damaged(f"tensor {name!r} has the shape {shape}")
        return TensorInfo(name, shape, type_number, offset_bytes)

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind]) if kind in _SCALARS else self._unknown(kind)
        item_kind, count = self._scalar("I"), self._count("Q")
        if item_kind in _SCALARS:
            code = _SCALARS[item_kind]
            return list(struct.unpack(f"<{count}{code}", self._bytes(count * struct.calcsize(f"<{code}"))))
        if depth:
            raise self._damaged("arrays nested too deeply")
        return [self._value(item_kind, depth + 1) for _ in range(count)]

    def _unknown(self, kind: int) -> Any:
        raise self._damaged(f"metadata of the unknown type {kind}")

    def _string(self) -> str:
        return self._bytes(self._scalar("Q")).decode("utf-8", errors="replace")

    def _count(self, code: str) -> int:
        count = int(self._scalar(code))
        if count > _MAX_COUNT:
            raise self._damaged(f"a count of {count}")
        return count

    def _scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]

    def _bytes(self, count: int) -> bytes:
        if count > self._left_bytes:
            raise self._damaged("it ends in the middle of its header")
        self._left_bytes -= count
        return self._file.read(count)

    def _damaged(self, what: str) -> ModelSourceError:
        return ModelSourceError(f"{self._path}: the file is cut short or damaged ({what}); download it again")
