"""Resident memory of a server's process over many short calls.

    python -m tests.benchmarks.bench_memory [CALLS] [--target HOST:PORT --pid PID]

Without a target it starts a server with the scripted model and prints its memory after each tenth of the calls.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess

from tests.helpers.rpc import connected
from tests.helpers.serve import script, started
from tests.integration.test_reach_memory import serve_calls


def resident_kib(pid: int) -> int:
    listed = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    return int(listed)


async def measure(target: str, pid: int, calls: int) -> None:
    """Print a row for each tenth of the calls."""
    async with connected(target) as api:
        print("| calls | resident MiB |\n|---|---|", flush=True)
        for done in range(0, calls + 1, calls // 10):
            print(f"| {done} | {resident_kib(pid) / 1024:.1f} |", flush=True)
            if done < calls:
                await serve_calls(api, calls // 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", type=int, nargs="?", default=2000)
    parser.add_argument("--target")
    parser.add_argument("--pid", type=int)
    options = parser.parse_args()
    if options.target:
        asyncio.run(measure(options.target, options.pid, options.calls))
        return
    with started("--model", script(), "--log-level", "error") as serve:
        asyncio.run(measure(serve.target, serve.process.pid, options.calls))


if __name__ == "__main__":
    main()
