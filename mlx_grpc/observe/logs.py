"""Log lines on stderr, for people or as JSON. Prompts and outputs are never among them.

What others wrote is escaped, a record is one line and is bounded, and floods are cut (`log_limit`).
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from mlx_grpc.observe.log_handler import BoundedHandler
from mlx_grpc.observe.text import escaped, shortened, without_middle

LEVELS = ("debug", "info", "warning", "error")
MESSAGE_BYTES = 4 * 1024
TRACE_BYTES = 12 * 1024
CONTINUED = "    | "
"""Before the further lines of a record, which are those of a traceback: no text in it can look like a record."""
_ESCAPE_BYTES = 6  # \\u1234
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class LineFormatter(logging.Formatter):
    """One line a record; a traceback's lines follow, each marked as such."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines, without the last one's end."""
        message = shortened(escaped(record.getMessage()), MESSAGE_BYTES)
        head = f"{self.formatTime(record)} {record.levelname:<7} {message}"
        trace = "\n".join(CONTINUED + escaped(line) for line in _trace(self, record).split("\n") if line)
        return f"{head}\n{without_middle(trace, TRACE_BYTES, CONTINUED)}" if trace else head


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, `extra` by name, and the traceback.

    In ASCII alone, so that a terminal that shows it shows what it says.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _fitting(record.getMessage(), MESSAGE_BYTES),
        }
        extra = {name: value for name, value in record.__dict__.items() if name not in _PLAIN and name not in line}
        line |= {name: _extra(value) for name, value in extra.items()}
        if trace := _trace(self, record):
            most_bytes = TRACE_BYTES if len(json.dumps(trace)) <= TRACE_BYTES else TRACE_BYTES // _ESCAPE_BYTES
            line["traceback"] = without_middle(trace, most_bytes)
        return json.dumps(line)


def set_up_logging(level: str, as_json: bool = False) -> None:
    """Send the log of this process to stderr, one line a record (a traceback may follow, unless it is JSON).

    Of the libraries below, only what is wrong. At the level debug nothing is left out, however much it is.
    """
    handler = BoundedHandler(sys.stderr, bounded=level != "debug")
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter())
    for name, its_level in (("mlx_grpc", level.upper()), ("uvicorn", "WARNING"), ("", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(its_level)
        logger.propagate = False


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The record's traceback and stack; "" for most records."""
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    parts += [record.stack_info] if record.stack_info else []
    return "\n".join(parts)


def _extra(value: object) -> object:
    return value if value is None or isinstance(value, (bool, int, float)) else _fitting(str(value), MESSAGE_BYTES)


def _fitting(text: str, most_bytes: int) -> str:
    """The text, shortened where its JSON would be longer than that."""
    if len(text) * _ESCAPE_BYTES <= most_bytes or len(json.dumps(text[:most_bytes])) == len(text) + 2:
        return shortened(text, most_bytes)
    return shortened(text, most_bytes // _ESCAPE_BYTES)
