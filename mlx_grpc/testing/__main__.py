"""`python -m mlx_grpc.testing`: a server with the scripted model, and the commands of `testing.commands` beside it.

For programs in any language that want a real server to test against. It ends on SIGTERM, on Ctrl-C, and when its
standard input closes: then whoever started it has gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlx_grpc import ready_file
from mlx_grpc.http.runner import HttpServer
from mlx_grpc.testing.commands import control_app
from mlx_grpc.testing.control import Control, Spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        script = msgspec.json.decode(given.script, type=dict)
        spec = msgspec.convert({"script": script, "engine": given.engine}, Spec)
    except msgspec.MsgspecError as error:
        sys.stderr.write(f"--script: {error}\n")
        return 2
    spec.settings = {"grpc_port": given.port}
    asyncio.run(_serve(spec, given.control_port, given.ready_file, given.until_killed))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlx_grpc.testing", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--port", type=int, default=0, help="gRPC, on loopback; 0 takes a free one")
    parser.add_argument("--control-port", type=int, default=0, help="the commands over HTTP, on loopback")
    parser.add_argument("--script", default="{}", help="how the scripted model behaves, as JSON")
    parser.add_argument("--engine", choices=("thread", "process"), default="thread", help="where it runs")
    parser.add_argument("--ready-file", type=Path, help="gets the addresses as JSON once calls are taken")
    parser.add_argument("--until-killed", action="store_true", help="do not end when standard input closes")
    return parser


async def _serve(spec: Spec, control_port: int, ready_path: Path | None, until_killed: bool) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    control = Control()
    http = HttpServer(control_app(control), "127.0.0.1", control_port, flag="--control-port")
    try:
        facts = await control.start(spec)
        await http.start()
        _announce({"control": f"http://{http.address}", "pid": os.getpid(), **facts}, ready_path)
        if not until_killed:
            _on_closed_input(loop, ended)
        await ended.wait()
    finally:
        await http.stop(0)
        await control.close()


def _announce(facts: dict[str, object], path: Path | None) -> None:
    """The file, whole or not at all; then one line on standard output."""
    if path:
        ready_file.write(path, facts)
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


def _on_closed_input(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Read what comes, and end when nothing can come any more."""

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()

    try:
        loop.add_reader(sys.stdin.fileno(), read)
    except PermissionError:  # a file, which epoll does not watch: it says nothing of who started us
        return


if __name__ == "__main__":
    sys.exit(main())
