"""Log lines on stderr. Prompts and outputs are never among them."""

from __future__ import annotations

import logging
import sys

LEVELS = ("debug", "info", "warning", "error")


def set_up_logging(level: str) -> None:
    """Send the project's log to stderr, one line a record (a traceback may follow)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logger = logging.getLogger("mlx_grpc")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
