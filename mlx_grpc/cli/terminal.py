"""Words to the terminal: colour and tables where there is one, plain lines elsewhere.

Everything that a command prints goes through here, and nothing that others wrote reaches a terminal unescaped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_grpc.observe.text import escaped
from mlx_grpc.observe.text import printable as printable


def say(line: str) -> None:
    """A line, or some, to stdout: on a terminal without control characters."""
    write_text(f"{line}\n")


def complain(line: str) -> None:
    """One line to stderr, whatever is in it."""
    _write(sys.stderr, f"mlx-grpc: {escaped(line)}\n")


def write_text(text: str) -> None:
    """A piece of a model's text to stdout, at once.

    On a terminal without control characters: a model's words are not to move the cursor or change the title. A file or
    a program gets what the model said.
    """
    _write(sys.stdout, printable(text) if sys.stdout.isatty() else text)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere lines for cut and awk, headers first, with tabs between cells."""
    if sys.stdout.isatty():
        Console().print(make_table(headers, rows))
    else:
        for row in (headers, *rows):
            say("\t".join(map(escaped, row)))


def make_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A rich table without borders."""
    table = Table(*headers, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(escaped(cell)) for cell in row))  # in a string, rich would read brackets as commands
    return table


def _write(stream: TextIO, text: str) -> None:
    """What the stream's encoding does not have is written out."""
    try:
        stream.write(text)
    except UnicodeEncodeError as error:
        stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
    stream.flush()


def human_bytes(count: int) -> str:
    """Bytes in powers of 1000: "98.4 MB"."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
