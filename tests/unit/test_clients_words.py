"""The Go, TypeScript, Java and Rust clients know the same reasons as the server, by the same names."""

from __future__ import annotations

import re

import pytest

from mlx_grpc.errors import BY_REASON
from tests.helpers.tools import ROOT

REASON = "([A-Z_]+)"
PAIRS = {
    "go/kinds.go": rf'^\t"{REASON}": +(\w+),$',
    "typescript/src/status.ts": rf"^  {REASON}: errors\.(\w+),$",
    "java/src/main/java/io/github/mlxgrpc/Statuses.java": rf'Map\.entry\("{REASON}", MlxGrpcError\.(\w+)::new\)',
    "rust/src/kinds.rs": rf'^ +"{REASON}" => Self::(\w+),$',
    "README.md": rf"^\| {REASON} \| (\w+)",
}
"""A reason and its type, as each file pairs them."""


@pytest.mark.parametrize("path", PAIRS)
def test_reasons_and_types_are_the_servers(path: str) -> None:
    """None of the server's is missing, or has a type of another name."""
    found = re.findall(PAIRS[path], (ROOT / "clients" / path).read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {(reason, kind.__name__) for reason, kind in BY_REASON.items()}
    assert not wanted.difference(found)
