"""Each block of docs/clients.md and of docs/clients/ does what it says, against a server."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mlx_grpc import testing
from tests.helpers.tools import PATIENCE_SECONDS, ROOT, run_tool, tool

TARGET = "localhost:50051"
TOOLS = ("grpcurl", "grpc-health-probe", "ghz")
PAGE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
LANGUAGES = ("go", "typescript", "java", "rust")
SCRIPT = testing.Script(replies={"Say hello.": "Hello!", "Say hello.\nassistant\n": "Hello!"})


def blocks(language: str) -> list[str]:
    """The page's blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of the shell blocks that call a tool, continued lines joined."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.split()[0] in TOOLS]


@pytest.fixture
def target() -> Iterator[str]:
    with testing.run(SCRIPT) as server:
        yield server.target


def test_there_are_blocks() -> None:
    """Were the page written otherwise, nothing would be run."""
    assert len(commands()) > 10
    assert len(blocks("python")) == 2


@pytest.mark.parametrize("block", blocks("python"))
def test_python(block: str, target: str) -> None:
    """The block runs as a program of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.replace(TARGET, target)],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout + done.stderr


@pytest.mark.parametrize("command", commands())
def test_command(command: str, target: str) -> None:
    """The command succeeds, as a shell reads it."""
    name, arguments = command.split(maxsplit=1)
    line = f"{tool(name)} {arguments}".replace(TARGET, target)
    done = run_tool("sh", "-c", line)
    assert done.returncode == 0
    assert done.stdout + done.stderr


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_pages(language: str) -> None:
    """Each client has a page of programs that `make clients` finds and runs, and links that lead to files."""
    text = (ROOT / f"docs/clients/{language}.md").read_text(encoding="utf-8")
    assert text.count(f"\n```{language}\n") >= 4
    assert all((ROOT / "docs/clients" / path).exists() for path in re.findall(r"\]\(([^)#]+)\)", text))


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links(path: str) -> None:
    """Each link leads to a file."""
    assert (ROOT / "docs" / path).exists()
