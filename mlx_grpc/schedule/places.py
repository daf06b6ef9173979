"""How many may wait, when several clients do: pure.

A client alone may have every waiting place. Then, when others come:

- a client that has nothing waiting finds a place also when the queue is full of another's: a reserve of an eighth of
  the queue, above it, is for first requests alone;
- a client with more than its share, the queue divided by the clients in it, leaves an eighth of the queue to those with
  less: so places that become free go to them first.

Nobody who was accepted loses a place. The same holds for the prompt tokens that may wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_grpc.schedule.entry import Limits

RESERVED = 8
"""One in so many places is for clients with little waiting."""


@dataclass(frozen=True, slots=True)
class Held:
    """Requests, and prompt tokens, that would be left waiting."""

    count: int
    tokens: int


def at_most(limit: int, mine: int, clients: int, *, is_first: bool) -> int:
    """How much may wait, of all clients together, for one who would then have `mine` of it.

    `clients` have something waiting, this one included; `is_first`: it has nothing else there.
    """
    if clients <= 1:
        return limit
    reserve = -(-limit // RESERVED)
    if is_first:
        return limit + reserve
    return limit if mine * clients <= limit else limit - reserve


def has_place(limits: Limits, left: Held, mine: Held, clients: int, *, is_first: bool) -> bool:
    """Whether `left` may be left waiting by all, and `mine` of it by this client. One that would wait alone is not
    refused for its tokens."""
    if left.count > at_most(limits.max_waiting, mine.count, clients, is_first=is_first):
        return False
    if limits.max_waiting_tokens is None or left.count <= 1:
        return True
    return left.tokens <= at_most(limits.max_waiting_tokens, mine.tokens, clients, is_first=is_first)
