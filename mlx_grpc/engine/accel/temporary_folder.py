"""Where this process, and MLX in it, keep temporary files.

MLX compiles kernels into the system's folder for these, which everybody may write to, and loads whatever lies there
under their names.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path

from mlx_grpc.models.cache import default_cache_dir
from mlx_grpc.models.private_folder import PrivateFolder

log = logging.getLogger(__name__)


def use_private_temporary_folder() -> None:
    """From now on, for this process and its children. Call it before `import mlx.core`. The folder outlives the
    process, so that kernels are compiled once; where it cannot be used, one that does not is made."""
    path = default_cache_dir() / "tmp"
    try:
        PrivateFolder(path).close()
    except OSError as error:
        log.warning("kernels are compiled for this process alone: %s", error)
        path = Path(tempfile.mkdtemp(prefix="mlx-grpc-"))
        atexit.register(shutil.rmtree, path, ignore_errors=True)
    os.environ["TMPDIR"] = str(path)
    tempfile.tempdir = None  # Python asks for it once
