"""The whole way with real MLX: a two-layer Llama with random weights in an engine process, through gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_grpc import testing
from mlx_grpc.v1 import chat_pb2, generation_pb2, model_pb2, model_service_pb2, tokenizer_service_pb2
from tests.helpers.llama import CONTEXT_LENGTH, VOCAB_SIZE, make_llama
from tests.helpers.rpc import Output, Request, Sampling, Stop, connected, in_loop, kinds, read_all, refused, text_of

SEEDED = Request(
    prompt="The capital of France",
    sampling=Sampling(temperature=1.0, seed=7),
    stop=Stop(max_tokens=24, ignore_eos=True),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.LocalServer]:
    folder = make_llama(tmp_path_factory.mktemp("llama"))
    with testing.run(engine="process", model=(f"tiny={folder}",), max_batch=16) as server:
        yield server


def others(count: int) -> list[Request]:
    """Requests of all kinds, to keep company."""
    kinds_of = [
        Sampling(temperature=0.0),
        Sampling(temperature=1.0, top_p=0.9),
        Sampling(temperature=0.7, top_k=5, seed=3),
        Sampling(temperature=1.0, min_p=0.1, repetition_penalty=1.2),
    ]
    return [
        Request(
            prompt="A quick brown fox jumps " * (1 + number % 3),
            sampling=kinds_of[number % len(kinds_of)],
            stop=Stop(max_tokens=16 + number, ignore_eos=True),
        )
        for number in range(count)
    ]


def test_the_model_is_what_its_folder_says(server: testing.LocalServer) -> None:
    """Facts read from the weights and the config."""

    @in_loop
    async def run() -> None:
        async with connected(server.target) as api:
            model = (await api.models.GetModel(model_service_pb2.GetModelRequest())).model
        assert (model.id, model.state) == ("tiny", model_pb2.MODEL_STATE_READY)
        assert (model.context_length, model.vocab_size) == (CONTEXT_LENGTH, VOCAB_SIZE)
        assert model.kv_bytes_per_token > 0

    run()


def test_a_seeded_request_says_the_same_alone_and_among_fifteen_others(server: testing.LocalServer) -> None:
    """At temperature 1, streamed and whole, on the CPU in float32."""

    @in_loop
    async def run() -> None:
        async with connected(server.target) as api:
            alone = await api.answer(SEEDED)
            company = asyncio.gather(*(api.answer(request) for request in others(15)))
            events = await read_all(api.stream(SEEDED))
            await company
        assert alone.usage.completion_tokens == 24
        assert text_of(events) == alone.candidates[0].text

    run()


def test_the_text_is_that_of_its_tokens(server: testing.LocalServer) -> None:
    """A random model says bytes that are no characters: deltas have whole ones, and Detokenize agrees with them."""

    @in_loop
    async def run() -> None:
        async with connected(server.target) as api:
            request = Request(
                prompt="Größe", sampling=Sampling(temperature=1.0, seed=1), output=Output(token_ids=True),
                stop=Stop(max_tokens=100, ignore_eos=True),
            )  # fmt: skip
            events = await read_all(api.stream(request))
            tokens = [number for event in events for number in event.delta.token_ids]
            back = await api.tokenizer.Detokenize(tokenizer_service_pb2.DetokenizeRequest(token_ids=tokens))
        specials = ("<|start|>", "<|end|>")
        wanted = back.text
        for special in specials:
            wanted = wanted.replace(special, "")
        assert wanted.startswith(text_of(events))
        assert len(tokens) == 100

    run()


def test_log_probabilities_of_a_greedy_text(server: testing.LocalServer) -> None:
    """The chosen token is the likeliest one."""

    @in_loop
    async def run() -> None:
        async with connected(server.target) as api:
            request = Request(
                prompt="The moon", stop=Stop(max_tokens=8, ignore_eos=True),
                output=Output(token_ids=True, logprobs=True, top_logprobs=4),
            )  # fmt: skip
            (candidate,) = (await api.answer(request)).candidates
        assert [one.top[0].token_id for one in candidate.logprobs] == list(candidate.token_ids)
        assert all(one.logprob == pytest.approx(one.top[0].logprob) for one in candidate.logprobs)
        assert all(len(one.top) == 4 for one in candidate.logprobs)

    run()


def test_a_chat_and_a_long_prompt(server: testing.LocalServer) -> None:
    """The folder's template; and a prompt of most of the context, whose answer is cut to the room that is left."""

    @in_loop
    async def run() -> None:
        message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="Hello")])
        long = Request(
            token_ids=generation_pb2.TokenIds(ids=[5] * (CONTEXT_LENGTH - 12)),
            stop=Stop(ignore_eos=True, max_tokens=500),
        )
        async with connected(server.target) as api:
            chat = Request(chat=chat_pb2.Chat(messages=[message]), stop=Stop(max_tokens=4, ignore_eos=True))
            assert kinds(await read_all(api.stream(chat)))[-2:] == ["finished", "completed"]
            answer = await api.answer(long)
        assert answer.usage.completion_tokens == 12
        assert answer.candidates[0].finish_reason == generation_pb2.FINISH_REASON_LENGTH

    run()


def test_bad_input_leaves_the_engine_alone(server: testing.LocalServer) -> None:
    """What crashed others' generation threads: top_k of the vocabulary, an id outside it. The engine is the same."""

    @in_loop
    async def run() -> None:
        pid = server.engine_pid
        async with connected(server.target) as api:
            bad = [
                Request(prompt="hi", sampling=Sampling(top_k=VOCAB_SIZE)),
                Request(token_ids=generation_pb2.TokenIds(ids=[VOCAB_SIZE])),
                Request(prompt="hi", sampling=Sampling(temperature=float("nan"))),
            ]
            for request in bad:
                assert (await refused(api.answer(request))).reason == "INVALID_FIELD"
            assert await api.answer(SEEDED)
        assert server.engine_pid == pid

    run()


def test_a_folder_without_its_weights_fails_in_one_line(tmp_path: Path) -> None:
    """Before any engine is started for it."""
    folder = make_llama(tmp_path / "llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(Exception, match="safetensors"), testing.run(engine="process", model=(str(folder),)):
        pass
