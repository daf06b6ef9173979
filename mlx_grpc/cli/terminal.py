"""Words to the terminal: colour and tables where there is one, plain lines elsewhere."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_KEPT = "\n\t\u200c\u200d"  # the joiners make emoji and several scripts
_UNSEEN = ("Cc", "Cf")  # control and formatting characters


def say(line: str) -> None:
    """One line to stdout, as it is."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    """One line to stderr."""
    sys.stderr.write(f"mlx-grpc: {line}\n")
    sys.stderr.flush()


def write_text(text: str) -> None:
    """A piece of a model's text to stdout, at once.

    On a terminal without control characters: a model's words are not to move the cursor or change the title.
    """
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def printable(text: str) -> str:
    """The text without control and formatting characters, line ends, tabs and joiners excepted."""
    return "".join(char for char in text if char in _KEPT or unicodedata.category(char) not in _UNSEEN)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere lines with tabs between, headers first, for cut and awk."""
    if sys.stdout.isatty():
        Console().print(make_table(headers, rows))
    else:
        for row in (headers, *rows):
            say("\t".join(row))


def make_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A rich table without borders."""
    table = Table(*headers, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    return table


def human_bytes(count: int) -> str:
    """Bytes in powers of 1000: "98.4 MB"."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
