"""The examples of docs/testing.md are tests: they pass as they stand there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def examples() -> dict[str, Any]:
    """Every function of every block that is a test."""
    found: dict[str, Any] = {}
    for block in BLOCKS:
        names: dict[str, Any] = {}
        exec(compile(block, "docs/testing.md", "exec"), names)
        found |= {name: value for name, value in names.items() if name.startswith("test_")}
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_passes(name: str, tmp_path: Path) -> None:
    """Run as pytest would, with a folder where it asks for one."""
    example = EXAMPLES[name]
    wanted = inspect.signature(example).parameters
    example(**({"tmp_path": tmp_path} if wanted else {}))


def test_there_are_examples() -> None:
    """Were the page written otherwise, nothing would be run."""
    assert len(EXAMPLES) == 5


def test_files_that_the_page_names_exist() -> None:
    """Paths between backquotes that begin in the repository."""
    named = set(re.findall(r"`((?:tests|mlx_grpc)/[\w/.]+)`", PAGE))
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
    files = set(re.findall(r"`((?:bench|test)_\w+\.py)`", PAGE))
    assert not [name for name in files if not list((ROOT / "tests").rglob(name))]
