"""Who may watch the server's health."""

from __future__ import annotations

from mlx_grpc.rpc.watchers import Watcher, Watchers


def joined(watchers: Watchers, connection: str) -> Watcher:
    watcher = watchers.join(connection)
    assert watcher is not None
    return watcher


def test_a_connection_has_a_bound_of_its_own() -> None:
    """One that leaves makes room, once."""
    watchers = Watchers(total=10, of_connection=2)
    first = joined(watchers, "a")
    joined(watchers, "a")
    assert watchers.join("a") is None
    watchers.leave(first)
    watchers.leave(first)
    assert watchers.join("a") is not None
    assert watchers.count == len(list(watchers)) == 2


def test_nobody_keeps_others_out() -> None:
    """Where all places are taken, the connection with the most loses its oldest, and hears of it."""
    watchers = Watchers(total=4, of_connection=3)
    greedy = [joined(watchers, "a") for _ in range(3)]
    joined(watchers, "b")
    joined(watchers, "c")
    assert [one.put_out for one in greedy] == [True, False, False]
    assert greedy[0].changed.is_set()
    assert watchers.count == 4


def test_who_has_the_most_is_refused() -> None:
    """Nobody loses a place to a connection that has as many."""
    watchers = Watchers(total=4, of_connection=3)
    first, _, _, _ = (joined(watchers, connection) for connection in "abab")
    assert watchers.join("a") is None
    assert not first.put_out
