"""The sweep of model types: that its tables are complete, its schedules repeatable, and its verdicts not blind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from mlx_lm.utils import _get_classes

from mlx_grpc.engine.messages import RowToken, TokenLogprobs
from mlx_grpc.engine.protocol import LoadError
from tests.helpers.models.base import VOCAB_SIZE
from tests.helpers.models.catalog import FAMILIES, MODELS, NOT_MADE, mlx_lm_types
from tests.helpers.models.kinds import KINDS
from tests.sweep.cases import Case
from tests.sweep.document import document
from tests.sweep.drive import Wanted, difference
from tests.sweep.parent import Report, sweep_one
from tests.sweep.reference import Answer
from tests.sweep.scenarios import Open, opener
from tests.sweep.schedules import make_schedule
from tests.sweep.verdict import verdict

WANTED = Wanted(0, [1, 2], Answer([5, 6, 7], [-0.5, -0.6, -0.7]))


def said(*tokens: int, logprobs: Sequence[float] = ()) -> list[RowToken]:
    """What an engine said for row 0."""
    told = [TokenLogprobs(logprob, [], []) for logprob in logprobs]
    return [RowToken(0, token, 0, told[place] if told else None) for place, token in enumerate(tokens)]


def test_each_type_of_mlx_lm_is_in_the_catalog() -> None:
    """A type that mlx_lm gains is made small, or listed with the reason why it cannot be."""
    named = {model["model_type"] for model in MODELS.values()}
    loaded = {_get_classes(model)[0].__module__.rpartition(".")[2] for model in MODELS.values()}
    assert mlx_lm_types() - named - loaded - NOT_MADE.keys() == set()


def test_models_have_names_of_their_own() -> None:
    """No family of the catalog hides a model of another one; the kinds of caches name models of the catalog."""
    assert len(MODELS) == sum(len(family) for family in FAMILIES.values())
    assert {name for names in KINDS.values() for name in names} <= MODELS.keys()


def test_a_schedule_is_a_function_of_its_seed() -> None:
    """The same seed gives the same schedule, another one another; prompts are of the vocabulary, and follow earlier
    ones."""
    schedules = [make_schedule(seed) for seed in range(50)]
    assert schedules == [make_schedule(seed) for seed in range(50)]
    assert len({schedule.arrivals for schedule in schedules}) == 50
    for schedule in schedules:
        for number, arrival in enumerate(schedule.arrivals):
            assert arrival.fresh
            assert max(arrival.fresh) < VOCAB_SIZE
            assert arrival.follows is None or arrival.follows < number


def test_fifty_schedules_hold_all_that_can_happen() -> None:
    """Short and long prompts, cancels, resumes, continued conversations, with and without a prefix cache."""
    schedules = [make_schedule(seed) for seed in range(50)]
    arrivals = [arrival for schedule in schedules for arrival in schedule.arrivals]
    assert {bool(schedule.prefix_cache_bytes) for schedule in schedules} == {True, False}
    assert min(len(arrival.fresh) for arrival in arrivals) == 1
    assert max(len(arrival.fresh) for arrival in arrivals) > 256
    assert any(arrival.cancel_at == 0 for arrival in arrivals)
    assert any(arrival.output_share and arrival.cancel_at for arrival in arrivals)
    assert any(arrival.follows is not None and arrival.kept_share == 1.0 for arrival in arrivals)


@pytest.mark.parametrize(
    ("tokens", "logprobs", "words"),
    [
        ((5, 6, 8), (), "token 2: 8 for 7"),
        ((5, 6), (), "2 tokens for 3"),
        ((5, 6, 7, 7), (), "4 tokens for 3"),
        ((), (), "0 tokens for 3"),
        ((5, 6, 7), (-0.5, -0.602, -0.7), "token 1: logprob"),
        ((5, 6, 7), (-0.5, float("nan"), -0.7), "token 1: logprob nan"),
    ],
)
def test_a_difference_is_seen(tokens: tuple[int, ...], logprobs: tuple[float, ...], words: str) -> None:
    """Another token, a token too few or too many, a log-probability that is off or no number."""
    assert words in (difference(WANTED, said(*tokens, logprobs=logprobs)) or "")


def test_the_right_answer_is_no_difference() -> None:
    """Also with rounding, when a row goes on after a crash, and when one was cancelled."""
    assert difference(WANTED, said(5, 6, 7, logprobs=(-0.5, -0.6001, -0.7))) is None
    assert difference(WANTED._replace(output_tokens=1), said(6, 7)) is None
    assert difference(WANTED, said(5, 6), ended=False) is None


def test_verdicts_name_what_happened() -> None:
    """A wrong row, an exception and a refusal are told apart, each with its reason."""

    def wrong(open_engine: Open) -> list[str]:
        return ["row 1 token 0: 5 for 6"]

    def crash(open_engine: Open) -> list[str]:
        raise ValueError("shapes (3, 1)")

    def refuse(open_engine: Open) -> list[str]:
        raise LoadError("/tmp/model cannot be loaded: no cache")

    unused = opener(None, pipelined=False)  # type: ignore[arg-type]
    assert verdict(wrong, unused) == "DIFF row 1 token 0: 5 for 6"
    assert verdict(crash, unused).startswith("CRASH ValueError: shapes (3, 1) [test_sweep.py:")
    assert verdict(refuse, unused) == "LOADERROR no cache"
    assert verdict(lambda _: [], unused) == "ok"


def test_a_child_that_dies_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The case in which it died is a crash, and those after it are played by another child."""
    program = """
import os, sys
for what in ("caches", "alone", "load", *sys.argv[2:]):
    if what == "B/direct":
        sys.stderr.write("malloc(): invalid size")
        os.abort()
    print('["%s", "ok"]' % what, flush=True)
"""
    monkeypatch.setattr("tests.sweep.parent.CHILD", [sys.executable, "-c", program])
    cases = [Case(letter, "direct") for letter in "ABC"]
    report = sweep_one("llama", cases)
    assert [report.verdicts[case] for case in cases] == ["ok", "CRASH exit code -6: malloc(): invalid size", "ok"]


