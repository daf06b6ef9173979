"""What the command line says: errors as one line, events as JSON, text that is safe for a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc import errors
from mlx_grpc.cli.as_json import event_json, plain
from mlx_grpc.cli.extras import serving_extra, serving_packages
from mlx_grpc.cli.failure import Failure, explain
from mlx_grpc.cli.terminal import human_bytes, printable
from mlx_grpc.client import HealthStatus
from mlx_grpc.request import Delta, Finished, FinishReason, Queued, TokenLogprob, TopLogprob


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errors.Unavailable("connection refused"), "`mlx-grpc serve`"),
        (errors.QueueFull("the queue is full", retry_after_seconds=1.24), "try again in 1.2 s"),
        (errors.ModelLoading("tiny is loading"), "try again later"),
        (errors.ModelNotFound("no model x"), "models list --server"),
        (errors.NoToken("no token"), "--token"),
        (errors.InternalError("a bug", metadata={"error_id": "e-17"}), "e-17"),
        (errors.InvalidField("sampling.top_k: too large"), "sampling.top_k: too large"),
    ],
)
def test_an_error_says_what_to_do(error: errors.MlxGrpcError, advice: str) -> None:
    """One line each, with the next step."""
    assert advice in explain(error, "localhost:1")


@pytest.mark.parametrize("kind", errors.BY_REASON.values())
def test_every_error_is_one_line(kind: type[errors.MlxGrpcError]) -> None:
    """Whatever the server's words look like."""
    line = explain(kind("first\nsecond"), "localhost:1")
    assert "first second" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("platform", "has_nvidia", "extra"),
    [("darwin", False, "serve"), ("linux", False, "cpu"), ("linux", True, "cuda13")],
)
def test_the_extra_for_each_platform(platform: str, has_nvidia: bool, extra: str) -> None:
    """A Mac, a Linux machine without a GPU, one with."""
    assert serving_extra(platform, has_nvidia) == extra


def test_a_missing_package_names_the_extra() -> None:
    """Not a traceback."""
    with pytest.raises(Failure, match=r"uvicorn.*pip install 'mlx-grpc\["), serving_packages("`serve`"):
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")


def test_a_missing_module_of_ours_is_a_bug() -> None:
    """No installation would help, so the error stays what it is."""
    with pytest.raises(ModuleNotFoundError), serving_packages("`serve`"):
        raise ModuleNotFoundError("No module named 'mlx_grpc.gone'", name="mlx_grpc.gone")


def test_events_as_json() -> None:
    """Names, numbers, reasons; a token's bytes as numbers, since half a character is no text."""
    logprob = TokenLogprob(5, b"\xc3", -0.5, (TopLogprob(6, b"x", -1.5),))
    assert json.loads(event_json(Delta("é", (5,), (logprob,)))) == {
        "event": "delta",
        "text": "é",
        "token_ids": [5],
        "logprobs": [
            {
                "token_id": 5,
                "token": [195],
                "logprob": -0.5,
                "top": [{"token_id": 6, "token": [120], "logprob": -1.5}],
            }
        ],
        "index": 0,
    }
    assert json.loads(event_json(Finished(FinishReason.LENGTH)))["reason"] == "length"
    assert json.loads(event_json(Queued(1, None)))["estimated_wait_seconds"] is None
    assert plain({"": HealthStatus.SERVING}) == {"": "serving"}


@given(st.text())
def test_a_terminal_gets_no_control_characters(text: str) -> None:
    """A model cannot move the cursor or set the title; ordinary text is untouched."""
    shown = printable(text)
    assert not any((ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 for char in shown)
    if text.isprintable():
        assert shown == text


def test_escapes_lose_their_power() -> None:
    """The letters stay, the escape goes."""
    assert printable("\x1b[2Jhi\n\ta 👩‍💻") == "[2Jhi\n\ta 👩‍💻"


def test_sizes_for_people() -> None:
    """Powers of 1000, as disks are sold."""
    sizes = [human_bytes(count) for count in (0, 999, 1000, 98_362_432, 5 * 10**12)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "98.4 MB", "5.0 TB"]
