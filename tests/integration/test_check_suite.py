"""`mlx-grpc check` against real servers: good ones pass, and each kind of fault is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from grpc_health.v1 import health_pb2

from mlx_grpc import testing
from mlx_grpc.check import TESTS, Check, Outcome, Settings, State, run
from mlx_grpc.check.life import INFERENCE, errors, health
from mlx_grpc.check.subject import Subject
from mlx_grpc.cli.app import main
from mlx_grpc.client import Client, ModelState
from mlx_grpc.testing import Fault, LocalServer, Script
from tests.helpers.client import scripted_server

Captured = pytest.CaptureFixture[str]
SCRIPT = f"script:{msgspec.json.encode(Script()).decode()}"
TWO_MODELS: dict[str, Any] = {"model": (f"one={SCRIPT}", f"two={SCRIPT}")}
IN_32 = "story 20"
"""Only the 32 and the 64 calls at once have it in a prompt."""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A good one."""
    with testing.run() as server:
        yield server


def checked(capsys: Captured, *args: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what `--json` says."""
    code = main(["check", *args, "--json"])
    return code, json.loads(capsys.readouterr().out)


def everything(server: LocalServer) -> tuple[str, ...]:
    return "--grpc", server.target, "--http", server.http_url, "--admin", server.admin_url


def failures(found: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["detail"] for one in found["tests"] if one["state"] == "failed"}


def skipped(found: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["detail"] for one in found["tests"] if one["state"] == "skipped"}


def test_a_good_server_passes_all(capsys: Captured) -> None:
    """With every port, and a model to load: nothing fails and nothing is skipped."""
    with testing.run(**TWO_MODELS, allow_model_management=True) as server:
        code, found = checked(capsys, *everything(server), "--load-model", "two")
    assert (code, failures(found), skipped(found)) == (0, {}, {})
    assert found["total"] == found["passed"] == len(TESTS)
    assert [one["at_once"] for one in found["speeds"]] == [1, 2, 3, 8, 32]


def test_a_person_sees_ticks_and_a_summary(server: LocalServer, capsys: Captured) -> None:
    """A line for each test, and the counts."""
    assert main(["check", *everything(server)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"[Test 1/{len(TESTS)}] Server health" in lines
    assert sum(line.startswith("✓ ") for line in lines) == len(TESTS)  # one is skipped, and the verdict has a tick
    assert f"Total Tests:  {len(TESTS)}" in lines
    assert lines[-1] == "✓ ALL TESTS PASSED (1 skipped)"


def test_what_needs_a_port_is_skipped_without_it(server: LocalServer, capsys: Captured) -> None:
    """Counted, with the flag that would help."""
    code, found = checked(capsys, "--grpc", server.target)
    assert code == 0
    assert sum("--http" in why for why in skipped(found).values()) == 4
    assert sum("--admin" in why for why in skipped(found).values()) == 2
    assert found["skipped"] == len(skipped(found))


def test_a_server_that_loads_no_models_says_so(server: LocalServer, capsys: Captured) -> None:
    """Its own reason is the reason."""
    _, found = checked(capsys, *everything(server))
    assert "--allow-model-management" in skipped(found)["A model loaded while others generate"]


def test_an_unloaded_model_is_found_and_left_unloaded(capsys: Captured) -> None:
    """Without `--load-model`, only what nobody uses is loaded."""
    with testing.run(**TWO_MODELS, allow_model_management=True) as server, Client(server.target) as client:
        client.unload_model("two")
        while client.get_model("two").state is not ModelState.UNLOADED:
            pass
        code, found = checked(capsys, *everything(server))
        assert (code, skipped(found)) == (0, {})
        assert client.get_model("two").state is ModelState.UNLOADED


def test_a_context_too_short_for_long_prompts(capsys: Captured) -> None:
    """Skipped with the flag that helps; with it, done."""
    with testing.run(Script(context_length=400)) as server:
        _, found = checked(capsys, *everything(server))
        assert "--long-prompt-tokens" in skipped(found)["Long prompts at once"]
        code, found = checked(capsys, *everything(server), "--long-prompt-tokens", "300")
    assert code == 0
    assert "Long prompts at once" not in skipped(found)


def test_a_full_queue_is_no_failure(capsys: Captured) -> None:
    """Calls that are told when to come back do so; how many were is said."""
    with testing.run(Script(step_seconds=0.005), max_batch=1, max_queue=1) as server:
        code, found = checked(capsys, *everything(server), "--tokens", "4")
    assert (code, failures(found)) == (0, {})
    assert "refusals" in next(one["detail"] for one in found["tests"] if one["name"].startswith("32"))


def test_nobody_there(capsys: Captured) -> None:
    """One failure; the rest is skipped for it; exit code 1."""
    with testing.run() as gone:
        target = gone.target
    code, found = checked(capsys, "--grpc", target)
    assert (code, found["failed"], found["skipped"]) == (1, 1, len(TESTS) - 1)
    assert "UNAVAILABLE" in failures(found)["Server health"]


def test_a_crash_is_found(capsys: Captured, tmp_path: Path) -> None:
    """The calls go on in another engine and succeed; the server was not stable all the same."""
    crash = Fault(IN_32, "abort", at_output=3, once_path=str(tmp_path / "crashed"))
    with testing.run(Script(faults=[crash]), engine="process") as server:
        code, found = checked(capsys, *everything(server))
    assert code == 1
    assert list(failures(found)) == ["Server stability"]
    assert "crashes was 0 and is 1" in failures(found)["Server stability"] or "restarts" in str(failures(found))


def test_a_call_that_fails_is_found_twice(capsys: Captured) -> None:
    """Where it was called, and in the server's counts."""
    with testing.run(Script(faults=[Fault("story 31", "fail", at_output=2)])) as server:
        code, found = checked(capsys, *everything(server))
    assert code == 1
    assert "1 of 32 calls failed" in failures(found)["32 requests at once"]
    assert "Error analysis" in failures(found)


def test_a_server_that_ignores_a_field_is_found(capsys: Captured) -> None:
    """Another server of the same protos, which ends before it was asked to."""
    with scripted_server() as other:
        other.health.set(INFERENCE, health_pb2.HealthCheckResponse.SERVING)
        code, found = checked(capsys, "--grpc", other.address)
    assert code == 1
    assert "asked for 32 tokens" in failures(found)["8 streams at once"]


def test_a_wrong_port_for_http_is_a_failure(server: LocalServer, capsys: Captured) -> None:
    """With its path."""
    code, found = checked(capsys, "--grpc", server.target, "--http", server.admin_url)
    assert code == 1
    assert "/v1/models: 404" in failures(found)["HTTP: list of models"]


def test_a_token_goes_with_every_call(capsys: Captured, tmp_path: Path) -> None:
    """Over gRPC, HTTP and to the admin port."""
    assert main(["token", "me", "--admin"]) == 0
    token, line = capsys.readouterr().out.splitlines()
    (tmp_path / "tokens").write_text(f"{line}\n")
    (tmp_path / "tokens").chmod(0o600)
    with testing.run(tokens=tmp_path / "tokens") as server:
        assert checked(capsys, *everything(server), "--token", token)[0] == 0
        assert checked(capsys, *everything(server))[0] == 1


def outcomes(settings: Settings, *tests: Check) -> list[Outcome]:
    """What these tests find, without the command line."""
    return list(asyncio.run(run(settings, lambda number, test: None, lambda outcome: None, tests)).outcomes)


def test_an_error_in_the_log_is_found(server: LocalServer, tmp_path: Path) -> None:
    """If it was written since the run began."""
    log = tmp_path / "server.log"
    log.write_text("2026-01-01 10:00:00,000 ERROR   of another day\n")

    async def quiet(subject: Subject) -> str:
        return ""

    async def writes(subject: Subject) -> str:
        with log.open("a") as file:
            file.write("2026-01-02 10:00:00,000 ERROR   of this run\n")
        return ""

    settings = Settings(grpc=server.target, admin=server.admin_url, log=log)
    ends = [
        outcomes(settings, Check("", health), Check("", between), Check("", errors))[2] for between in (quiet, writes)
    ]
    assert [end.state for end in ends] == [State.PASSED, State.FAILED]
    assert "of this run" in ends[1].detail


def test_a_test_that_does_not_end_is_a_failure(server: LocalServer) -> None:
    """Nothing waits for ever."""

    async def waits(subject: Subject) -> str:
        await asyncio.Event().wait()
        return ""

    (outcome,) = outcomes(Settings(grpc=server.target, timeout_seconds=0.01), Check("", waits))
    assert outcome.state is State.FAILED
    assert "not done within 0.01 s" in outcome.detail


def test_an_answer_of_an_unforeseen_shape_is_a_failure(server: LocalServer) -> None:
    """And the run goes on."""

    async def stumbles(subject: Subject) -> str:
        answer: dict[str, str] = {}
        return answer["data"]

    ends = outcomes(Settings(grpc=server.target), Check("", health), Check("", stumbles), Check("", health))
    assert [end.state for end in ends] == [State.PASSED, State.FAILED, State.PASSED]


def test_a_target_that_cannot_be_is_usage(capsys: Captured) -> None:
    """Exit code 2, and one line."""
    assert main(["check", "--grpc", ""]) == 2
    assert "target" in capsys.readouterr().err
