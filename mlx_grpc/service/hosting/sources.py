"""From what an operator or a caller names to a model that a host can load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlx_grpc.engine.exits import exit_reason
from mlx_grpc.errors import InvalidField
from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.folder import FolderFacts
from mlx_grpc.models.look import look
from mlx_grpc.models.progress import ProgressReporter, SilentProgress
from mlx_grpc.models.sources import HubModel, ModelSourceError, NamedSource, checked_alias, parse
from mlx_grpc.service.intake.libraries import import_libraries
from mlx_grpc.service.intake.tokenizer import SCRIPT_PREFIX

SCRIPTED_ID = "scripted"


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model lies on this machine: a folder, or `script:` and JSON."""

    path: str
    revision: str = ""
    facts: FolderFacts | None = None


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's id, and how to have it here: `locate` may fetch and import, and blocks. `look` does neither, and tells
    what is known before; None where that is nothing. Both raise ModelSourceError."""

    id: str
    locate: Callable[[], Located]
    look: Callable[[], FolderFacts | None] = lambda: None


def model_source(
    text: str, cache_dir: Path | None, make_progress: Callable[[], ProgressReporter] = SilentProgress
) -> ModelSource:
    """What `--model` says: `SOURCE` or `NAME=SOURCE`. Raises ModelSourceError."""
    if text.startswith(SCRIPT_PREFIX):
        return ModelSource(SCRIPTED_ID, lambda: Located(text))
    alias, _, script = text.partition("=")
    if script.startswith(SCRIPT_PREFIX):
        return ModelSource(checked_alias(alias, text), lambda: Located(script))
    return _found_by(parse(text), cache_dir, make_progress)


def _found_by(named: NamedSource, cache_dir: Path | None, make_progress: Callable[[], ProgressReporter]) -> ModelSource:
    def locate() -> Located:
        try:
            import_libraries()
        except (Exception, SystemExit) as error:
            why = exit_reason(error) if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
            raise ModelSourceError(f"a library that models need cannot be imported: {why}") from error
        local = resolve(named, cache_dir, make_progress())
        return Located(str(local.folder), local.revision, local.facts)

    return ModelSource(named.model_id, locate, lambda: look(named.source, cache_dir))


def callers_source(text: str, cache_dir: Path | None) -> ModelSource:
    """What a LoadModel call names: a Hugging Face id. Paths are the operator's alone. Raises InvalidField."""
    try:
        named = parse(text, exists=lambda _: False)
    except ModelSourceError as error:
        raise InvalidField(str(error), field="model") from None
    if not isinstance(named.source, HubModel) or named.alias:
        raise InvalidField("model must be one that ListModels lists, or a Hugging Face id", field="model")
    # Not read a second time as an operator's: a folder of that spelling beside the server is nothing to a caller.
    return _found_by(named, cache_dir, SilentProgress)
