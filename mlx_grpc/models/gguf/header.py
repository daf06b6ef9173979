"""Reads the front of a GGUF file, versions 2 and 3: metadata and the table of tensors, without MLX.

The import maps tensors into memory; reading past the end of a short file would kill the process. So everything is
checked here first: every length against the file's size, every tensor's end too. The format is that of llama.cpp
(ggml's docs/gguf.md).
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from mlx_grpc.models.gguf.tensor_types import TENSOR_TYPES, TensorType, accepted_names, refused_name
from mlx_grpc.models.sources import ModelSourceError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_COUNT = 1 << 24


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One row of the table. `shape` has the fastest dimension last, as MLX has it; `start_bytes` counts from the
    file's start."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    start_bytes: int

    @property
    def row_bytes(self) -> int:
        """Of the values that lie one after another in the last dimension."""
        return self.shape[-1] // self.type.block_values * self.type.block_bytes

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


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
        tensors = self._placed(metadata, [self._tensor() for _ in range(tensor_count)])
        by_name = {tensor.name: tensor for tensor in tensors}
        if len(by_name) < len(tensors):
            raise self._damaged("two tensors have the same name")
        return GgufHeader(self._path, metadata, by_name)

    def _placed(self, metadata: dict[str, Any], tensors: list[TensorInfo]) -> list[TensorInfo]:
        """The tensors with their places in the file, which the table counts from the end of the header."""
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged("its alignment is not a positive number")
        read_bytes = self._size_bytes - self._left_bytes
        data_start = -(-read_bytes // alignment) * alignment
        placed = [replace(tensor, start_bytes=data_start + tensor.start_bytes) for tensor in tensors]
        end = max((tensor.start_bytes + tensor.size_bytes for tensor in placed), default=0)
        if end > self._size_bytes:
            raise self._damaged(f"{end} bytes expected, {self._size_bytes} there")
        return placed

    def _tensor(self) -> TensorInfo:
        name = self._string()
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        type_number, offset_bytes = self._scalar("I"), self._scalar("Q")
        if (tensor_type := TENSOR_TYPES.get(type_number)) is None:
            raise ModelSourceError(
                f"{self._path}: tensor {name!r} is of type {refused_name(type_number)}, which cannot be imported; "
                f"take a file of the model with other types ({accepted_names()}), or an MLX version of the model"
            )
        if shape[-1] % tensor_type.block_values or not all(shape):
            raise self._damaged(f"tensor {name!r} has the shape {shape}, in blocks of {tensor_type.block_values}")
        return TensorInfo(name, shape, tensor_type, offset_bytes)

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
