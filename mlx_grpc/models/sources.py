"""Reads what people write after `--model`: `SOURCE` or `NAME=SOURCE`. Pure, but asks what is a folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_HUB_ID = re.compile(
    # A revision becomes a path in the hub's cache.
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95})"
    r"(?:@(?P<revision>(?=.{1,200}$)\w[\w.-]*(?:/\w[\w.-]*)*))?",
    re.ASCII,
)
_PATH_STARTS = ("/", "./", "../", "~")
DEFAULT_MODEL_ID = "SmolLM2-135M-Instruct"
_ACCEPTED = "give org/name[@revision], a model folder, a .gguf file, or nothing for the default model"


class ModelSourceError(Exception):
    """A model cannot be had. The text is one line for people: what is wrong, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """SmolLM2-135M-Instruct, which needs no model hub. Written as nothing at all."""

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
    """A `.gguf` file of the Llama family."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Source = DefaultModel | HubModel | ModelFolder | GgufFile


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
            case ModelFolder(path) | GgufFile(path):
                return path.expanduser().resolve().name.removesuffix(".gguf")


def parse(text: str, is_folder: Callable[[Path], bool] = Path.is_dir) -> NamedSource:
    """Reads `SOURCE` or `NAME=SOURCE`. Raises ModelSourceError.

    A folder that exists wins over a Hugging Face id of the same spelling. Whatever stands before the first
    `=` is the alias, unless it has a slash: then the `=` belongs to a path.
    """
    if not text.isprintable():
        raise ModelSourceError(f"model {text!r}: a control character; {_ACCEPTED}")
    before, equals, after = text.partition("=")
    if not equals or "/" in before:
        return NamedSource(_source(text.strip(), is_folder))
    alias = before.strip()
    if not _ALIAS.fullmatch(alias):
        raise ModelSourceError(
            f"model {text!r}: {alias!r} is no name; a name has 1 to 96 letters, digits, '.', '_' and '-', "
            "and starts with a letter or digit"
        )
    return NamedSource(_source(after.strip(), is_folder), alias)


def _source(text: str, is_folder: Callable[[Path], bool]) -> Source:
    if not text:
        return DefaultModel()
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ModelSourceError(f"model {text!r}: {error}; write the whole path") from error
    if text.lower().endswith(".gguf"):
        return GgufFile(path)
    if text.startswith(_PATH_STARTS) or text == "." or is_folder(path):
        return ModelFolder(path)
    hub = _HUB_ID.fullmatch(text)
    if hub and ".." not in text and "--" not in text:
        return HubModel(hub["repo"], hub["revision"] or "")
    raise ModelSourceError(f"model {text!r}: no such folder, and no Hugging Face id either; {_ACCEPTED}")
