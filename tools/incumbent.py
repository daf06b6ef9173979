"""The same killers against mlx_lm.server and against this server, in one markdown table on standard output.

    python tools/incumbent.py [--model FOLDER]

Each killer meets a fresh server of the model (the default one, when none is named), and afterwards an ordinary request
asks whether the server still works. Both serve on the CPU or the GPU, whichever MLX takes.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from mlx_grpc.client import Client
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.sources import parse

START_SECONDS = 120.0
ANSWER_SECONDS = 60.0
AT_ONCE = 32
LEAVERS = 16
LONG_TOKENS = 400
GARBAGE = (b"", b"\xff\x00\xfe garbage", b"{" * 1000)


class Subject(ABC):
    """A server that is tried."""

    def __init__(self, process: subprocess.Popen[bytes], vocab_size: int) -> None:
        self.process = process
        self.vocab_size = vocab_size

    @abstractmethod
    def ask(self, max_tokens: int = 4, **options: Any) -> str:
        """The text of an answer. Raises what goes wrong."""

    @abstractmethod
    def stream(self, max_tokens: int) -> Iterator[str]:
        """An answer piece by piece, on a connection of its own. Closing it hangs up."""

    @abstractmethod
    def send(self, body: bytes) -> str:
        """What the server says to these bytes."""

    @abstractmethod
    def generating_pid(self) -> int:
        """The process in which MLX runs, and which an assertion of Metal would abort."""

    def works(self) -> str:
        """Whether an ordinary request is answered now."""
        try:
            self.ask()
            return "answers"
        except Exception as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
                return "**dead**"
            return f"**broken**: {_short(error)}"


class Ours(Subject):
    """`mlx-grpc serve`."""

    def __init__(self, process: subprocess.Popen[bytes], vocab_size: int, addresses: dict[str, str]) -> None:
        super().__init__(process, vocab_size)
        self._target, self._admin = addresses["grpc"], addresses["admin"]

    def ask(self, max_tokens: int = 4, **options: Any) -> str:
        with Client(self._target, timeout_seconds=ANSWER_SECONDS) as client:
            return client.generate("Once upon a time", max_tokens=max_tokens, ignore_eos=True, **options).text

    def stream(self, max_tokens: int) -> Iterator[str]:
        with Client(self._target, options={"grpc.use_local_subchannel_pool": 1}) as client:
            yield from client.stream("Once upon a time", max_tokens=max_tokens, ignore_eos=True).text()

    def send(self, body: bytes) -> str:
        with grpc.insecure_channel(self._target) as channel:
            generate: Any = channel.unary_unary("/mlx_grpc.v1.InferenceService/Generate")
            try:
                generate(body, timeout=ANSWER_SECONDS)
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"

    def generating_pid(self) -> int:
        with urllib.request.urlopen(f"http://{self._admin}/admin/status", timeout=ANSWER_SECONDS) as answer:
            return int(json.load(answer)["models"][0]["engine_pid"])


class Incumbent(Subject):
    """`python -m mlx_lm server`."""

    def __init__(self, process: subprocess.Popen[bytes], vocab_size: int, port: int) -> None:
        super().__init__(process, vocab_size)
        self._port = port

    def ask(self, max_tokens: int = 4, **options: Any) -> str:
        body = {"prompt": "Once upon a time", "max_tokens": max_tokens, **options}
        status, answer = self._post(json.dumps(body).encode())
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"{status}: {answer.decode(errors='replace')}")
        return str(json.loads(answer)["choices"][0]["text"])

    def stream(self, max_tokens: int) -> Iterator[str]:
        body = {"prompt": "Once upon a time", "max_tokens": max_tokens, "stream": True}
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        ) as connection:
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            ended = False
            for line in connection.getresponse():
                ended = ended or line.startswith(b"data: [DONE]")
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])["choices"][0]["text"]
            if not ended:
                raise ConnectionError("it just stopped")

    def send(self, body: bytes) -> str:
        return f"HTTP {self._post(body)[0]}"

    def generating_pid(self) -> int:
        return self.process.pid

    def _post(self, body: bytes) -> tuple[int, bytes]:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        ) as connection:
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()


def top_k_of_the_vocabulary(subject: Subject) -> str:
    """In mlx_lm the sampler raises, in the thread that generates for everybody."""
    try:
        subject.ask(temperature=0.7, top_k=subject.vocab_size)
        return "answered"
    except Exception as error:
        return _short(error)


def many_at_once(subject: Subject) -> str:
    """New connections, each with a short request."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        calls = [pool.submit(subject.ask) for _ in range(AT_ONCE)]
    errors = [_short(error) for call in calls if (error := call.exception())]
    return f"{AT_ONCE - len(errors)} of {AT_ONCE} answered" + (f"; {errors[0]}" if errors else "")


