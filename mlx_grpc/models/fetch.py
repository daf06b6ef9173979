"""From a source to a model folder on this machine: fetched, imported and checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
            wanted = _gguf_import(path)
            return _gguf_name(path), _imported(wanted, cache_dir, progress), _short(wanted.key)
        case ImportedModel(name):
            folder, key = _known_import(name, cache_dir, progress)
            return name, folder, _short(key)
        case DefaultModel():
            name, key = default_model.NAME, default_model.GGUF_SHA256
            wanted = _Import(name, key, "", lambda work: default_model.default_gguf(work, progress))
            return name, _imported(wanted, cache_dir, progress), _short(key)


@dataclass(frozen=True, slots=True)
class _Import:
    """One GGUF file to import under `name`; a change of `key` makes it a different one. `get_gguf(work)` has it."""

    name: str
    key: str
    source: str
    get_gguf: Callable[[Path], Path]


def _gguf_import(path: Path) -> _Import:
    name, key = _gguf_name(path), _gguf_key(path)
    return _Import(f"{name}-{_short(key)}", key, str(path.resolve()), lambda _work: path)


def _known_import(name: str, cache_dir: Path, progress: ProgressReporter) -> tuple[Path, str]:
    """Folder and key of a model that was imported before; made again where another version of the import made it."""
    folder = models_dir(cache_dir) / name
    record = read_record(folder)
    if record is None:
        raise no_such_model(name)
    key, source = str(record.get("key", "")), Path(str(record.get("source", "")))
    if record.get("import_version") == IMPORT_VERSION:
        return folder, key
    if not source.is_file():
        raise ModelSourceError(
            f"model {name!r} was imported by another version, and its file {source} is not there to import it again"
        )
    wanted = _gguf_import(source)
    return _imported(wanted, cache_dir, progress), wanted.key


def _imported(wanted: _Import, cache_dir: Path, progress: ProgressReporter) -> Path:
    """The imported folder, made now unless it is there with the same key and import version."""
    models = models_dir(cache_dir)
    final = models / wanted.name
    record = {"source": wanted.source, "key": wanted.key, "import_version": IMPORT_VERSION}
    if read_record(final) == record:
        return final
    with locked(models, wanted.name):
        if read_record(final) == record:  # made by another process while this one waited
            return final
        with working_folder(models, wanted.name) as work:
            made = work / "model"
            made.mkdir()
            run_import(wanted.get_gguf(work), made, progress)
            describe_folder(made)
            publish(made, final, record)
    return final


def _gguf_key(gguf: Path) -> str:
    """Changes when the file does. Refuses early what the import would refuse, without starting it."""
    check_family(read_header(gguf))
    facts = gguf.stat()
    return hashlib.sha256(f"{gguf.resolve()}\n{facts.st_size}\n{facts.st_mtime_ns}".encode()).hexdigest()


def _short(key: str) -> str:
    return key[:10]


def _gguf_name(gguf: Path) -> str:
    name = _UNFIT_FOR_A_NAME.sub("-", gguf.name[: -len(".gguf")]).strip("-.")[:80]
    if not name:
        raise ModelSourceError(f"{gguf}: the file has no name before .gguf; rename it")
    return name
