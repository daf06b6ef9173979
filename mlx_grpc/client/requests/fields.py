"""Values into protobuf fields, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_grpc.errors import InvalidField

NANOSECONDS = 1_000_000_000


def assign(message: Any, path: str, values: Mapping[str, Any]) -> None:
    """Sets the fields whose value is not None; what protobuf cannot hold is an InvalidField with its path."""
    for name, value in values.items():
        if value is None:
            continue
        try:
            if name == "max_duration":
                message.max_duration.FromNanoseconds(round(value * NANOSECONDS))
            elif isinstance(value, Mapping):
                getattr(message, name).update(value)
            elif hasattr(getattr(message, name), "extend"):
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        except (TypeError, ValueError, OverflowError) as error:
            field = f"{path}.{name}" if path else name
            raise InvalidField(f"{field}: {error}", field=field) from None
