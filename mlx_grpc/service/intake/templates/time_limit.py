"""A time limit for work that runs a template in this thread.

A template is a program, and a thread cannot be ended from outside. The interpreter's trace hook is called for each
function and, within a template, for each line: there the time is looked at. This makes the work several times slower,
which is nothing for the few renderings of a probe.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")
_JINJA_FILE = "<template>"
"""What jinja gives as the file of a compiled template."""


def run_within(seconds: float, work: Callable[[], Result]) -> Result:
    """What the work returns. Raises TimeoutError within it once it has taken so much of this thread's processor time:
    a busy machine takes nothing from it."""
    deadline_seconds = time.thread_time() + seconds

    def look_at_time(frame: FrameType, event: str, argument: Any) -> Any:
        if time.thread_time() > deadline_seconds:
            raise TimeoutError(f"it takes more than {seconds:g} s")
        return look_at_time if frame.f_code.co_filename == _JINJA_FILE else None

    before = sys.gettrace()
    sys.settrace(look_at_time)
    try:
        return work()
    finally:
        sys.settrace(before)
