"""The project's errors in OpenAI's form."""

from __future__ import annotations

import json

import pytest

from mlx_grpc import errors
from mlx_grpc.errors import BY_REASON
from mlx_grpc.http.openai.access import is_local_name, origin_allowed
from mlx_grpc.http.openai.description import STATUSES
from mlx_grpc.http.openai.errors import ApiError, api_error
from tests.helpers.tools import ROOT

PAGE = (ROOT / "docs/openai.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_every_error_has_a_documented_status(reason: str) -> None:
    """And a body in OpenAI's form."""
    answer = api_error(BY_REASON[reason]("why"), "field")
    assert answer.status in STATUSES
    error = json.loads(answer.body())["error"]
    assert error["message"].startswith("why")
    assert error["param"] == "field"


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_every_error_is_in_the_page(reason: str) -> None:
    """docs/openai.md has its code, in a row of its status."""
    answer = api_error(BY_REASON[reason]("why"))
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{answer.code}`" in line]
    assert str(answer.status) in row.split("|")[1]


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (errors.QueueFull("full", retry_after_seconds=2.3), 429, "3"),
        (errors.ModelLoading("loading", retry_after_seconds=2), 503, "2"),
        (errors.Draining("going down"), 503, "1"),
        (errors.DeadlinePassed("late"), 504, None),
        (errors.ModelFailed("broken"), 503, None),
        (errors.NonfiniteLogits("not finite"), 500, None),
    ],
)
def test_advice_for_those_who_try_again(error: errors.MlxGrpcError, status: int, retry_after: str | None) -> None:
    """When it may help, when; and where it cannot, that SDKs must not."""
    answer = api_error(error)
    assert answer.status == status
    assert answer.headers.get("retry-after") == retry_after
    assert ("x-should-retry" in answer.headers) == (retry_after is None)


def test_texts_are_bounded_and_can_be_encoded() -> None:
    """Whatever the client sent."""
    answer = ApiError(400, "x" * 9999 + "\ud800", param="\ud800")
    assert len(answer.body()) < 1024


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1:11436", True), ("localhost:1", True), ("[::1]:1", True), ("host.docker.internal:11436", True),
        ("mymac.local", True), ("server", True), ("", True), ("192.168.1.5", True),
        ("evil.example:11436", False), ("localhost.evil.example", False), ("127.0.0.1.nip.io", False),
        ("evil.xlocalhost", False),
    ],
)  # fmt: skip
def test_names_that_somebody_can_own_are_not_local(host: str, local: bool) -> None:
    """An attacker's name can point here; a bare name, an address and a local ending cannot be theirs."""
    assert is_local_name(host) is local


@pytest.mark.parametrize(
    ("origin", "allowed", "answer"),
    [
        (None, (), True),
        ("http://a.example", (), False),
        ("http://a.example", ("http://a.example",), True),
        ("http://a.example", ("*",), True),
        ("http://localhost:1", (), True),
        ("null", (), False),
        ("http://[", (), False),
    ],
)
def test_which_pages_may_open_a_socket(origin: str | None, allowed: tuple[str, ...], answer: bool) -> None:
    """Programs, pages of this server, and those of the flag."""
    headers = {"host": "localhost:1"} | ({} if origin is None else {"origin": origin})
    assert origin_allowed(headers, allowed) is answer
