"""Loads OpenBLAS before MLX on Linux CPUs, where MLX's wheel carries the reference BLAS, many times slower.

A library loaded with RTLD_GLOBAL before `import mlx.core` answers for `cblas_sgemm` and its kin. The PyPI package
scipy-openblas32 has them with a `scipy_` prefix and needs a shim, `blas.c`, which is compiled once with the C
compiler that MLX's CPU backend needs anyway; it brings a product for few rows that is quicker than OpenBLAS's. Failing
that, the system's OpenBLAS has them under their own names.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from mlx_grpc.engine.accel.cpu.compiled import compiled
from mlx_grpc.models.cache import default_cache_dir

_SYSTEM_LIBRARY = "libopenblas.so.0"
_PACKAGE = "scipy-openblas32"
_ADVICE = f"`pip install {_PACKAGE}` with a C compiler at hand, or install libopenblas0-pthread"
_SHIM = Path(__file__).with_name("blas.c")


def load_openblas(cache_dir: Path | None = None) -> str:
    """Loads what there is; call it before `import mlx.core`. Returns one line for the log, and never raises.

    Empty where nothing is to be done: not on Linux, or MLX is a CUDA build. The shim lies in `cache_dir`
    (default: the platform's cache).
    """
    if sys.platform != "linux" or not _is_cpu_build():
        return ""
    if "mlx.core" in sys.modules:
        return "OpenBLAS was not loaded: MLX is already there"
    # OpenBLAS counts the machine's processors, knows nothing of a container's share, and its threads spin while they
    # wait: where they are one too many the speed halves. So one processor stays free for the server.
    chosen = "OPENBLAS_NUM_THREADS" in os.environ
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(1, usable_cpus() - 1)))
    _threads.count = _whole(os.environ["OPENBLAS_NUM_THREADS"])
    problem = ""
    try:
        if library := _packaged_library():
            _load_packaged(library, cache_dir or default_cache_dir())
            _threads.adjustable = None if chosen else ctypes.CDLL(str(library))
            return f"OpenBLAS loaded ({_PACKAGE}, {os.environ['OPENBLAS_NUM_THREADS']} threads)"
    except (OSError, subprocess.SubprocessError) as error:
        problem = f" ({_PACKAGE}: {' '.join(str(error).split())})"
    try:
        ctypes.CDLL(_SYSTEM_LIBRARY, mode=ctypes.RTLD_GLOBAL)
        return f"OpenBLAS loaded ({_SYSTEM_LIBRARY}, {os.environ['OPENBLAS_NUM_THREADS']} threads)"
    except OSError:
        return f"no OpenBLAS could be loaded{problem}, so MLX will be many times slower than it could be: {_ADVICE}"


class _Threads:
    """adjustable: the library whose threads may be changed; None: nobody may, or there is none. count: how many there
    are."""

    adjustable: ctypes.CDLL | None = None
    count: int = 1


_threads = _Threads()


@contextlib.contextmanager
def every_processor() -> Iterator[None]:
    """A block in which products use all processors: for long ones, while nobody waits for the server. None may be in
    flight when it begins. What the operator has set stays."""
    if _threads.adjustable is None:
        yield
        return
    usual, _threads.count = _threads.count, usable_cpus()
    _threads.adjustable.scipy_openblas_set_num_threads(_threads.count)
    try:
        yield
    finally:
        _threads.count = usual
        _threads.adjustable.scipy_openblas_set_num_threads(usual)


def product_threads() -> int:
    """How many threads a product uses now; other work that takes turns with products takes as many."""
    return _threads.count


def _whole(text: str) -> int:
    """What OpenBLAS makes of it: at least one, and no more than there are processors."""
    return max(1, min(int(text), os.cpu_count() or 1)) if text.isdecimal() else 1


def usable_cpus() -> int:
    """How many processors this process may use: its affinity, and its container's quota if any."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return count


def _load_packaged(library: Path, cache_dir: Path) -> None:
    with compiled(_SHIM, cache_dir) as shim:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(shim), mode=ctypes.RTLD_GLOBAL)


def _packaged_library() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((file for folder in folders for file in Path(folder, "lib").glob("libscipy_openblas*.so")), None)


def _is_cpu_build() -> bool:
    names = {(distribution.metadata["Name"] or "").lower() for distribution in metadata.distributions()}
    return "mlx-cpu" in names and not any(name.startswith("mlx-cuda") for name in names)
