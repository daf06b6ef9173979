"""Refuse, never ignore: fields of a newer schema than ours are named in an error, not dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from mlx_grpc.errors import UnsupportedField

# The gaps that the protos' comments name.
_GAPS: Mapping[str, Mapping[int, str]] = {
    "mlx_grpc.v1.GenerateRequest": {
        6: "images", 7: "embeddings", 15: "tools", 16: "tool_choice", 17: "reasoning",
        18: "response_format", 19: "candidates",
    },
    "mlx_grpc.v1.ContentPart": {2: "image", 3: "audio", 4: "file"},
}  # fmt: skip


def refuse_unknown_fields(message: Message, path: str = "") -> None:
    """Look through a message and all below it. Raises UnsupportedField for the first field that we do not know."""
    name = message.DESCRIPTOR.full_name
    unknown_fields: Any = UnknownFieldSet(message)  # its types leave out that it can be gone through
    for unknown in unknown_fields:
        field = _GAPS.get(name, {}).get(unknown.field_number, f"#{unknown.field_number}")
        raise UnsupportedField(f"this server does not support {path}{field}", field=f"{path}{field}")
    if name.startswith("google."):
        return
    for descriptor, value in message.ListFields():
        below = descriptor.message_type
        if descriptor.type != FieldDescriptor.TYPE_MESSAGE or below is None or below.GetOptions().map_entry:
            continue
        if descriptor.is_repeated:
            for position, item in enumerate(value):
                refuse_unknown_fields(item, f"{path}{descriptor.name}[{position}].")
        else:
            refuse_unknown_fields(value, f"{path}{descriptor.name}.")
