"""What is compared: raw BatchGenerator, this server, mlx_lm.server; each in a process of its own, started when it is
first needed, and all with the same float32 folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from mlx_grpc.bench.over_grpc import GrpcDriver
from mlx_grpc.bench.over_http import HttpDriver
from mlx_grpc.bench.record import Ask, Driver

RAW, OURS, INCUMBENT = "raw BatchGenerator", "mlx-grpc", "mlx_lm.server"
START_SECONDS = 120.0
END_SECONDS = 20.0
POLL_SECONDS = 0.1
REQUEST_SECONDS = 600.0
"""A request that takes longer has failed; no run waits for ever."""


class Sides:
    """The processes; ended with the block. `work` is a folder for files and logs."""

    def __init__(self, source: Path, work: Path, ours: Sequence[str] = ()) -> None:
        """`ours`: the command that starts our server instead of `mlx-grpc serve`; it gets --model and --ready-file."""
        self._source = source
        self._work = work
        self._ours = ours
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._address: dict[str, str] = {}
        self._tokenizer: Any = None

    @property
    def folder(self) -> Path:
        """The float32 folder, made on first use."""
        folder = self._work / "model"
        if not folder.exists():
            command = [*_child("raw"), "--make", str(folder), "--source", str(self._source)]
            subprocess.run(command, check=True)
        return folder

    def ids(self, text: str) -> list[int]:
        """The prompt's token ids, for raw."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        return list(self._tokenizer.encode(text).ids)

    def raw(
        self, asks: Sequence[Ask], *, arrivals: Sequence[float] = (), shared_sampler: bool = False
    ) -> dict[str, float]:
        """Prompts through raw BatchGenerator, all at once, or each when it arrives, in seconds from the start: seconds
        and tokens. Samplers are mlx_lm's, one a row where any is asked for, or the first row's for all."""
        process = self._running(RAW, self._start_raw)
        samplers = [{"temp": ask.temperature, "top_p": ask.top_p} for ask in asks]
        sampled = any(ask.temperature for ask in asks)
        line = {
            "ids": [self.ids(ask.prompt) for ask in asks],
            "max_tokens": asks[0].max_tokens,
            "samplers": samplers if sampled and not shared_sampler else None,
            "sampler": samplers[0] if sampled and shared_sampler else None,
            "arrivals": list(arrivals),
        }
        _pipe(process.stdin).write(json.dumps(line) + "\n")
        _pipe(process.stdin).flush()
        if not (said := _pipe(process.stdout).readline()):
            raise SystemExit(f"raw BatchGenerator ended: {self._log('raw').read_text()[-2000:]}")
        answer: dict[str, float] = json.loads(said)
        return answer

    def driver(self, side: str, *, new_connections: bool = False) -> Driver:
        """A driver of one of the two servers; for one event loop."""
        if side == OURS:
            self._running(OURS, self._start_ours)
            return GrpcDriver(self._address[OURS], timeout_seconds=REQUEST_SECONDS, new_connections=new_connections)
        self._running(INCUMBENT, self._start_incumbent)
        return HttpDriver(self._address[INCUMBENT], timeout_seconds=REQUEST_SECONDS)

    def _running(self, side: str, start: Callable[[], subprocess.Popen[str]]) -> subprocess.Popen[str]:
        process = self._processes.get(side)
        if process is None or process.poll() is not None:
            if process is not None:
                print(f"{side} had ended with {process.returncode}; it is started again", flush=True)
            process = self._processes[side] = start()
        return process

    def _start_raw(self) -> subprocess.Popen[str]:
        process = self._popen("raw", [*_child("raw"), "--model", str(self.folder)], pipes=True)
        if not _pipe(process.stdout).readline():
            raise SystemExit(f"raw BatchGenerator did not start: {self._log('raw').read_text()[-2000:]}")
        return process

    def _start_ours(self) -> subprocess.Popen[str]:
        ready = self._work / "ready.json"
        ready.unlink(missing_ok=True)
        command = [*self._ours, "--model", str(self.folder), "--ready-file", str(ready)]
        if not self._ours:
            command = [sys.executable, "-m", "mlx_grpc", "serve", "--model", f"bench={self.folder}"]
            command += ["--grpc-port=0", "--http-port=0", "--admin-port=0", "--ready-file", str(ready)]
        process = self._popen("ours", command)
        self._wait(process, "ours", ready.exists)
        self._address[OURS] = json.loads(ready.read_text())["grpc"]
        return process

    def _start_incumbent(self) -> subprocess.Popen[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [*_child("incumbent"), "--model", str(self.folder), "--port", str(port)]
        process = self._popen("incumbent", [*command, "--log-level", "WARNING"])

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        self._wait(process, "incumbent", answers)
        self._address[INCUMBENT] = f"http://127.0.0.1:{port}"
        return process

    def _popen(self, name: str, command: list[str], *, pipes: bool = False) -> subprocess.Popen[str]:
        # Settings of whoever runs this must not reach the server.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLX_GRPC_")}
        pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
        with self._log(name).open("a") as log:
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment)

    def _log(self, name: str) -> Path:
        return self._work / f"{name}.log"

    def _wait(self, process: subprocess.Popen[str], name: str, is_ready: Callable[[], bool]) -> None:
        until = time.monotonic() + START_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                process.wait()
                raise SystemExit(f"{name} did not start: {self._log(name).read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
            else:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _child(module: str) -> list[str]:
    return [sys.executable, "-m", f"tests.benchmarks.compare.{module}"]


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
