"""Each block of docs/clients/<language>.md, as a program of its own. `make clients` runs these, once all is built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.helper_program import helper_program
from tests.helpers.tools import ROOT

PAGES = ROOT / "docs/clients"
CLIENTS = ROOT / "clients"
TARGET = "localhost:50051"
SCRIPT = '{"replies": {"Say hello.": "Hello!", "Say hello.\\nassistant\\n": "Hello!"}}'
BUILD_SECONDS = 600

pytestmark = [
    pytest.mark.skipif(
        "CLIENTS_ARE_BUILT" not in os.environ, reason="`make clients` builds the clients and runs these"
    ),
    pytest.mark.timeout(BUILD_SECONDS),
]


def go(block: str, name: str) -> list[str]:
    """A command in the module."""
    place(CLIENTS / "go/internal" / name / "main.go", block)
    return ["go", "run", f"./internal/{name}"]


def typescript(block: str, name: str) -> list[str]:
    """A module that imports the package by its name, compiled with its types checked."""
    source = place(CLIENTS / "typescript/build" / name / "main.mts", block)
    options = "--ignoreConfig --strict --module nodenext --target es2022 --types node"
    return ["sh", "-c", f"npx tsc {options} {source} && node {source.with_suffix('.mjs')}"]


def java(block: str, name: str) -> list[str]:
    """A source file, launched as it is."""
    public = re.search(r"class (\w+)", block)
    source = place(CLIENTS / "java/target" / name / f"{public[1] if public else 'Main'}.java", block)
    classes = (CLIENTS / "java/target/classpath.txt").read_text(encoding="utf-8").strip()
    return ["java", "-cp", f"target/classes:{classes}", str(source)]


def rust(block: str, name: str) -> list[str]:
    """An example of the crate."""
    place(CLIENTS / "rust/examples" / name / "main.rs", block)
    return ["cargo", "run", "--quiet", "--example", name]


RUN: dict[str, Callable[[str, str], list[str]]] = {"go": go, "typescript": typescript, "java": java, "rust": rust}
NEEDS = {"go": "go", "typescript": "npx", "java": "java", "rust": "cargo"}


def place(path: Path, text: str) -> Path:
    """Write a file into a folder that is made for it."""
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def blocks() -> list[object]:
    """Language and text of each block that a page has in its own language."""
    found: list[object] = []
    for page in sorted(PAGES.glob("*.md")):
        text, language = page.read_text(encoding="utf-8"), page.stem
        for number, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)):
            found.append(pytest.param(language, block, id=f"{language}-{number}"))
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for the block's folder, which is gone afterwards, wherever it was made."""
    name = f"docblock_{os.getpid()}"
    yield name
    for folder in CLIENTS.glob(f"*/*/{name}"):
        shutil.rmtree(folder)


@pytest.mark.parametrize(("language", "block"), blocks())
def test_block(language: str, block: str, name: str) -> None:
    """The block is a whole program, and ends well."""
    if shutil.which(NEEDS[language]) is None:
        pytest.skip(f"there is no {NEEDS[language]} here")
    with helper_program("--script", SCRIPT) as helper:
        command = RUN[language](block.replace(TARGET, helper.grpc), name)
        done = subprocess.run(
            command, cwd=CLIENTS / language, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
