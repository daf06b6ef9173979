"""How open files are shared out, and the descriptor that is kept for a bad day."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.bounds import descriptors
from mlx_grpc.bounds.descriptors import Spare, least_limit, share_out, with_margin, without_margin


@given(st.integers(0, 200_000), st.integers(0, 64), st.sampled_from([1, 2]))
def test_shares_leave_what_the_server_needs(limit: int, engines: int, addresses: int) -> None:
    """All ports full at once, with those that are told that they are too many, do not reach what is kept back."""
    shares = share_out(limit, engines, addresses)
    taken = addresses * shares.grpc + with_margin(shares.http) + with_margin(shares.admin)
    if limit >= least_limit(engines, addresses):
        assert taken + descriptors.kept_back(engines) <= limit
    assert all(
        descriptors.LEAST_CONNECTIONS <= one <= descriptors.MOST_CONNECTIONS
        for one in (shares.grpc, shares.http, shares.admin)
    )


@given(st.integers(5, 10_000))
def test_a_bound_and_its_margin_fit(count: int) -> None:
    """The bound is the largest that fits."""
    bound = without_margin(count)
    assert with_margin(bound) <= count < with_margin(bound + 2)


def test_shares_say_whether_they_are_few() -> None:
    """At the usual soft limit they are, at the usual hard ones nothing is missing."""
    assert share_out(1024, 1).few is False
    assert share_out(256, 1).few is True
    assert share_out(65_536, 4).grpc == descriptors.MOST_CONNECTIONS


@contextmanager
def soft_limit(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised() -> None:
    """To the hard one, or to as many as are ever wanted."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with soft_limit(512):
        most = descriptors.MOST_OPEN_FILES
        assert descriptors.raise_limit() == (most if hard == resource.RLIM_INFINITY else min(hard, most))


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that says one thing and does another."""

    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    with soft_limit(512), monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuse)
        assert descriptors.raise_limit() == 512


def test_a_mac_takes_less_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hard limit is infinite; past OPEN_MAX the call fails."""
    limits = [256, resource.RLIM_INFINITY]

    def set_limit(_: int, wanted: tuple[int, int]) -> None:
        if wanted[0] > descriptors.MAC_OPEN_FILES:
            raise ValueError("current limit exceeds maximum limit")
        limits[0] = wanted[0]

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert descriptors.raise_limit() == descriptors.MAC_OPEN_FILES


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Every descriptor that this process may have is taken."""
    highest = max(int(name) for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
    with soft_limit(highest + 16), ExitStack() as taken:
        while True:
            try:
                descriptor = os.open(os.devnull, os.O_RDONLY)
            except OSError:
                break
            taken.callback(os.close, descriptor)
        yield


def test_the_spare_opens_one_more_file() -> None:
    """Again and again, and only inside the block."""
    spare = Spare()
    spare.hold()
    try:
        with no_descriptor_left():
            for _ in range(3):
                with spare.lent():
                    os.close(os.open(os.devnull, os.O_RDONLY))
                with pytest.raises(OSError, match="Too many open files"):
                    os.open(os.devnull, os.O_RDONLY)
    finally:
        spare.close()


def test_a_spare_whose_place_was_taken_is_no_error() -> None:
    """It is taken back when there is one again."""
    spare = Spare()
    spare.hold()
    try:
        with no_descriptor_left():
            with spare.lent():
                stolen = os.open(os.devnull, os.O_RDONLY)
            with spare.lent(), pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
            os.close(stolen)
            with spare.lent():
                pass
            with spare.lent():
                os.close(os.open(os.devnull, os.O_RDONLY))
    finally:
        spare.close()
