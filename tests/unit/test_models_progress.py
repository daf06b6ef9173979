"""Progress in plain lines, and on what looks like a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mlx_grpc.models.hub import reporting_tqdm
from mlx_grpc.models.progress import BarProgress, PlainProgress, SilentProgress, make_progress


def _lines(steps: list[tuple[str, int]], seconds_a_step: float) -> list[str]:
    now, stream = [0.0], io.StringIO()
    progress = PlainProgress(stream, lambda: now[0])
    for label, done in steps:
        progress.update(label, done, 100)
        now[0] += seconds_a_step
    return stream.getvalue().splitlines()


def test_slow_work_says_each_tenth() -> None:
    """One line for each 10 % when steps are far apart."""
    assert len(_lines([("a", done) for done in range(101)], 10)) == 11


def test_fast_work_says_only_begin_and_end() -> None:
    """Not more than one line in two seconds between the first and the last."""
    assert _lines([("a", done) for done in range(101)], 0.001) == ["a: 0%", "a: 100%"]


def test_a_new_label_is_said_at_once() -> None:
    """Whatever the clock says."""
    assert _lines([("a", 5), ("b", 5)], 0) == ["a: 5%", "b: 5%"]


def test_a_total_of_zero_is_no_error() -> None:
    """A total that is not known yet counts as nothing done."""
    stream = io.StringIO()
    PlainProgress(stream).update("a", 5, 0)
    assert stream.getvalue() == "a: 0%\n"


def test_a_stream_that_is_no_terminal_gets_lines() -> None:
    """`make_progress` looks at the stream."""
    assert isinstance(make_progress(io.StringIO()), PlainProgress)


def test_a_terminal_gets_a_bar() -> None:
    """The label and the percentage are drawn, and `close` ends the drawing."""
    stream = io.StringIO()
    bar = BarProgress(Console(file=stream, force_terminal=True, width=100))
    bar.update("fetching", 50, 100)
    bar.update("importing", 100, 100)
    bar.close()
    bar.close()
    assert "fetching" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_the_hub_clients_bars_report_bytes_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Its two byte bars count the same bytes; its bar of files is no progress; and nothing is drawn."""
    told: list[tuple[str, int, int]] = []

    class Recorder(SilentProgress):
        def update(self, label: str, done: int, total: int) -> None:
            told.append((label, done, total))

    kind = reporting_tqdm("x", Recorder())
    wire, disk = (kind(total=0, initial=0, unit="B", unit_scale=True, desc=name) for name in ("wire", "disk"))
    for bar in (wire, disk):
        bar.total = 10
        bar.update(4)
    assert list(kind(["file"], total=1, desc="files")) == ["file"]
    disk.update(6)
    disk.set_description("done")
    assert told[0] == ("x", 4, 10)
    assert told[-1] == ("x", 10, 10)
    assert capsys.readouterr() == ("", "")
