"""What people ask and are told, and their tokens, are in no log, metric or status: at the log level debug as well, and
when calls fail or the engine dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from mlx_grpc.client import Client
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import Chat, Message
from tests.helpers.auth import TokenFolder, bearer, http_call
from tests.helpers.serve import Serve, started

CANARY = "kanarienvogel"
"""In all that is a caller's own. The log must not hold it in any spelling."""
FAULTS = ["abort", "error", "fail"]
REPLY = f"tweet {CANARY} tweet"


def script_with_canaries(once: Path) -> str:
    """A model that says the canary, and fails in each way on prompts that ask for it.

    The faults' own texts, which are the operator's, are in the engine's tracebacks.
    """
    faults = [
        {"text": f"please {fault}", "action": fault, "once_path": "" if fault == "fail" else str(once / fault)}
        for fault in FAULTS
    ]
    return "scripted=script:" + json.dumps({"replies": {CANARY: REPLY}, "faults": faults})


class Served:
    """A server in a process of its own, with tokens, its log at debug."""

    def __init__(self, serve: Serve, tokens: TokenFolder, addresses: dict[str, str]) -> None:
        self.serve, self.tokens = serve, tokens
        self.grpc, self.http, self.admin = (
            addresses["grpc"],
            f"http://{addresses['http']}",
            f"http://{addresses['admin']}",
        )

    def client(self, token: str | None = None) -> Client:
        return Client(self.grpc, token=token or self.tokens.generate, retry=False, timeout_seconds=30)

    def post(self, path: str, body: Any) -> None:
        http_call(self.http, path, method="POST", headers=bearer(self.tokens.generate), body=body)

    def tell(self) -> str:
        """Everything that the server tells of itself over HTTP."""
        headers = bearer(self.tokens.admin)
        parts = [http_call(self.admin, path, headers=headers) for path in ("/admin/status", "/metrics", "/readyz")]
        assert [part.status for part in parts] == [200, 200, 200]
        return "".join(part.body.decode() for part in parts) + self._events(headers)

    def _events(self, headers: dict[str, str]) -> str:
        connection = http.client.HTTPConnection(urlsplit(self.admin).netloc, timeout=30)
        try:
            connection.request("GET", "/admin/events", headers=headers)
            response = connection.getresponse()
            return "".join(response.readline().decode() for _ in range(10))
        finally:
            connection.close()


@pytest.fixture(params=[False, True], ids=["text", "json"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """Whose log is plain text, and then JSON."""
    tokens, ready = TokenFolder(tmp_path), tmp_path / "ready"
    flags = ["--tokens", str(tokens.path), "--log-level", "debug", "--ready-file", str(ready)]
    flags += ["--log-json"] if request.param else []
    with started("--model", script_with_canaries(tmp_path), *flags) as serve:
        serve.serving_line()
        yield Served(serve, tokens, json.loads(ready.read_text()))


def good_calls(server: Served) -> None:
    """Each kind of call, with the canary in all that is the caller's."""
    with server.client() as client:
        assert CANARY in client.generate(f"say {CANARY}", logprobs=True).text
        chat = Chat((Message("user", CANARY),), json.dumps({"mood": CANARY}))
        with client.stream(chat=chat, stop_strings=[f"no {CANARY}"]) as stream:
            list(stream)
        client.generate(CANARY, stop_strings=[CANARY])
        client.tokenize(CANARY)
        client.count_tokens(messages=[{"role": "user", "content": CANARY}])
        client.render_chat([{"role": "user", "content": CANARY}])
        client.detokenize(list(CANARY.encode()))
    messages = [{"role": "user", "content": CANARY}]
    for stream_it in (False, True):
        server.post("/v1/chat/completions", {"messages": messages, "stop": [f"no {CANARY}"], "stream": stream_it})
    server.post("/v1/completions", {"prompt": CANARY})
    with connect(f"{server.http.replace('http', 'ws')}/v1/ws", additional_headers=bearer(server.tokens.generate)) as ws:
        ws.send(json.dumps({"type": "text_input", "text": CANARY}))
        ws.recv(timeout=30)
        ws.send(json.dumps({"type": CANARY}))
        ws.send(CANARY)
        ws.recv(timeout=30)


def bad_calls(server: Served) -> None:
    """Calls that are refused, with the canary in what is wrong with them."""
    messages = [Message("user", CANARY)]
    for wrong in (
        {"messages": [Message(CANARY, CANARY)]},
        {"messages": [Message("system", CANARY)]},
        {"chat": Chat(tuple(messages), CANARY)},
        {"chat": Chat(tuple(messages), json.dumps({"messages": CANARY}))},
        {"chat": Chat(tuple(messages), json.dumps({"raise": CANARY}))},
        {"chat": Chat(tuple(messages), json.dumps({CANARY + "-": 1}))},
        {"prompt": CANARY, "stop_strings": ["", CANARY]},
        {"prompt": CANARY * 1000},
        {"prompt": CANARY, "top_p": 7.0},
        {"prompt": CANARY, "logit_bias": {10**6: 1.0}},
    ):
        fails(server, lambda client, wrong=wrong: client.generate(**wrong))  # type: ignore[misc]
    with Client(server.grpc, token=CANARY, retry=False) as client, pytest.raises(MlxGrpcError):
        client.generate(CANARY)
    server.post("/v1/completions", {"prompt": CANARY, CANARY: CANARY})
    server.post("/v1/completions", {"prompt": {CANARY: CANARY}})
    server.post("/v1/chat/completions", {"messages": CANARY})
    server.post("/v1/chat/completions", {"messages": [{"role": CANARY, "content": [{"type": CANARY}]}]})
    server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": CANARY}], "temperature": CANARY})
    server.post(f"/v1/{CANARY}", {"prompt": CANARY})
    for body in (CANARY, {"model": 1, CANARY: CANARY}):
        http_call(server.admin, "/admin/drain", method="POST", headers=bearer(server.tokens.admin), body=body)
    http_call(server.admin, f"/admin/status?{CANARY}={CANARY}", headers=bearer(CANARY))


def fatal_calls(server: Served) -> None:
    """Calls that fail in the engine, or take it down; the server goes on."""
    for fault in FAULTS:
        with contextlib.suppress(MlxGrpcError), server.client() as client:
            client.generate(f"please {fault} {CANARY} now", max_tokens=4)


def fails(server: Served, call: Callable[[Client], Any]) -> None:
    with server.client() as client, pytest.raises(MlxGrpcError):
        call(client)


def test_nothing_that_is_a_callers_own_is_told(served: Served) -> None:
    """Good calls, bad calls, and calls that the engine dies of."""
    good_calls(served)
    bad_calls(served)
    fatal_calls(served)
    told = served.tell()
    served.serve.signal(signal.SIGTERM)
    assert served.serve.ended() == 0
    assert served.serve.process.stdout is not None
    lines = [*served.serve.errors, *told.splitlines(), served.serve.process.stdout.read()]
    assert not [line for line in lines if CANARY in line.lower()]
    tokens = (served.tokens.generate, served.tokens.admin)
    assert not [line for line in lines if any(token in line for token in tokens)]
    log = "\n".join(served.serve.errors)
    assert "lost its engine" in log  # the log does tell what happened
    assert "accepted" in log


def test_the_canary_is_heard_where_it_may_be(served: Served) -> None:
    """Errors quote the caller's words to the caller: so the test above says something that could be otherwise."""
    with served.client() as client, pytest.raises(MlxGrpcError, match=CANARY):
        client.generate(messages=[Message(CANARY, "x")])
