"""This server in a process of its own, with a log of what its engine did in each step. Child of `gpu`.

    python -m tests.benchmarks.gpu.serve --model FOLDER --ready-file FILE [--steps FILE]

Default settings, free ports; ends at SIGTERM, and writes the log then: a JSON array of [seconds since the start, the
step's seconds, rows decoded, prompts ended in it, rows in the batch].
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from pathlib import Path

from mlx_grpc import testing
from mlx_grpc.engine.link.interface import OnLost, OnMessage
from mlx_grpc.engine.link.process import ProcessLink
from mlx_grpc.engine.messages import FromWorker, Step


async def serve(model: str, ready_file: Path) -> list[tuple[float, float, int, int, int]]:
    """Until SIGTERM; returns the log."""
    steps: list[tuple[float, float, int, int, int]] = []
    began = time.perf_counter()

    def start_link(on_message: OnMessage, on_lost: OnLost) -> ProcessLink:
        def deliver(message: FromWorker) -> None:
            if isinstance(message, Step):
                ended = sum(prefill.processed == prefill.total for prefill in message.prefill)
                moment = round(time.perf_counter() - began, 4)
                steps.append((moment, round(message.seconds, 4), len(message.tokens), ended, message.active_rows))
            on_message(message)

        return ProcessLink(deliver, on_lost)

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with testing.serve(model=(f"bench={model}",), start_link=start_link) as server:
        await asyncio.to_thread(ready_file.write_text, json.dumps({"grpc": server.target}), "utf-8")
        await ended.wait()
    return steps


def main() -> None:
    """As `gpu` starts it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--steps", type=Path)
    arguments = parser.parse_args()
    steps = asyncio.run(serve(arguments.model, arguments.ready_file))
    if arguments.steps:
        arguments.steps.write_text(json.dumps(steps), "utf-8")


if __name__ == "__main__":
    main()
