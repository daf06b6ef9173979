"""`python -m mlx_grpc.testing` as a runner uses it: started once, told what to do over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 30


class CommandRefused(Exception):
    """The program answered with an error."""


class HelperProgram:
    """The commands of tests/conformance/README.md."""

    def __init__(self, control: str, grpc: str = "") -> None:
        self.control = control
        self.grpc = grpc
        """Where the server listens that it started with."""

    def get(self, name: str) -> Any:
        """GET /name. Raises CommandRefused."""
        return self._ask(urllib.request.Request(f"{self.control}/{name}"))

    def post(self, name: str, body: Any = None) -> Any:
        """POST /name. Raises CommandRefused."""
        data = json.dumps(body or {}).encode()
        return self._ask(urllib.request.Request(f"{self.control}/{name}", data, method="POST"))

    def _ask(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise CommandRefused(f"{request.full_url}: {error.code} {error.read().decode()}") from None


@contextmanager
def helper_program(*arguments: str) -> Iterator[HelperProgram]:
    """The program that MLX_GRPC_TEST_CONTROL names, or one of our own until the block ends."""
    if control := os.environ.get("MLX_GRPC_TEST_CONTROL"):
        yield HelperProgram(control)
        return
    command = [sys.executable, "-m", "mlx_grpc.testing", *arguments]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command)} did not start")
            facts = json.loads(line)
            yield HelperProgram(facts["control"], facts["grpc"])
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(PATIENCE_SECONDS)
