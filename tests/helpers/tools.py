"""The tools that people bring, as `make tools` installs them, run against the testing server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60


def tool(name: str) -> str:
    """The path of an installed tool. Skips the test where there is none."""
    path = ROOT / ".tools/bin" / name
    if not path.exists():
        pytest.skip(f"no {name} here: `make tools` installs it, with Go")
    return str(path)


def run_tool(*command: str, input_text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end; standard output and errors as text. The lines go into the test's captured output."""
    done = subprocess.run(
        command, input=input_text, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, cwd=ROOT
    )
    arguments = " ".join(f"'{part}'" if set(part) & set('{" ') else part for part in command[1:])
    print(f"$ {Path(command[0]).name} {arguments}\n{done.stdout}{done.stderr}")  # noqa: T201 - a transcript
    return done


def json_values(text: str) -> list[Any]:
    """Several JSON values, one after the other."""
    decoder, values = json.JSONDecoder(), []
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:]
    return values
