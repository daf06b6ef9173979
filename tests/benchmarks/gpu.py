"""The engine's own speed and this server's, on a GPU, with SmolLM2-1.7B's shape and random bfloat16 weights.

    python -m tests.benchmarks.gpu --tokenizer FOLDER [--rounds 3] [--streams 1 8 32 64] [--json FILE]

Rounds alternate between raw BatchGenerator in a process of its own, all prompts at once, and this server over gRPC in a
process of its own; both get the same prompts of 128 tokens and give 128 tokens each. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT_TOKENS = NEW_TOKENS = 128
VOCAB_SIZE = 49152
CONFIG = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 8192,
    "num_attention_heads": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-5, "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 8192, "rope_theta": 130000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip


def prompts(count: int, seed: int) -> list[list[int]]:
    """Different random tokens for each stream and round, so that no prompt cache helps."""
    dice = random.Random(f"{count} {seed}")
    return [[dice.randrange(20, VOCAB_SIZE) for _ in range(PROMPT_TOKENS)] for _ in range(count)]


def make_model(folder: Path, tokenizer: Path) -> None:
    """Random weights of the right shape. Runs in a process of its own."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm.models import llama

    model = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    mx.random.seed(0)
    weights = tree_map(lambda array: (mx.random.normal(array.shape) * 0.02).astype(mx.bfloat16), model.parameters())
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(weights)), metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy(file, folder)


def raw(folder: Path, streams: list[int], sampling: str) -> None:
    """Raw BatchGenerator: reads "STREAMS SEED" lines, answers each with seconds."""
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    top_p = make_sampler(temp=1.0, top_p=0.9)
    sampler = {"greedy": None, "top-p": top_p, "top-p each": None, "top-p each, raw shared": top_p}[sampling]
    for line in sys.stdin:
        count, seed = map(int, line.split())
        generator = BatchGenerator(model, sampler=sampler, completion_batch_size=max(32, count))
        started = time.perf_counter()
        samplers = None
        if sampling == "top-p each":
            samplers = [make_sampler(temp=1.0, top_p=0.8 + 0.19 * n / count) for n in range(count)]
        generator.insert(prompts(count, seed), [NEW_TOKENS] * count, samplers=samplers)
        done = 0
        while done < count:
            done += sum(response.finish_reason is not None for response in generator.next_generated())
        print(time.perf_counter() - started, flush=True)
        generator.close()


async def ours(target: str, count: int, seed: int, sampling: str) -> tuple[float, float]:
    """This server: seconds for all streams, and the first token's median seconds."""
    import grpc

    from mlx_grpc.v1 import generation_pb2 as pb
    from mlx_grpc.v1 import inference_service_pb2_grpc

    firsts: list[float] = []
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)

        async def one(number: int, ids: list[int]) -> None:
            request = pb.GenerateRequest(
                token_ids=pb.TokenIds(ids=ids), stop=pb.Stop(max_tokens=NEW_TOKENS, ignore_eos=True)
            )
            if sampling != "greedy":
                request.sampling.temperature, request.sampling.seed = 1.0, number
                request.sampling.top_p = 0.9 if sampling == "top-p" else 0.8 + 0.19 * number / count
            first = None
            async for response in stub.StreamGenerate(request):
                if first is None and response.WhichOneof("event") == "delta":
                    first = time.perf_counter() - started
            firsts.append(first or 0.0)

        started = time.perf_counter()
        await asyncio.gather(*(one(number, ids) for number, ids in enumerate(prompts(count, seed))))
        return time.perf_counter() - started, statistics.median(firsts)


def serve(folder: Path, work: Path) -> tuple[subprocess.Popen[bytes], str]:
    """This server, in a process of its own, serving the folder."""
    ready = work / "ready.json"
    command = [
        sys.executable,
        "-m",
        "mlx_grpc",
        "serve",
        "--model",
        str(folder),
        "--grpc-port",
        "0",
        "--http-port",
        "0",
    ]
    command += ["--admin-port", "0", "--ready-file", str(ready), "--log-level", "warning", "--max-batch", "256"]
    process = subprocess.Popen(command)
    while not ready.exists():
        if process.poll() is not None:
            raise SystemExit("the server did not start")
        time.sleep(0.1)
    return process, json.loads(ready.read_text())["grpc"]


def measure(arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Alternating rounds; a row for each sampling and stream count."""
    folder = work / "model"
    child = [sys.executable, "-m", "tests.benchmarks.gpu"]
    subprocess.run([*child, "--make", str(folder), "--tokenizer", str(arguments.tokenizer)], check=True)
    rows = []
    for sampling in arguments.sampling:
        engine = subprocess.Popen(
            [*child, "--raw", str(folder), "--sampling", sampling],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert engine.stdin is not None
        assert engine.stdout is not None
        server, target = serve(folder, work)
        try:
            for count in arguments.streams:
                raw_rates, our_rates, firsts = [], [], []
                for round_number in range(arguments.rounds + 1):
                    engine.stdin.write(f"{count} {2 * round_number}\n")
                    engine.stdin.flush()
                    raw_seconds = float(engine.stdout.readline())
                    our_seconds, first = asyncio.run(ours(target, count, 2 * round_number + 1, sampling))
                    if round_number:  # the first warms both up
                        raw_rates.append(count * NEW_TOKENS / raw_seconds)
                        our_rates.append(count * NEW_TOKENS / our_seconds)
                        firsts.append(first)
                ratios = sorted(mine / theirs for mine, theirs in zip(our_rates, raw_rates, strict=True))
                rows.append(
                    {
                        "sampling": sampling, "streams": count, "raw": statistics.median(raw_rates),
                        "ours": statistics.median(our_rates), "ratio": statistics.median(ratios),
                        "ratios": [ratios[0], ratios[-1]], "first_token_seconds": statistics.median(firsts),
                    }
                )  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
        finally:
            engine.stdin.close()
            engine.wait()
            server.terminate()
            server.wait()
            (work / "ready.json").unlink(missing_ok=True)
    return rows


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, help="a model folder to take the tokenizer from")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--sampling", nargs="+", default=["greedy", "top-p each"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_model(arguments.make, arguments.tokenizer)
    elif arguments.raw:
        raw(arguments.raw, arguments.streams, arguments.sampling[0])
    else:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as work:
            rows = measure(arguments, Path(work))
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
