"""Refuses calls of which too many wait, a few at a time.

To end a call takes the event loop about as long as to take one in. Hundreds that are refused together would hold up the
calls that come meanwhile, those of other connections too. Lives in the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

AT_ONCE, EVERY_SECONDS = 8, 0.01
"""So many are refused in each interval."""
MAX_PUT_OFF = 256
"""Where more wait to be refused, the oldest is refused now: each takes some 60 KiB."""


class Refusals:
    """One for all waiting calls of a server."""

    def __init__(self) -> None:
        self._left = AT_ONCE
        self._put_off: deque[Callable[[], None]] = deque()
        self._is_paced = False

    def refuse(self, end: Callable[[], None]) -> None:
        """Call `end` now, or a little later. It must not raise."""
        self._put_off.append(end)
        if self._left or len(self._put_off) > MAX_PUT_OFF:
            self._end_one()
        if not self._is_paced:
            self._is_paced = True
            asyncio.get_running_loop().call_later(EVERY_SECONDS, self._go_on)

    def _end_one(self) -> None:
        self._left = max(0, self._left - 1)
        self._put_off.popleft()()

    def _go_on(self) -> None:
        self._left, self._is_paced = AT_ONCE, False
        while self._put_off and self._left:
            self._end_one()
        if self._left < AT_ONCE:
            self._is_paced = True
            asyncio.get_running_loop().call_later(EVERY_SECONDS, self._go_on)
