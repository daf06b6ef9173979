"""What nobody caught is logged, and what comes in floods is one line."""

from __future__ import annotations

import asyncio
import errno
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_grpc.observe import unhandled
from mlx_grpc.observe.unhandled import LoopErrors, log_unhandled


@pytest.fixture
def hooks_as_before() -> Iterator[None]:
    before = threading.excepthook, sys.unraisablehook
    yield
    threading.excepthook, sys.unraisablehook = before
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("mlx_grpc"), "propagate", True)
    return caplog


@pytest.mark.usefixtures("hooks_as_before")
def test_a_thread_that_dies_is_logged(heard: pytest.LogCaptureFixture) -> None:
    """With its traceback; one that only ends itself is not."""
    log_unhandled()

    def die(error: BaseException) -> None:
        raise error

    for error in (ValueError("why"), SystemExit(0)):
        thread = threading.Thread(target=die, args=(error,), name="worker")
        thread.start()
        thread.join()
    (record,) = heard.records
    assert (record.getMessage(), record.exc_info and str(record.exc_info[1])) == (
        "worker ended with an error",
        "why",
    )


@pytest.mark.usefixtures("hooks_as_before")
def test_what_cannot_be_raised_and_warnings_are_logged(heard: pytest.LogCaptureFixture) -> None:
    """Python would write both to stderr as they are."""
    log_unhandled()
    sys.unraisablehook(SimpleNamespace(exc_value=ValueError("why"), exc_traceback=None, err_msg=None, object=len))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("old", DeprecationWarning, "file.py", 7)
    assert [record.name for record in heard.records] == ["mlx_grpc.observe.unhandled", "py.warnings"]


def context_of(number: int, **more: Any) -> dict[str, Any]:
    return {"message": "socket.accept() out of system resource", "exception": OSError(number, "too many"), **more}


def test_a_lack_of_descriptors_is_one_line_a_minute(
    heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often asyncio tells of it."""
    loop = asyncio.new_event_loop()
    try:
        handler = LoopErrors()
        for _ in range(100):
            handler(loop, context_of(errno.EMFILE, socket=object()))
        (record,) = heard.records
        assert record.exc_info is None
        monkeypatch.setattr(unhandled, "SAY_AGAIN_SECONDS", 0.0)
        handler(loop, context_of(errno.ENFILE, socket=object()))
        assert len(heard.records) == 2
    finally:
        loop.close()


def test_other_errors_of_a_loop_are_told_as_ever(heard: pytest.LogCaptureFixture) -> None:
    """By asyncio's own handler."""
    loop = asyncio.new_event_loop()
    try:
        LoopErrors()(loop, context_of(errno.EBADF, socket=object()))
        LoopErrors()(loop, context_of(errno.EMFILE))
        LoopErrors()(loop, {"message": "a task failed"})
    finally:
        loop.close()
    assert [record.name for record in heard.records] == ["asyncio"] * 3
