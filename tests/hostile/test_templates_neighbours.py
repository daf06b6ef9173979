"""Chats that are too large, or that make a template pass its limits, while others use the server."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.proofs.leaks import children_of
from tests.helpers.proofs.servers import comes_true, proof, tell
from tests.helpers.serve import lives
from tests.hostile.helpers.render import (
    CLIENTS,
    LOG_BYTES_A_MINUTE,
    MOST_BYTES,
    Seen,
    attack_from_elsewhere,
    honest,
    most_bytes_while,
    obedient_server,
    resident_bytes,
)

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(sys.platform != "linux", reason="the server's memory is read from /proc"),
]
RETURNS_WITHIN = 1.1
LONGEST_GAP_SECONDS, GAP_ON_A_LOADED_MACHINE_SECONDS = 0.3, 3.0
LONGEST_CHAT_SECONDS = 0.5
"""A whole chat is rendered, tokenized, prefilled and decoded by processes that share two processors with the attack's
own: one of 2,000 takes a third of a second."""


def told(attack: str, seen: Seen, ends: dict[str, int], more_bytes: int) -> None:
    tell(
        f"{attack}: {ends}; health {seen.health_seconds:.3f} s, token {seen.token_seconds:.3f} s, chat "
        f"{seen.chat_seconds:.3f} s at most ({seen.chats} chats); memory {more_bytes / 1e6:+.0f} MB at most"
    )


async def under(attack: str, folder: Path, full_size: bool) -> tuple[Seen, dict[str, int]]:
    """Attack a server; checks what holds for each attack."""
    with obedient_server(folder) as server:
        pid = server.process.pid
        async with honest(server.grpc):
            await asyncio.sleep(1)
        idle_bytes, idle_children = resident_bytes(pid), len(children_of(pid))
        began_seconds = time.monotonic()
        async with honest(server.grpc) as seen:
            running = asyncio.create_task(attack_from_elsewhere(attack, server.grpc, 20 if full_size else 2))
            most_bytes = await most_bytes_while(pid, running)
            ends = await running
            if attack == "leaving":  # what they left behind would be seen now
                left_seconds = time.monotonic()
                chats = seen.chats
                await comes_true(lambda: seen.chats > chats + 2)
                assert time.monotonic() - left_seconds < (5 if full_size else 15)
        told(attack, seen, ends, most_bytes - idle_bytes)
        longest = LONGEST_GAP_SECONDS if full_size else GAP_ON_A_LOADED_MACHINE_SECONDS
        assert max(seen.health_seconds, seen.token_seconds) <= longest
        assert most_bytes - idle_bytes <= MOST_BYTES
        await comes_true(lambda: resident_bytes(pid) <= idle_bytes * RETURNS_WITHIN)
        assert len(children_of(pid)) <= idle_children + 3  # a process for each thread that renders
        minutes = max(1.0, (time.monotonic() - began_seconds) / 60)
        assert server.log.stat().st_size <= LOG_BYTES_A_MINUTE * minutes
        children = children_of(pid)
        server.terminate()
        assert await asyncio.to_thread(server.process.wait) == 0
        assert not [child for child in children if lives(child)]
    return seen, ends


@pytest.mark.parametrize("attack", ["large", "within"])
@proof
async def test_large_chats_stop_nobody(tmp_path: Path, full_size: bool, attack: str) -> None:
    """Six clients with 4 MB each, or with 1 MB that is rendered and tokenized until it is too much, are refused;
    another's chats go on meanwhile, as do streams and health."""
    seen, ends = await under(attack, tmp_path, full_size)
    assert ends == {"INVALID_ARGUMENT PROMPT_TOO_LONG input": CLIENTS * (20 if full_size else 2)}
    assert seen.chat_seconds <= (LONGEST_CHAT_SECONDS if full_size else GAP_ON_A_LOADED_MACHINE_SECONDS)


@pytest.mark.parametrize("attack", ["loops", "copies"])
@proof
async def test_chats_that_pass_a_limit_are_refused_alone(tmp_path: Path, full_size: bool, attack: str) -> None:
    """Those, and no others; chats that need no arguments do not wait for them."""
    seen, ends = await under(attack, tmp_path, full_size)
    assert ends == {"INVALID_ARGUMENT INVALID_FIELD chat": CLIENTS * (20 if full_size else 2)}
    assert seen.chat_seconds <= (LONGEST_CHAT_SECONDS if full_size else GAP_ON_A_LOADED_MACHINE_SECONDS)


@proof
async def test_renderings_end_with_their_clients(tmp_path: Path, full_size: bool) -> None:
    """Six clients leave theirs unfinished, again and again: no thread or process goes on with them."""
    _, ends = await under("leaving", tmp_path, full_size)
    assert sum(count for end, count in ends.items() if end.startswith("DEADLINE_EXCEEDED")) > CLIENTS
