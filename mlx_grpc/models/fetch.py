"""From a source to a model folder on this machine: fetched, imported and checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_grpc.models import default_model, hub
from mlx_grpc.models.cache import (
    default_cache_dir,
    locked,
    models_dir,
    publish,
    read_record,
    storage_error,
    working_folder,
)
from mlx_grpc.models.folder import FolderFacts, describe_folder
from mlx_grpc.models.gguf.child import IMPORT_VERSION, run_import
from mlx_grpc.models.gguf.config import check_family
from mlx_grpc.models.gguf.header import read_header
from mlx_grpc.models.progress import ProgressReporter, SilentProgress
from mlx_grpc.models.sources import (
    DefaultModel,
    GgufFile,
    HubModel,
    ImportedModel,
    ModelFolder,
    ModelSourceError,
    NamedSource,
    no_such_model,
)

_UNFIT_FOR_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A whole model on this machine. `model_id` is the alias where one was given."""

    model_id: str
    folder: Path
    revision: str
    source: str
    facts: FolderFacts


def resolve(named: NamedSource, cache_dir: Path | None = None, progress: ProgressReporter | None = None) -> LocalModel:
    """Has the model here and whole, fetching or importing it where needed; blocks for as long as that takes.

    `cache_dir` is where imports lie (default: the platform's cache). Raises ModelSourceError.
    """
    progress = progress or SilentProgress()
    try:
        model_id, folder, revision = _place(named, cache_dir or default_cache_dir(), progress)
    except OSError as error:
        raise storage_error(cache_dir or default_cache_dir(), error) from error
    finally:
        progress.close()
    return LocalModel(named.alias or model_id, folder, revision, str(named.source), describe_folder(folder))


def _place(named: NamedSource, cache_dir: Path, progress: ProgressReporter) -> tuple[str, Path, str]:
    """Model id, folder and revision."""
    match named.source:
        case ModelFolder(path):
            return path.resolve().name, path, ""
        case HubModel() as model:
            folder = hub.fetch_snapshot(model, progress)
            return model.repo_id, folder, folder.name
        case GgufFile(path):
            wanted = gguf_import(path)
            return _gguf_name(path), _imported(wanted, cache_dir, progress), _short(wanted.key)
        case ImportedModel(name):
            wanted = known_import(name, cache_dir)
            return name, _imported(wanted, cache_dir, progress), _short(wanted.key)
        case DefaultModel():
            wanted = default_import(progress)
            return wanted.name, _imported(wanted, cache_dir, progress), _short(wanted.key)


@dataclass(frozen=True, slots=True)
class Import:
    """One GGUF file to import under `name`; a change of `key` makes it a different one. `get_gguf(work)` has it."""

    name: str
    key: str
    source: str
    get_gguf: Callable[[Path], Path]

    @property
    def record(self) -> dict[str, Any]:
        """What an imported folder says that it was made from."""
        return {"source": self.source, "key": self.key, "import_version": IMPORT_VERSION}

    def made(self, cache_dir: Path) -> Path | None:
        """The imported folder, if it is there."""
        folder = models_dir(cache_dir) / self.name
        return folder if read_record(folder) == self.record else None


def default_import(progress: ProgressReporter) -> Import:
    """The default model's."""
    return Import(
        default_model.NAME, default_model.GGUF_SHA256, "", lambda work: default_model.default_gguf(work, progress)
    )


def gguf_import(path: Path) -> Import:
    """A file's. Raises ModelSourceError for one that cannot be imported, OSError for one that cannot be read."""
    name, key = _gguf_name(path), _gguf_key(path)
    return Import(f"{name}-{_short(key)}", key, str(path.resolve()), lambda _work: path)


def known_import(name: str, cache_dir: Path) -> Import:
    """The one that a model on this machine comes from; another version's is to be made again. Raises
    ModelSourceError."""
    record = read_record(models_dir(cache_dir) / name)
    if record is None:
        raise no_such_model(name)
    key, source = str(record.get("key", "")), Path(str(record.get("source", "")))
    if record.get("import_version") == IMPORT_VERSION:
        return Import(name, key, str(record.get("source", "")), lambda _work: source)
    if not source.is_file():
        raise ModelSourceError(
            f"model {name!r} was imported by another version, and its file {source} is not there to import it again"
        )
    return gguf_import(source)


def _imported(wanted: Import, cache_dir: Path, progress: ProgressReporter) -> Path:
    """The imported folder, made now unless it is there with the same key and import version."""
    models = models_dir(cache_dir)
    if folder := wanted.made(cache_dir):
        return folder
    with locked(models, wanted.name):
        if folder := wanted.made(cache_dir):  # made by another process while this one waited
            return folder
        with working_folder(models, wanted.name) as work:
            made = work / "model"
            made.mkdir(0o700)
            run_import(wanted.get_gguf(work), made, progress)
            describe_folder(made)
            publish(made, models / wanted.name, wanted.record)
    return models / wanted.name


def _gguf_key(gguf: Path) -> str:
    """Changes when the file does. Refuses early what the import would refuse, without starting it."""
    check_family(read_header(gguf, lists=False))
    facts = gguf.stat()
    return hashlib.sha256(f"{gguf.resolve()}\n{facts.st_size}\n{facts.st_mtime_ns}".encode()).hexdigest()


def _short(key: str) -> str:
    return key[:10]


def _gguf_name(gguf: Path) -> str:
    name = _UNFIT_FOR_A_NAME.sub("-", gguf.name[: -len(".gguf")]).strip("-.")[:80]
    if not name:
        raise ModelSourceError(f"{gguf}: the file has no name before .gguf; rename it")
    return name
