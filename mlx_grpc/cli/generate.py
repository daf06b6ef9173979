"""`mlx-grpc generate`: one prompt, its answer streamed to stdout."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from mlx_grpc.cli import flags
from mlx_grpc.cli.as_json import event_json
from mlx_grpc.cli.terminal import say, write_text
from mlx_grpc.client import Stream
from mlx_grpc.client.channel import DEFAULT_TARGET
from mlx_grpc.request import Message


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; '-' or none: from stdin.")] = None,
    model: flags.Model = None,
    system: flags.System = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--raw", help="Through the chat template; as it is (default)."),
    ] = None,
    max_tokens: flags.MaxTokens = None,
    temperature: flags.Temperature = None,
    top_p: flags.TopP = None,
    top_k: flags.TopK = None,
    min_p: flags.MinP = None,
    repetition_penalty: flags.RepetitionPenalty = None,
    presence_penalty: flags.PresencePenalty = None,
    frequency_penalty: flags.FrequencyPenalty = None,
    seed: flags.Seed = None,
    stop: flags.StopStrings = None,
    priority: Annotated[str | None, typer.Option(help="high, normal or low.")] = None,
    logprobs: Annotated[bool | None, typer.Option("--logprobs", help="With --json: log-probabilities.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Events as JSON, one a line.")] = False,
    timeout_seconds: flags.TimeoutSeconds = None,
    target: flags.Target = DEFAULT_TARGET,
    token: flags.Token = None,
    tls: flags.Tls = False,
) -> None:
    """Generates text from a prompt and streams it."""
    text = _read_prompt(prompt)
    settings: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "seed": seed,
        "stop_strings": stop,
        "priority": priority,
        "logprobs": logprobs,
        "output_token_ids": json_lines or None,
    }
    settings |= _input(text, system, chat)
    with (
        flags.calling(target, token, tls, timeout_seconds=timeout_seconds) as client,
        client.stream(**settings) as stream,
    ):
        _print_events(stream) if json_lines else _print_text(stream)


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise typer.BadParameter("give it as an argument or on stdin", param_hint="PROMPT")
    return sys.stdin.read().removesuffix("\n")


def _input(text: str, system: str | None, chat: bool | None) -> dict[str, Any]:
    """The prompt as it is, or as a turn of a conversation."""
    if system is not None and chat is False:
        raise typer.BadParameter("goes with --chat, not with --raw", param_hint="--system")
    if system is None and not chat:
        return {"prompt": text}
    opening = [] if system is None else [Message("system", system)]
    return {"messages": [*opening, Message("user", text)]}


def _print_text(stream: Stream) -> None:
    """The text as it comes, a line end after it: an error then has its own line."""
    last = ""
    try:
        for last in stream.text():
            write_text(last)
    finally:
        if last and not last.endswith("\n"):
            write_text("\n")


def _print_events(stream: Stream) -> None:
    for event in stream:
        say(event_json(event))
