"""Plays conformance vectors through the Python client. As a program it reports as tests/conformance/README.md says.

python -m tests.conformance.runner_python
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_grpc.client import AsyncClient
from tests.conformance import calls_python
from tests.conformance.helper_program import HelperProgram, helper_program
from tests.conformance.outcome import Outcome, differences

PATIENCE_SECONDS = 60
Vector = Mapping[str, Any]


def vectors() -> Iterator[Vector]:
    """All of them, file by file."""
    for path in sorted(Path(__file__).parent.glob("*.json")):
        yield from json.loads(path.read_text(encoding="utf-8"))


class Call:
    """A call of a vector: what it expects and what it gave."""

    def __init__(self, client: AsyncClient, step: Mapping[str, Any]) -> None:
        self.name = step.get("name") or step["call"]
        self.outcome = Outcome()
        self._step = step
        # A stream is opened here, so that it can be left at once.
        self._stream = calls_python.open_stream(client, step) if step["call"] == "stream" else None
        if self._stream is not None:
            work = calls_python.read_stream(self._stream, step, self.outcome)
        else:
            work = calls_python.call_once(client, step, self.outcome)
        self._task = asyncio.create_task(work, name=f"call {self.name}")

    def leave(self) -> None:
        """Cancel it as a user of the client would."""
        self.outcome.cancelled = True
        if self._stream is not None:
            self._stream.close()
        else:
            self._task.cancel()

    async def end(self) -> list[str]:
        """Wait for its end; what differs from what is expected."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._task
        except TimeoutError:
            return [f"{self.name}: still running after {PATIENCE_SECONDS} s"]
        except asyncio.CancelledError:
            if not self.outcome.cancelled:
                raise
        return [f"{self.name}: {line}" for line in differences(self._step.get("expect", {}), self.outcome)]


class _Play:
    """One vector, while it is played."""

    def __init__(self, helper: HelperProgram, client: AsyncClient) -> None:
        self._helper = helper
        self._client = client
        self._background: dict[str, Call] = {}

    async def play(self, steps: list[Mapping[str, Any]]) -> AsyncIterator[str]:
        """What differs, step by step."""
        for step in steps:
            async for line in self._step(step):
                yield line
        for call in self._background.values():
            for line in await call.end():
                yield line

    async def _step(self, step: Mapping[str, Any]) -> AsyncIterator[str]:
        match step:
            case {"call": _}:
                call = Call(self._client, step)
                if step.get("background"):
                    self._background[call.name] = call
                else:
                    for line in await call.end():
                        yield line
            case {"control": command}:
                await self._post(command, step.get("body"))
            case {"wait": name}:
                bounds = {key: step[key] for key in ("at_least", "at_most") if key in step}
                await self._post("wait", {"for": name, **bounds})
            case {"cancel": name}:
                self._background[name].leave()
            case {"join": name}:
                for line in await self._background.pop(name).end():
                    yield line
            case {"state": wanted}:
                found = await asyncio.to_thread(self._helper.get, "state")
                if not all(_holds(wanted[name], found[name]) for name in wanted):
                    yield f"state is {found}, not {wanted}"
            case _:
                yield f"no such step: {step}"

    async def _post(self, command: str, body: Any) -> None:
        await asyncio.to_thread(self._helper.post, command, body)


def _holds(wanted: Any, found: int) -> bool:
    if isinstance(wanted, dict):
        return bool(wanted.get("at_least", found) <= found <= wanted.get("at_most", found))
    return bool(wanted == found)


def missing(vector: Vector, helper: HelperProgram) -> str:
    """Why the vector cannot be played here; empty when it can."""
    lacking = set(vector["needs"]) - set(helper.get("features")["features"])
    return f"this build has no {', '.join(sorted(lacking))}" if lacking else ""


async def play(vector: Vector, helper: HelperProgram) -> list[str]:
    """Start the vector's server and play its steps; returns what differs."""
    facts = await asyncio.to_thread(helper.post, "server", vector["server"])
    async with calls_python.open_client(facts, vector["client"]) as client:
        return [line async for line in _Play(helper, client).play(vector["steps"])]


def main() -> int:
    """Play all vectors and report."""
    results = {}
    with helper_program() as helper:
        for vector in vectors():
            reason = missing(vector, helper)
            failed = [] if reason else asyncio.run(play(vector, helper))
            result = f"skip: {reason}" if reason else f"fail: {'; '.join(failed)}" if failed else "pass"
            results[vector["name"]] = result
            word, _, why = result.partition(": ")
            sys.stdout.write(f"{word.upper()} {vector['name']}{': ' + why if why else ''}\n")
    if path := os.environ.get("MLX_GRPC_CONFORMANCE_OUT"):
        Path(path).write_text(json.dumps({"client": "python", "results": results}), encoding="utf-8")
    return 1 if any(result.startswith("fail") for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
