"""What `mlx-grpc check` makes of outcomes: counts, ratios, lines, JSON."""

from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.check import Outcome, Report, Speed, State
from mlx_grpc.check.overload import DEADLINE_SECONDS, size
from mlx_grpc.cli.check import MARKS, PLAIN_MARKS, marks, result_line, summary

GOOD = Outcome("one", State.PASSED, 0.5, "fine")
BAD = Outcome("two", State.FAILED, 1.25, "not so")
LEFT_OUT = Outcome("three", State.SKIPPED, 0.0, "no port")
SPEEDS = (Speed(1, 32, 2.0), Speed(8, 256, 4.0))


def report(*outcomes: Outcome, speeds: tuple[Speed, ...] = SPEEDS) -> Report:
    return Report("here:1", 2.0, outcomes, speeds)


def test_every_test_is_counted_once() -> None:
    """Skipped ones too."""
    found = report(GOOD, BAD, LEFT_OUT, GOOD).as_json()
    assert {name: found[name] for name in ("total", "passed", "failed", "skipped")} == {
        "total": 4, "passed": 2, "failed": 1, "skipped": 1,
    }  # fmt: skip


def test_json_says_why() -> None:
    """Each test's name, state, time and detail."""
    found = json.loads(json.dumps(report(LEFT_OUT).as_json()))
    assert found["tests"] == [{"name": "three", "state": "skipped", "seconds": 0.0, "detail": "no port"}]


def test_the_ratio_is_to_one_call_alone() -> None:
    """Tokens a second of all together, against those of one."""
    speeds = report(speeds=SPEEDS).as_json()["speeds"]
    assert [(one["at_once"], one["tokens_per_second"], one["ratio_to_serial"]) for one in speeds] == [
        (1, 16.0, 1.0),
        (8, 64.0, 4.0),
    ]


def test_no_ratio_without_one_call_alone() -> None:
    """The baseline may have failed."""
    found = report(speeds=SPEEDS[1:])
    assert found.ratio(SPEEDS[1]) is None
    assert "64.0" in "\n".join(summary(found, MARKS))


def test_the_summary_counts_and_judges() -> None:
    """As the suite that this one is after has it."""
    text = "\n".join(summary(report(GOOD, LEFT_OUT), MARKS))
    for line in ("Total Tests:  2", "Passed:       1", "Failed:       0", "Skipped:      1"):
        assert line in text
    assert text.endswith("✓ ALL TESTS PASSED (1 skipped)")


def test_a_failure_is_the_verdict() -> None:
    """Whatever else passed."""
    assert summary(report(GOOD, BAD), MARKS)[-1].endswith("✗ 1 OF 2 TESTS FAILED")


def test_a_result_is_one_line() -> None:
    """A model's own words are in it: they move no cursor."""
    line = result_line(Outcome("one", State.PASSED, 0.0, "say \x1b[2J\nthis"), MARKS)
    assert line == "✓ say \\x1b[2J\\nthis (0.00 s)"


def test_a_skipped_test_says_so() -> None:
    """With its reason."""
    assert result_line(LEFT_OUT, MARKS) == "- skipped: no port (0.00 s)"


@pytest.mark.parametrize(("encoding", "expected"), [("utf-8", MARKS), ("ascii", PLAIN_MARKS)])
def test_marks_fit_the_terminal(encoding: str, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words where it has no tick."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert marks() is expected


@given(tokens_per_second=st.floats(0.01, 1e6), room=st.integers(1, 200_000))
def test_an_overload_fits_the_context_and_is_one(tokens_per_second: float, room: int) -> None:
    """The tokens fit, the deadline is short, and by that speed no call makes it (but for clocks' sake, at 50 ms)."""
    tokens, deadline_seconds = size(tokens_per_second, room)
    assert 1 <= tokens <= room
    assert 0.05 <= deadline_seconds <= DEADLINE_SECONDS
    assert deadline_seconds == 0.05 or tokens / tokens_per_second >= deadline_seconds
