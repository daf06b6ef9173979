"""The tests that generate: alone, together, streamed and whole, with long prompts."""

from __future__ import annotations

from mlx_grpc.check.calls import Burst, at_once, options, streamed, text_of, whole
from mlx_grpc.check.outcome import Failed, Skipped
from mlx_grpc.check.subject import Subject
from mlx_grpc.client import Generation
from mlx_grpc.errors import UnsupportedField

QUESTION = "Hello! What is the capital of France?"
LONG_PROMPTS = 4
LONG_PROMPT_OUTPUT_TOKENS = 8
FILLER = "The old lighthouse keeper wrote down the weather every evening, and nobody ever read what he wrote. "


async def single(subject: Subject) -> str:
    """One call, then one that is measured: the first may compile kernels or read weights from disk."""
    answer = await _asked(subject)
    burst = await at_once(subject, [whole])
    subject.speeds[1] = burst.speed
    return f'"{text_of(answer)}"; {burst}'


async def _asked(subject: Subject) -> Generation:
    """A question, as a chat where the model has a template."""
    one = options(subject, 0, subject.settings.tokens) | {"ignore_eos": False}
    try:
        answer = await subject.client.generate(messages=[{"role": "user", "content": QUESTION}], **one)
    except UnsupportedField:
        answer = await subject.client.generate(QUESTION, **one)
    if answer.usage.completion_tokens < 1 or answer.usage.prompt_tokens < 1:
        raise Failed(f"the usage cannot be: {answer.usage}")
    return answer


async def three_at_once(subject: Subject) -> str:
    """Two for the table of speeds, then three."""
    for count in (2, 3):
        burst = await at_once(subject, [whole] * count)
        subject.speeds[count] = burst.speed
    return str(burst)


async def streams_at_once(subject: Subject) -> str:
    """Eight streams."""
    burst = await at_once(subject, [streamed] * 8)
    subject.speeds[8] = burst.speed
    return _with_first_token(burst)


async def many_at_once(subject: Subject) -> str:
    """Thirty-two."""
    burst = await at_once(subject, [whole] * 32)
    subject.speeds[32] = burst.speed
    return _with_first_token(burst)


async def mixed(subject: Subject) -> str:
    """Four streams and four whole answers, in turn."""
    return str(await at_once(subject, [streamed, whole] * 4))


async def long_prompts(subject: Subject) -> str:
    """Prompts of exactly so many tokens, each unlike the others from its beginning on."""
    tokens = subject.settings.long_prompt_tokens
    _, context_length = await subject.context_length(FILLER)
    if tokens + LONG_PROMPT_OUTPUT_TOKENS > context_length:
        raise Skipped(
            f"the model's context of {context_length} has no room for {tokens} tokens and "
            f"{LONG_PROMPT_OUTPUT_TOKENS} more: give fewer with --long-prompt-tokens"
        )
    inputs = [{"token_ids": await _long_prompt(subject, number, tokens)} for number in range(LONG_PROMPTS)]
    burst = await at_once(subject, [streamed, whole] * (LONG_PROMPTS // 2), inputs, LONG_PROMPT_OUTPUT_TOKENS)
    counted = {answer.usage.prompt_tokens for answer in burst.answers}
    if counted != {tokens}:
        raise Failed(f"prompts of {tokens} tokens were counted as {sorted(counted)}")
    worst = max(answer.timings.first_token_seconds for answer in burst.answers)
    per_second = LONG_PROMPTS * tokens / worst if worst else 0.0
    return f"{LONG_PROMPTS} of {tokens} tokens each, all prefilled within {worst:.2f} s ({per_second:.0f} tokens/s)"


async def _long_prompt(subject: Subject, number: int, tokens: int) -> list[int]:
    model = subject.settings.model
    head = await subject.client.tokenize(f"{number}: run {subject.run_id}. ", model=model)
    filler = await subject.client.tokenize(FILLER, model=model, add_special_tokens=False)
    if not filler.token_ids:
        raise Failed("Tokenize returned no tokens for a sentence")
    repeats = tokens // len(filler.token_ids) + 1
    return [*head.token_ids, *(filler.token_ids * repeats)][:tokens]


def _with_first_token(burst: Burst) -> str:
    worst = max(answer.timings.first_token_seconds for answer in burst.answers)
    return f"{burst}; first token of the last after {worst:.2f} s"
