"""For the proofs: engines that are killed at chosen moments, a crowd of streams, a server in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

import grpc
import msgspec

from mlx_grpc import testing
from mlx_grpc.engine.link.interface import OnLost, OnMessage
from mlx_grpc.engine.link.process import ProcessLink
from mlx_grpc.engine.messages import FromWorker, Step
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.service.hosting.model_state import ModelState
from mlx_grpc.testing import LocalServer
from tests.helpers.rpc import Api, Refusal, Request, Sampling, Stop, connected, read_all, read_refusal, text_of, until

READY_SECONDS = 120.0
LOOK_EVERY_SECONDS = 0.02
STEPS_ALLOWED = 16_384
"""More than any proof here takes, and no more than a FIFO holds on a Mac."""
Parameters = ParamSpec("Parameters")


def proof(test: Callable[Parameters, Awaitable[None]]) -> Callable[Parameters, None]:
    """Run a coroutine as a test, for as long as pytest's own limit allows."""

    @functools.wraps(test)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        async def body() -> None:
            await test(*args, **kwargs)

        asyncio.run(body())

    return run


@dataclass
class Killer:
    """SIGKILLs engines in their n-th step, n drawn from a seeded source; `start_link` goes to `testing.serve`."""

    kills: int
    last_step: int
    """Steps that an engine lives at most."""
    seed: int = 0
    armed: bool = True
    """A new call may be refused while an engine starts, so nothing is killed while streams still arrive."""
    killed_in: list[str] = field(default_factory=list)
    """What the engine had just told of at each kill: prefill, decode, or both."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.left = self.kills

    def start_link(self, on_message: OnMessage, on_lost: OnLost) -> ProcessLink:
        """A link to a child that will be killed, as long as kills are left."""
        life = self._random.randint(1, self.last_step)
        steps = itertools.count(1)

        def deliver(message: FromWorker) -> None:
            if isinstance(message, Step) and self.armed and self.left and next(steps) == life:
                self.left -= 1
                said = {"prefill": message.prefill, "decode": message.tokens}
                self.killed_in.append("+".join(name for name, told in said.items() if told))
                link.kill()
            on_message(message)

        link = ProcessLink(deliver, on_lost)
        return link


def crowd(prompts: Sequence[str], max_tokens: int) -> list[Request]:
    """A request for each prompt; every second one seeded and hot, the others greedy."""
    stop = Stop(max_tokens=max_tokens, ignore_eos=True)
    return [
        Request(
            prompt=prompt,
            request_id=str(number),
            stop=stop,
            sampling=Sampling(temperature=0.9, top_p=0.95, seed=number) if number % 2 else Sampling(temperature=0.0),
        )
        for number, prompt in enumerate(prompts)
    ]


async def texts(api: Api, requests: Sequence[Request]) -> list[str]:
    """What each stream says, all at once. Raises what the first of them fails with."""
    events = await asyncio.gather(*(read_all(api.stream(request)) for request in requests))
    return [text_of(stream) for stream in events]


async def outcome(call: Any) -> Refusal | str:
    """The text of a stream, or the status that it ends with."""
    try:
        return text_of(await read_all(call))
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)


async def empty(server: LocalServer, api: Api) -> None:
    """Returns when nothing waits and nothing runs."""
    scheduler = server.catalog.get("").dispatcher.scheduler
    await until(api, lambda: not scheduler.ledger.running and not scheduler.ledger.waiting)


async def ready(server: LocalServer, api: Api) -> None:
    """Returns when an engine runs: a new call is refused while one starts."""
    host = server.catalog.get("")
    await until(api, lambda: host.life.state is ModelState.READY)


@dataclass(frozen=True)
class InBatch:
    """A server, stubs for it, and live streams that are all in its engine's batch."""

    server: LocalServer
    api: Api
    calls: list[Any]


@dataclass(frozen=True)
class Served:
    """`mlx-grpc serve`, running."""

    process: subprocess.Popen[str]
    grpc: str
    admin: str
    log: Path

    def status(self) -> dict[str, Any]:
        """What the admin port says."""
        with urllib.request.urlopen(f"http://{self.admin}/admin/status", timeout=READY_SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    @property
    def engine_pid(self) -> int | None:
        pid: int | None = self.status()["models"][0]["engine_pid"]
        return pid

    def engine_ready(self) -> bool:
        return bool(self.status()["models"][0]["state"] == "ready")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def served(folder: Path, *flags: str, model: str = "script:{}") -> Iterator[Served]:
    """A server of that model in a process of its own, on free ports, killed at the end if it still runs."""
    ready_file, log = folder / "ready.json", folder / "server.log"
    ready_file.unlink(missing_ok=True)
    ports = [word for kind in ("grpc", "http", "admin") for word in (f"--{kind}-port", "0")]
    command = [
        sys.executable,
        "-m",
        "mlx_grpc",
        "serve",
        "--model",
        model,
        "--ready-file",
        str(ready_file),
        *ports,
        *flags,
    ]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, text=True)
    try:
        facts = _ready(process, ready_file, log)
        yield Served(process, facts["grpc"], facts["admin"], log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _ready(process: subprocess.Popen[str], ready_file: Path, log: Path) -> dict[str, Any]:
    for _ in range(int(READY_SECONDS / 0.05)):
        if ready_file.exists():
            facts: dict[str, Any] = json.loads(ready_file.read_text())
            return facts
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            raise AssertionError(f"the server ended with {process.returncode}:\n{log.read_text()}")
    raise AssertionError(f"the server was not ready within {READY_SECONDS:g} s:\n{log.read_text()}")


@asynccontextmanager
async def all_in(script: Script, folder: Path, requests: Sequence[Request], **settings: Any) -> AsyncIterator[InBatch]:
    """A server whose engine process makes its first step when all these streams are in its batch, so that a fault of
    the script meets all of them."""
    gate = folder / "gate"
    os.mkfifo(gate)
    held = os.open(gate, os.O_RDWR)
    script = msgspec.structs.replace(script, gate_path=str(gate))
    try:
        async with testing.serve(script, engine="process", **settings) as server, connected(server.target) as api:
            calls = [api.stream(request) for request in requests]
            await until(api, lambda: server.active_rows == len(requests))
            os.write(held, b"-" * STEPS_ALLOWED)
            yield InBatch(server, api, calls)
    finally:
        os.close(held)


async def settled(server: Served) -> dict[str, Any]:
    """The status, as soon as nobody waits and nobody runs."""
    status: dict[str, Any] = {}

    def empty() -> bool:
        status.update(server.status())
        return not (status["running_count"] or status["active_rows"])

    await comes_true(empty)
    return status


async def comes_true(condition: Callable[[], bool], patience_seconds: float = READY_SECONDS) -> None:
    """Look at another process until the condition holds: it has no event for us. Raises TimeoutError."""
    async with asyncio.timeout(patience_seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY_SECONDS)


def tell(result: str) -> None:
    """One line of the proof, for people: pytest shows it with -rP."""
    sys.stdout.write(result + "\n")
