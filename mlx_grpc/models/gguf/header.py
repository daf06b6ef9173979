"""Reads the front of a GGUF file, versions 2 and 3: metadata and the table of tensors, without MLX.

The import maps tensors into memory; reading past the end of a short file would kill the process. So everything is
checked here first: every length against the file's size, every tensor's end too. The format is that of llama.cpp
(ggml's docs/gguf.md).
"""

from __future__ import annotations

import itertools
import math
import os
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from mlx_grpc.models.gguf.tensor_types import TENSOR_TYPES, TensorType, accepted_names, refused_name
from mlx_grpc.models.sources import ModelSourceError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ENDS_EARLY = "it ends in the middle of its header"
_MAX_DIMENSIONS = 4
# Published files have up to 64 pairs, a few thousand tensors, and three lists of at most 262,144 tokens with twice as
# many merges: 16 MB in all.
_MAX_HEADER_BYTES = 128 << 20
_MAX_PAIRS = 4096
_MAX_TENSORS = 1 << 16
_MAX_LIST_ITEMS = 1 << 22
"""Of all lists together."""
_MAX_STRING_BYTES = 1 << 20
_MAX_KEPT_BYTES = 8 << 20
"""Of all strings that are not in lists: chat templates are the longest."""
_MAX_NAME_BYTES = 256


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


def read_header(path: Path, *, lists: bool = True) -> GgufHeader:
    """Reads and checks the header; without `lists` those of the metadata are passed over and stay empty, which takes a
    tenth of the memory. Raises ModelSourceError when the file is no GGUF, cut short or damaged."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelSourceError(f"{path} is not a file; give the path of a .gguf file")
            return _Reader(path, file, lists).header()
    except OSError as error:
        raise ModelSourceError(f"{path}: {error.strerror or error}; give the path of a .gguf file") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, lists: bool) -> None:
        self._path = path
        self._file = file
        self._keeps_lists = lists
        self._size_bytes = os.fstat(file.fileno()).st_size
        self._left_bytes = min(self._size_bytes, _MAX_HEADER_BYTES)
        self._left_items, self._left_kept_bytes = _MAX_LIST_ITEMS, _MAX_KEPT_BYTES

    def header(self) -> GgufHeader:
        if self._size_bytes < 4 or self._bytes(4) != b"GGUF":
            raise ModelSourceError(f"{self._path}: not a GGUF file; give a .gguf file, a model folder or org/name")
        version = self._scalar("I")
        if version not in (2, 3):
            raise ModelSourceError(
                f"{self._path}: GGUF version {version} is not supported, only 2 and 3; convert it again"
            )
        tensor_count, pair_count = self._count(_MAX_TENSORS), self._count(_MAX_PAIRS)
        metadata = {self._string(_MAX_NAME_BYTES): self._value(self._scalar("I")) for _ in range(pair_count)}
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
        read_bytes = self._file.tell()
        data_start = -(-read_bytes // alignment) * alignment
        placed = [replace(tensor, start_bytes=data_start + tensor.start_bytes) for tensor in tensors]
        end = 0
        for tensor in sorted(placed, key=lambda tensor: tensor.start_bytes):
            if tensor.start_bytes < end:  # else a file of one megabyte could fill a disk
                raise self._damaged(f"tensor {tensor.name!r} lies where another one is")
            end = tensor.start_bytes + tensor.size_bytes
        if end > self._size_bytes:
            raise self._damaged(f"{end} bytes expected, {self._size_bytes} there")
        return placed

    def _tensor(self) -> TensorInfo:
        name = self._string(_MAX_NAME_BYTES)
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

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            text = self._string(min(_MAX_STRING_BYTES, self._left_kept_bytes))
            self._left_kept_bytes -= len(text)
            return text
        if kind == _ARRAY:
            return self._list(self._scalar("I"), self._count(self._left_items))
        return self._scalar(self._code(kind))

    def _list(self, kind: int, count: int) -> list[Any]:
        self._left_items -= count
        if kind == _STRING:
            texts = (self._string(_MAX_STRING_BYTES) for _ in range(count))
            return list(texts) if self._keeps_lists else list(itertools.islice(texts, count, None))
        code = self._code(kind)
        size_bytes = count * struct.calcsize(f"<{code}")
        if self._keeps_lists:
            return list(struct.unpack(f"<{count}{code}", self._bytes(size_bytes)))
        self._skip(size_bytes)
        return []

    def _code(self, kind: int) -> str:
        """Of a number's type. Lists of lists are in no file of these families."""
        if kind not in _SCALARS:
            raise self._damaged(f"metadata of the type {kind}")
        return _SCALARS[kind]

    def _string(self, most_bytes: int) -> str:
        length_bytes = self._scalar("Q")
        if most_bytes < length_bytes <= self._left_bytes:
            raise self._damaged(f"a string of {length_bytes} bytes, where {most_bytes} are allowed")
        return self._bytes(length_bytes).decode("utf-8", errors="replace")

    def _count(self, most: int) -> int:
        count = int(self._scalar("Q"))
        if count > most:
            raise self._damaged(f"a count of {count}, where {most} are allowed")
        return count

    def _scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]

    def _bytes(self, count: int) -> bytes:
        self._take(count)
        return self._file.read(count)

    def _skip(self, count: int) -> None:
        self._take(count)
        self._file.seek(count, os.SEEK_CUR)

    def _take(self, count: int) -> None:
        if count > self._left_bytes:
            over = self._size_bytes > _MAX_HEADER_BYTES
            raise self._damaged(f"its header has more than {_MAX_HEADER_BYTES} bytes" if over else _ENDS_EARLY)
        self._left_bytes -= count

    def _damaged(self, what: str) -> ModelSourceError:
        return ModelSourceError(f"{self._path}: the file is cut short or damaged ({what}); download it again")
