"""C that is compiled on first use, with the C compiler that MLX's CPU backend needs anyway.

The library is loaded into this process, so it is kept in a folder that is this user's alone. Where there is no such
folder, it is compiled again for each process.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mlx_grpc.models.private_folder import PrivateFolder

log = logging.getLogger(__name__)

_COMPILE_SECONDS = 60
_MOST_LIBRARY_BYTES = 16 << 20


@contextmanager
def compiled(source: Path, cache_dir: Path) -> Iterator[Path]:
    """The shared library of one C file, below `cache_dir`, under a path that is good within the block: load it there.
    Its name holds what it depends on, so it is never out of date. Raises OSError or subprocess.SubprocessError where
    there is none and none can be made."""
    depends_on = f"{source.read_text('ascii')}{platform.machine()}{platform.libc_ver()}"
    key = hashlib.sha256(depends_on.encode()).hexdigest()[:16]
    name = f"{source.stem}-{key}.so"
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(closing(PrivateFolder(cache_dir / "blas")))
        except OSError as error:
            folder = _for_once(stack, source, error)
        if not _is_there(folder, name):
            library = _compile(source)
            try:
                folder.write(name, library)
            except OSError as error:
                folder = _for_once(stack, source, error)
                folder.write(name, library)
        yield folder.steady_path(name)


def _for_once(stack: ExitStack, source: Path, why: OSError) -> PrivateFolder:
    """A folder that is gone when the stack ends: what has been loaded from it stays loaded."""
    log.warning("%s is compiled for this process alone: %s", source.name, why)
    path = stack.enter_context(tempfile.TemporaryDirectory(prefix="mlx-grpc-"))
    return stack.enter_context(closing(PrivateFolder(Path(path))))


def _is_there(folder: PrivateFolder, name: str) -> bool:
    """Whether the folder holds the library, and nobody else can have made it. Anything else of that name is left, and
    replaced by what is compiled."""
    try:
        return bool(folder.read(name, _MOST_LIBRARY_BYTES))
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("a compiled library is made anew: %s", error)
        return False


def _compile(source: Path) -> bytes:
    compiler = next((found for name in ("cc", "gcc", "clang", "g++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise OSError("no C compiler")
    with tempfile.TemporaryDirectory(prefix="mlx-grpc-") as work:  # mode 0700
        built = Path(work, "library.so")
        command = [compiler, "-x", "c", "-O2", "-pthread", "-shared", "-fPIC", "-o", str(built), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
        if done.returncode:
            raise OSError(f"{compiler} failed: {done.stderr.strip()[:200]}")
        return built.read_bytes()
