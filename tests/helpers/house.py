"""Reads the package's own source: its modules, what each imports, and which chain of imports leads where."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mlx_grpc"


@dataclass(frozen=True)
class Module:
    """A module of the package: its dotted name and every name that it imports, dotted."""

    name: str
    path: Path
    imports: frozenset[str]

    @property
    def room(self) -> str:
        """The folder or single file under `mlx_grpc` that it is in."""
        return room_of(self.name)


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def imported_names(path: Path, package: str) -> Iterator[str]:
    """Each import of a file as a dotted name: `from a import b` gives `a.b`, also where it is relative."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def read_modules() -> dict[str, Module]:
    """All handwritten modules of the package, by name."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        package = name if is_package else name.rpartition(".")[0]
        if not path.stem.endswith(("_pb2", "_pb2_grpc")):
            modules[name] = Module(name, path, frozenset(imported_names(path, package)))
    return modules


MODULES = read_modules()


def house_imports(module: Module) -> set[str]:
    """The dotted names of the house that a module imports."""
    return {name for name in module.imports if name.startswith("mlx_grpc.")}


def chain_to(target: str, start: Set[str], doors: Set[str]) -> list[str]:
    """A shortest chain of imports, lazy ones too, from `start` to `target`, not through a door; or empty."""
    chains = {name: [name] for name in sorted(start - doors)}
    waiting = list(chains)
    for name in waiting:
        imported = house_imports(MODULES[name])
        for found in sorted(imported | {name.rpartition(".")[0] for name in imported}):
            if found in MODULES and found not in chains and found not in doors:
                chains[found] = [*chains[name], found]
                waiting.append(found)
    return chains.get(target, [])
