"""Where a model is in its life, as a table; what it is made from; and what its host needs of the settings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


class ModelState(enum.Enum):
    """LOADING also means: its engine was lost, and another is being started."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


NEXT: Mapping[ModelState, frozenset[ModelState]] = {
    ModelState.UNLOADED: frozenset({ModelState.LOADING}),
    ModelState.LOADING: frozenset({ModelState.READY, ModelState.FAILED, ModelState.UNLOADING}),
    ModelState.READY: frozenset({ModelState.LOADING, ModelState.UNLOADING, ModelState.FAILED}),
    ModelState.UNLOADING: frozenset({ModelState.UNLOADED}),
    ModelState.FAILED: frozenset({ModelState.LOADING, ModelState.UNLOADING}),
}


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model lies on this machine: a folder, or `script:` and JSON."""

    path: str
    revision: str = ""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's id, and how to have it here: `locate` may fetch and import, blocks, and raises ModelSourceError."""

    id: str
    locate: Callable[[], Located]


class Settings(Protocol):
    """What a host needs of the server's settings; `config.Config` has it all."""

    @property
    def context_length(self) -> int: ...
    @property
    def max_batch(self) -> int: ...
    @property
    def max_queue(self) -> int: ...
    @property
    def max_queue_tokens(self) -> int: ...
    @property
    def ageing_seconds(self) -> float: ...
    @property
    def prefill_step_tokens(self) -> int: ...
    @property
    def memory_limit_bytes(self) -> int: ...
    @property
    def stall_seconds(self) -> float: ...
    @property
    def trust_remote_code(self) -> bool: ...
