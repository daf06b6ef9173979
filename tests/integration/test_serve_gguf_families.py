"""GGUF files of other families than Llama's behind a real server, beside the folders of the same weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.gguf_families import MODELS, convert, write_family
from tests.helpers.gguf_vocabularies import Vocabulary, byte_level, gemma
from tests.helpers.rpc import Request, Sampling, Stop, connected, in_loop
from tests.helpers.serve import started

PROMPT = "Hello  hello,\n\n  don't STOP at 12345! <b>The</b> capital of France is it that makes the sun go down, and"
GREEDY = Sampling(temperature=0.0)


@pytest.mark.parametrize(
    ("name", "vocabulary"),
    [
        ("gemma3_text_linear", lambda: gemma()[0]),
        ("phi3_longrope", lambda: byte_level("gpt-4o")),
    ],
)
def test_a_file_answers_as_its_folder_does(tmp_path: Path, name: str, vocabulary: Callable[[], Vocabulary]) -> None:
    """The same text and the same tokens of a prompt that is longer than the sliding window."""
    words = vocabulary()
    folder = write_family(MODELS[name], words, tmp_path / "original")
    gguf = convert(folder, words, tmp_path / "a.gguf", tokenizer__ggml__add_bos_token=False)
    environment = {"MLX_GRPC_CACHE_DIR": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    texts: list[str] = []
    flags = ("--model", f"folder={folder}", "--model", f"file={gguf}")
    with started(*flags, environment=environment) as serve:
        target = serve.target

        @in_loop
        async def run() -> None:
            async with connected(target) as api:
                stop = Stop(max_tokens=32, ignore_eos=True)
                requests = [
                    Request(model=model, prompt=PROMPT, sampling=GREEDY, stop=stop) for model in ("folder", "file")
                ]
                texts.extend(await asyncio.gather(*map(api.text, requests)))

        run()
    assert texts[0]
    assert texts[0] == texts[1]
