"""Bodies that are many, never end, come slowly or are not wanted: they take a bounded room, for a bounded time."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlx_grpc import testing
from mlx_grpc.bounds.intake import LEAST_TOTAL_BYTES
from mlx_grpc.http import arrival, runner
from mlx_grpc.testing import Script
from tests.helpers.auth import http_call
from tests.hostile.helpers.http import (
    CHAT,
    MIB,
    MOST_MIB,
    closed_within,
    connections,
    gap_bound_seconds,
    head,
    in_threads,
    post,
    send_all,
    victim,
    watched,
)

BODY_BYTES = 4 * MIB
LARGE: dict[str, Any] = {"context_length": 8_000_000, "kv_bytes_per_token": 1}
WITNESS_SECONDS, LOADED_WITNESS_SECONDS = 0.3, 5.0


def body_of(size: int) -> bytes:
    """A valid chat of so many bytes."""
    around = json.dumps({"messages": [{"role": "user", "content": ""}], "max_tokens": 1})
    return json.dumps({"messages": [{"role": "user", "content": "x" * (size - len(around))}], "max_tokens": 1}).encode()


def test_bodies_without_their_last_byte_have_a_bound(full_size: bool, tmp_path: Path) -> None:
    """100 of 4 MiB held 507 MB for a minute. Now those over the bound are answered 429 and closed, others are served
    meanwhile, and the memory comes back."""
    count = 100 if full_size else 20
    unfinished = head(CHAT, length=BODY_BYTES) + body_of(BODY_BYTES)[:-1]
    with victim(tmp_path, script=LARGE) as server:
        idle = server.look()
        with watched(server) as witness, connections(server, count) as held:
            in_threads(*[lambda one=one: send_all(one, unfinished) for one in held])
            assert post(server, body_of(1000))[0] == 200
            answers = _answers(held, count - LEAST_TOTAL_BYTES // BODY_BYTES)
            during = server.look()
        assert during.held_bytes <= LEAST_TOTAL_BYTES
        assert during.peak_mib - idle.memory_mib <= MOST_MIB
        assert all(one.startswith(b"HTTP/1.1 429") and b"retry-after" in one.lower() for one in answers), answers
        assert witness.longest_seconds <= (WITNESS_SECONDS if full_size else LOADED_WITNESS_SECONDS), witness.failed
        after = server.until_at_most(idle.memory_mib * 1.1)
        assert after.held_bytes == 0
        assert after.memory_mib <= idle.memory_mib * 1.1
        assert after.descriptors <= idle.descriptors


def _answers(held: Sequence[socket.socket], count: int) -> list[bytes]:
    """The first answers, of at least so many connections."""
    answers: list[bytes] = []
    waiting, end = list(held), time.monotonic() + 30
    while len(answers) < count and time.monotonic() < end:
        readable, _, _ = select.select(waiting, [], [], 1.0)
        for one in readable:
            waiting.remove(one)
            answers.append(one.recv(65536))
    assert len(answers) >= count
    return answers


@pytest.mark.parametrize("path", ["/nowhere", "/v1/models", CHAT])
def test_bodies_that_nobody_reads_are_not_kept(full_size: bool, tmp_path: Path, path: str) -> None:
    """Answers come before the bodies; what is still sent is thrown away, and not for long."""
    count = 200 if full_size else 30
    request = head(path, length=BODY_BYTES - 1, content_type="text/plain") + b"x" * MIB
    with victim(tmp_path) as server:
        idle = server.look()
        with connections(server, count) as held:
            in_threads(*[lambda one=one: send_all(one, request) for one in held])
            during = server.look()
            took_seconds, said = closed_within(held[0], 4 * runner.LINGER_SECONDS)
        assert said.startswith(b"HTTP/1.1 4")
        assert took_seconds <= 2 * runner.LINGER_SECONDS + runner.LOOK_EVERY_SECONDS
        assert during.peak_mib - idle.memory_mib <= MOST_MIB
        assert server.until_at_most(idle.memory_mib * 1.1).memory_mib <= idle.memory_mib * 1.1


@pytest.mark.parametrize(("port", "path"), [("http", CHAT), ("admin", "/admin/models/load")])
def test_a_body_that_does_not_come_is_answered_408(monkeypatch: pytest.MonkeyPatch, port: str, path: str) -> None:
    """And its connection closed; a byte now and then does not make it longer."""
    monkeypatch.setattr(arrival, "ARRIVAL_SECONDS", 0.3)
    with testing.run() as server:
        host, _, number = server.server.addresses[port].rpartition(":")
        with socket.create_connection((host, int(number)), timeout=30) as slow:
            slow.sendall(head(path, length=1000) + b"{")
            slow.settimeout(0.05)
            began, said = time.monotonic(), b""
            while b"\r\n\r\n" not in said and time.monotonic() - began < 20:
                slow.send(b" ")
                try:
                    said += slow.recv(65536)
                except TimeoutError:
                    continue
            assert said.startswith(b"HTTP/1.1 408")
            assert b"connection: close" in said.lower()


def test_a_body_that_comes_steadily_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time follows what has come."""
    monkeypatch.setattr(arrival, "ARRIVAL_SECONDS", 0.5)
    monkeypatch.setattr(arrival, "ARRIVAL_BYTES_PER_SECOND", 1000)
    body = body_of(2000)
    with testing.run(Script(**LARGE)) as server:
        host, _, number = server.server.addresses["http"].rpartition(":")
        with socket.create_connection((host, int(number)), timeout=30) as steady:
            steady.sendall(head(CHAT, length=len(body)))
            for start in range(0, len(body), 250):
                time.sleep(0.1)
                steady.sendall(body[start : start + 250])
            assert steady.recv(100).startswith(b"HTTP/1.1 200")