@pytest.mark.parametrize(
    ("alone", "load", "said", "faults"),
    [
        ("ok", "ok", "ok", 0),
        ("ok", "ok", "DIFF row 1", 1),
        ("ok", "LOADERROR no cache", "LOADERROR no cache", 1),
        ("CRASH TypeError", "LOADERROR no cache", "LOADERROR no cache", 0),
        ("CRASH TypeError", "ok", "CRASH", 1),
        ("DIFF chunks", "ok", "DIFF row 1", 0),
        ("DIFF chunks", "LOADERROR chunks", "LOADERROR chunks", 0),
        ("DIFF chunks", "ok", "CRASH row 1", 1),
    ],
)
def test_a_refusal_is_right_where_mlx_lm_fails(alone: str, load: str, said: str, faults: int) -> None:
    """And a difference is none where mlx_lm itself has several answers."""
    report = Report("llama", alone=alone, load=load, verdicts={Case("A", "direct"): said})
    assert len(report.faults()) == faults


def test_the_document_tells_each_fault() -> None:
    """A row for each model, a word for each scenario, the reason below, and what is not in the table."""
    wrong = {Case("A", "direct"): "ok", Case("A", "pipelined"): "DIFF row 1 token 0: 5 for 6"}
    reports = [Report("llama", "KVCache", "PADDED", "ok", "ok", wrong)]
    text = document(reports, {"olmo": "needs a package"}, {"mistral": "llama"})
    assert "| llama | KVCache | PADDED | ok | direct ok, pipelined DIFF |" in text
    assert "- llama A/pipelined: DIFF row 1 token 0: 5 for 6" in text
    assert "1 models, 1 faults" in text
    assert "- olmo: needs a package" in text


def test_the_generator_says_how_it_is_used() -> None:
    """`python -m tests.sweep --help` ends well, from the root of the project."""
    done = subprocess.run([sys.executable, "-m", "tests.sweep", "--help"], capture_output=True, text=True, check=True)
    assert "docs/models.md" in done.stdout
