"""Fetches a model with Hugging Face's own client, into its own cache; its token and offline settings hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_grpc.models.progress import ProgressReporter
from mlx_grpc.models.sources import HubModel, ModelSourceError

# What an MLX model consists of. No *.py: code from a repository is never fetched, so it can never run.
PATTERNS = [
    "*.json", "model*.safetensors", "tokenizer.model", "tiktoken.model", "*.tiktoken", "*.txt", "*.jinja",
    "*.jsonl",
]  # fmt: skip
_IGNORED = ["original/*", "onnx/*", "*/*.safetensors"]


def fetch_snapshot(model: HubModel, progress: ProgressReporter) -> Path:
    """The snapshot's folder, named by its commit. Raises ModelSourceError."""
    from huggingface_hub import snapshot_download

    progress.note(f"fetching {model}")
    try:
        folder = snapshot_download(
            model.repo_id,
            revision=model.revision or None,
            allow_patterns=PATTERNS,
            ignore_patterns=_IGNORED,
            tqdm_class=reporting_tqdm(f"downloading {model.repo_id}", progress),
        )
    except Exception as error:
        raise _explained(model, error) from error
    return Path(str(folder))


def cached_snapshot(model: HubModel) -> Path | None:
    """The snapshot's folder as far as it is on this machine, or None. Asks no network."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model.repo_id, "config.json", revision=model.revision or None)
    return Path(config).parent if isinstance(config, str) else None


def _explained(model: HubModel, error: Exception) -> ModelSourceError:
    """One line for each way this is known to fail; the client's own first line for the others."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return ModelSourceError(f"{model.repo_id} is gated: accept its terms on its page, then set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelSourceError(
            f"{model.repo_id} is not on Hugging Face, or is private: check the name, or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelSourceError(f"{model.repo_id} has no revision {model.revision!r}: give a branch, a tag or a commit")
    if isinstance(
        error,
        (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.CachedRepoTreeNotFoundError),
    ):
        return ModelSourceError(
            f"{model} is not in the local cache and Hugging Face cannot be reached: check the network and "
            "HF_HUB_OFFLINE, or give a model folder"
        )
    if isinstance(error, errors.IncompleteSnapshotError):
        return ModelSourceError(
            f"{model} is only partly in the local cache and cannot be completed now: check the network"
        )
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, OSError) and error.errno is not None:
        first_line = f"{error.strerror}; free disk space or set HF_HOME"
    return ModelSourceError(f"{model} could not be fetched: {first_line}")


def reporting_tqdm(label: str, progress: ProgressReporter) -> type[Any]:
    """A tqdm class that draws nothing and hands the byte counts on.

    One snapshot makes several bars, two of which count the same bytes (on the wire and on disk): the one that is
    further ahead is told.
    """
    from tqdm import tqdm

    counts: dict[int, tuple[int, int]] = {}

    class ReportingTqdm(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            self._counts_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": False, "gui": True, "leave": False})

        def display(self, *args: Any, **kwargs: Any) -> None:
            pass

        def clear(self, *args: Any, **kwargs: Any) -> None:
            pass

        def close(self) -> None:
            self._report()

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            self._report()

        def _report(self) -> None:
            if self._counts_bytes and self.total:
                counts[id(self)] = int(self.n), int(self.total)
                progress.update(label, *max(counts.values()))

    return ReportingTqdm
