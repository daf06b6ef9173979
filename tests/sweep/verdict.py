"""What a scenario's end is called: ok, DIFF, CRASH or LOADERROR, each with its reason."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mlx_grpc.engine.protocol import LoadError
from tests.sweep.scenarios import Open, Play

OK, DIFF, CRASH, LOADERROR = "ok", "DIFF", "CRASH", "LOADERROR"
REFUSED = re.compile(r"^\S+ cannot be (loaded|served): ")
MOST_PROBLEMS = 4
MOST_CHARACTERS = 200

T = TypeVar("T")


def in_own_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises. A thread that has closed an engine cannot use MLX any more."""
    with ThreadPoolExecutor(1, thread_name_prefix="sweep") as pool:
        return pool.submit(work).result()


def verdict(play: Play, open_engine: Open) -> str:
    """Play it in a thread of its own. Any exception is the engine's."""
    try:
        problems = in_own_thread(lambda: play(open_engine))
    except LoadError as error:
        return f"{LOADERROR} {_line(REFUSED.sub('', str(error)))}"
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{CRASH} {type(error).__name__}: {_line(str(error))} [{Path(place.filename).name}:{place.lineno}]"
    return f"{DIFF} {'; '.join(problems[:MOST_PROBLEMS])}" if problems else OK


def _line(text: str) -> str:
    return " ".join(text.split())[:MOST_CHARACTERS]
