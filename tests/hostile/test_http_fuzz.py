"""Mutated bodies and frames: 500 in `make test`, 10,000 in `make prove`. No bug, no gap, and the same engine."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
from pathlib import Path

from tests.hostile.helpers.http import CHAT, COMPLETIONS, Victim, gap_bound_seconds, in_threads, send_all, victim
from tests.hostile.helpers.websocket import CONTINUATION, Frames, frame, opened

FEW, MANY = 500, 10_000
CLIENTS = 4
BODIES = [
    json.dumps({"messages": [{"role": "user", "content": "ping"}], "max_tokens": 1, "stop": ["a"], "seed": 1}).encode(),
    json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "é"}]}], "max_tokens": 1}).encode(),
    json.dumps({"prompt": [1, 2, 3], "max_tokens": 1, "logit_bias": {"1": -1.5}, "logprobs": 1}).encode(),
    json.dumps({"prompt": "ping", "max_tokens": 1, "stream": True, "stop_token_ids": [1]}).encode(),
]
MESSAGES = [
    b'{"type": "text_input", "content": "ping", "context": [{"role": "user", "content": "x"}]}',
    b'{"type": "config", "maxOutputTokens": 1, "topP": 0.5}',
    b'{"type": "cancel"}',
]
JUNK = [b"[" * 300, b'{"a":' * 300, b" " * 5000, b'"max_tokens":1e2', "💥".encode(), b"9" * 400]
PIECES = [*JUNK, *rb"""[ { " \ \u0000 \ud800 null -1 1e999 , : true NaN""".split(), b"\xff", b"\0"]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few changes at random places."""
    out = bytearray(data)
    for _ in range(chance.randint(0, 4)):
        start = chance.randrange(len(out) + 1)
        stop = min(len(out), start + chance.choice([0, 1, 1, 4, 30]))
        match chance.randrange(4):
            case 0:
                out[start:stop] = chance.choice(PIECES)
            case 1:
                out[start:stop] = chance.randbytes(chance.randint(0, 5))
            case 2:
                out[start:start] = out[start:stop] * chance.choice([1, 3, 200])
            case _:
                del out[start:stop]
    return bytes(out)


def test_mutated_bodies(full_size: bool, tmp_path: Path) -> None:
    """On kept connections, as clients do."""
    total = MANY if full_size else FEW
    bugs: list[tuple[int, bytes, bytes]] = []
    with victim(tmp_path, script={"context_length": 4096}) as server:
        engine = server.look().engine_pid
        in_threads(*[lambda seed=seed: _bodies(server, seed, total // CLIENTS, bugs) for seed in range(CLIENTS)])
        look = server.look()
        assert not bugs
        assert look.engine_pid == engine
        assert look.gap_seconds <= gap_bound_seconds(full_size)
        assert len(server.log.read_bytes()) <= 400 * total


def _bodies(server: Victim, seed: int, count: int, bugs: list[tuple[int, bytes, bytes]]) -> None:
    chance = random.Random(seed)
    connection = http.client.HTTPConnection(*server.addresses["http"], timeout=60)
    for _ in range(count):
        body = mutated(chance.choice(BODIES), chance)
        path = chance.choice([CHAT, COMPLETIONS])
        connection.request("POST", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 500:
            bugs.append((answer.status, body, said))
    connection.close()


def test_mutated_requests(full_size: bool, tmp_path: Path) -> None:
    """The bytes of HTTP itself."""
    total = MANY if full_size else FEW
    chance = random.Random(14)
    with victim(tmp_path, script={"context_length": 4096}) as server:
        engine = server.look().engine_pid
        for _ in range(total):
            body = chance.choice(BODIES)
            raw = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            raw += b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body
            with server.connect() as connection:
                send_all(connection, mutated(raw, chance))
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                said = _all_said(connection)
            assert not said.startswith(b"HTTP/1.1 5"), said
        look = server.look()
        assert look.engine_pid == engine
        assert look.gap_seconds <= gap_bound_seconds(full_size)
        assert "Traceback" not in server.log.read_text()


def _all_said(connection: socket.socket) -> bytes:
    said = b""
    try:
        while data := connection.recv(65536):
            said += data
    except OSError:
        pass
    return said


def test_mutated_frames(full_size: bool, tmp_path: Path) -> None:
    """The messages, and the frames around them."""
    total = MANY if full_size else FEW
    chance = random.Random(15)
    with victim(tmp_path, script={"context_length": 4096}) as server:
        engine = server.look().engine_pid
        done = 0
        while done < total:
            with opened(server) as connection:
                for _ in range(10):
                    send_all(connection, _frame(chance))
                    done += 1
                with contextlib.suppress(OSError):  # the server has closed it already
                    connection.shutdown(socket.SHUT_WR)
                frames = Frames(connection)
                while (found := frames.next())[0] != 8:
                    assert b'"internal_error"' not in found[1]
                frames.close()
        look = server.look()
        assert look.engine_pid == engine
        assert look.gap_seconds <= gap_bound_seconds(full_size)
        assert look.held_bytes == 0
        assert "Traceback" not in server.log.read_text()


def _frame(chance: random.Random) -> bytes:
    message = mutated(chance.choice(MESSAGES), chance)
    match chance.randrange(4):
        case 0:
            return mutated(frame(message), chance)
        case 1:
            middle = chance.randrange(len(message) + 1)
            return frame(message[:middle], fin=False) + frame(message[middle:], CONTINUATION)
        case 2:
            return frame(message, chance.randrange(16), fin=chance.random() < 0.9)
        case _:
            return frame(message)
