"""`mlx-grpc chat`: a conversation of many turns. Ctrl-C stops the answer and not the program."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from mlx_grpc.cli import flags
from mlx_grpc.cli.failure import explain
from mlx_grpc.cli.terminal import complain, say, write_text
from mlx_grpc.client import Client
from mlx_grpc.client.channel import DEFAULT_TARGET
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import Message

PROMPT = "> "
HELP = "/clear forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer"


def chat(
    model: flags.Model = None,
    system: flags.System = None,
    max_tokens: flags.MaxTokens = None,
    temperature: flags.Temperature = None,
    top_p: flags.TopP = None,
    top_k: flags.TopK = None,
    min_p: flags.MinP = None,
    repetition_penalty: flags.RepetitionPenalty = None,
    seed: flags.Seed = None,
    stop: flags.StopStrings = None,
    target: flags.Target = DEFAULT_TARGET,
    token: flags.Token = None,
    tls: flags.Tls = False,
) -> None:
    """Talks with a model. /clear forgets the conversation; /exit or Ctrl-D ends; Ctrl-C stops an answer."""
    settings = {
        "model": model,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop_strings": stop,
    }
    with flags.calling(target, token, tls) as client:
        client.server_info(timeout_seconds=10)  # nobody there: say so before the first question is typed
        Conversation(client, settings, system).run()


class Conversation:
    """The turns so far, and the loop that adds to them."""

    def __init__(self, client: Client, settings: dict[str, Any], system: str | None) -> None:
        self._client = client
        self._settings = settings
        self._opening = [] if system is None else [Message("system", system)]
        self._turns: list[Message] = []
        self._interactive = sys.stdin.isatty()

    def run(self) -> None:
        """Reads and answers until /exit or the end of the input."""
        if self._interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - gives input() line editing and a history
            say(HELP)
        going_on = True
        while going_on:
            try:
                going_on = self._turn(self._read())
            except KeyboardInterrupt:
                write_text("\n")

    def _read(self) -> str | None:
        """The next line; None at the end of the input."""
        if not self._interactive:
            return sys.stdin.readline() or None
        try:
            return input(PROMPT)
        except EOFError:
            write_text("\n")
            return None

    def _turn(self, line: str | None) -> bool:
        """Does what a line says; False ends the program."""
        match line if line is None else line.strip():
            case None | "/exit" | "/quit":
                return False
            case "":
                pass
            case "/clear":
                self._turns.clear()
            case "/help":
                say(HELP)
            case str(text):
                self._answer(text)
        return True

    def _answer(self, text: str) -> None:
        """Streams the answer and keeps what was said of it, to its end or not.

        A question without any answer is forgotten, as if it had not been asked: templates want turns to
        alternate.
        """
        asked = [*self._opening, *self._turns, Message("user", text)]
        with self._client.stream(messages=asked, **self._settings) as stream:
            try:
                for piece in stream.text():
                    write_text(piece)
            except MlxGrpcError as error:
                complain(explain(error, self._client.target))
            finally:
                said = stream.text_so_far
                if said:
                    self._turns += [Message("user", text), Message("assistant", said)]
        if not said.endswith("\n"):
            write_text("\n")
