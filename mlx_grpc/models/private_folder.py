"""A folder that is this user's alone (mode 0700): what is read there cannot come from anybody else.

All is done relative to the descriptor that was checked, so that nobody can put another folder in its place between
the check and the use.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE, _FILE_MODE = 0o700, 0o600
_WRITABLE_BY_OTHERS = 0o022
_DESCRIPTORS = Path("/proc/self/fd")


class NotPrivate(OSError):
    """Others could have put something there. The text is one line that names the folder or file."""


def is_trusted(facts: os.stat_result) -> bool:
    """Whether this user or root owns it, and nobody else may write to it."""
    return facts.st_uid in (os.geteuid(), 0) and not facts.st_mode & _WRITABLE_BY_OTHERS


class PrivateFolder:
    """An open folder, made where it is missing. Files in it have one name each, are no links, and are replaced whole.

    Raises OSError, and NotPrivate for a folder or file that is another user's or that others may write to.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(_MODE, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(_MODE)
        self.path = path
        try:
            self._folder = os.open(path, _OPEN_FOLDER)
        except NotADirectoryError:
            raise NotPrivate(f"{path} is a link, or not a folder") from None
        try:
            self._claim()
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        facts = os.fstat(self._folder)
        # Earlier versions left the mode to the umask. What others put in before has another owner, and is refused.
        if facts.st_uid == os.geteuid() and facts.st_mode & 0o077:
            os.fchmod(self._folder, stat.S_IMODE(facts.st_mode) & _MODE)
        elif not is_trusted(facts):
            raise NotPrivate(f"{self.path} belongs to another user")

    def close(self) -> None:
        """Paths from `steady_path` end with it."""
        os.close(self._folder)

    def names(self) -> list[str]:
        """Of all files, the oldest first."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
        return [name for _, name in sorted(found)]

    def read(self, name: str, most_bytes: int) -> bytes:
        """The whole file. Raises FileNotFoundError, and NotPrivate for one that is longer as well."""
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)
        with os.fdopen(file, "rb") as stream:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or not is_trusted(facts):
                raise NotPrivate(f"{self.path / name} is a link, or others may have written it")
            if facts.st_size > most_bytes:
                raise NotPrivate(
                    f"{self.path / name} has {facts.st_size} bytes, more than the {most_bytes} of such files"
                )
            return stream.read(most_bytes)

    def write(self, name: str, content: bytes) -> None:
        """Whole or not at all (mode 0600): written under a name of its own, then renamed."""
        partial = f".{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(partial, flags, _FILE_MODE, dir_fd=self._folder), "wb") as stream:
                stream.write(content)
            os.rename(partial, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            self.remove(partial)
            raise

    def remove(self, name: str) -> None:
        """As far as that is possible."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def steady_path(self, name: str) -> Path:
        """A path to the file that leads through the open folder where the system can, whatever is renamed meanwhile."""
        if _DESCRIPTORS.is_dir():
            return _DESCRIPTORS / str(self._folder) / name
        return self.path / name
