"""The stages that need a model: what is sent through the sides, and what is read off. Figures of issue 6's reach."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_grpc.bench.load import closed_loop
from mlx_grpc.bench.prompts import Share, make_asks, words
from mlx_grpc.bench.record import Ask, Record
from mlx_grpc.bench.stats import summarise
from tests.benchmarks.compare.rounds import Clock, Line, alternate
from tests.benchmarks.compare.sides import INCUMBENT, OURS, RAW, Sides

SERVERS = (OURS, INCUMBENT)
ANSWER_TOKENS = 8
SECOND_QUESTION_WORDS = 16


@dataclass(frozen=True)
class Size:
    """How much of everything. Tokens are of each request."""

    rounds: int
    streams: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int
    sampled_tokens: int
    seeded_tokens: int
    connections: int
    turn_tokens: int
    giant_tokens: int
    giant_streams: int
    scripted_streams: tuple[int, ...]
    scripted_tokens: int


WHOLE = Size(5, (1, 8, 32), 128, 64, 64, 32, 64, 2000, 4000, 8, (16, 32, 64, 128, 256), 400)
QUICK = Size(2, (1, 8, 32), 32, 16, 16, 8, 64, 500, 1000, 8, (16, 256), 100)
TINY = Size(1, (1, 2), 16, 4, 4, 4, 8, 64, 200, 2, (4, 16), 20)  # to see that everything runs


@dataclass(frozen=True)
class Bench:
    """What a stage gets."""

    sides: Sides
    size: Size
    clock: Clock

    def asks(
        self,
        stage: str,
        count: int,
        number: int,
        max_tokens: int,
        *,
        prompt_tokens: int = 1 << 30,
        temperature: float = 0.0,
    ) -> list[Ask]:
        """The same prompts for every side of a round, and others in every round and stage: no prefix cache helps."""
        seed = random.Random(f"{stage} {count} {number}").getrandbits(48)
        mix = [Share(min(self.size.prompt_tokens, prompt_tokens), max_tokens)]
        return make_asks(mix, count, seed, temperature=temperature)

    def run(self, side: str, asks: Sequence[Ask], *, new_connections: bool = False) -> tuple[float, int]:
        """All at once through one side: tokens a second, and how many failed."""
        if side == RAW:
            answer = self.sides.raw(asks)
            return answer["tokens"] / answer["seconds"], 0
        summary = summarise(self.records(side, asks, new_connections=new_connections))
        return summary.tokens_per_second, summary.failed

    def records(self, side: str, asks: Sequence[Ask], *, new_connections: bool = False) -> list[Record]:
        """All at once through one of the servers."""

        async def send() -> list[Record]:
            async with self.sides.driver(side, new_connections=new_connections) as driver:
                return await closed_loop(driver, asks, len(asks))

        return asyncio.run(send())

    def warm(self, sides: Sequence[str], asks: Sequence[Ask]) -> None:
        """Starts the sides, and has them compile what these requests need."""
        for side in sides:
            self.run(side, [replace(ask, max_tokens=2) for ask in asks])


def streams(bench: Bench) -> list[Line]:
    """Greedy streams that start together."""
    lines = []
    for count in bench.size.streams:
        aim = f"≥ {0.95 if count == 1 else 0.9:g} of raw, ≥ mlx_lm.server"
        line = Line(f"{count} stream{'s' * (count > 1)}", "tokens/s", aim=aim)
        bench.warm((RAW, *SERVERS), bench.asks("warm", count, 0, 2))

        def measure(side: str, number: int, line: Line = line, count: int = count) -> None:
            line.add(side, *bench.run(side, bench.asks("streams", count, number, bench.size.new_tokens)))

        # Each count its share of the time that is left: the later ones take longer.
        left = max(0.0, bench.clock.until_seconds - time.monotonic())
        weight = count**0.5 / sum(one**0.5 for one in bench.size.streams if one >= count)
        alternate(bench.size.rounds, Clock(time.monotonic() + left * max(weight, 0.15)), (RAW, *SERVERS), measure)
        lines.append(line)
    return lines


def seeded(bench: Bench) -> list[Line]:
    """Eight requests with a seed each, at temperature 1."""
    line = Line("8 seeded requests", "tokens/s", aim="≥ 3 times mlx_lm.server")

    def asks(number: int) -> list[Ask]:
        made = bench.asks("seeded", 8, number, bench.size.seeded_tokens, temperature=1.0)
        return [replace(ask, seed=seed) for seed, ask in enumerate(made)]

    bench.warm(SERVERS, asks(-1))
    alternate(
        bench.size.rounds, bench.clock, SERVERS, lambda side, number: line.add(side, *bench.run(side, asks(number)))
    )
    return [line]


def connections(bench: Bench) -> list[Line]:
    """New connections at once, a short request on each."""
    count = bench.size.connections
    line = Line(f"{count} new connections at once", "tokens/s", aim="0 failures")
    line.note = "failed requests count no tokens"
    bench.warm(SERVERS, bench.asks("warm connections", 1, 0, 2))

    def measure(side: str, number: int) -> None:
        asks = bench.asks("connections", count, number, 4, prompt_tokens=16)
        line.add(side, *bench.run(side, asks, new_connections=True))

    alternate(bench.size.rounds, bench.clock, SERVERS, measure)
    return [line]


def samplers(bench: Bench) -> list[Line]:
    """Sixteen rows with a top-p of their own each, at temperature 1; short prompts, since it is not prefill that is
    measured."""
    line = Line("16 different top-p samplers", "tokens/s", aim="≥ 1.3 times raw")

    def asks(number: int) -> list[Ask]:
        made = bench.asks("samplers", 16, number, bench.size.sampled_tokens, prompt_tokens=16, temperature=1.0)
        return [replace(ask, top_p=0.8 + 0.19 * place / 16) for place, ask in enumerate(made)]

    bench.warm((RAW, OURS), asks(-1))
    alternate(
        bench.size.rounds, bench.clock, (RAW, OURS), lambda side, number: line.add(side, *bench.run(side, asks(number)))
    )
    return [line]


def turns(bench: Bench) -> list[Line]:
    """A chat's first turn, which nobody has seen, and its second, which begins with the first."""
    size = bench.size.turn_tokens
    cold = Line(f"first turn of {size} tokens, cold", "s to the first token")
    warm = Line("second turn", "s to the first token")
    # Short of that a chat's own new tokens are too large a part of it for the aim to say anything.
    share = Line("second turn / cold", "ratio", aim="≤ 0.15" if size >= WHOLE.turn_tokens else "")
    cached: dict[str, str] = {}
    bench.warm(SERVERS, bench.asks("warm turns", 1, 0, 2))

    def measure(side: str, number: int) -> None:
        dice = random.Random(f"turns {number}")
        talk: tuple[dict[str, str], ...] = ({"role": "user", "content": words(size, dice)},)
        (first,) = bench.records(side, [Ask(messages=talk, max_tokens=ANSWER_TOKENS)])
        question = {"role": "user", "content": words(SECOND_QUESTION_WORDS, dice)}
        talk = (*talk, {"role": "assistant", "content": first.text}, question)
        (second,) = bench.records(side, [Ask(messages=talk, max_tokens=ANSWER_TOKENS)])
        times = [one.first_seconds or float("nan") for one in (first, second)]
        cold.add(side, times[0], bool(first.failure))
        warm.add(side, times[1], bool(second.failure))
        share.add(side, times[1] / times[0])
        cached[side] = f"{side}: {second.cached_tokens} of {second.prompt_tokens} tokens cached"

    alternate(bench.size.rounds, bench.clock, SERVERS, measure)
    warm.note = "; ".join(cached.values())
    return [cold, warm, share]
