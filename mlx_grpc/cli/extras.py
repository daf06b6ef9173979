"""Says which extra to install where the packages that serving needs are missing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mlx_grpc.cli.failure import Failure


def serving_extra(platform: str, has_nvidia: bool) -> str:
    """The extra of this package that serves on this platform."""
    if platform == "darwin":
        return "serve"
    return "cuda13" if has_nvidia else "cpu"


@contextmanager
def serving_packages(what: str) -> Iterator[None]:
    """For a block that imports what only a serving extra brings. A missing package becomes a Failure.

    A missing module of our own stays an error: that is a bug, not an installation.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "mlx_grpc"):
            raise
        extra = serving_extra(sys.platform, shutil.which("nvidia-smi") is not None)
        raise Failure(f"{what} needs {error.name}, which is not installed: pip install 'mlx-grpc[{extra}]'") from error
