"""How `make bench` counts and shows: rounds, ratios, results that are kept stage by stage. No process is started."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from tests.benchmarks.compare import report as compare_report
from tests.benchmarks.compare.rounds import Clock, Line, alternate
from tests.benchmarks.compare.sides import INCUMBENT, OURS, RAW


def line() -> Line:
    made = Line("8 streams", "tokens/s", aim="≥ 0.9 of raw")
    for raw, ours in ((100.0, 90.0), (50.0, 55.0), (200.0, 160.0)):
        made.add(RAW, raw)
        made.add(OURS, ours, failed=1)
    made.add(INCUMBENT, math.nan)
    return made


def test_each_round_has_each_side_in_an_order_that_moves() -> None:
    """No side always runs first."""
    seen: list[tuple[str, int]] = []
    alternate(3, Clock(math.inf), ("a", "b"), lambda side, number: seen.append((side, number)))
    assert seen == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


def test_one_round_is_run_when_the_time_is_over() -> None:
    """And no second."""
    seen: list[int] = []
    alternate(5, Clock(time.monotonic() - 1.0), ("a",), lambda _, number: seen.append(number))
    assert seen == [0]


def test_a_ratio_is_of_the_same_round() -> None:
    """Its median, least and most; not the ratio of the medians."""
    assert list(line().ratio(OURS, RAW) or ()) == pytest.approx([0.9, 0.8, 1.1])
    assert line().ratio(OURS, INCUMBENT) is None
    assert (line().median(RAW), line().rounds) == (100.0, 3)


def test_a_line_goes_through_json() -> None:
    """What was not measured is null there."""
    plain = json.loads(json.dumps(line().plain(), allow_nan=False))
    assert plain["figures"][INCUMBENT] == [None]
    assert compare_report.table([Line.read(plain)]) == compare_report.table([line()])


def test_a_stage_replaces_its_own_results_alone(tmp_path: Path) -> None:
    """So that stages can be run one by one."""
    compare_report.keep(tmp_path, "a", [line()], "quick", {})
    compare_report.keep(tmp_path, "b", [line()], "quick", {})
    results = compare_report.keep(tmp_path, "a", [], "whole", {"cpus": "2"})
    assert [(stage, found["size"], len(found["lines"])) for stage, found in results.items()] == [
        ("a", "whole", 0),
        ("b", "quick", 1),
    ]


def test_tables_go_between_the_marks_of_the_page(tmp_path: Path) -> None:
    """And nowhere else; twice is as once. Pictures lie beside the tables."""
    out, page = tmp_path / "performance", tmp_path / "performance.md"
    page.write_text(f"before\n{compare_report.BEGIN}\nold\n{compare_report.END}\nafter\n")
    results = compare_report.keep(out, "streams", [line()], "quick", {"cpus": "2"})
    for _ in range(2):
        compare_report.write(out, results, {"streams": "Streams", "never run": "None"}, pictures=False)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("### Streams") == text.count("| 8 streams | tokens/s | 100 | 90 |") == 1
    assert "old" not in text
    assert "0.90 (0.80 to 1.10)" in text
    assert "mlx-grpc: 3" in text
    assert "### Streams" in (out / "tables.md").read_text()


def test_the_page_has_the_marks() -> None:
    """Or `make bench` would write its tables nowhere."""
    text = (Path(__file__).parents[2] / "docs/performance.md").read_text("utf-8")
    assert 0 < text.index(compare_report.BEGIN) < text.index(compare_report.END)
