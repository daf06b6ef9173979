"""A Unix socket's place in the file system: taken by one server at a time, and given back by the one that has it.

grpc unlinks whatever socket lies at the path that it is told, a living server's too, and unlinks the path once more
when it ends. So it binds to a name that nobody knows, which is then moved into place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_grpc.listening import ListenError, check_socket

_FOR_ITS_OWNER = 0o177
"""The umask that makes a socket 0600 from its first moment on."""
_LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A socket that this process has put at `path`."""

    path: Path
    device: int
    inode: int

    def remove(self) -> None:
        """Unless another server has its own there by now."""
        with contextlib.suppress(OSError, ListenError), _locked(self.path.parent):
            facts = os.lstat(self.path)
            if (facts.st_dev, facts.st_ino) == (self.device, self.inode):
                self.path.unlink()


def take(path: Path, flag: str, bind: Callable[[Path], None]) -> SocketFile:
    """Puts the socket that `bind` makes at `path`, for this user alone (mode 0600). A socket that nobody answers at is
    replaced. `flag` is what gave the path, for messages.

    Raises ListenError for a link and for any other file that is not a socket, AddressInUse where a server answers, and
    what `bind` raises. Of servers that start at the same time one gets the place.
    """
    with _locked(path.parent, flag):
        check_socket(path, flag)
        hidden = path.with_name(f".{secrets.token_hex(4)}")
        umask = os.umask(_FOR_ITS_OWNER)
        try:
            bind(hidden)
        finally:
            os.umask(umask)
        try:
            facts = os.lstat(hidden)
            hidden.rename(path)
        except OSError as error:
            hidden.unlink(missing_ok=True)
            raise ListenError(f"{flag}: no socket can be made at {path}: {error.strerror or error}") from None
    return SocketFile(path, facts.st_dev, facts.st_ino)


@contextlib.contextmanager
def _locked(folder: Path, flag: str = "") -> Iterator[None]:
    """A block in which no other server changes this folder's sockets. Raises ListenError."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ListenError(f"{flag}: {folder}: {error.strerror or error}") from None
    try:
        gives_up_seconds = time.monotonic() + _LOCK_SECONDS
        while not _has_locked(lock):
            if time.monotonic() > gives_up_seconds:
                raise ListenError(f"{flag}: another process has locked {folder} for {_LOCK_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(lock)


def _has_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
