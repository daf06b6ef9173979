"""Writes a safetensors file piece by piece, so that no more than one piece of its arrays is ever in memory.

The format: eight bytes with the length of a JSON header, which names each array's type, shape and place; then the
arrays' bytes, without gaps.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_grpc.models.gguf.layout import PlannedArray

_TYPES = {"uint32": ("U32", 4), "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
_HEADER_MULTIPLE = 8


class WeightsFile:
    """A safetensors file that holds these arrays once all their rows have been appended. A context manager."""

    def __init__(self, path: Path, arrays: Iterable[PlannedArray]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
        self._ends: dict[str, tuple[int, int]] = {}
        end = 0
        # Wide types first: so each array starts at a multiple of its type's size.
        for array in sorted(arrays, key=lambda array: (-_TYPES[array.dtype][1], array.name)):
            label, item_bytes = _TYPES[array.dtype]
            start, end = end, end + math.prod(array.shape) * item_bytes
            header[array.name] = {"dtype": label, "shape": array.shape, "data_offsets": [start, end]}
            self._ends[array.name] = start, end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _HEADER_MULTIPLE)
        self._data_start = 8 + len(text)
        self._file = path.open("wb")
        self._file.write(struct.pack("<Q", len(text)) + text)

    def append(self, name: str, rows: NDArray[Any]) -> None:
        """Writes the next rows of the array. Raises OSError where the disk will not have them."""
        start, end = self._ends[name]
        if start + rows.nbytes > end:
            raise ValueError(f"{name} has fewer rows")
        self._file.seek(self._data_start + start)
        self._file.write(np.ascontiguousarray(rows).data)
        self._ends[name] = start + rows.nbytes, end

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None and (short := [name for name, (start, end) in self._ends.items() if start < end]):
            raise ValueError(f"rows of {short[0]} are missing")
