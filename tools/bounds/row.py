"""One bound: a constant or a setting of the server, what it protects, and the tests that have tried it."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlx_grpc.config import Config

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "mlx_grpc"
_BINARY_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    `says` has one `{}` for each of `values`. A value is `config:FIELD`, or `MODULE:NAME` below mlx_grpc; `|` goes on to
    a key or an attribute of what NAME is. `tests` are `FILE::FUNCTION` below tests; none means that no test has tried
    the bound.
    """

    says: str
    values: tuple[str, ...]
    protects: str
    tests: tuple[str, ...] = ()

    def text(self) -> str:
        """`says` with the values of today."""
        return self.says.format(*(shown(value) for value in self.values))

    def places(self) -> list[tuple[str, str]]:
        """The names of its values, each with its file below mlx_grpc."""
        return [(_name(value), _file(value)) for value in self.values]


def shown(value: str) -> str:
    """A value in its unit, which the end of its name says."""
    module, name = value.split(":")
    if module == "config":
        flag = f"`--{name.replace('_', '-')}`"
        default = Config.model_fields[name].default
        return flag if default is None else f"{flag} ({_in_unit(name, default)})"
    return _in_unit(name, _looked_up(module, name))


def missing_tests(row: Row) -> list[str]:
    """Tests that a row names and that do not exist."""
    return [test for test in row.tests if test.split("::")[1] not in _functions(test.split("::")[0])]


def _looked_up(module: str, name: str) -> Any:
    found: Any = importlib.import_module(f"{PACKAGE}.{module}")
    for step in name.split("|"):
        found = found[step] if isinstance(found, Mapping) else getattr(found, step)
    return found


def _in_unit(name: str, value: Any) -> str:
    words = name.lower().replace("|", "_").split("_")
    if "bytes" in words:
        unit, size = next((one for one in _BINARY_UNITS if value >= one[1]), ("bytes", 1))
        exact = value % size == 0
        return f"{value // size:,} {unit}" if exact else f"{value:,} bytes"
    if "seconds" in words:
        return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _name(value: str) -> str:
    return value.split(":")[1].split("|")[0]


def _file(value: str) -> str:
    return f"{value.split(':')[0].replace('.', '/')}.py"


@cache
def _functions(file: str) -> set[str]:
    path = ROOT / "tests" / file
    if not path.exists():
        return set()
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
