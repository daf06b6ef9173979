"""Reads mutated model files in a process with a bound on its memory.

`python -m tests.hostile.fuzz_child KIND FOLDER COUNT SEED` prints how many were accepted, how long the slowest took,
and the most memory; anything but a refusal in one line ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.helpers.files import mutated_bytes, mutated_json

MEMORY_BYTES = 3 << 30
"""Of addresses: MLX alone has more than one."""

Read = Callable[[Path], None]


def main(kind: str, folder: Path, count: int, seed: int) -> None:
    """Raises whatever a reader should not have raised."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    prepare, refusals, mutate, read = KINDS[kind]()
    prepare(folder)
    accepted, longest_seconds = 0, 0.0
    for number in range(count):
        source = random.Random(f"{seed} {number}")
        target = mutate(folder, source)
        began_seconds = time.monotonic()
        try:
            read(target)
            accepted += 1
        except refusals as error:
            if "\n" in str(error) or len(str(error)) > 2000:
                raise RuntimeError(f"not one line: {str(error)[:200]!r}") from error
        except BaseException:
            sys.stderr.write(f"{kind} {seed} {number}\n")
            raise
        longest_seconds = max(longest_seconds, time.monotonic() - began_seconds)
    found = {"accepted": accepted, "longest_seconds": longest_seconds, "peak_bytes": _peak_bytes()}
    sys.stdout.write(json.dumps(found) + "\n")


Kind = tuple[Read, tuple[type[BaseException], ...], Callable[[Path, random.Random], Path], Read]


def keep(folder: Path) -> None:
    """The files as they were."""
    shutil.copytree(folder, folder.with_name("whole"))


def json_mutations(name: str) -> Callable[[Path, random.Random], Path]:
    """Of one file of the folder: in its values as a rule, else in its bytes."""

    def mutate(folder: Path, source: random.Random) -> Path:
        whole = (folder.with_name("whole") / name).read_bytes()
        if source.random() < 0.8:
            mutated = mutated_json(json.loads(whole), source)
            for _ in range(source.choice((0, 0, 1, 3))):
                mutated = mutated_json(mutated, source) if mutated else mutated
            content = json.dumps(mutated).encode()
        else:
            content = mutated_bytes(whole, source, len(whole))
        (folder / name).write_bytes(content)
        return folder

    return mutate


def byte_mutations(name: str, header_bytes: int) -> Callable[[Path, random.Random], Path]:
    """Of one file's beginning."""

    def mutate(folder: Path, source: random.Random) -> Path:
        whole = (folder.with_name("whole") / name).read_bytes()
        (folder / name).write_bytes(mutated_bytes(whole, source, header_bytes))
        return folder / name

    return mutate


def config_kind() -> Kind:
    """config.json, and what MLX builds of it."""
    from mlx_grpc.engine.loading.network import load_network
    from mlx_grpc.engine.loading.shape import measure
    from mlx_grpc.engine.protocol import LoadError
    from mlx_grpc.models.folder import describe_folder
    from mlx_grpc.models.own_code import own_code
    from mlx_grpc.models.sources import ModelSourceError

    def read(folder: Path) -> None:
        describe_folder(folder)
        own_code(folder)
        try:
            network, _ = load_network(folder, "cpu", trust_remote_code=False)
            measure(network)
        except LoadError:
            raise
        except Exception as error:  # as the engine does, whose message is checked elsewhere
            raise LoadError("mlx_lm") from error

    return keep, (ModelSourceError, LoadError), json_mutations("config.json"), read


def weights_kind() -> Kind:
    """The header of safetensors, and MLX's own reading of what passes."""
    import mlx.core as mx

    from mlx_grpc.models.sources import ModelSourceError
    from mlx_grpc.models.weights_header import read_weight_facts

    def read(file: Path) -> None:
        facts = read_weight_facts(file)
        assert facts.most_weights <= 8 * facts.size_bytes
        with contextlib.suppress(RuntimeError, ValueError):
            mx.eval(*mx.load(str(file)).values())  # type: ignore[union-attr]

    return keep, (ModelSourceError,), byte_mutations("model.safetensors", 2500), read


def gguf_kind() -> Kind:
    """A GGUF file, as the server looks at it and as the child imports it."""
    from mlx_grpc.models.gguf import __main__ as importer
    from mlx_grpc.models.gguf.config import check_family
    from mlx_grpc.models.gguf.header import read_header
    from mlx_grpc.models.sources import ModelSourceError

    # This process reads all of them, and has a limit already.
    setattr(importer, "limit_resources", lambda _: None)  # noqa: B010

    def read(file: Path) -> None:
        check_family(read_header(file, lists=False))
        made = file.parent / "made"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        with contextlib.redirect_stdout(open(os.devnull, "w")) as silent, silent:
            code = importer.main([str(file), str(made)])
        if code:
            raise ModelSourceError("not imported")
        made_bytes = sum(part.stat().st_size for part in made.iterdir())
        assert made_bytes < 10 * file.stat().st_size + (1 << 20)

    return keep, (ModelSourceError,), byte_mutations("a.gguf", 12_000), read


def tokenizer_kind() -> Kind:
    """tokenizer.json: tried in a process of its own, then read and used in this one."""
    import tokenizers  # noqa: F401

    from mlx_grpc.errors import MlxGrpcError
    from mlx_grpc.models import tokenizer_trial
    from mlx_grpc.service.intake.libraries import import_libraries
    from mlx_grpc.service.intake.tokenizer import HuggingFaceTokenizer

    import_libraries()

    def tried(folder: Path) -> int:
        child = os.fork()
        if not child:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1), os.dup2(null, 2)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            os._exit(tokenizer_trial.main(folder, (folder / "tokenizer.json").stat().st_size))
        return os.waitpid(child, 0)[1]

    def read(folder: Path) -> None:
        if tried(folder):
            raise ValueError("not tried")
        tokenizer = HuggingFaceTokenizer(folder)
        for text in ("The capital of France", "<|end|> \u6771\u4eac \U0001f642 1234 \n\n  x"):
            ids = tokenizer.encode(text, add_special_tokens=True)
            tokenizer.decode(ids)
            b"".join(map(tokenizer.token_bytes, ids))

    return keep, (ValueError, MlxGrpcError), json_mutations("tokenizer.json"), read


KINDS: dict[str, Callable[[], Kind]] = {
    "config": config_kind, "weights": weights_kind, "gguf": gguf_kind, "tokenizer": tokenizer_kind,
}  # fmt: skip


def arguments() -> tuple[str, Path, int, int]:
    kind, folder, count, seed = sys.argv[1:]
    return kind, Path(folder), int(count), int(seed)


def _peak_bytes() -> int:
    """The most memory that this program had. What getrusage says on Linux is that of the process that started it, where
    that had more."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    given: Any = arguments()
    main(*given)
