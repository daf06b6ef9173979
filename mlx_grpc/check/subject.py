"""The server under test: where it is, and what the tests have learnt of it so far."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_grpc.check.outcome import Failed, Skipped, Speed
from mlx_grpc.check.web import Web
from mlx_grpc.client import AsyncClient
from mlx_grpc.errors import MlxGrpcError, UnsupportedField


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is tested, and how hard."""

    grpc: str
    """HOST:PORT or unix:PATH."""
    http: str | None = None
    """URL of the OpenAI-compatible port; None skips its tests."""
    admin: str | None = None
    """URL of the admin port; None skips the tests that need the status."""
    log: Path | None = None
    """The server's log, when it is a file on this machine."""
    model: str | None = None
    """The model that is asked; None is the server's default."""
    load_model: str | None = None
    """A model that may be loaded, and unloaded before it when it is in memory."""
    token: str | None = None
    tls: bool = False
    tokens: int = 32
    """What each call generates."""
    long_prompt_tokens: int = 1000
    timeout_seconds: float = 600.0
    """For each test."""


@dataclass(slots=True)
class Subject:
    """Lives as long as the run. The tests fill in what they learn."""

    settings: Settings
    client: AsyncClient
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """In every prompt and request id: nothing comes from an earlier run's cache, and the calls are known as ours."""
    log_bytes: int = 0
    """How long the log was when the run began."""
    first_status: dict[str, Any] | None = None
    speeds: dict[int, Speed] = field(default_factory=dict)

    def status(self) -> dict[str, Any]:
        """What the admin port says now; blocks. Raises Failed, or Skipped without such a port."""
        if self.settings.admin is None:
            raise Skipped("it needs the server's status: give --admin URL")
        answer = self._web(self.settings.admin).json("GET", "/admin/status")
        if not isinstance(answer, dict):
            raise Failed(f"the status is no JSON object: {str(answer)[:100]}")
        return answer

    @property
    def bridge(self) -> Web:
        """The OpenAI-compatible port. Raises Skipped where none is named."""
        if self.settings.http is None:
            raise Skipped("it needs the OpenAI-compatible port: give --http URL")
        return self._web(self.settings.http)

    async def context_length(self, prompt: str) -> tuple[int, int]:
        """Tokens of the prompt, and tokens that the model's context holds. Raises Skipped without a tokenizer."""
        try:
            counted = await self.client.count_tokens(prompt, model=self.settings.model)
        except UnsupportedField as error:
            raise Skipped("the server has no TokenizerService") from error
        return counted.count, counted.context_length

    def _web(self, url: str) -> Web:
        return Web(url, self.settings.token, self.settings.timeout_seconds)


def line(error: BaseException) -> str:
    """An error in one line, with its code and reason when it is one of a call."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, MlxGrpcError):
        return text if isinstance(error, Failed) else f"{type(error).__name__}: {text}"
    return f"{error.code} {error.reason}".strip() + f": {text}"
