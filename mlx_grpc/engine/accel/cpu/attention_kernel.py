"""Attention on a CPU, in C: MLX's own takes 13 ns for each score there, most of it in a softmax of single floats."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlx_grpc.engine.accel.cpu.compiled import compiled
from mlx_grpc.models.cache import default_cache_dir

SIZES_OF = 8
"""A head's size must be a multiple of this."""
SOURCE = Path(__file__).with_name("attention_kernel.c")
_FLOAT_BYTES = 4


class _Array(ctypes.Structure):
    """Where a [rows, heads, tokens, size] array lies, and how many floats lie between neighbours on the first three
    axes."""

    _fields_ = (("at", ctypes.c_void_p), ("row", ctypes.c_long), ("head", ctypes.c_long), ("token", ctypes.c_long))


class Attention:
    """softmax(scale · queries · keysᵀ) · values, for what each query sees."""

    def __init__(self, library: Path) -> None:
        """`library` is what became of the C. Raises OSError where it cannot be loaded."""
        self._call = ctypes.CDLL(str(library)).attention
        self._call.restype = ctypes.c_int
        integer = ctypes.c_long
        pointers = ctypes.POINTER(_Array), ctypes.POINTER(integer)
        self._call.argtypes = (*pointers, *[integer] * 7, ctypes.c_float, integer)

    def __call__(
        self,
        queries: NDArray[np.float32],
        keys: NDArray[np.float32],
        values: NDArray[np.float32],
        starts: Sequence[int],
        scale: float,
        *,
        causal: bool,
        threads: int,
    ) -> NDArray[np.float32]:
        """queries: [rows, heads, length, size]; keys and values: [rows, kv heads, context, size]; the last axis dense.

        A row's first `starts` keys are not seen. Causal: the last query sees all others, the one before it one fewer,
        and so on. Gives [rows, length, heads, size]; zeros where a query sees nothing. Raises MemoryError.
        """
        rows, heads, length, size = queries.shape
        out = np.empty((rows, length, heads, size), np.float32)
        arrays = (_Array * 4)(*map(_described, (queries, keys, values, out.swapaxes(1, 2))))
        begin = (ctypes.c_long * rows)(*starts)
        sizes = rows, heads, keys.shape[1], length, keys.shape[2], size, int(causal)
        if self._call(arrays, begin, *sizes, scale, threads):
            raise MemoryError("no memory for attention")
        return out


def load_attention(cache_dir: Path | None = None) -> Attention:
    """Compiles what is not in `cache_dir` (default: the platform's cache). Raises OSError or
    subprocess.SubprocessError where that is impossible."""
    with compiled(SOURCE, cache_dir or default_cache_dir()) as library:
        return Attention(library)


def _described(array: NDArray[np.float32]) -> _Array:
    row, head, token, _ = array.strides
    return _Array(array.ctypes.data, row // _FLOAT_BYTES, head // _FLOAT_BYTES, token // _FLOAT_BYTES)
