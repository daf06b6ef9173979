"""`mlx-grpc bench`: puts load on a server and says how it did. Failures of requests are figures, not an error, unless
nothing else came back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_grpc.bench import picture, report
from mlx_grpc.bench.load import closed_loop, open_loop, poisson_arrivals
from mlx_grpc.bench.over_grpc import GrpcDriver
from mlx_grpc.bench.over_http import HttpDriver
from mlx_grpc.bench.prompts import Share, make_asks, parse_mix
from mlx_grpc.bench.record import Ask, Driver
from mlx_grpc.bench.report import Run
from mlx_grpc.bench.stats import summarise
from mlx_grpc.cli import flags
from mlx_grpc.cli.failure import Failure, UsageError
from mlx_grpc.cli.terminal import complain, print_table
from mlx_grpc.client.channel import DEFAULT_TARGET

DEFAULT_STREAMS = "1,8,32"
REQUESTS_PER_STREAM = 4
OPEN_REQUESTS = 64


def bench(
    http: Annotated[str | None, typer.Option(help="An OpenAI-compatible server's URL, instead of --target.")] = None,
    streams: Annotated[
        str | None, typer.Option(help=f"Closed loop: streams at once, each in turn. [default: {DEFAULT_STREAMS}]")
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Open loop: arrivals a second, each in turn: 0.5,2,8.")] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="For each load. [default: 4 a stream; 64 in an open loop]")
    ] = None,
    mix: Annotated[str, typer.Option(help="PROMPT:OUTPUT@WEIGHT in tokens: 64:32@3,2000:128@1.")] = "128:64",
    seed: Annotated[int, typer.Option(help="Draws prompts, lengths and arrivals: the same gives the same.")] = 0,
    seeded: Annotated[bool, typer.Option("--seeded", help="Give each request a sampling seed of its own.")] = False,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens that reach this probability.")] = 1.0,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before, which are not counted.")] = 1,
    new_connections: Annotated[bool, typer.Option("--new-connections", help="A gRPC connection a request.")] = False,
    model: flags.Model = None,
    timeout_seconds: flags.TimeoutSeconds = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    png_file: Annotated[Path | None, typer.Option("--png", help="Draw them here; needs matplotlib.")] = None,
    target: flags.Target = DEFAULT_TARGET,
    token: flags.Token = None,
    tls: flags.Tls = False,
) -> None:
    """Measures a gRPC server, or any OpenAI-compatible one, under closed and open loops."""
    loads = _loads(streams, rate)
    if http is not None and (tls or new_connections):
        flag = "--tls" if tls else "--new-connections"
        raise UsageError(f"{flag} is for --target: with --http, https says TLS, and each request has its connection")
    try:
        shares = parse_mix(mix)
        driver: Driver = (
            GrpcDriver(
                target, model=model, token=token, tls=tls,
                timeout_seconds=timeout_seconds, new_connections=new_connections,
            )
            if http is None
            else HttpDriver(http, model=model, token=token, timeout_seconds=timeout_seconds)
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error
    if png_file is not None and not picture.can_draw():
        raise Failure(picture.ADVICE)
    sampling = {"temperature": temperature, "top_p": top_p, "seeded": seeded}
    runs = asyncio.run(_measure(driver, loads, requests, shares, seed, warmup, sampling))
    print_table(report.HEADERS, [report.row(run) for run in runs])
    for line in report.failure_lines(runs):
        complain(line)
    settings = {"server": http or target, "model": model, "mix": mix, "seed": seed, **sampling}
    _write(runs, settings, json_file, png_file)
    if all(run.summary.failed == run.summary.requests for run in runs):
        raise Failure(f"no request succeeded at {http or target}")


def _loads(streams: str | None, rate: str | None) -> list[tuple[int, float]]:
    """(streams, 0) for each closed loop, then (0, arrivals a second) for each open one."""
    if streams is None and rate is None:
        streams = DEFAULT_STREAMS
    closed = [(int(one), 0.0) for one in _numbers("--streams", streams)]
    return closed + [(0, one) for one in _numbers("--rate", rate)]


def _numbers(flag: str, text: str | None) -> list[float]:
    whole = flag == "--streams"
    try:
        numbers = [float(int(part)) if whole else float(part) for part in text.split(",")] if text else []
        if all(0 < number < 1e6 for number in numbers):
            return numbers
    except ValueError:
        pass
    raise UsageError(f"{flag}: {text!r} is no list of {'whole ' * whole}numbers above 0, with commas between")


async def _measure(
    driver: Driver,
    loads: list[tuple[int, float]],
    requests: int | None,
    shares: tuple[Share, ...],
    seed: int,
    warmup: int,
    sampling: dict[str, Any],
) -> list[Run]:
    runs = []
    async with driver:
        await closed_loop(driver, make_asks(shares, warmup, -1 - seed, **sampling), 1)
        for number, (streams, per_second) in enumerate(loads):
            # Other prompts for each load: no prefix cache is to know them.
            count = requests or (streams * REQUESTS_PER_STREAM if streams else OPEN_REQUESTS)
            asks = make_asks(shares, count, seed + 1_000_003 * number, **sampling)
            runs.append(await _one(driver, asks, streams, per_second, seed))
    return runs


async def _one(driver: Driver, asks: list[Ask], streams: int, per_second: float, seed: int) -> Run:
    if streams:
        records = await closed_loop(driver, asks, streams)
    else:
        records = await open_loop(driver, asks, poisson_arrivals(per_second, len(asks), seed))
    return Run(streams, per_second, summarise(records))


def _write(runs: list[Run], settings: dict[str, Any], json_file: Path | None, png_file: Path | None) -> None:
    try:
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_json(runs, settings), indent=1) + "\n", "utf-8")
        if png_file is not None:
            picture.draw(runs, f"{settings['server']}, {settings['mix']} tokens", png_file)
    except OSError as error:
        raise Failure(f"{error.filename or 'the file'} cannot be written: {error.strerror or error}") from error
