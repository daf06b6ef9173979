"""Several models in one `mlx-grpc serve`, named as people name them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.helpers.gguf import small_gguf
from tests.helpers.hub import cached_on_hub
from tests.helpers.llama import make_llama
from tests.helpers.rpc import Request, Sampling, Stop, connected, in_loop
from tests.helpers.serve import ROOT, TERM, Serve, started

OFFLINE = {"HF_HUB_OFFLINE": "1"}
GREEDY = {"sampling": Sampling(temperature=0.0), "stop": Stop(max_tokens=4, ignore_eos=True)}


def ask(serve: Serve, models: list[str]) -> list[str]:
    """What each of these models says; then the server ends well."""
    target = serve.target
    texts: list[str] = []

    @in_loop
    async def run() -> None:
        async with connected(target) as api:
            requests = [Request(model=model, prompt="The capital", **GREEDY) for model in models]  # type: ignore[arg-type]
            texts.extend(await asyncio.gather(*map(api.text, requests)))

    run()
    serve.signal(TERM)
    assert serve.ended() == 0, serve.errors
    return texts


def test_the_readmes_own_example(tmp_path: Path) -> None:
    """A Hugging Face id and a relative folder with a name: both are served, each with its own weights."""
    made = make_llama(tmp_path / "made", seed=1)
    make_llama(tmp_path / "my-model", seed=2)
    (tmp_path / "hub").mkdir()
    cached_on_hub(tmp_path / "hub", "mlx-community/Qwen3-4B-4bit", made)
    environment = {**OFFLINE, "HF_HUB_CACHE": str(tmp_path / "hub")}
    flags = ("--model", "mlx-community/Qwen3-4B-4bit", "--model", "small=./my-model")
    with started(*flags, folder=tmp_path, environment=environment) as serve:
        default, hub, small = ask(serve, ["", "mlx-community/Qwen3-4B-4bit", "small"])
    assert default == hub != small


def test_a_name_that_looks_like_a_hugging_face_id(tmp_path: Path) -> None:
    """Clients send the id that they know; what is behind it is the operator's business."""
    folder = make_llama(tmp_path / "tiny")
    with started("--model", f"mlx-community/Llama-3.2-1B-Instruct-4bit={folder}") as serve:
        (text,) = ask(serve, ["mlx-community/Llama-3.2-1B-Instruct-4bit"])
    assert text


def test_names_that_models_list_prints_are_served(tmp_path: Path) -> None:
    """Those of imported models, and those of Hugging Face's cache."""
    gguf, _ = small_gguf(tmp_path / "small.gguf")
    cache = tmp_path / "cache"
    (tmp_path / "hub").mkdir()
    cached_on_hub(tmp_path / "hub", "org/tiny", make_llama(tmp_path / "made"))
    environment = {**OFFLINE, "HF_HUB_CACHE": str(tmp_path / "hub"), "MLX_GRPC_CACHE_DIR": str(cache)}
    command(environment, "models", "pull", str(gguf))
    gguf.unlink()
    listed = json.loads(command(environment, "models", "list", "--json"))
    names = [model["name"] for model in listed]
    assert sorted(model["kind"] for model in listed) == ["hub", "imported"]
    flags = [word for name in names for word in ("--model", name)]
    with started(*flags, environment=environment) as serve:
        texts = ask(serve, names)
    assert all(texts)


@pytest.mark.default_model
def test_the_documented_default_is_a_model_to_name() -> None:
    """What `serve --help` gives as the default of --model says the same as no flag at all."""
    help_text = " ".join(command({}, "serve", "--help").split())
    said = help_text.split(" --model ")[1].split("[default: ")[1].split("]")[0]
    with started("--model", said) as serve:
        (text,) = ask(serve, [said])
    assert text


def test_liveness_answers_while_models_load(tmp_path: Path) -> None:
    """From its socket on: the process is SERVING while its libraries are imported and its models are not."""
    folder, path = make_llama(tmp_path / "tiny"), tmp_path / "grpc.sock"
    flags = ("--model", f"a={folder}", "--model", f"b={folder}", "--grpc-socket", str(path))

    @in_loop
    async def run() -> None:
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)  # the types know only the synchronous channel
            loading = 0
            while True:
                answers = [
                    (await health.Check(health_pb2.HealthCheckRequest(service=name), wait_for_ready=True)).status
                    for name in ("", "models/a", "models/b")
                ]
                assert answers[0] == health_pb2.HealthCheckResponse.SERVING
                if answers[1:] == [health_pb2.HealthCheckResponse.SERVING] * 2:
                    break
                loading += 1
            assert loading >= 20, f"{loading} answers until the models were there"

    with started(*flags) as serve:
        run()
        serve.signal(TERM)
        assert serve.ended() == 0, serve.errors


def command(environment: dict[str, str], *arguments: str) -> str:
    """What `mlx-grpc` prints."""

    words = [sys.executable, "-m", "mlx_grpc", *arguments]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
