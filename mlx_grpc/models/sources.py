"""Reads what people write after `--model`: `SOURCE` or `NAME=SOURCE`. Pure, but asks what is a folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlx_grpc.models.words import one_line

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ALIAS = re.compile(rf"{_WORD}(?:/{_WORD})?")
_IMPORTED_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_HUB_ID = re.compile(
    # A revision becomes a path in the hub's cache.
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95})"
    r"(?:@(?P<revision>(?=.{1,200}$)\w[\w.-]*(?:/\w[\w.-]*)*))?",
    re.ASCII,
)
_MAX_SHOWN = 100
_PATH_STARTS = ("/", "./", "../", "~")
DEFAULT_MODEL_ID = "SmolLM2-135M-Instruct"
_ACCEPTED = (
    "give org/name[@revision], a model folder, a .gguf file, a name that `mlx-grpc models list` shows, or nothing for "
    "the default model"
)


class ModelSourceError(Exception):
    """A model cannot be had. The text is one line for people: what is wrong, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """SmolLM2-135M-Instruct, which needs no model hub. Written as its name, or as nothing at all."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A Hugging Face repository; an empty `revision` is its main branch."""

    repo_id: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """An MLX model folder on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A `.gguf` file of a family that can be imported."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model that was imported on this machine, by the name that `mlx-grpc models list` shows."""

    name: str

    def __str__(self) -> str:
        return self.name


Source = DefaultModel | HubModel | ModelFolder | GgufFile | ImportedModel


@dataclass(frozen=True, slots=True)
class NamedSource:
    """A source and the name to serve it under; an empty `alias` leaves the name to the model."""

    source: Source
    alias: str = ""

    @property
    def model_id(self) -> str:
        """The name to serve it under, known before anything is fetched."""
        match self.source:
            case _ if self.alias:
                return self.alias
            case DefaultModel():
                return DEFAULT_MODEL_ID
            case HubModel(repo_id):
                return repo_id
            case ImportedModel(name):
                return name
            case ModelFolder(path) | GgufFile(path):
                return path.expanduser().resolve().name.removesuffix(".gguf")


def parse(text: str, exists: Callable[[Path], bool] = Path.exists) -> NamedSource:
    """Reads `SOURCE` or `NAME=SOURCE`. Raises ModelSourceError.

    A file or folder that exists wins over every other reading of the same text. Else what stands before the first `=`
    is the alias: one word, or two with a slash between, as a Hugging Face id has.
    """
    if not text.isprintable():
        raise ModelSourceError(f"model {_shown(text)}: a control character; {_ACCEPTED}")
    before, equals, after = text.partition("=")
    if not equals or text.startswith(_PATH_STARTS) or _is_there(text.strip(), exists):
        return NamedSource(_source(text.strip(), exists))
    return NamedSource(_source(after.strip(), exists), checked_alias(before.strip(), text))


def checked_alias(alias: str, text: str) -> str:
    """The alias that `text` gives. Raises ModelSourceError for one that cannot be a model's id."""
    if not _ALIAS.fullmatch(alias):
        raise ModelSourceError(
            f"model {_shown(text)}: {_shown(alias)} cannot be a model's name: a name has 1 to 96 letters, digits, '.', "
            "'_' and '-', starts with a letter or digit, and may be two of these with a slash between"
        )
    return alias


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")


def no_such_model(text: str) -> ModelSourceError:
    """For a text that no model is known by."""
    return ModelSourceError(
        f"model {_shown(text)}: there is no such folder here, no imported model of that name, and it is not a Hugging "
        f"Face id; {_ACCEPTED}"
    )


def _source(text: str, exists: Callable[[Path], bool]) -> Source:
    if not text:
        return DefaultModel()
    path = _path(text)
    if text.lower().endswith(".gguf"):
        return GgufFile(path)
    if text.startswith(_PATH_STARTS) or text == "." or _is_there(text, exists):
        return ModelFolder(path)
    if text == DEFAULT_MODEL_ID:
        return DefaultModel()
    if _IMPORTED_NAME.fullmatch(text):
        return ImportedModel(text)
    hub = _HUB_ID.fullmatch(text)
    if hub and ".." not in text and "--" not in text:
        return HubModel(hub["repo"], hub["revision"] or "")
    raise no_such_model(text)


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ModelSourceError(f"model {_shown(text)}: {error}; write the whole path") from error


def _is_there(text: str, exists: Callable[[Path], bool]) -> bool:
    try:
        return exists(_path(text))
    except OSError:  # a name too long for a path, a folder that may not be entered
        return False
