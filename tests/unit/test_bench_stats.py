"""Figures of a bench, by hand and by property; and how they are shown."""

from __future__ import annotations

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_grpc.bench import report
from mlx_grpc.bench.http_stream import Server
from mlx_grpc.bench.record import Record
from mlx_grpc.bench.stats import percentile, summarise


def record(arrived: float, deliveries: list[float], tokens: int = 0, failure: str = "") -> Record:
    ended = (deliveries or [arrived])[-1]
    return Record(arrived, deliveries, ended_seconds=ended, completion_tokens=tokens, failure=failure)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2), st.integers(1, 99))
def test_a_percentile_is_the_usual_one(values: list[float], percent: int) -> None:
    """As the standard library's inclusive quantiles."""
    expected = statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
    assert percentile(values, percent) == pytest.approx(expected, abs=1e-6)


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    """Rather than a 0 that looks quick."""
    assert math.isnan(percentile([], 50))


def test_a_run_is_summed_up() -> None:
    """Tokens over the time from the first arrival to the last end; times of the first output and between outputs."""
    summary = summarise([record(10.0, [11.0, 12.0, 14.0], 3), record(10.0, [13.0, 15.0], 2)])
    assert (summary.seconds, summary.completion_tokens, summary.tokens_per_second) == (5.0, 5, 1.0)
    assert summary.first.p50 == 2.0
    assert summary.between.p50 == 2.0


def test_failures_are_counted_by_code_and_keep_out_of_the_times() -> None:
    """A refusal in a millisecond is no quick first token."""
    summary = summarise(
        [record(0.0, [1.0], 1), record(0.0, [0.001], failure="HTTP 503"), record(0.0, [], failure="HTTP 503")]
    )
    assert (summary.failed, summary.failures) == (2, {"HTTP 503": 2})
    assert summary.first.p99 == 1.0


def test_what_was_not_measured_is_a_dash_and_null() -> None:
    """In the table and in JSON, which has no NaN."""
    run = report.Run(1, 0.0, summarise([record(0.0, [], failure="connection refused")]))
    assert report.row(run)[4:] == ("-",) * 6
    written = json.loads(json.dumps(report.as_json([run], {}), allow_nan=False))
    assert written["runs"][0]["first_seconds"] == {"p50": None, "p95": None, "p99": None}
    assert report.failure_lines([run]) == ["1 stream: 1 x connection refused"]


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://localhost:8080", Server("localhost", 8080, False, "")),
        ("http://h/v1/", Server("h", 80, False, "")),
        ("https://h/base/v1", Server("h", 443, True, "/base")),
        ("http://[::1]:9", Server("::1", 9, False, "")),
    ],
)
def test_a_url_is_read(url: str, server: Server) -> None:
    """With or without OpenAI's /v1."""
    assert Server.parse(url) == server


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://h", "http://", "http://h:x", "http://h?a=b"])
def test_a_bad_url_is_refused(url: str) -> None:
    """The error shows one that is good."""
    with pytest.raises(ValueError, match="http://localhost:8080"):
        Server.parse(url)
