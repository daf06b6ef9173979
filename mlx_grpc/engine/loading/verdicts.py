"""What tests at load have found, kept on this machine: one small file for each model, versions and device.

A test that ends the whole process, as MLX may for a model that was not made for batches, is noticed by the next one:
what is being tried is written down before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import msgspec

from mlx_grpc.engine.loading.trial import Verdict
from mlx_grpc.models.cache import default_cache_dir
from mlx_grpc.models.private_folder import NotPrivate, PrivateFolder

log = logging.getLogger(__name__)
Result = TypeVar("Result")

MOST_KEPT = 256
"""Verdicts of models and versions that are gone make room for new ones, the oldest first."""
MOST_BYTES = 1 << 16
CRASHES_BELIEVED = 2
"""So many processes must have died while they tried a way: one may have been killed for another reason."""


class _Record(msgspec.Struct):
    verdict: Verdict | None = None
    trying: str = ""
    deaths: dict[str, int] = {}


class Verdicts:
    """The file of one model. Nothing is raised where it cannot be read or written, or where others could have written
    it: then the test runs every time."""

    def __init__(self, folder: Path, device: str) -> None:
        self._path = default_cache_dir() / "verdicts" / f"{_key(folder, device)}.json"
        self._record = self._read()
        if self._record.trying:
            died = self._record.trying
            self._record.deaths[died] = self._record.deaths.get(died, 0) + 1
            self._record.trying = ""
            self._write()

    @property
    def known(self) -> Verdict | None:
        """What an earlier test found."""
        return self._record.verdict

    def was_fatal(self, what: str) -> bool:
        """Whether processes ended while they tried this."""
        return self._record.deaths.get(what, 0) >= CRASHES_BELIEVED

    def trying(self, what: str) -> None:
        """The process may not survive this."""
        self._record.trying = what
        self._write()

    def found(self, verdict: Verdict) -> None:
        """The test is over."""
        self._record = _Record(verdict)
        self._write()
        self._in_folder(_make_room)

    def _read(self) -> _Record:
        content = self._in_folder(lambda folder: folder.read(self._path.name, MOST_BYTES))
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(content or b"", type=_Record)
        return _Record()

    def _write(self) -> None:
        content = msgspec.json.encode(self._record)
        self._in_folder(lambda folder: folder.write(self._path.name, content))

    def _in_folder(self, act: Callable[[PrivateFolder], Result]) -> Result | None:
        """What `act` gives; None where the folder of all verdicts, or the file, cannot be used."""
        try:
            with contextlib.closing(PrivateFolder(self._path.parent)) as folder:
                return act(folder)
        except NotPrivate as error:
            log.warning("verdicts of tests at load are not used: %s", error)
        except OSError:
            pass
        return None


def _make_room(folder: PrivateFolder) -> None:
    for name in folder.names()[:-MOST_KEPT]:
        folder.remove(name)


def _key(folder: Path, device: str) -> str:
    """Of all that a verdict depends on: weights, versions, device, and the engine's own code."""
    weights = []
    for file in sorted(folder.glob("model*.safetensors")):
        stat = file.stat()
        weights.append((file.name, stat.st_size, stat.st_mtime_ns))
    depends_on = json.dumps(
        [str(folder.resolve()), (folder / "config.json").read_text("utf-8"), weights, device, *_versions()]
    )
    return hashlib.sha256(depends_on.encode()).hexdigest()[:32]


@cache
def _versions() -> tuple[str, ...]:
    engine = Path(__file__).resolve().parents[1]
    code = hashlib.sha256()
    for file in sorted(engine.rglob("*.py")):
        code.update(file.read_bytes())
    return version("mlx"), version("mlx-lm"), code.hexdigest()
