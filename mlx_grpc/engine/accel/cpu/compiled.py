"""C that is compiled on first use, with the C compiler that MLX's CPU backend needs anyway."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_COMPILE_SECONDS = 60


def compiled(source: Path, cache_dir: Path) -> Path:
    """The shared library of one C file, below `cache_dir`. Its name holds what it depends on, so it is never out of
    date. Raises OSError or subprocess.SubprocessError where there is none and none can be made."""
    depends_on = f"{source.read_text('ascii')}{platform.machine()}{platform.libc_ver()}"
    key = hashlib.sha256(depends_on.encode()).hexdigest()[:16]
    library = cache_dir / "blas" / f"{source.stem}-{key}.so"
    if library.exists():
        return library
    compiler = next((found for name in ("cc", "gcc", "clang", "g++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise OSError("no C compiler")
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".partial.") as work:
        built = Path(work, "library.so")
        command = [compiler, "-x", "c", "-O2", "-pthread", "-shared", "-fPIC", "-o", str(built), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
        if done.returncode:
            raise OSError(f"{compiler} failed: {done.stderr.strip()[:200]}")
        built.rename(library)
    return library
