"""What lies in deploy/ is what a server answers to."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from mlx_grpc import testing
from mlx_grpc.client import Client, HealthStatus
from mlx_grpc.client.channel import service_config
from mlx_grpc.config import Config
from tests.conformance.helper_program import helper_program
from tests.helpers.tools import ROOT

CALLS = 20
PORT = Config.model_fields["grpc_port"].default
DRAIN_SECONDS = Config.model_fields["drain_seconds"].default


def documents(name: str) -> list[Any]:
    """The documents of a YAML file of deploy/."""
    yaml = importlib.import_module("yaml")  # its types would be one more package
    return list(yaml.safe_load_all((ROOT / "deploy" / name).read_text(encoding="utf-8")))


def pod() -> Any:
    return documents("kubernetes.yaml")[0]["spec"]["template"]["spec"]


@pytest.fixture
def client() -> Iterator[Client]:
    with testing.run() as server, Client(server.target) as client:
        yield client


@pytest.mark.parametrize("name", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_the_server_knows_each_probe(name: str, client: Client) -> None:
    """The port is the server's, and its service is SERVING when all is well."""
    probe = pod()["containers"][0][name]["grpc"]
    assert probe["port"] == PORT
    assert client.health(probe["service"]) is HealthStatus.SERVING


def test_a_restarting_engine_does_not_fail_liveness() -> None:
    """Readiness asks for the service, liveness for the process alone."""
    container = pod()["containers"][0]
    assert container["livenessProbe"]["grpc"]["service"] == ""
    assert container["readinessProbe"]["grpc"]["service"] == "mlx_grpc.v1.InferenceService"


def test_the_pod_lives_longer_than_its_drain() -> None:
    """Accepted calls can end."""
    assert pod()["terminationGracePeriodSeconds"] > DRAIN_SECONDS


def test_each_setting_exists() -> None:
    """Every MLX_GRPC_ variable of the manifest and the images is a setting of the server."""
    names = {entry["name"] for entry in pod()["containers"][0]["env"]}
    for image in ("Dockerfile.cpu", "Dockerfile.cuda"):
        names |= set(re.findall(r"MLX_GRPC_\w+", (ROOT / "deploy" / image).read_text(encoding="utf-8")))
    assert {name.removeprefix("MLX_GRPC_").lower() for name in names} <= set(Config.model_fields)


def test_the_manifest_s_settings_start_a_server(tmp_path: Path) -> None:
    """With its environment, and a scripted model for a real one, the server takes calls, and SIGTERM ends it well."""
    ready = tmp_path / "ready.json"
    settings = {entry["name"]: entry["value"] for entry in pod()["containers"][0]["env"]}
    settings |= {f"MLX_GRPC_{port}_PORT": "0" for port in ("GRPC", "HTTP", "ADMIN")}
    settings |= {"MLX_GRPC_READY_FILE": str(ready), "MLX_GRPC_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "mlx_grpc", "serve", "--model", "scripted=script:{}"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        said = ""
        while "SERVING" not in said:
            said = server.stdout.readline()
            assert said, "the server ended before it served"
        port = json.loads(ready.read_text(encoding="utf-8"))["grpc"].rpartition(":")[2]
        with Client(f"127.0.0.1:{port}") as client:
            assert client.health("mlx_grpc.v1.InferenceService") is HealthStatus.SERVING
        server.terminate()
    assert server.returncode == 0


def test_envoy_knows_every_word() -> None:
    """The configuration is one of Envoy's, by its own schema."""
    bootstrap = pytest.importorskip("envoy.config.bootstrap.v3.bootstrap_pb2", reason="pip install xds-protos")
    for name in (
        "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
        "envoy.extensions.filters.http.router.v3.router_pb2",
        "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2",
        "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
    ):
        importlib.import_module(name)
    [document] = documents("envoy.yaml")
    json_format.ParseDict(document, bootstrap.Bootstrap())


def test_envoy_checks_the_service(client: Client) -> None:
    """Its health check asks for a name that the server has, over HTTP/2."""
    [cluster] = documents("envoy.yaml")[0]["static_resources"]["clusters"]
    [check] = cluster["health_checks"]
    assert client.health(check["grpc_health_check"]["service_name"]) is HealthStatus.SERVING


def test_round_robin_keeps_the_client_s_retries() -> None:
    """The example replaces the client's service config, so it holds the same retries."""
    example = json.loads((ROOT / "deploy/round_robin.json").read_text(encoding="utf-8"))
    own = json.loads(service_config())
    assert {name: example[name] for name in own} == own


def test_round_robin_leaves_a_server_that_drains() -> None:
    """Two servers share the calls; when one drains, all go to the other, and none fails."""
    config = (ROOT / "deploy/round_robin.json").read_text(encoding="utf-8")
    with helper_program() as first, helper_program() as second:
        target = f"ipv4:{first.grpc},{second.grpc}"
        with Client(target, options={"grpc.service_config": config}) as client:
            ask(client)
            before = [helper.get("state")["accepted"] for helper in (first, second)]
            assert min(before) > 0
            first.post("drain", {"grace_seconds": 30})
            ask(client)
            after = [helper.get("state")["accepted"] for helper in (first, second)]
    assert sum(before) == CALLS
    assert after == [before[0], before[1] + CALLS]


def ask(client: Client) -> None:
    """Some calls, one after the other."""
    for _ in range(CALLS):
        client.generate("hi", max_tokens=2)
