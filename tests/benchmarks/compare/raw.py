"""Raw BatchGenerator in a process of its own, and the model folder that all sides serve. Child of `compare`.

    python -m tests.benchmarks.compare.raw --make FOLDER --source FOLDER
    python -m tests.benchmarks.compare.raw --model FOLDER     # a JSON object a line in, one a line out

OpenBLAS is loaded as this server's engine loads it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from mlx_grpc.engine.accel.cpu.blas import load_openblas

CACHE_LIMIT_BYTES = 16 * 2**30


def make_folder(source: Path, folder: Path) -> None:
    """The model as float32, which is what a CPU is quick with and what our engine makes of any folder.

    Its end token is one that the model never says, so that every side gives as many tokens as it is asked for: OpenAI's
    API has no way to ask for that.
    """
    import mlx.core as mx
    import mlx_lm.utils
    from mlx.utils import tree_flatten

    network, _ = mlx_lm.utils.load_model(source, lazy=True)
    network = mlx_lm.utils.dequantize_model(network)
    network.set_dtype(mx.float32)
    folder.mkdir(parents=True)
    weights = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    for file in [*source.glob("tokenizer*"), *source.glob("*.jinja"), *source.glob("vocab*"), *source.glob("merges*")]:
        shutil.copy(file, folder)
    special = [one for one in _json(source / "tokenizer.json").get("added_tokens", []) if one.get("special")]
    config = _json(source / "config.json") | {"torch_dtype": "float32"}
    config.pop("quantization", None)
    config.pop("quantization_config", None)
    if special:
        config["eos_token_id"] = special[-1]["id"]
        tokenizer = _json(folder / "tokenizer_config.json") | {"eos_token": special[-1]["content"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps(config))


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def answer_lines(folder: Path) -> None:
    """Each line: {"ids": [[...]], "max_tokens": N, "samplers": null or [{"temp", "top_p"}], "sampler": null or one for
    all, "arrivals": [] or seconds from the start, rising}; the answer: {"seconds", "tokens", "rows"}, the last the mean
    of rows that decoded in a step."""
    import mlx.core as mx
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    # What MLX keeps of freed memory grows with every new shape, and a GPU is shared with the two servers here.
    mx.set_cache_limit(CACHE_LIMIT_BYTES)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        count = len(asked["ids"])
        shared = make_sampler(**asked["sampler"]) if asked["sampler"] else None
        generator = BatchGenerator(model, completion_batch_size=min(64, max(32, count)), sampler=shared)
        samplers = [make_sampler(**one) for one in asked["samplers"]] if asked["samplers"] else [None] * count
        waiting = deque(zip(asked["arrivals"] or [0.0] * count, asked["ids"], samplers, strict=True))
        began = time.perf_counter()
        done = tokens = steps = 0
        while done < count:
            entering = []
            while waiting and waiting[0][0] <= time.perf_counter() - began:
                entering.append(waiting.popleft())
            if entering:
                _, ids, chosen = zip(*entering, strict=True)
                own = list(chosen) if asked["samplers"] else None
                generator.insert(list(ids), [asked["max_tokens"]] * len(ids), samplers=own)
            responses = generator.next_generated()
            tokens += len(responses)
            steps += bool(responses)
            done += sum(response.finish_reason is not None for response in responses)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "tokens": tokens, "rows": tokens / max(1, steps)}), flush=True)
        generator.close()


def main() -> None:
    """As `compare` starts it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    load_openblas()
    if arguments.make:
        make_folder(arguments.source, arguments.make)
    else:
        answer_lines(arguments.model)


if __name__ == "__main__":
    main()
