"""The models of this server, by id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mlx_grpc.bounds.rates import ClientRates
from mlx_grpc.engine.link.interface import StartLink
from mlx_grpc.engine.link.process import ProcessLink
from mlx_grpc.errors import InvalidField, ModelNotFound
from mlx_grpc.observe.stats import Stats
from mlx_grpc.service.hosting.host import ModelHost
from mlx_grpc.service.hosting.memory import DeviceMemory
from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.service.hosting.settings import Settings
from mlx_grpc.service.hosting.sources import ModelSource

__all__ = ["Catalog", "Find", "StartLink"]

Find = Callable[[str], ModelSource]
"""From the name that a LoadModel call gives to a source. Raises InvalidField or ModelNotFound."""


class Catalog:
    """Owns the hosts. The first model added is the default."""

    def __init__(
        self,
        settings: Settings,
        find: Find,
        on_change: Callable[[ModelHost], None],
        stats: Stats,
        start_link: StartLink | None = None,
        rates: ClientRates | None = None,
    ) -> None:
        self._settings = settings
        self._start_link = start_link or ProcessLink
        self._find = find
        self._on_change = on_change
        self._stats = stats
        self._rates = rates
        self.memory = DeviceMemory(settings.memory_limit_bytes or 0)
        self._hosts: dict[str, ModelHost] = {}
        self.default_id = ""

    @property
    def hosts(self) -> list[ModelHost]:
        """All models, by id."""
        return [self._hosts[name] for name in sorted(self._hosts)]

    def add(self, source: ModelSource) -> ModelHost:
        """Make a model known, UNLOADED. Raises InvalidField when the id is taken."""
        if source.id in self._hosts:
            raise InvalidField(f"there are two models named {source.id}; give one another name", field="model")
        host = ModelHost(
            source, self._settings, self._start_link, self._on_change, self.memory, self._stats, self._rates
        )
        self._hosts[source.id] = host
        self.default_id = self.default_id or source.id
        self._on_change(host)
        return host

    def get(self, name: str) -> ModelHost:
        """The model of that id; the default for an empty one. Raises ModelNotFound."""
        host = self._hosts.get(name or self.default_id)
        if host is None:
            raise ModelNotFound(f"there is no model {name!r} here", resource=name, field="model")
        return host

    def load(self, name: str) -> ModelHost:
        """Start to load a model, known or to be found; one that is loading or loaded is left alone."""
        if not name:
            raise InvalidField("model is required", field="model")
        host = self._hosts.get(name) or self.add(self._find(name))
        if host.life.state not in (ModelState.LOADING, ModelState.READY):
            host.load()
        return host

    def unload(self, name: str, force: bool) -> ModelHost:
        """Start to unload a model; one that is not in memory is left alone."""
        if not name:
            raise InvalidField("model is required", field="model")
        host = self.get(name)
        if host.life.state is not ModelState.UNLOADED:
            host.unload(force)
        return host

    async def close(self) -> None:
        """End every engine."""
        await asyncio.gather(*(host.close() for host in self._hosts.values()))
