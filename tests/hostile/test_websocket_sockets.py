"""Sockets that hold much, end nothing, or say much that is nothing."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlx_grpc import testing
from mlx_grpc.bounds.intake import LEAST_TOTAL_BYTES
from mlx_grpc.http import arrival, runner
from mlx_grpc.http.openai.structure import MAX_CONTAINERS
from mlx_grpc.http.websocket.questions import MAX_WAITING_QUESTIONS
from mlx_grpc.http.wire.socket import MAX_FRAGMENTS
from mlx_grpc.testing import LocalServer, Script
from tests.hostile.helpers.http import (
    MIB,
    MOST_MIB,
    Victim,
    closed_within,
    gap_bound_seconds,
    head,
    in_threads,
    send_all,
    victim,
    watched,
)
from tests.hostile.helpers.websocket import (
    BINARY,
    CONTINUATION,
    PING,
    UPGRADE,
    Frames,
    frame,
    opened,
    question,
)

SLOW = {"step_seconds": 2.0, "context_length": 8_000_000, "kv_bytes_per_token": 1}
TRY_AGAIN, POLICY = 1013, 1008


@contextmanager
def talking(server: Victim | LocalServer) -> Iterator[tuple[socket.socket, Frames]]:
    where: Any = server
    if isinstance(server, LocalServer):
        host, _, number = server.server.addresses["http"].rpartition(":")
        where = host, int(number)
    with opened(where) as connection:
        frames = Frames(connection)
        try:
            yield connection, frames
        finally:
            frames.close()


def test_waiting_questions_have_a_bound(full_size: bool, tmp_path: Path) -> None:
    """Eight sockets with 16 waiting questions of 4 MiB held 652 MB, which never came back."""
    sockets, questions = (8, 16) if full_size else (3, 8)
    asked = question(1000) + question(4 * MIB - 100) * questions
    with victim(tmp_path, script=SLOW, max_queue_tokens=100_000_000) as server:
        idle = server.look()
        with watched(server) as witness, ExitStack() as stack:
            pairs = [stack.enter_context(talking(server)) for _ in range(sockets)]
            in_threads(*[lambda one=one: send_all(one, asked) for one, _ in pairs])
            during = server.look()
            errors: list[dict[str, Any]] = []
            in_threads(*[lambda pair=pair: errors.append(_first_error(*pair)) for pair in pairs])
        assert {error["code"] for error in errors} <= {"intake_full", "context_length_exceeded", "queue_full"}
        assert any(error["code"] == "intake_full" and error["retry_after"] > 0 for error in errors)
        assert during.held_bytes <= LEAST_TOTAL_BYTES
        assert during.peak_mib - idle.memory_mib <= MOST_MIB, (idle, during)
        assert witness.longest_seconds <= (0.3 if full_size else 5.0)
        after = server.until_at_most(idle.memory_mib * 1.1)
        assert after.held_bytes == 0
        assert after.memory_mib <= idle.memory_mib * 1.1


def _first_error(connection: socket.socket, frames: Frames) -> dict[str, Any]:
    """Cancels all answers that begin before. A question whose bytes were wanted for others is told so in its turn."""
    connection.settimeout(30.0)
    while (said := json.loads(frames.text()))["type"] != "error":
        if said["type"] == "response_start":
            connection.sendall(frame(b'{"type":"cancel"}'))
    return dict(said)


def test_sockets_keep_nothing_of_what_was_answered(tmp_path: Path) -> None:
    """Each of many idle ones kept its last message, in its parser: 3 MiB each. Now it is a small part of that."""
    with victim(tmp_path) as server, ExitStack() as stack:

        def ask() -> None:
            connection, frames = stack.enter_context(talking(server))
            connection.sendall(frame(b'{"type":"nothing","x":"' + b"x" * (3 * MIB) + b'"}'))
            assert frames.message("error")["code"] == "invalid_value"

        ask()  # what the first one makes the server import is not the sockets'
        idle = server.look()
        for _ in range(15):
            ask()
        most_mib = idle.memory_mib + 15
        assert server.until_at_most(most_mib).memory_mib <= most_mib


def test_a_question_too_many_is_refused_and_the_socket_goes_on(tmp_path: Path) -> None:
    """With a message that says when to come again; those before it are answered."""
    with testing.run(
        Script(step_seconds=0.01, context_length=10_000), max_request_bytes=100_000, max_intake_bytes=200_000
    ) as server, talking(server) as (connection, frames):  # fmt: skip
        connection.sendall(b"".join(question(90_000) for _ in range(4)))
        error = frames.message("error")
        assert error["ends_answer"] or error["code"] == "intake_full"
        connection.sendall(frame(json.dumps({"type": "text_input", "content": "x"}).encode()))
        assert frames.message("response_complete")


def test_waiting_questions_give_way_to_others(tmp_path: Path) -> None:
    """A socket's hoard does not keep a call out: the oldest that waits loses its text and keeps its place."""
    settings: dict[str, Any] = {"max_request_bytes": MIB, "max_intake_bytes": 2 * MIB}
    with ExitStack() as stack:
        os.mkfifo(tmp_path / "gate")
        steps = os.open(tmp_path / "gate", os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, steps)
        script = Script(gate_path=str(tmp_path / "gate"), context_length=1_000_000)
        server = stack.enter_context(testing.run(script, **settings))
        stack.callback(os.write, steps, b"." * 60_000)
        hoarding, hoarded = stack.enter_context(talking(server))
        other, _ = stack.enter_context(talking(server))
        intake = server.server.intake
        hoarding.sendall(question(1000) + question(900_000) * 2)
        _until(lambda: intake.held_bytes > 1_700_000)
        other.sendall(question(600_000))
        _until(lambda: intake.cut_off_count == 1)
        os.write(steps, b"." * 60_000)
        assert hoarded.message("error")["code"] == "intake_full"


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_empty_fragments_have_a_bound(full_size: bool, tmp_path: Path) -> None:
    """They count for no limit on bytes, and each was an object: a hundred megabytes a socket and more."""
    attack = frame(b"", fin=False) + frame(b"", CONTINUATION, fin=False) * (2_000_000 if full_size else 100_000)
    with victim(tmp_path) as server:
        idle = server.look()
        with ExitStack() as stack:
            pairs = [stack.enter_context(talking(server)) for _ in range(4)]
            in_threads(*[lambda one=one: send_all(one, attack) for one, _ in pairs])
            look = server.look()
            assert [frames.close_code() for _, frames in pairs] == [POLICY] * 4
        assert look.peak_mib - idle.memory_mib <= 20
        assert look.gap_seconds <= gap_bound_seconds(full_size)


