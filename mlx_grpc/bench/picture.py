"""A bench's runs as a PNG. matplotlib is imported here alone, when it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_grpc.bench.report import Run
from mlx_grpc.bench.stats import Percentiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ADVICE = "a PNG needs matplotlib, which is not installed: pip install 'mlx-grpc[bench]'"
DOTS_PER_INCH = 100


def can_draw() -> bool:
    """Whether matplotlib is there; asked before the run rather than after it."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(runs: Sequence[Run], title: str, file: Path) -> None:
    """Tokens/s, time to the first output and time between outputs, by load, beside each other. Raises OSError."""
    from matplotlib.figure import Figure  # not pyplot, which would choose a window system

    figure = Figure(figsize=(12, 4), layout="constrained")
    rate, first, between = figure.subplots(1, 3)
    loads = [run.load for run in runs]
    rate.bar(loads, [run.summary.tokens_per_second for run in runs], color="tab:blue")
    rate.set_title("tokens/s")
    _times(first, loads, [run.summary.first for run in runs], "to the first output, ms")
    _times(between, loads, [run.summary.between for run in runs], "between outputs, ms")
    for axes in (rate, first, between):
        axes.grid(axis="y", alpha=0.3)
        axes.set_ylim(bottom=0)
    figure.suptitle(title)
    figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def _times(axes: Axes, loads: list[str], times: list[Percentiles], title: str) -> None:
    for name in ("p50", "p95", "p99"):
        axes.plot(loads, [getattr(one, name) * 1000 for one in times], marker="o", label=name)
    axes.set_title(title)
    axes.legend()
