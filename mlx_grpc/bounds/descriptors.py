"""Open files: how many this process may have, and how many of them connections may take.

Running out is prevented, since nobody who runs out can repair it: an accept that fails is tried again and again, an
engine cannot be started, a token file cannot be read. So each port has a share of its own, and what the server itself
needs is kept back.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

MOST_OPEN_FILES = 65_536
"""More is never asked for: no server here needs it, and some systems keep a table of that size."""
MAC_OPEN_FILES = 10_240
"""macOS says that its hard limit is infinite, and takes no more than this (OPEN_MAX)."""
MOST_CONNECTIONS = 2048
LEAST_CONNECTIONS = 4
FEW_CONNECTIONS = 256
"""With fewer than this on a port, the start says so."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What accept and open fail with when there is nothing left."""

KEPT_BACK = {
    "standard streams, the event loop, gRPC's pollers, listening sockets": 32,
    "token, certificate, tokenizer and configuration files": 16,
    "downloads and imports of models": 16,
    "connections that are accepted and closed at once": 16,
}
PER_ENGINE = 10
"""Three pipes and a pidfd, and as long as it starts the child's ends of the pipes and what a fork needs."""
ENGINES_AT_LEAST = 2
GRPC_WEIGHT, HTTP_WEIGHT, ADMIN_WEIGHT = 4, 3, 1


@dataclass(frozen=True, slots=True)
class Shares:
    """Connections that each port takes at most. gRPC's is for each of its addresses."""

    grpc: int
    http: int
    admin: int

    @property
    def few(self) -> bool:
        """Whether a port that many clients use takes so few that people should know."""
        return min(self.grpc, self.http) < FEW_CONNECTIONS


def limit_now() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> int:
    """Raise the soft limit as far as the hard one allows; returns what holds now. Never lowers it, never fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MOST_OPEN_FILES, hard)
    for wanted in (most, min(most, MAC_OPEN_FILES)):
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return limit_now()


def kept_back(engines: int) -> int:
    """Descriptors that no connection gets."""
    return sum(KEPT_BACK.values()) + PER_ENGINE * max(engines, ENGINES_AT_LEAST)


def least_limit(engines: int, grpc_addresses: int = 1) -> int:
    """With fewer open files a server cannot work."""
    parts = GRPC_WEIGHT * grpc_addresses + HTTP_WEIGHT + ADMIN_WEIGHT
    return kept_back(engines) + parts * with_margin(LEAST_CONNECTIONS)


def share_out(limit: int, engines: int, grpc_addresses: int = 1) -> Shares:
    """What each port gets of so many open files."""
    part = (limit - kept_back(engines)) / (GRPC_WEIGHT * grpc_addresses + HTTP_WEIGHT + ADMIN_WEIGHT)

    def bounded(descriptors: float) -> int:
        return max(LEAST_CONNECTIONS, min(MOST_CONNECTIONS, int(descriptors)))

    return Shares(
        grpc=bounded(GRPC_WEIGHT * part),
        http=bounded(without_margin(HTTP_WEIGHT * part)),
        admin=bounded(without_margin(ADMIN_WEIGHT * part)),
    )


def with_margin(connections: int) -> int:
    """Over the bound on an HTTP port, so many are still accepted, to be told that they are too many."""
    return connections + connections // 8 + 4


def without_margin(descriptors: float) -> int:
    """The bound that needs so many descriptors with its margin."""
    return int((descriptors - 4) * 8 / 9)


class Spare:
    """A descriptor held open, to be given up for a file that has to be read when there is no other.

    Threads may share it. Before `hold`, after `close` and while somebody else took the place it has nothing to give,
    which is no error.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._holding = False

    def hold(self) -> None:
        """Take the descriptor."""
        with self._lock:
            self._holding = True
            self._take()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """One more file can be opened in the block, which closes it again."""
        with self._lock:
            self._give()
            try:
                yield
            finally:
                if self._holding:
                    self._take()

    def close(self) -> None:
        """Give it back for good."""
        with self._lock:
            self._holding = False
            self._give()

    def _take(self) -> None:
        if self._descriptor is None:
            with suppress(OSError):
                self._descriptor = os.open(os.devnull, os.O_RDONLY)

    def _give(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