def abort_in_a_stream(subject: Subject) -> str:
    """SIGABRT to the process that runs MLX, as a failed assertion of Metal raises it, after the third piece of text."""
    pieces = 0
    try:
        for _ in subject.stream(LONG_TOKENS):
            pieces += 1
            if pieces == 3:
                os.kill(subject.generating_pid(), signal.SIGABRT)
    except (OSError, http.client.HTTPException, MlxGrpcError) as error:
        return f"stream lost after {pieces} pieces: {_short(error)}"
    return "stream went on to its end"


def empty_and_garbage(subject: Subject) -> str:
    """Bodies of no bytes, and of bytes that are no request."""
    said = []
    for body in GARBAGE:
        try:
            said.append(subject.send(body))
        except Exception as error:
            said.append(_short(error))
    return ", ".join(dict.fromkeys(said))


def disconnects(subject: Subject) -> str:
    """Clients that ask for much and hang up after the first piece; how long an ordinary request then waits."""

    def leave() -> None:
        stream = subject.stream(LONG_TOKENS)
        next(stream, None)
        stream.close()  # type: ignore[attr-defined]

    with ThreadPoolExecutor(LEAVERS) as pool:
        failed = sum(1 for call in [pool.submit(leave) for _ in range(LEAVERS)] if call.exception())
    began_seconds = time.monotonic()
    works = subject.works()
    waited = (
        f"the next request took {time.monotonic() - began_seconds:.1f} s" if works == "answers" else "no next request"
    )
    return (f"{failed} of {LEAVERS} not begun; " if failed else "") + waited


KILLERS: dict[str, Callable[[Subject], str]] = {
    "`top_k` = vocabulary": top_k_of_the_vocabulary,
    f"{AT_ONCE} new connections at once": many_at_once,
    "SIGABRT where MLX runs": abort_in_a_stream,
    "empty and garbage bodies": empty_and_garbage,
    f"{LEAVERS} clients hang up": disconnects,
}


@contextmanager
def incumbent(model: Path, vocab_size: int) -> Iterator[Subject]:
    """mlx_lm.server of a model folder."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with _process("-m", "mlx_lm", "server", "--model", str(model), "--port", str(port)) as process:
        subject = Incumbent(process, vocab_size, port)
        _wait(process, lambda: subject.works() == "answers")
        yield subject


@contextmanager
def ours(model: Path, vocab_size: int) -> Iterator[Subject]:
    """This server of a model folder."""
    with tempfile.TemporaryDirectory() as folder:
        ready_file = Path(folder, "ready.json")
        ports = [word for kind in ("grpc", "http", "admin") for word in (f"--{kind}-port", "0")]
        serve = ("-m", "mlx_grpc", "serve", "--model", f"model={model}", "--ready-file", str(ready_file), *ports)
        with _process(*serve) as process:
            _wait(process, ready_file.exists)
            subject = Ours(process, vocab_size, json.loads(ready_file.read_text()))
            subject.ask()
            yield subject


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    end_seconds = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end_seconds:
            raise SystemExit(f"a server did not start: {process.args!r}")
        time.sleep(0.1)


def _short(error: BaseException) -> str:
    return " ".join(str(error).replace("|", "/").split())[:90] or type(error).__name__


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an MLX model folder")
    model: Path = parser.parse_args(arguments).model or Path(resolve(parse("")).folder)
    vocab_size: int = json.loads((model / "config.json").read_text())["vocab_size"]
    print("| killer | mlx_lm.server | and then | mlx-grpc | and then |\n|---|---|---|---|---|", flush=True)
    for name, killer in KILLERS.items():
        cells = []
        for start in (incumbent, ours):
            with start(model, vocab_size) as subject:
                cells += [killer(subject), subject.works()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
