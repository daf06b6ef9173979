"""GGUF files that try to fill memory or disk: refused in one line, by the server's look and by the import's process."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from mlx_grpc.models.fetch import resolve
from mlx_grpc.models.gguf import child
from mlx_grpc.models.gguf.header import read_header
from mlx_grpc.models.limits import memory_bytes
from mlx_grpc.models.progress import SilentProgress
from mlx_grpc.models.sources import GgufFile, ModelSourceError, NamedSource
from tests.helpers.gguf import gguf_tensors, small_gguf, small_metadata, small_weights, write_gguf
from tests.hostile.helpers.files import PIECES, sentence_pieces


def refusal(gguf: Path, cache: Path) -> str:
    """Of the whole way, with a real child."""
    with pytest.raises(ModelSourceError) as refused:
        resolve(NamedSource(GgufFile(gguf)), cache)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) <= 800
    return str(refused.value)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss of children is in kilobytes on Linux")
def test_a_long_token_takes_no_memory(tmp_path: Path) -> None:
    """41 KB of file took 1.5 GB."""
    gguf, _ = small_gguf(tmp_path / "a.gguf", **sentence_pieces([*PIECES, "a" * 40_000]))
    program = (
        "import resource, sys; from pathlib import Path; from tests.hostile.test_gguf_files import refusal;"
        "print(refusal(Path(sys.argv[1]), Path(sys.argv[2])));"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )  # in a process of its own: the tests before this one had larger children
    ran = subprocess.run(
        [sys.executable, "-c", program, str(gguf), str(tmp_path / "cache")], capture_output=True, text=True, check=True
    )
    *said, peak_kib = ran.stdout.splitlines()
    assert "characters" in " ".join(said)
    assert int(peak_kib) * 1024 < 600_000_000


def test_a_long_name_makes_a_short_message(tmp_path: Path) -> None:
    """A tensor's name of a megabyte is not told to everybody who lists models."""
    tensors = gguf_tensors(small_weights(263))
    tensors["x" * 200] = tensors["output_norm.weight"]
    assert "no plain Llama" in refusal(write_gguf(tmp_path / "a.gguf", small_metadata(), tensors), tmp_path / "cache")
    tensors["x" * 10**6] = tensors.pop("x" * 200)
    gguf = write_gguf(tmp_path / "b.gguf", small_metadata(), tensors)
    assert "a string of 1000000 bytes" in refusal(gguf, tmp_path / "cache")


def test_tensors_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A small file could else be imported as one of any size."""
    gguf, _ = small_gguf(tmp_path / "a.gguf")
    whole = bytearray(gguf.read_bytes())
    name = b"blk.1.ffn_gate.weight"
    place = whole.index(name) + len(name) + 4 + 2 * 8 + 4
    whole[place : place + 8] = struct.pack("<Q", 0)
    gguf.write_bytes(whole)
    assert "lies where another one is" in refusal(gguf, tmp_path / "cache")


@pytest.mark.parametrize("count", [2**24, 2**40, 2**63])
@pytest.mark.parametrize("kind", [0, 8, 9])
def test_a_list_that_is_longer_than_the_file_allocates_nothing(tmp_path: Path, kind: int, count: int) -> None:
    """Of bytes, strings, or lists."""
    key = b"a"
    front = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key
    path = tmp_path / "a.gguf"
    path.write_bytes(front + struct.pack("<IIQ", 9, kind, count) + bytes(1000))
    tracemalloc.start()
    try:
        with pytest.raises(ModelSourceError, match="damaged"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("place", "what"), [(8, "tensors"), (16, "pairs")])
def test_counts_above_the_bounds_are_refused_at_once(tmp_path: Path, place: int, what: str) -> None:
    """Tensors and metadata."""
    gguf, _ = small_gguf(tmp_path / "a.gguf")
    whole = bytearray(gguf.read_bytes())
    whole[place : place + 8] = struct.pack("<Q", 1 << 20)
    gguf.write_bytes(whole)
    with pytest.raises(ModelSourceError, match="a count of 1048576"):
        read_header(gguf)


def test_the_servers_look_keeps_no_list(tmp_path: Path) -> None:
    """Two million tokens are read past."""
    metadata = small_metadata(tokenizer__ggml__tokens=["ab"] * 300_000, tokenizer__ggml__token_type=[1] * 300_000)
    gguf = write_gguf(tmp_path / "a.gguf", metadata, {})
    tracemalloc.start()
    try:
        assert read_header(gguf, lists=False).metadata["tokenizer.ggml.tokens"] == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert len(read_header(gguf).metadata["tokenizer.ggml.tokens"]) == 300_000


def test_strings_beside_the_lists_are_bounded(tmp_path: Path) -> None:
    """One of a megabyte at most, and eight megabytes together."""
    texts = {f"text.{number}": "x" * 1_000_000 for number in range(9)}
    with pytest.raises(ModelSourceError, match="a string of"):
        read_header(write_gguf(tmp_path / "a.gguf", small_metadata() | texts, {}))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A name that ends in .gguf may be anything."""
    os.mkfifo(tmp_path / "a.gguf")
    with pytest.raises(ModelSourceError, match="not a file"):
        read_header(tmp_path / "a.gguf")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of addresses is set on Linux alone")
def test_the_imports_process_has_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of memory and time, by the size of the file: seen in a child that the import starts."""
    tells = tmp_path / "tells.py"
    tells.write_text(
        "import resource, sys\n"
        "from mlx_grpc.models.gguf import __main__ as module\n"
        "module.import_gguf = lambda *_: (_ for _ in ()).throw(module.ModelSourceError(\n"
        "    f'{resource.getrlimit(resource.RLIMIT_AS)[0]} {resource.getrlimit(resource.RLIMIT_CPU)[0]}'))\n"
        "sys.exit(module.main(sys.argv[3:]))\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {tells} "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    gguf, _ = small_gguf(tmp_path / "a.gguf")
    with pytest.raises(ModelSourceError) as told:
        child.run_import(gguf, tmp_path, SilentProgress())
    addresses, seconds = map(int, str(told.value).split())
    assert addresses == memory_bytes(gguf.stat().st_size)
    assert 0 < seconds < 200


def test_an_import_that_tells_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reading of the file hangs."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(child, "SILENT_SECONDS", 0.2)
    with pytest.raises(ModelSourceError, match="told nothing"):
        child.run_import(tmp_path / "a.gguf", tmp_path, SilentProgress())
