"""The models that this machine has: those imported here, and those in Hugging Face's cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_grpc.models.cache import default_cache_dir, locked, models_dir, read_record, retire, storage_error
from mlx_grpc.models.sources import ModelSourceError


@dataclass(frozen=True, slots=True)
class KnownModel:
    """`name` is what `remove` takes; `source` is what `--model` takes; `kind` is "imported" or "hub"."""

    name: str
    kind: str
    source: str
    revision: str
    path: Path
    size_bytes: int


def list_models(cache_dir: Path | None = None) -> list[KnownModel]:
    """All whole models, by name. A repository that is cached in several revisions is there once for each."""
    found = [*_imported(cache_dir or default_cache_dir()), *_cached_from_hub()]
    return sorted(found, key=lambda model: (model.name, model.revision))


def remove(name: str, cache_dir: Path | None = None) -> int:
    """Deletes the model `name`, all revisions of it, and returns the bytes freed. Raises ModelSourceError.

    The name is looked up in the list and never made into a path, so that it cannot leave the model folders.
    """
    cache_dir = cache_dir or default_cache_dir()
    chosen = [model for model in list_models(cache_dir) if model.name == name]
    if not chosen:
        raise ModelSourceError(f"no model {name!r} here; `mlx-grpc models list` shows those that are")
    try:
        return sum(_remove_imported(model) if model.kind == "imported" else _remove_from_hub(model) for model in chosen)
    except OSError as error:
        raise storage_error(chosen[0].path, error) from error


def _remove_imported(model: KnownModel) -> int:
    with locked(model.path.parent, model.name):
        if model.path.is_symlink():
            model.path.unlink()
        else:
            retire(model.path)
    return model.size_bytes


def _remove_from_hub(model: KnownModel) -> int:
    from huggingface_hub import constants, scan_cache_dir

    strategy = scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(model.revision)
    strategy.execute()
    return strategy.expected_freed_size


def _imported(cache_dir: Path) -> Iterator[KnownModel]:
    models = models_dir(cache_dir)
    folders = [path for path in models.iterdir() if not path.name.startswith(".")] if models.is_dir() else []
    for folder in folders:
        record = read_record(folder)
        if record is not None:
            size_bytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
            yield KnownModel(
                folder.name,
                "imported",
                str(record.get("source", "")),
                str(record.get("key", ""))[:10],
                folder,
                size_bytes,
            )


def _cached_from_hub() -> Iterator[KnownModel]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in repositories:
        for revision in repository.revisions:
            names = {file.file_name for file in revision.files}
            if "config.json" in names and any(name.endswith(".safetensors") for name in names):
                yield KnownModel(
                    repository.repo_id, "hub", f"{repository.repo_id}@{revision.commit_hash}",
                    revision.commit_hash, revision.snapshot_path, revision.size_on_disk,
                )  # fmt: skip
