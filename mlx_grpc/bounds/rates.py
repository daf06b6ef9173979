"""How many requests and tokens a minute one client may have. Pure: the caller says what time it is.

Each client has a bucket of requests and one of tokens, both kept as one moment: the one at which the bucket would be
full again (GCRA). A bucket holds a tenth of a minute's amount, and one request at least, so that in any minute a client
has at most 1.1 times what it may have in the long run.

A request takes one from the first bucket, and is let in while the second is not overdrawn. Prompt tokens are taken when
the request is accepted and generated ones as they come, which nobody knows before: they may overdraw the bucket. Then
the client's running requests go on, and new ones are refused until it has filled again. So the long run is right
whatever a single request costs.

A client whose buckets are full is forgotten: it would begin with full ones. There are at most MAX_CLIENTS; past that,
the one that was seen least recently is forgotten, too.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from mlx_grpc.errors import RateLimited

MAX_CLIENTS = 10_000
MINUTE_SECONDS = 60.0
BURST_SECONDS = MINUTE_SECONDS / 10
"""The refill that a full bucket holds."""
FORGET_AT_ONCE = 2
"""Clients looked at for each one that is seen: so those that can be forgotten become fewer."""


class ClientRates:
    """The buckets of all clients. None: no limit. Times are seconds on one clock."""

    def __init__(self, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        self._seconds_per_request = MINUTE_SECONDS / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = MINUTE_SECONDS / tokens_per_minute if tokens_per_minute else 0.0
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._buckets: OrderedDict[str, _Buckets] = OrderedDict()
        """The client seen least recently is first."""

    @property
    def clients(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    @property
    def limits_tokens(self) -> bool:
        """Whether anybody has to count tokens."""
        return self._tokens_per_minute is not None

    def take_request(self, client: str, now_seconds: float) -> None:
        """A request of the client has come. Raises RateLimited, and then it has cost nothing."""
        if self._requests_per_minute is None:
            return
        buckets = self._seen(client, now_seconds)
        room_seconds = max(BURST_SECONDS, self._seconds_per_request) - self._seconds_per_request
        wait_seconds = buckets.requests_full_seconds - now_seconds - room_seconds
        if wait_seconds > 0.0:
            raise _limited(f"{self._requests_per_minute} requests a minute", "client_requests_per_minute", wait_seconds)
        buckets.requests_full_seconds = max(buckets.requests_full_seconds, now_seconds) + self._seconds_per_request

    def check_tokens(self, client: str, now_seconds: float) -> None:
        """Raises RateLimited while the client's tokens are overdrawn."""
        buckets = self._buckets.get(client)
        if self._tokens_per_minute is None or buckets is None:
            return
        wait_seconds = buckets.tokens_full_seconds - now_seconds - BURST_SECONDS
        if wait_seconds > 0.0:
            raise _limited(f"{self._tokens_per_minute} tokens a minute", "client_tokens_per_minute", wait_seconds)

    def spend_tokens(self, client: str, tokens: int, now_seconds: float) -> None:
        """The client has had so many tokens, of prompt or output. Never refused."""
        if self._tokens_per_minute is not None:
            buckets = self._seen(client, now_seconds)
            full_seconds = max(buckets.tokens_full_seconds, now_seconds)
            buckets.tokens_full_seconds = full_seconds + tokens * self._seconds_per_token

    def _seen(self, client: str, now_seconds: float) -> _Buckets:
        buckets = self._buckets.get(client)
        if buckets is None:
            buckets = self._buckets[client] = _Buckets(now_seconds)
        self._buckets.move_to_end(client)
        for _ in range(FORGET_AT_ONCE):
            oldest = next(iter(self._buckets))
            if oldest == client or not (
                self._buckets[oldest].are_full(now_seconds) or len(self._buckets) > MAX_CLIENTS
            ):
                break
            del self._buckets[oldest]
        return buckets


class _Buckets:
    """When each of a client's buckets is full again."""

    __slots__ = ("requests_full_seconds", "tokens_full_seconds")

    def __init__(self, now_seconds: float) -> None:
        self.requests_full_seconds = self.tokens_full_seconds = now_seconds

    def are_full(self, now_seconds: float) -> bool:
        return max(self.requests_full_seconds, self.tokens_full_seconds) <= now_seconds


def _limited(amount: str, limit: str, wait_seconds: float) -> RateLimited:
    wait_seconds = math.ceil(wait_seconds * 1000) / 1000  # whoever comes back after so many milliseconds is not early
    return RateLimited(
        f"this client has had its {amount}: try again in {wait_seconds:.2f} s",
        retry_after_seconds=wait_seconds,
        metadata={"limit": limit},
    )
