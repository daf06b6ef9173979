"""What can be known of a source before anything is fetched, imported or loaded."""

from __future__ import annotations

from pathlib import Path

from mlx_grpc.models.cache import check_storable, default_cache_dir, models_dir
from mlx_grpc.models.fetch import Import, default_import, gguf_import, known_import
from mlx_grpc.models.folder import FolderFacts, describe_folder
from mlx_grpc.models.gguf.header import read_header
from mlx_grpc.models.hub import cached_snapshot
from mlx_grpc.models.progress import SilentProgress
from mlx_grpc.models.sources import (
    DefaultModel,
    GgufFile,
    HubModel,
    ImportedModel,
    ModelFolder,
    ModelSourceError,
    Source,
)


def look(source: Source, cache_dir: Path | None = None) -> FolderFacts | None:
    """The facts that are on this machine; None where there are none yet. Raises ModelSourceError for a source that
    cannot be served, or not be stored here."""
    cache_dir = cache_dir or default_cache_dir()
    match source:
        case ModelFolder(path):
            return describe_folder(path)
        case ImportedModel(name):
            return _of_import(known_import(name, cache_dir), cache_dir)
        case HubModel() as model:
            return _of_hub(model)
        case GgufFile(path):
            return _of_import(_readable(path), cache_dir) or _of_header(path)
        case DefaultModel():
            return _of_import(default_import(SilentProgress()), cache_dir)


def _of_import(wanted: Import, cache_dir: Path) -> FolderFacts | None:
    folder = wanted.made(cache_dir)
    if folder is None:
        check_storable(models_dir(cache_dir))
        return None
    return describe_folder(folder)


def _of_hub(model: HubModel) -> FolderFacts | None:
    folder = cached_snapshot(model)
    try:
        return describe_folder(folder) if folder else None
    except ModelSourceError:  # the fetching was cut short, and will go on
        return None


def _readable(path: Path) -> Import:
    try:
        return gguf_import(path)
    except OSError as error:
        raise ModelSourceError(f"{path}: {error.strerror or error}; give a .gguf file that can be read") from error


def _of_header(path: Path) -> FolderFacts:
    metadata = read_header(path, lists=False).metadata
    architecture = str(metadata.get("general.architecture", ""))
    context_length = metadata.get(f"{architecture}.context_length")
    return FolderFacts(
        model_type=architecture,
        context_length=context_length if isinstance(context_length, int) else 0,
        vocab_size=0,
        dtype="",
        quantization_bits=0,
        weights_bytes=path.stat().st_size,
    )
