"""The file that tells programs where a server is, once it serves."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class ReadyFileError(Exception):
    """The file cannot be written; one line for a person."""


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """One that this process has written."""

    path: Path
    device: int
    inode: int

    def remove(self) -> None:
        """When the server ends, as far as that is possible, and unless another server has written its own."""
        with contextlib.suppress(OSError):
            facts = os.lstat(self.path)
            if (facts.st_dev, facts.st_ino) == (self.device, self.inode):
                self.path.unlink()


def check(path: Path) -> None:
    """Raises ReadyFileError where the file could not be written later."""
    if path.is_symlink():
        raise ReadyFileError(f"--ready-file: {path} is a link")
    if path.is_dir():
        raise ReadyFileError(f"--ready-file: {path} is a folder")
    if path.exists() and not path.is_file():
        raise ReadyFileError(f"--ready-file: {path} is there already, and is not a file")
    if not path.parent.is_dir():
        raise ReadyFileError(f"--ready-file: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ReadyFileError(f"--ready-file: {path.parent} may not be written to")


def write(path: Path, facts: Mapping[str, object]) -> ReadyFile:
    """Whole or not at all: whoever waits for the file may read it at once. For this user alone (mode 0600). Raises
    ReadyFileError, for a link too."""
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    check(path)
    try:
        with os.fdopen(os.open(hidden, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(facts))
            written = os.fstat(file.fileno())
        hidden.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            hidden.unlink(missing_ok=True)
        raise ReadyFileError(f"--ready-file: {path} cannot be written: {error.strerror or error}") from None
    return ReadyFile(path, written.st_dev, written.st_ino)
