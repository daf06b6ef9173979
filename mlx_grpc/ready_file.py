"""The file that tells programs where a server is, once it serves."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path


class ReadyFileError(Exception):
    """The file cannot be written; one line for a person."""


def check(path: Path) -> None:
    """Raises ReadyFileError where the file could not be written later."""
    if path.is_dir():
        raise ReadyFileError(f"--ready-file: {path} is a folder")
    if not path.parent.is_dir():
        raise ReadyFileError(f"--ready-file: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ReadyFileError(f"--ready-file: {path.parent} may not be written to")


def write(path: Path, facts: Mapping[str, object]) -> None:
    """Whole or not at all: whoever waits for the file may read it at once. Raises ReadyFileError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(facts), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ReadyFileError(f"--ready-file: {path} cannot be written: {error.strerror or error}") from None


def remove(path: Path) -> None:
    """When the server ends, as far as that is possible."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
