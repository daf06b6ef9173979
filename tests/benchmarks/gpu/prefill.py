"""How long prompts take to process, by length and rows, without a server; the first time of a shape and later ones.

python -m tests.benchmarks.gpu.prefill FOLDER
"""

from __future__ import annotations

import json
import sys
import time

from mlx_grpc.engine.backend import set_defaults
from mlx_grpc.engine.messages import Load, Row, SamplingParams
from tests.benchmarks.gpu.model import random_prompts

SHAPES = ((1, 128), (1, 200), (1, 999), (1, 4000), (1, 4100), (1, 8000), (8, 500), (8, 1000), (8, 1001), (32, 250))


def main() -> None:
    """Measure, print a JSON object: milliseconds until the first token."""
    set_defaults()  # MLX reads them when it is imported
    from mlx_grpc.engine.mlx_engine import open_mlx

    engine = open_mlx(Load(sys.argv[1], 64))
    found: dict[str, list[float]] = {}
    number = 0
    for rows, tokens in SHAPES:
        for _ in range(3):
            prompts = random_prompts(rows, tokens, number)
            entering = [Row(number + place, ids, [], 2, 0, [], SamplingParams()) for place, ids in enumerate(prompts)]
            number += rows
            began = time.perf_counter()
            engine.submit(entering)
            while not engine.step().tokens:
                pass
            found.setdefault(f"{rows} x {tokens}", []).append(round((time.perf_counter() - began) * 1e3, 1))
            while engine.active_rows:
                engine.step()
    engine.close()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
