"""grpc_health_probe, as people have it in their images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_grpc import testing
from tests.conformance.helper_program import helper_program
from tests.helpers.tools import run_tool, tool

NO_CONNECTION, NO_ANSWER, NOT_SERVING = 2, 3, 4
SERVICES = ("", "mlx_grpc.v1.InferenceService", "models/scripted")


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with testing.run() as server:
        yield server.target


def probe(target: str, service: str) -> int:
    """Its exit code."""
    return run_tool(tool("grpc-health-probe"), f"-addr={target}", f"-service={service}").returncode


@pytest.mark.parametrize("service", SERVICES)
def test_serving(target: str, service: str) -> None:
    """The process, the service and the model are each SERVING."""
    assert probe(target, service) == 0


def test_an_unknown_service(target: str) -> None:
    """A name that nobody knows is an error of its own kind."""
    assert probe(target, "models/none") == NO_ANSWER


@pytest.mark.parametrize("service", SERVICES)
def test_a_draining_server(service: str) -> None:
    """Each name is NOT_SERVING from the moment that a drain begins."""
    with helper_program() as helper:
        target = helper.post("server", {})["grpc"]
        helper.post("drain", {"grace_seconds": 30})
        assert probe(target, service) == NOT_SERVING


def test_no_token_is_needed() -> None:
    """Kubernetes' own probes cannot send one."""
    with helper_program() as helper:
        assert probe(helper.post("server", {"tokens": {"good-token": ["generate"]}})["grpc"], "") == 0


def test_over_tls(tmp_path: Path) -> None:
    """With the root that signed the server's certificate, and not without."""
    with helper_program() as helper:
        facts = helper.post("server", {"tls": True})
        root = tmp_path / "root.pem"
        root.write_text(facts["root_certificates"])
        command = (tool("grpc-health-probe"), f"-addr={facts['grpc']}", "-service=mlx_grpc.v1.InferenceService", "-tls")
        assert run_tool(*command, f"-tls-ca-cert={root}").returncode == 0
        assert run_tool(*command).returncode == NO_CONNECTION


def test_over_mutual_tls(tmp_path: Path) -> None:
    """With a certificate of the client's, and not without."""
    with helper_program() as helper:
        facts = helper.post("server", {"tls": True, "mutual_tls": True})
        for name in ("root_certificates", "private_key", "certificate_chain"):
            (tmp_path / name).write_text(facts[name])
        root = f"-tls-ca-cert={tmp_path / 'root_certificates'}"
        command = (tool("grpc-health-probe"), f"-addr={facts['grpc']}", "-tls", root)
        own = (f"-tls-client-cert={tmp_path / 'certificate_chain'}", f"-tls-client-key={tmp_path / 'private_key'}")
        assert run_tool(*command, *own).returncode == 0
        assert run_tool(*command).returncode == NO_CONNECTION
