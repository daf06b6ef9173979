"""The table of bounds in SECURITY.md, and what is wrong with it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from tools.bounds.row import PACKAGE, ROOT, Row, missing_tests
from tools.bounds.rows import SECTIONS

DOCUMENT = ROOT / "SECURITY.md"
BEGIN = "<!-- bounds: written by `make bounds` -->"
END = "<!-- bounds end -->"
PREFIXES = ("MAX_", "MOST_")
LOOKED_THROUGH = ("auth", "bounds", "http", "models", "observe", "rpc", "service", "server.py")
"""Where clients, files and neighbours are met: each public bound there is in the table, or among OTHERS."""
OTHERS = {
    "MAX_BACKOFF_SECONDS": "restarts of an engine",
    "MAX_CRASHES_WITHOUT_PROGRESS": "restarts of an engine",
    "MAX_IDLE_CRASHES": "restarts of an engine",
    "MAX_RESUMES": "restarts of an engine",
    "MAX_CONNECTIONS": "another name of MOST_CONNECTIONS",
    "MAX_REASON_CHARS": "how much of a template's error is repeated",
    "MOST_CHARACTERS": "how much of a model's error is repeated",
    "MAX_TIMEOUT_SECONDS": "the largest number that is read as a time",
    "MOST_TOKEN_IDS": "ends of a turn in a config",
}


def written() -> str:
    """The document with its table made anew."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{DOCUMENT.name} has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def table() -> str:
    """Each section with its rows."""
    return "\n\n".join(f"### {title}\n\n{_section(rows)}" for title, rows in SECTIONS.items())


def faults() -> list[str]:
    """Tests that do not exist, and bounds that no row has."""
    rows = [row for rows in SECTIONS.values() for row in rows]
    lines = [f"no such test: {test}" for row in rows for test in missing_tests(row)]
    listed = {value.split(":")[1].split("|")[0] for row in rows for value in row.values} | OTHERS.keys()
    return lines + [f"not in the table of bounds: {name} of {file}" for file, name in _public() if name not in listed]


def _section(rows: Iterable[Row]) -> str:
    lines = ["| bound | protects | in the code | tried by |", "|---|---|---|---|"]
    return "\n".join([*lines, *map(_line, rows)])


def _line(row: Row) -> str:
    return f"| {row.text()} | {row.protects} | {'; '.join(_by_file(row))} | {', '.join(_files(row)) or 'no test'} |"


def _by_file(row: Row) -> list[str]:
    names: dict[str, list[str]] = {}
    for name, file in row.places():
        kept = names.setdefault(file, [])
        if name not in kept:
            kept.append(name)
    return [f"[{file}]({PACKAGE}/{file}): {', '.join(f'`{n}`' for n in found)}" for file, found in names.items()]


def _files(row: Row) -> list[str]:
    files = dict.fromkeys(test.split("::")[0] for test in row.tests)
    return [f"[{Path(file).stem}](tests/{file})" for file in files]


def _public() -> Iterable[tuple[str, str]]:
    for name in LOOKED_THROUGH:
        path = ROOT / PACKAGE / name
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                for bound in _names(node):
                    yield str(file.relative_to(ROOT)), bound


def _names(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
    return [each.id for each in names if each.id.startswith(PREFIXES)]
