"""`mlx-grpc check`: the acceptance suite against a running server, with a tick or a cross for each test."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from mlx_grpc import check as suite
from mlx_grpc.check import Outcome, Report, Settings, State
from mlx_grpc.cli import flags
from mlx_grpc.cli.failure import UsageError
from mlx_grpc.cli.terminal import say
from mlx_grpc.client.channel import DEFAULT_TARGET
from mlx_grpc.observe.text import escaped, json_line

RULE = "=" * 33
MARKS = {State.PASSED: "✓", State.FAILED: "✗", State.SKIPPED: "-"}
PLAIN_MARKS = {State.PASSED: "ok", State.FAILED: "FAILED", State.SKIPPED: "-"}


def check(
    grpc: Annotated[
        str, typer.Option(envvar="MLX_GRPC_TARGET", help="The server's gRPC: HOST:PORT or unix:PATH.")
    ] = DEFAULT_TARGET,
    http: Annotated[str | None, typer.Option(help="URL of its OpenAI-compatible port; without it, skipped.")] = None,
    admin: Annotated[str | None, typer.Option(help="URL of its admin port; without it, skipped.")] = None,
    log: Annotated[Path | None, typer.Option(help="Its log file, to be read for errors.", dir_okay=False)] = None,
    model: flags.Model = None,
    load_model: Annotated[
        str | None, typer.Option(help="A model that may be unloaded, and loaded while others generate.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens that each call generates.")] = 32,
    long_prompt_tokens: Annotated[int, typer.Option(min=32, help="Tokens of each long prompt.")] = 1000,
    timeout_seconds: Annotated[float, typer.Option(min=1.0, help="A test that takes longer failed.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object, at the end.")] = False,
    token: flags.Token = None,
    tls: flags.Tls = False,
) -> int:
    """Checks a running server: health, many calls at once, long prompts, deadlines under overload, stability.

    It loads the server heavily for a while. Exit code 1 when a test failed.
    """
    settings = Settings(
        grpc=grpc, http=http, admin=admin, log=log, model=model, load_model=load_model, token=token, tls=tls,
        tokens=tokens, long_prompt_tokens=long_prompt_tokens, timeout_seconds=timeout_seconds,
    )  # fmt: skip
    try:
        report = asyncio.run(_run(settings, silent=as_json))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        say(json_line(report.as_json()))
    else:
        for one in summary(report, marks()):
            say(one)
    return 1 if report.count(State.FAILED) else 0


async def _run(settings: Settings, silent: bool) -> Report:
    def on_start(number: int, test: suite.Check) -> None:
        if not silent:
            say(f"\n[Test {number}/{len(suite.TESTS)}] {test.name}")

    def on_end(outcome: Outcome) -> None:
        if not silent:
            say(result_line(outcome, marks()))

    if not silent:
        say(f"{RULE}\nmlx-grpc check: {settings.grpc}\n{RULE}")
    return await suite.run(settings, on_start, on_end)


def marks() -> dict[State, str]:
    """Ticks and crosses, where the terminal can show them."""
    try:
        "".join(MARKS.values()).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return PLAIN_MARKS
    return MARKS


def result_line(outcome: Outcome, marks: dict[State, str]) -> str:
    """One line, a model's own words in it as well."""
    said = "skipped: " if outcome.state is State.SKIPPED else ""
    return escaped(f"{marks[outcome.state]} {said}{outcome.detail} ({outcome.seconds:.2f} s)")


def summary(report: Report, marks: dict[State, str]) -> list[str]:
    """The lines at the end: counts, speeds, the verdict."""
    skipped, failed = report.count(State.SKIPPED), report.count(State.FAILED)
    lines = [f"\n{RULE}\nTest Summary\n{RULE}", f"Total Tests:  {report.total}"]
    lines += [f"{state.value.capitalize() + ':':<13} {report.count(state)}" for state in State]
    lines += [f"Duration:     {report.seconds:.1f} s"]
    if report.speeds:
        lines += ["", "At once  Seconds  Tokens/s  Ratio to serial"]
    for speed in report.speeds:
        ratio = report.ratio(speed)
        shown = "" if ratio is None else f"{ratio:.2f}"
        lines.append(f"{speed.at_once:>7}  {speed.seconds:>7.2f}  {speed.tokens_per_second:>8.1f}  {shown:>15}")
    if failed:
        return [*lines, f"\n{marks[State.FAILED]} {failed} OF {report.total} TESTS FAILED"]
    return [*lines, f"\n{marks[State.PASSED]} ALL TESTS PASSED" + (f" ({skipped} skipped)" if skipped else "")]
