"""The openai Python SDK, unchanged, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from mlx_grpc.testing import Script
from tests.helpers.gate import accepted, freed, gated, until
from tests.helpers.openai import PATIENCE_SECONDS, Bridge, bridge

PING = Script(replies={"ping\nassistant\n": "pong!"})
MODEL = "scripted"


@asynccontextmanager
async def sdk(running: Bridge, max_retries: int = 0) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK as a user makes it."""
    async with openai.AsyncOpenAI(
        base_url=running.base_url, api_key="none", max_retries=max_retries, timeout=PATIENCE_SECONDS
    ) as client:
        yield client


def question(text: str) -> list[openai.types.chat.ChatCompletionMessageParam]:
    return [{"role": "developer", "content": "Be short."}, {"role": "user", "content": text}]


def ask(client: openai.AsyncOpenAI) -> asyncio.Task[openai.types.chat.ChatCompletion]:
    """A call of one token."""
    return asyncio.ensure_future(client.chat.completions.create(model=MODEL, messages=question("x"), max_tokens=1))


def test_a_whole_answer() -> None:
    """What the SDK calls `create`, and the fields that its users read."""

    async def main() -> None:
        async with bridge(PING) as running, sdk(running) as client:
            answer = await client.chat.completions.create(
                model=MODEL, messages=question("ping"), user="me", store=False
            )
            assert answer.choices[0].message.content == "pong!"
            assert answer.choices[0].finish_reason == "stop"
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 6
            assert answer._request_id is not None
            assert [model.id async for model in client.models.list()] == [MODEL]
            plain = await client.completions.create(model=MODEL, prompt="x", max_tokens=2)
            assert plain.choices[0].finish_reason == "length"

    asyncio.run(main())


def test_a_streamed_answer() -> None:
    """Chunk by chunk, and the usage at the end."""

    async def main() -> None:
        async with bridge(PING) as running, sdk(running) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=question("ping"), stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "pong!"
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == 6

    asyncio.run(main())


def test_logprobs() -> None:
    """Each token with its bytes and the likeliest others."""

    async def main() -> None:
        async with bridge(PING) as running, sdk(running) as client:
            answer = await client.chat.completions.create(
                model=MODEL, messages=question("ping"), logprobs=True, top_logprobs=2, max_completion_tokens=3
            )
            found = answer.choices[0].logprobs
            assert found is not None
            assert found.content is not None
            assert [token.token for token in found.content] == ["p", "o", "n"]
            assert found.content[0].bytes == [ord("p")]
            assert found.content[0].logprob <= 0
            assert len(found.content[0].top_logprobs) == 2

    asyncio.run(main())


def test_a_bad_parameter() -> None:
    """The SDK's own error class, with the parameter's name."""

    async def main() -> None:
        async with bridge(PING) as running, sdk(running) as client:
            with pytest.raises(openai.BadRequestError) as caught:
                await client.chat.completions.create(model=MODEL, messages=question("ping"), top_p=7)
            assert caught.value.param == "top_p"
            with pytest.raises(openai.NotFoundError) as missing:
                await client.chat.completions.create(model="nobody", messages=question("ping"))
            assert missing.value.code == "model_not_found"

    asyncio.run(main())


def test_cancelled_in_the_middle(tmp_path: Path) -> None:
    """Closing the SDK's stream frees the row."""

    async def main() -> None:
        async with gated(tmp_path) as (running, gate), sdk(running) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=question("x"), stream=True)
            gate.step(3)
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            await stream.close()
            await until(lambda: running.server.server.stats.abandoned.total() == 1)
            gate.step()
            await freed(running)

    asyncio.run(main())


def test_a_full_queue_is_tried_again(tmp_path: Path) -> None:
    """429 with Retry-After: an SDK without retries raises, one with them waits and then gets its answer."""

    async def main() -> None:
        async with (
            gated(tmp_path, max_batch=1, max_queue=1) as (running, gate),
            sdk(running) as once,
            sdk(running, max_retries=5) as patient,
        ):
            stats = running.server.server.stats
            running_call = ask(once)
            await until(lambda: running.server.active_rows == 1)
            waiting_call = ask(once)
            await accepted(running, 2)
            with pytest.raises(openai.RateLimitError) as caught:
                await ask(once)
            assert int(caught.value.response.headers["retry-after"]) >= 1
            late_call = ask(patient)
            await until(lambda: stats.refused["QUEUE_FULL"] == 2)
            gate.free()
            for call in (late_call, running_call, waiting_call):
                assert (await call).choices[0].finish_reason == "length"

    asyncio.run(main())


def test_a_chat_page_asks_twice_at_once(tmp_path: Path) -> None:
    """The second question comes before the first one's end: both end, with all their text."""

    async def main() -> None:
        async with gated(tmp_path) as (running, gate), sdk(running) as client:
            begun = asyncio.Event()

            async def ask(text: str) -> tuple[str, str | None]:
                words, reason = "", None
                stream = await client.chat.completions.create(
                    model=MODEL, messages=question(text), stream=True, max_tokens=20, seed=1
                )
                async for chunk in stream:
                    words += chunk.choices[0].delta.content or ""
                    reason = chunk.choices[0].finish_reason or reason
                    begun.set()
                return words, reason

            first = asyncio.create_task(ask("one"))
            gate.step(3)
            await begun.wait()
            second = asyncio.create_task(ask("two"))
            await accepted(running, 2)
            assert not first.done()
            gate.free()
            for words, reason in await asyncio.gather(first, second):
                assert len(words.split()) == 20
                assert reason == "length"

    asyncio.run(main())
