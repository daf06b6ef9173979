"""Raw BatchGenerator in a process of its own, and the model folder that all sides serve. Child of `compare`.

    python -m tests.benchmarks.compare_raw --make FOLDER --source FOLDER
    python -m tests.benchmarks.compare_raw --model FOLDER     # a JSON object a line in, one a line out

OpenBLAS is loaded as this server's engine loads it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from mlx_grpc.models.blas import load_openblas


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
    """Each line: {"ids": [[...]], "max_tokens": N, "samplers": null or [{"temp", "top_p"}]}, all prompts at once; the
    answer: {"seconds", "tokens"}."""
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        count = len(asked["ids"])
        began = time.perf_counter()
        generator = BatchGenerator(model, completion_batch_size=max(32, count))
        samplers = [make_sampler(**one) for one in asked["samplers"]] if asked["samplers"] else None
        generator.insert(asked["ids"], [asked["max_tokens"]] * count, samplers=samplers)
        done = tokens = 0
        while done < count:
            responses = generator.next_generated()
            tokens += len(responses)
            done += sum(response.finish_reason is not None for response in responses)
        print(json.dumps({"seconds": time.perf_counter() - began, "tokens": tokens}), flush=True)
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
