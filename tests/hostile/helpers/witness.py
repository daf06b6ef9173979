"""Another client, in a process of its own, so that what attackers do in the test's process does not slow it down.

    python -m tests.hostile.helpers.witness HOST PORT

asks that admin port for the server's health until its standard input ends, and tells then what it saw, as JSON.
"""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 60.0
REST_SECONDS = 0.02


@dataclass
class Seen:
    """The longest wait for an answer, how often it asked, and what went wrong."""

    longest_seconds: float = 0.0
    asked: int = 0
    failed: list[str] = field(default_factory=list)


class Witness:
    """Watches from the block's begin to its end; `seen` is told at the end."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.seen = Seen()
        self._command = [sys.executable, "-m", "tests.hostile.helpers.witness", address[0], str(address[1])]

    @property
    def longest_seconds(self) -> float:
        return self.seen.longest_seconds

    @property
    def failed(self) -> list[str]:
        return self.seen.failed

    def __enter__(self) -> Witness:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "began\n"
        return self

    def __exit__(self, *_: object) -> None:
        told, _unused = self._process.communicate(timeout=2 * PATIENCE_SECONDS)
        self.seen = Seen(**json.loads(told))
        assert self.seen.asked


def _watch(host: str, port: int) -> Seen:
    seen = Seen()
    while not select.select([sys.stdin], [], [], REST_SECONDS)[0]:
        began = time.monotonic()
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", "/healthz")
            if (status := connection.getresponse().status) != 200:
                seen.failed.append(str(status))
        except OSError as error:
            seen.failed.append(repr(error))
        finally:
            connection.close()
        seen.asked += 1
        seen.longest_seconds = max(seen.longest_seconds, time.monotonic() - began)
        if seen.asked == 1:
            print("began", flush=True)  # noqa: T201
    return seen


if __name__ == "__main__":
    print(json.dumps(asdict(_watch(sys.argv[1], int(sys.argv[2])))))  # noqa: T201