def test_as_many_fragments_as_usual_are_taken() -> None:
    """A message in a thousand pieces."""
    text = json.dumps({"type": "text_input", "content": "x" * 4000}).encode()
    assert len(text) > 1000
    parts = [text[start : start + 4] for start in range(0, len(text), 4)]
    assert len(parts) < MAX_FRAGMENTS
    frames = frame(parts[0], fin=False) + b"".join(frame(part, CONTINUATION, fin=False) for part in parts[1:])
    with testing.run(Script(context_length=10_000)) as server, talking(server) as (connection, heard):
        connection.sendall(frames + frame(b"", CONTINUATION))
        assert heard.message("response_start")


@pytest.mark.parametrize(
    "said",
    [frame(b'{"type"', fin=False), frame(b'{"type"', announced=1000), b"\x81"],
    ids=["fragment", "frame", "length"],
)
def test_a_message_that_does_not_end_closes_the_socket(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """With a reason."""
    monkeypatch.setattr(arrival, "ARRIVAL_SECONDS", 0.3)
    monkeypatch.setattr(runner, "LOOK_EVERY_SECONDS", 0.1)
    with testing.run() as server, talking(server) as (connection, frames):
        connection.sendall(said)
        assert frames.close_code() == POLICY
        _until(lambda: server.server.intake.held_bytes == 0)


def test_an_idle_socket_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was begun must end."""
    monkeypatch.setattr(arrival, "ARRIVAL_SECONDS", 0.3)
    monkeypatch.setattr(runner, "LOOK_EVERY_SECONDS", 0.1)
    with testing.run() as server, talking(server) as (connection, frames):
        time.sleep(1.0)
        connection.sendall(frame(b'{"type": "text_input", "content": "x"}'))
        assert frames.message("response_start")


def test_unfinished_messages_have_a_bound(full_size: bool, tmp_path: Path) -> None:
    """All but the last byte of 4 MiB, on many sockets: those over the bound are closed, and told to come again."""
    count = 60 if full_size else 20
    unfinished = question(4 * MIB - 100)[:-1]
    with victim(tmp_path) as server:
        idle = server.look()
        with ExitStack() as stack:
            pairs = [stack.enter_context(talking(server)) for _ in range(count)]
            in_threads(*[lambda one=one: send_all(one, unfinished) for one, _ in pairs])
            during = server.look()
            assert during.held_bytes <= LEAST_TOTAL_BYTES
            codes = _close_codes(pairs, count - 12)
        assert codes.count(TRY_AGAIN) == len(codes), codes
        assert during.peak_mib - idle.memory_mib <= MOST_MIB
        assert server.until_at_most(idle.memory_mib * 1.1).memory_mib <= idle.memory_mib * 1.1


def test_pings_that_are_not_read_back_do_not_pile_up(full_size: bool, tmp_path: Path) -> None:
    """Pongs that nobody takes were kept without end."""
    pings = frame(b"x" * 125, PING) * (500_000 if full_size else 200_000)
    with victim(tmp_path) as server:
        idle = server.look()
        with talking(server) as (connection, _):
            send_all(connection, pings)
            look = server.look()
        assert look.peak_mib - idle.memory_mib <= 20
        assert look.gap_seconds <= gap_bound_seconds(full_size)


@pytest.mark.parametrize(
    "message",
    [b'{"type":"cancel"}', b"{}", b"", b'{"type":"config","topP":2}', b"\xff"],
    ids=["cancel", "wrong", "empty", "out of range", "no text"],
)
def test_tiny_messages_leave_the_loop_to_others(full_size: bool, tmp_path: Path, message: bytes) -> None:
    """Hundreds to a read, on some sockets at once."""
    flood = frame(message) * ((MIB // 16 if full_size else MIB // 256) // (len(message) + 6))
    with victim(tmp_path) as server:
        with watched(server) as witness, ExitStack() as stack:
            pairs = [stack.enter_context(talking(server)) for _ in range(8)]
            in_threads(*[lambda one=one: _flood(one, flood) for one, _ in pairs])
            look = server.look()
        assert look.gap_seconds <= gap_bound_seconds(full_size)
        assert not witness.failed
        assert len(server.log.read_bytes()) <= 100_000


def _flood(connection: socket.socket, flood: bytes) -> None:
    """Send, and read what comes."""
    in_threads(lambda: send_all(connection, flood), lambda: _read_all(connection))


def _read_all(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(2**20):
            pass


def _close_codes(pairs: list[tuple[socket.socket, Frames]], count: int) -> list[int]:
    """The codes with which the server closes the first so many."""
    codes: list[int] = []
    waiting, end = dict(pairs), time.monotonic() + 30
    while len(codes) < count and time.monotonic() < end:
        for one in select.select(list(waiting), [], [], 1.0)[0]:
            codes.append(waiting.pop(one).close_code())
    assert len(codes) >= count
    return codes


def test_a_question_of_many_values_is_refused(full_size: bool, tmp_path: Path) -> None:
    """As a body is."""
    turns = b'{"type":"text_input","content":"x","context":[' + b"[]," * MIB + b"[]]}"
    assert turns.count(b"[") > MAX_CONTAINERS
    with victim(tmp_path) as server, talking(server) as (connection, frames):
        connection.sendall(frame(turns))
        assert frames.message("error")["code"] == "too_many_values"
        assert server.look().gap_seconds <= gap_bound_seconds(full_size)


@pytest.mark.parametrize(
    "lines", [b"x-a: b\r\n" * 125, b"x-long: " + b"x" * 9000 + b"\r\n"], ids=["many headers", "a long one"]
)
def test_upgrades_that_cannot_be_read_are_closed(lines: bytes) -> None:
    """The WebSocket library reads fewer headers than HTTP does, and then waited for ever."""
    with testing.run() as server:
        host, _, number = server.server.addresses["http"].rpartition(":")
        with socket.create_connection((host, int(number)), timeout=30) as connection:
            connection.sendall(UPGRADE[:-2] + lines + b"\r\n")
            closed_within(connection, 5.0)


def test_the_admin_port_has_no_sockets() -> None:
    """403, and no line in the log that speaks of a bug."""
    upgrade = head("/admin/events", method="GET", connection="Upgrade", upgrade="websocket",
                   sec_websocket_version="13", sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    with testing.run() as server:
        host, _, number = server.server.addresses["admin"].rpartition(":")
        with socket.create_connection((host, int(number)), timeout=30) as connection:
            connection.sendall(upgrade)
            assert connection.recv(100).startswith(b"HTTP/1.1 403")


def test_bytes_are_refused_and_not_kept() -> None:
    """Messages are text."""
    with testing.run() as server, talking(server) as (connection, frames):
        for _ in range(MAX_WAITING_QUESTIONS + 1):
            connection.sendall(frame(b"x" * 1000, BINARY))
            assert frames.message("error")["code"] == "invalid_type"
        assert server.server.intake.held_bytes == 0
