"""The tokenizer library's panics, as errors.

A panic is an exception that `except Exception` does not catch: it would end a thread of the server, or its event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_grpc.errors import ModelFailed
from mlx_grpc.models.words import one_line


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust has panicked. The class has a name, and cannot be imported."""
    return type(error).__name__ == "PanicException"


class WithoutPanics:
    """A tokenizer of the library, whose methods raise ModelFailed where they would panic."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if not callable(found):
            return found
        guarded = _guarded(found)
        self.__dict__[name] = guarded
        return guarded


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except BaseException as error:
            if is_panic(error):
                raise ModelFailed(f"the model's tokenizer failed: {one_line(str(error), 200)}") from None
            raise

    return call
