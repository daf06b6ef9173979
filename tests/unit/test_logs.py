"""Log lines as JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from mlx_grpc.observe.logs import JsonFormatter, set_up_logging


@pytest.fixture
def loggers_as_before() -> Iterator[None]:
    """Other tests find the loggers as they were."""
    before = [(logging.getLogger(name), dict(logging.getLogger(name).__dict__)) for name in ("mlx_grpc", "uvicorn")]
    yield
    for logger, state in before:
        logger.handlers, logger.propagate = state["handlers"], state["propagate"]
        logger.setLevel(state["level"])


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("mlx_grpc.test").makeRecord(
        "mlx_grpc.test", logging.WARNING, __file__, 1, message, args, None, extra=extra
    )


def test_a_record_is_one_line_of_json() -> None:
    """Time, level, logger and message, a line break in it included."""
    line = JsonFormatter().format(record("two\nlines: %d", 7))
    assert "\n" not in line
    facts = json.loads(line)
    assert (facts["level"], facts["logger"], facts["message"]) == ("warning", "mlx_grpc.test", "two\nlines: 7")
    assert facts["time"].endswith("+00:00")


def test_extra_fields_keep_their_names() -> None:
    """What cannot be JSON becomes text; nothing of logging's own is among them."""
    facts = json.loads(JsonFormatter().format(record("x", request="gen-1", path=object)))
    assert (facts["request"], facts["path"]) == ("gen-1", "<class 'object'>")
    assert set(facts) == {"time", "level", "logger", "message", "request", "path"}


def test_a_traceback_stays_in_its_line() -> None:
    """Programs that read lines see one record."""
    one = record("failed")
    try:
        raise ValueError("why")
    except ValueError:
        one.exc_info = sys.exc_info()
    facts = json.loads(JsonFormatter().format(one))
    assert facts["traceback"].endswith("ValueError: why")


@pytest.mark.usefixtures("loggers_as_before")
def test_the_flag_makes_the_log_json(capsys: pytest.CaptureFixture[str]) -> None:
    """For the project and for the web server below it, of which only what is wrong is logged."""
    set_up_logging("info", as_json=True)
    logging.getLogger("mlx_grpc.service").info("ours")
    logging.getLogger("uvicorn.error").info("chatter")
    logging.getLogger("uvicorn.error").warning("trouble")
    lines = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["ours", "trouble"]
