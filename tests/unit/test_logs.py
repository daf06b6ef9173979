"""Log lines, for people and as JSON: one line a record, whatever is in it, and not too many of them."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.observe import log_handler, logs
from mlx_grpc.observe.log_handler import BoundedHandler
from mlx_grpc.observe.log_limit import ALL_BURST_BYTES, ALL_MINUTE_BYTES, KIND_BURST_BYTES, Kind, LogLimit
from mlx_grpc.observe.logs import CONTINUED, JsonFormatter, LineFormatter, set_up_logging

FORGED = "x\n2026-11-27 12:00:00,000 ERROR   forged\x1b[2J\x9b\u202e\u2028\r\x7f\ud800"
EVERYTHING = st.text(st.characters(exclude_categories=[]))


@pytest.fixture
def loggers_as_before() -> Iterator[None]:
    """Other tests find the loggers as they were."""
    names = ("mlx_grpc", "uvicorn", "")
    before = [(logging.getLogger(name), dict(logging.getLogger(name).__dict__)) for name in names]
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


def failed(text: str) -> logging.LogRecord:
    """A record with the traceback of an error that says this."""
    one = record("failed")
    try:
        raise ValueError(text)
    except ValueError:
        one.exc_info = sys.exc_info()
    return one


@given(EVERYTHING)
def test_a_record_is_one_printable_line(text: str) -> None:
    """Whatever is in its message."""
    assert LineFormatter().format(record("in %s", text)).isprintable()
    assert JsonFormatter().format(record("in %s", text, extra_text=text)).isprintable()


def test_a_message_cannot_look_like_a_record() -> None:
    """People see what was sent, written out."""
    line = LineFormatter().format(record("%s ended", FORGED))
    assert line.endswith(r"x\n2026-11-27 12:00:00,000 ERROR   forged\x1b[2J\x9b\u202e\u2028\r\x7f\ud800 ended")


@given(EVERYTHING)
def test_a_tracebacks_lines_cannot_look_like_records(text: str) -> None:
    """Each line after the first is marked, those within the error's own text as well."""
    first, *rest = LineFormatter().format(failed(text)).split("\n")
    assert first.endswith("WARNING failed")
    assert rest[0] == f"{CONTINUED}Traceback (most recent call last):"
    assert all(line.startswith(CONTINUED) and line.isprintable() for line in rest)


@pytest.mark.parametrize("char", ["a", "é", "漢", "\x00", "\U000e0041", "\n"], ids=ascii)
def test_a_record_is_bounded(char: str) -> None:
    """In bytes, and the end of a traceback is kept."""
    one = failed(char * 200_000 + "the end")
    one.msg, one.extra_text = char * 200_000, char * 200_000
    lines, as_json = LineFormatter().format(one), JsonFormatter().format(one)
    most_bytes = logs.MESSAGE_BYTES + logs.TRACE_BYTES
    assert len(lines.encode()) <= most_bytes + 1000
    assert len(as_json) <= most_bytes + logs.MESSAGE_BYTES + 1000
    assert lines.endswith("the end")
    assert json.loads(as_json)["traceback"].endswith("the end")


def kind(number: int) -> Kind:
    return Kind("mlx_grpc", logging.INFO, "file.py", number)


def test_a_flood_of_one_kind_leaves_room_for_others() -> None:
    """Another kind of line is logged, and so is an error when much is left out."""
    limit = LogLimit(0.0)
    assert sum(limit.admits(kind(1), 100, False, 0.0) for _ in range(10_000)) == KIND_BURST_BYTES // 100
    assert not limit.admits(kind(1), 100, False, 0.0)
    assert limit.admits(kind(2), 100, True, 0.0)
    for number in range(3, 1000):
        limit.admits(kind(number), 100, False, 0.0)
    assert not limit.admits(kind(1000), 100, False, 0.0)
    assert limit.admits(kind(1001), 100, True, 0.0)


def test_all_that_is_left_out_is_counted() -> None:
    """Once."""
    limit = LogLimit(0.0)
    admitted = sum(limit.admits(kind(number % 3), 100, False, 0.0) for number in range(3000))
    assert sum(one.count for one in limit.take_left_out()) == 3000 - admitted
    assert limit.take_left_out() == []


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 16_000), st.floats(0, 2)), max_size=300))
def test_no_minute_has_more_than_the_bound(lines: list[tuple[int, int, float]]) -> None:
    """Whatever kinds come in whatever order: 100,000 bytes, with a little for the counts."""
    limit, now, logged = LogLimit(0.0), 0.0, []
    for number, size, later_seconds in lines:
        now += later_seconds
        if limit.admits(kind(number), size, True, now):
            logged.append((now, size))
    for start, _ in logged:
        assert sum(size for at, size in logged if start <= at <= start + 60) <= ALL_BURST_BYTES + ALL_MINUTE_BYTES


def test_an_honest_log_loses_nothing() -> None:
    """Four lines of 140 bytes a second for an hour, and 140 at once."""
    limit = LogLimit(0.0)
    assert all(limit.admits(kind(1), 140, False, 3600.0) for _ in range(140))
    assert all(limit.admits(kind(1), 140, False, 3700.0 + tick / 4) for tick in range(14_400))


def test_the_kinds_that_are_known_are_bounded() -> None:
    """Lines of ever new kinds, as a library's could be."""
    limit = LogLimit(0.0)
    for number in range(10_000):
        limit.admits(kind(number), 1000, False, 0.0)
    assert len(limit._kinds) <= 256
    assert len(limit.take_left_out()) <= 256


def test_what_is_left_out_is_told_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the beginning of what it was, on one line."""
    monkeypatch.setattr(log_handler, "COUNT_SECONDS", 0.01)
    stream = io.StringIO()
    handler = BoundedHandler(stream)
    handler.setFormatter(LineFormatter())
    for _ in range(1000):
        handler.handle(record("refused\n %s", "x" * 1000))
    end = time.monotonic() + 30
    while "left out" not in stream.getvalue() and time.monotonic() < end:
        time.sleep(0.005)
    handler.close()
    lines = stream.getvalue().splitlines()
    counts = [int(line.split()[3]) for line in lines if "more lines like this were left out" in line]
    assert sum(counts) == 1000 - (len(lines) - len(counts))
    assert lines[-1].endswith(r"within a minute: refused\n %s")


def test_closing_counts_what_is_left() -> None:
    """At the end of the process nobody waits for a minute."""
    stream = io.StringIO()
    handler = BoundedHandler(stream)
    handler.setFormatter(LineFormatter())
    for _ in range(1000):
        handler.handle(record("x" * 1000))
    handler.close()
    assert "more lines like this" in stream.getvalue().splitlines()[-1]


@pytest.mark.usefixtures("loggers_as_before")
@pytest.mark.parametrize(("level", "whole"), [("info", False), ("debug", True)])
def test_at_debug_nothing_is_left_out(level: str, whole: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Who looks for something wants all of it."""
    set_up_logging(level)
    for number in range(1000):
        logging.getLogger("mlx_grpc.service").info("line %d of many, which are long enough", number)
    assert (len(capsys.readouterr().err.splitlines()) == 1000) is whole
    logging.getLogger("mlx_grpc").handlers[0].close()


@pytest.mark.usefixtures("loggers_as_before")
def test_other_libraries_lines_are_escaped_too(capsys: pytest.CaptureFixture[str]) -> None:
    """asyncio's, say, which quotes exceptions; of them only what is wrong."""
    set_up_logging("info")
    logging.getLogger("asyncio").error("a task failed: %s", FORGED)
    logging.getLogger("asyncio").info("chatter")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
