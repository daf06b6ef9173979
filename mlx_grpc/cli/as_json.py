"""Our dataclasses as JSON, for the `--json` flags. Pure."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from mlx_grpc.observe.text import json_line
from mlx_grpc.request import Event


def event_json(event: Event) -> str:
    """One line: the event's name as "event", then its fields; a token's bytes as a list of numbers."""
    return json_line({"event": type(event).__name__.lower()} | plain(event))


def plain(value: Any) -> Any:
    """What JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value