def test_chunks_of_one_byte_are_refused(full_size: bool, tmp_path: Path) -> None:
    """Each costs the time of kilobytes; many connections with them do not hold the event loop."""
    count = 50 if full_size else 8
    attack = head(CHAT, transfer_encoding="chunked") + b"1\r\n \r\n" * (MIB if full_size else MIB // 8)
    with victim(tmp_path) as server:
        with watched(server) as witness, connections(server, count) as held:
            in_threads(*[lambda one=one: send_all(one, attack) for one in held])
            during = server.look()
            assert _answers(held, count)[0].startswith(b"HTTP/1.1 400")
        assert during.gap_seconds <= gap_bound_seconds(full_size)
        assert not witness.failed


def test_chunks_of_a_usual_size_are_read(tmp_path: Path) -> None:
    """Of some hundred bytes each, and the first ones may be as small as they like."""
    body = body_of(100_000)
    parts = [body[:1], body[1:2], *[body[start : start + 200] for start in range(2, len(body), 200)]]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    with testing.run(Script(**LARGE)) as server:
        host, _, number = server.server.addresses["http"].rpartition(":")
        with socket.create_connection((host, int(number)), timeout=30) as connection:
            connection.sendall(head(CHAT, transfer_encoding="chunked") + chunked)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_a_small_bound_is_kept_for_each_connection() -> None:
    """The bytes are free again when the call is answered, on the same connection, too."""
    with testing.run(Script(**LARGE), max_intake_bytes=8 * MIB, max_queue_tokens=2**30) as server:
        intake = server.server.intake
        answer = http_call(server.http_url, CHAT, method="POST", body=json.loads(body_of(MIB)))
        assert answer.status == 200
        end = time.monotonic() + 10
        while intake.held_bytes and time.monotonic() < end:  # the answer is read before the call has ended
            time.sleep(0.01)
        assert (intake.held_bytes, intake.cut_off_count, intake.refused_count) == (0, 0, 0)


def test_expected_bodies_are_asked_for_and_refused_ones_are_not() -> None:
    """`Expect: 100-continue`: a body over the limit is refused before it is sent."""
    with testing.run() as server:
        host, _, number = server.server.addresses["http"].rpartition(":")
        for length, answer in ((100, b"HTTP/1.1 100"), (BODY_BYTES + 1, b"HTTP/1.1 413")):
            with socket.create_connection((host, int(number)), timeout=30) as connection:
                connection.sendall(head(CHAT, length=length, expect="100-continue"))
                assert connection.recv(100).startswith(answer)
