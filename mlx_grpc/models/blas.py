"""Loads OpenBLAS before MLX on Linux CPUs, where MLX's wheel carries the reference BLAS, many times slower.

A library loaded with RTLD_GLOBAL before `import mlx.core` answers for `cblas_sgemm` and its kin. The PyPI package
scipy-openblas32 has them with a `scipy_` prefix and needs a shim, `blas_shim.c`, which is compiled once with the C
compiler that MLX's CPU backend needs anyway; it brings a product for few rows that is quicker than OpenBLAS's. Failing
that, the system's OpenBLAS has them under their own names.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from mlx_grpc.models.cache import default_cache_dir

_SYSTEM_LIBRARY = "libopenblas.so.0"
_PACKAGE = "scipy-openblas32"
_COMPILE_SECONDS = 60
_ADVICE = f"`pip install {_PACKAGE}` with a C compiler at hand, or install libopenblas0-pthread"
_SHIM = Path(__file__).with_name("blas_shim.c")


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
    """The library whose threads may be changed; None: nobody may, or there is none."""

    adjustable: ctypes.CDLL | None = None


_threads = _Threads()


@contextlib.contextmanager
def every_processor() -> Iterator[None]:
    """A block in which products use all processors: for long ones, while nobody waits for the server. None may be in
    flight when it begins. What the operator has set stays."""
    if _threads.adjustable is None:
        yield
        return
    usual = int(os.environ["OPENBLAS_NUM_THREADS"])
    _threads.adjustable.scipy_openblas_set_num_threads(usable_cpus())
    try:
        yield
    finally:
        _threads.adjustable.scipy_openblas_set_num_threads(usual)


def usable_cpus() -> int:
    """How many processors this process may use: its affinity, and its container's quota if any."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return count


def _load_packaged(library: Path, cache_dir: Path) -> None:
    shim = _shim(cache_dir)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(shim), mode=ctypes.RTLD_GLOBAL)


def _packaged_library() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((file for folder in folders for file in Path(folder, "lib").glob("libscipy_openblas*.so")), None)


def _shim(cache_dir: Path) -> Path:
    """The compiled shim, made on first use. Its name holds what it depends on, so it is never out of date."""
    key = hashlib.sha256(f"{_SHIM.read_text('ascii')}{platform.machine()}{platform.libc_ver()}".encode()).hexdigest()[
        :16
    ]
    shim = cache_dir / "blas" / f"shim-{key}.so"
    if shim.exists():
        return shim
    compiler = next((found for name in ("cc", "gcc", "clang", "g++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise OSError("no C compiler")
    shim.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shim.parent, prefix=".partial.") as work:
        built = Path(work, "shim.so")
        command = [compiler, "-x", "c", "-O2", "-shared", "-fPIC", "-o", str(built), str(_SHIM)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
        if done.returncode:
            raise OSError(f"{compiler} failed: {done.stderr.strip()[:200]}")
        built.rename(shim)
    return shim


def _is_cpu_build() -> bool:
    names = {(distribution.metadata["Name"] or "").lower() for distribution in metadata.distributions()}
    return "mlx-cpu" in names and not any(name.startswith("mlx-cuda") for name in names)
