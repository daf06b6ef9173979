"""The folder of imported models: whole or not there.

Work happens in a hidden folder beside the final one, which a rename puts in place as the last act; a killed
attempt leaves only the hidden folder, and the next attempt under the same name removes it. One lock file a
name keeps two processes apart; the kernel frees it when its holder dies. The folder is this user's alone (mode 0700).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlx_grpc.models.json_file import read_object
from mlx_grpc.models.sources import ModelSourceError

_RECORD_FILE = "mlx_grpc_source.json"
_PARTIAL = ".partial."
_OPEN_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class StorageError(ModelSourceError):
    """The cache cannot take a model."""


def default_cache_dir() -> Path:
    """Where this platform keeps caches; `mlx-grpc` inside it."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlx-grpc"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "mlx-grpc"


def models_dir(cache_dir: Path) -> Path:
    """Where the imported models lie, one folder each."""
    return cache_dir / "models"


def read_record(folder: Path) -> dict[str, Any] | None:
    """What an imported folder was made from, or None when it is not one of ours or not whole. Raises StorageError where
    another user may have put it there."""
    for owned in (folder.parent, folder):
        _check_owner(owned)
    try:
        return read_object(folder / _RECORD_FILE)
    except (OSError, ModelSourceError):
        return None


def _check_owner(path: Path) -> None:
    """Raises StorageError for a file, or a link, that belongs to neither this user nor root. It need not be there."""
    try:
        owners = {os.lstat(path).st_uid, os.stat(path).st_uid}
    except OSError:
        return
    if owners - {os.geteuid(), 0}:
        raise StorageError(f"{path} belongs to another user; give another --cache-dir")


def check_storable(models: Path) -> None:
    """Raises ModelSourceError where nothing could be stored in this folder, which need not be there yet."""
    there = next(path for path in (models, *models.parents) if path.exists())
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise storage_error(models, error) from error


@contextmanager
def locked(models: Path, name: str) -> Iterator[None]:
    """Holds the lock of `name`, waiting for whoever has it, and clears what killed attempts left."""
    _check_owner(models)
    try:
        models.parent.mkdir(0o700, parents=True, exist_ok=True)
        models.mkdir(0o700, exist_ok=True)
        mode = stat.S_IMODE(models.stat().st_mode)
        if mode & 0o077 and models.stat().st_uid == os.geteuid():  # earlier versions left it to the umask
            models.chmod(mode & 0o700)
        lock_file = os.open(models / f".{name}.lock", _OPEN_LOCK, 0o600)
    except OSError as error:
        raise storage_error(models, error) from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        for leftover in models.glob(f"{_PARTIAL}{name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        os.close(lock_file)


@contextmanager
def working_folder(models: Path, name: str) -> Iterator[Path]:
    """A hidden folder that is gone at the end; `publish` what is good before. Needs the lock."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{name}.", dir=models))
    try:
        yield folder
    except OSError as error:
        raise storage_error(models, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(made: Path, final: Path, record: dict[str, Any]) -> None:
    """Puts the folder `made` in place as `final`, with `record` in it, or in `final`'s. Needs the lock."""
    (made / _RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    for file in made.iterdir():
        _sync(file)
    retire(final)
    made.rename(final)
    _sync(final.parent)


def retire(final: Path) -> None:
    """Removes a published folder, so that at no moment half of it stands under its name. Needs the lock."""
    if final.exists():
        grave = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{final.name}.", dir=final.parent))
        final.rename(grave / "old")
        shutil.rmtree(grave, ignore_errors=True)


def storage_error(folder: Path, error: OSError) -> StorageError:
    """For a full disk, a folder that may not be written and the like."""
    return StorageError(
        f"cannot store the model in {folder}: {error.strerror or error}; free space, or give another --cache-dir"
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
