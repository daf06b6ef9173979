"""What a streamed message costs each client: runs every `make bench` and prints one table.

    python clients/overhead.py

Each bench alternates rounds of its own client with rounds of the Python client, against one server, since a machine's
speed drifts; the numbers are the median rounds'. Processor time is the client's own; wall time has the
server's pace in it.
"""

import json
import subprocess
import sys
from pathlib import Path

CLIENTS = ("go", "typescript", "java", "rust")
FOLDER = Path(__file__).resolve().parent


def bench(client: str) -> dict[str, dict[str, float]] | None:
    """The last line that its bench prints; None where it cannot run."""
    done = subprocess.run(
        ["make", "-s", "-C", str(FOLDER / client), "bench"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0 or not done.stdout:
        print(f"left out: {client}", file=sys.stderr)
        return None
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    print(
        "| client | processor time (µs) | wall time (µs) | Python beside it: processor | wall |\n|---|---|---|---|---|"
    )
    for client in CLIENTS:
        if found := bench(client):
            cells = [found[who][name] for who in ("own", "python") for name in ("cpu_us", "wall_us")]
            print(f"| {client} | {' | '.join(f'{cell:.0f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
