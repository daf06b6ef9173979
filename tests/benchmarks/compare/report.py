"""Results: kept as JSON by stage, so that stages can be run one by one; shown as Markdown tables and as pictures."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlx_grpc.engine.accel.cpu.blas import usable_cpus
from tests.benchmarks.compare.rounds import Line
from tests.benchmarks.compare.sides import INCUMBENT, OURS, RAW

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
HEAD = "| | unit | raw | mlx-grpc | mlx_lm.server | of raw | of mlx_lm.server | failed | rounds | aim |"
COLOURS = {RAW: "tab:blue", OURS: "tab:orange", INCUMBENT: "tab:green"}
"""The same in every picture, whoever is missing from it."""
PACKAGES = ("mlx-grpc", "mlx", "mlx-lm", "grpcio", "scipy-openblas32")


def surroundings() -> dict[str, str]:
    """The machine and the versions, without its name."""
    facts = {
        "processor": _processor(),
        "cpus": str(usable_cpus()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def keep(out: Path, stage: str, lines: Sequence[Line], size: str, facts: Mapping[str, str]) -> dict[str, Any]:
    """Put a stage's lines in place of its last ones; returns all results."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    results: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    day = time.strftime("%Y-%m-%d", time.gmtime())
    results[stage] = {"day": day, "size": size, "facts": dict(facts), "lines": [line.plain() for line in lines]}
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return results


def table(lines: Sequence[Line]) -> str:
    """Medians, and the median, least and most of the rounds' own ratios."""
    rows = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for line in lines:
        failed = ", ".join(f"{side}: {count}" for side, count in line.failures.items() if count) or "0"
        cells = [line.name, line.unit, *(_number(line.median(side)) for side in (RAW, OURS, INCUMBENT))]
        cells += [_ratio(line.ratio(OURS, other)) for other in (RAW, INCUMBENT)]
        rows.append("| " + " | ".join([*cells, failed, str(line.rounds), line.aim]) + " |")
    notes = [f"{line.name}: {line.note}" for line in lines if line.note]
    return "\n".join([*rows, *(["", *(f"- {note}" for note in notes)] if notes else [])])


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _ratio(ratio: tuple[float, float, float] | None) -> str:
    return "" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def write(out: Path, results: Mapping[str, Any], titles: Mapping[str, str], *, pictures: bool = True) -> None:
    """All tables into `out`/tables.md, and between the marks of the page that is named as `out` is, where there is
    one; the pictures beside them."""
    drawn = draw(out, results) if pictures else set()
    parts = []
    for stage, title in titles.items():
        if stage not in results:
            continue
        found = results[stage]
        facts = ", ".join(f"{name} {value}" for name, value in found["facts"].items())
        parts += [f"### {title}", "", table([Line.read(line) for line in found["lines"]]), ""]
        if stage in drawn:
            parts += [f"![{title}]({out.name}/{stage}.png)", ""]
        parts += [f"{found['day']}, size `{found['size']}`; {facts}.", ""]
    text = "\n".join(parts).strip() + "\n"
    (out / "tables.md").write_text(text.replace(f"]({out.name}/", "]("), "utf-8")
    page = out.with_suffix(".md")
    if page.exists():
        before, begin, rest = page.read_text("utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if begin and end:
            page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", "utf-8")


def draw(out: Path, results: Mapping[str, Any]) -> set[str]:
    """A PNG for each stage whose lines have sides to compare; says which. None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no pictures: pip install 'mlx-grpc[bench]'", file=sys.stderr)
        return set()
    drawn = set()
    for stage, found in results.items():
        lines = [Line.read(line) for line in found["lines"]]
        units = list(dict.fromkeys(line.unit for line in lines))
        figure = Figure(figsize=(4.5 * len(units), 3.2), layout="constrained")
        for axes, unit in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
            shown = [line for line in lines if line.unit == unit]
            sides = [side for side in (RAW, OURS, INCUMBENT) if any(side in line.figures for line in shown)]
            width = 0.8 / len(sides)
            for place, side in enumerate(sides):
                middles = [number + (place - (len(sides) - 1) / 2) * width for number in range(len(shown))]
                axes.bar(middles, [line.median(side) for line in shown], width, label=side, color=COLOURS[side])
            axes.set_xticks(range(len(shown)), [_short(line.name) for line in shown], fontsize=7)
            axes.set_title(unit, fontsize=9)
            axes.grid(axis="y", alpha=0.3)
            axes.legend(fontsize=7)
        figure.savefig(out / f"{stage}.png", format="png", dpi=80)
        drawn.add(stage)
    return drawn


def _short(name: str) -> str:
    words = name.removeprefix("scripted model, ").removeprefix("the same, ").removeprefix("10,000 waiting: ").split()
    middle = (len(words) + 1) // 2
    return " ".join(words[:middle]) + "\n" + " ".join(words[middle:]) if len(words) > 3 else " ".join(words)
