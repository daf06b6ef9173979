"""Who called `exit`: a library that wants to end the process when it is imported must not end it without a word."""

from __future__ import annotations

import traceback

_BUILTIN_EXIT = "_sitebuiltins.py"


def exit_reason(error: SystemExit) -> str:
    """Where the exit was called and with what, in one line: "/x/setup.py, line 3, called exit: no licence"."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.endswith(_BUILTIN_EXIT)
    ]
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "a library"
    said = " ".join(str(error.code).split()) if isinstance(error.code, str) else f"code {error.code or 0}"
    return f"{where}, called exit: {said}"
