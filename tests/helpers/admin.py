"""For tests of the admin port: callers that see the bare HTTP."""

from __future__ import annotations

import json
from typing import Any

from mlx_grpc.testing import LocalServer
from tests.helpers.openai import Answer, Bridge


def admin_of(server: LocalServer) -> Bridge:
    """The admin port of a server, to be called."""
    host, _, port = server.server.admin.address.rpartition(":")
    return Bridge(server, host, int(port))


def error_of(answer: Answer) -> dict[str, str]:
    """What is inside an error, in the admin port's own form."""
    error: dict[str, str] = answer.json["error"]
    assert set(error) == {"code", "reason", "message", "field"}
    return error


async def status_of(admin: Bridge) -> dict[str, Any]:
    """The status now."""
    answer = await admin.get("/admin/status")
    assert answer.status == 200
    facts: dict[str, Any] = answer.json
    return facts


def event_in(raw: bytes) -> tuple[str, Any]:
    """Name and data of the last server-sent event in these bytes, which may have HTTP's chunk sizes between."""
    lines = [line.strip() for line in raw.decode().splitlines()]
    name = next(line.removeprefix("event: ") for line in reversed(lines) if line.startswith("event: "))
    data = next(line.removeprefix("data: ") for line in reversed(lines) if line.startswith("data: "))
    return name, json.loads(data)
