"""What a window for arrivals is worth: the real scheduler over Poisson arrivals, the engine as a table of costs.

    python -m tests.benchmarks.simulate_admission [--rates 16,24,32] [--windows 0,10,25,50,100]

The steps and prefills are as `gpu_costs` measured them on one H200 (SmolLM2-1.7B's shape, prompts of 128 tokens): a
step takes the same for 1 to 64 rows, since it is bound by launches, and one prompt alone about what four take. What a
change of the rows costs was taken as less than the server's own log showed later (21 ms).
"""

from __future__ import annotations

import argparse
import statistics

from mlx_grpc.bench.load import poisson_arrivals
from mlx_grpc.request import Priority
from mlx_grpc.schedule.entry import Entry, Limits
from mlx_grpc.schedule.scheduler import Scheduler

PROMPT_TOKENS = NEW_TOKENS = 128
REQUESTS = 600
STEP_SECONDS = 0.006
PREFILL_SECONDS = (0.0055, 0.0012)
"""For a group, and for each prompt in it."""
JOIN_SECONDS, LEAVE_SECONDS = 0.010, 0.002
"""What a step takes longer after rows have come, and after rows have gone."""


def simulate(arrivals_per_second: float, window_seconds: float, seed: int = 1) -> tuple[float, float, float, float]:
    """Tokens a second, rows busy in the mean, and the first token's seconds: median and 95th percentile."""
    limits = Limits(REQUESTS, None, 64, gather_seconds=window_seconds)
    scheduler = Scheduler(limits)
    arrivals = poisson_arrivals(arrivals_per_second, REQUESTS, seed)
    now, come, busy_seconds = 0.0, 0, 0.0
    left: dict[int, int] = {}
    firsts: list[float] = []
    while come < REQUESTS or left or scheduler.ledger.waiting:
        while come < REQUESTS and arrivals[come] <= now:
            scheduler.submit(Entry(come, Priority.NORMAL, PROMPT_TOKENS, 256, arrivals[come]), arrivals[come])
            come += 1
        plan = scheduler.plan(now)
        scheduler.apply(plan, now)
        if not (left or plan.admit):
            moments = [*arrivals[come : come + 1], *([plan.wake_at_seconds] if plan.wake_at_seconds else [])]
            now = max(now, min(moments))
            continue
        began = now
        now += STEP_SECONDS if left else 0.0
        left = {key: tokens - 1 for key, tokens in left.items()}
        ended = [key for key, tokens in left.items() if tokens == 0]
        for key in ended:
            scheduler.ledger.finished(key, now)
            del left[key]
        now += LEAVE_SECONDS if ended else 0.0
        if plan.admit:
            now += PREFILL_SECONDS[0] + PREFILL_SECONDS[1] * len(plan.admit) + JOIN_SECONDS
            for key in plan.admit:
                scheduler.ledger.first_token(key, now)
                left[key] = NEW_TOKENS
                firsts.append(now - arrivals[key])
        busy_seconds += scheduler.ledger.running * (now - began)
    span = now - arrivals[0]
    tokens = REQUESTS * NEW_TOKENS
    return tokens / span, busy_seconds / span, statistics.median(firsts), statistics.quantiles(firsts, n=20)[-1]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="16,24,32,40")
    parser.add_argument("--windows", default="0,10,25,50,100")
    arguments = parser.parse_args()
    print("| arrivals/s | window, ms | tokens/s | rows busy | first token, ms: median | p95 |")
    print("|---|---|---|---|---|---|")
    for rate in map(float, arguments.rates.split(",")):
        for window_ms in map(float, arguments.windows.split(",")):
            speed, rows, median, late = simulate(rate, window_ms / 1000)
            print(f"| {rate:g} | {window_ms:g} | {speed:,.0f} | {rows:.1f} | {median * 1e3:.0f} | {late * 1e3:.0f} |")


if __name__ == "__main__":
    main()
