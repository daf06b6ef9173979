"""Where a model is in its life, as a table, and what that means for those who call."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Mapping

from mlx_grpc.errors import Draining, MlxGrpcError, ModelFailed, ModelLoading, ModelNotFound

RETRY_LOADING_SECONDS = 2.0


class ModelState(enum.Enum):
    """LOADING also means: its engine was lost, and another is being started. While UNLOADING accepted calls finish, on
    another engine too."""

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


class ModelLife:
    """A model's state. `on_change` is called at each change."""

    def __init__(self, name: str, on_change: Callable[[], None]) -> None:
        self.state = ModelState.UNLOADED
        self.error = ""
        """Why it failed, one line."""
        self._name = name
        self._on_change = on_change
        self._settled = asyncio.Event()

    async def settled(self) -> None:
        """Returns when the model is READY, FAILED or UNLOADED."""
        await self._settled.wait()

    def move(self, state: ModelState) -> None:
        """Take the state, if the table allows it; raises ModelLoading, since the way there is what the model is on."""
        if state not in NEXT[self.state]:
            raise ModelLoading(f"model {self._name} is {self.state.value}", retry_after_seconds=RETRY_LOADING_SECONDS)
        self.state = state
        if state in (ModelState.LOADING, ModelState.UNLOADING):
            self._settled.clear()
        else:
            self._settled.set()
        self._on_change()

    def refusal(self) -> MlxGrpcError | None:
        """Why no new call is taken now; None when one is."""
        name = self._name
        match self.state:
            case ModelState.READY:
                return None
            case ModelState.LOADING:
                return ModelLoading(f"model {name} is loading", retry_after_seconds=RETRY_LOADING_SECONDS)
            case ModelState.FAILED:
                return ModelFailed(f"model {name} has failed: {self.error}")
            case ModelState.UNLOADING:
                return Draining(f"model {name} is being unloaded")
            case ModelState.UNLOADED:
                return ModelNotFound(f"model {name} is not loaded", resource=name)

    def check_ready(self) -> None:
        """Raises the error of a state in which no new call is taken."""
        error = self.refusal()
        if error is not None:
            raise error
