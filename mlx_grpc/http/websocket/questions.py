"""The questions of one socket that wait, and the bytes that they hold.

One that waits can lose its text, when the server has too much to hold: then it keeps its place, and is answered with
an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from mlx_grpc.bounds.intake import RETRY_SECONDS, Holding
from mlx_grpc.errors import IntakeFull
from mlx_grpc.http.openai.errors import ApiError
from mlx_grpc.http.openai.sizes import hold_parsed
from mlx_grpc.request import Chat, GenerationRequest

MAX_WAITING_QUESTIONS = 16
"""Of one socket, whatever their size; protects the places of others, together with the bytes that all may hold."""


class Question:
    """One that waits, or is being answered. Close it when it is answered."""

    def __init__(self, request: GenerationRequest, holding: Holding | None) -> None:
        self._request: GenerationRequest | None = request
        self._holding = holding
        if holding:
            holding.cut_off = self._drop

    def _drop(self) -> None:
        self._request = None

    def begin(self) -> GenerationRequest:
        """What to answer; from now on it keeps its bytes. Raises IntakeFull for one that has lost them."""
        if self._request is None:
            raise IntakeFull(
                "too much waits to be answered: the bytes of this question were wanted for others",
                retry_after_seconds=RETRY_SECONDS,
            )
        if self._holding:
            self._holding.arrived()
        return self._request

    @property
    def chat(self) -> Chat | None:
        """The conversation that asks it, for the names in an error."""
        source = self._request.input if self._request else None
        return source if isinstance(source, Chat) else None

    def close(self) -> None:
        """It is answered."""
        self._request = None
        if self._holding:
            self._holding.close()


class Questions:
    """Those of one socket that wait, in the order in which they came."""

    def __init__(self, open_holding: Callable[[], Holding] | None) -> None:
        self._open_holding = open_holding
        self._waiting: deque[Question] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, request: GenerationRequest) -> None:
        """One more. Raises ApiError and IntakeFull for one too many."""
        if len(self._waiting) >= MAX_WAITING_QUESTIONS:
            raise ApiError(429, f"{MAX_WAITING_QUESTIONS} questions wait already", code="too_many_questions")
        holding = self._open_holding() if self._open_holding else None
        hold_parsed(holding, request)
        self._waiting.append(Question(request, holding))

    def next(self) -> Question:
        """The one to answer now."""
        return self._waiting.popleft()

    def clear(self) -> None:
        """Nobody waits any more."""
        while self._waiting:
            self._waiting.popleft().close()
