"""Prompts of given lengths, drawn from a mix by a seed. Pure: the same seed gives the same requests.

Prompts are random common words, each of which is one token in the usual vocabularies, so that no tokenizer is needed
here; the server's own count is what is reported. Different prompts share no beginning that a prefix cache could use.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_grpc.bench.record import Ask

_COMMON = """
time year people way day man thing woman life child world school state family student group country problem hand
part place case week company system program question work government number night point home water room mother
area money story fact month lot right study book eye job word business issue side kind head house service friend
father power hour game line end member law car city community name president team minute idea body information
back parent face others level office door health person art war history party result change reason
research girl moment air teacher force education
"""
WORDS = tuple(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Share:
    """One kind of request in a mix, drawn `weight` times as often as one of weight 1."""

    prompt_tokens: int
    max_tokens: int
    weight: float = 1.0


def parse_mix(text: str) -> tuple[Share, ...]:
    """ "PROMPT:OUTPUT" tokens, with "@WEIGHT", separated by commas: "128:64" or "64:32@3,2000:128@1".

    Raises ValueError with one line that names the part at fault.
    """
    return tuple(_share(part.strip()) for part in text.split(","))


def _share(part: str) -> Share:
    lengths, _, weight = part.partition("@")
    prompt, colon, output = lengths.partition(":")
    try:
        share = Share(int(prompt), int(output), float(weight) if weight else 1.0)
    except ValueError:
        share = None
    if share is None or not colon or share.prompt_tokens < 1 or share.max_tokens < 1 or not 0 < share.weight < 1e9:
        raise ValueError(f"mix: {part!r} is not PROMPT:OUTPUT or PROMPT:OUTPUT@WEIGHT, in tokens, like 128:64@2")
    return share


def words(count: int, dice: random.Random) -> str:
    """So many random words."""
    return " ".join(dice.choices(WORDS, k=count))


def make_asks(
    mix: Sequence[Share], count: int, seed: int, *, temperature: float = 0.0, top_p: float = 1.0, seeded: bool = False
) -> list[Ask]:
    """Requests drawn from the mix. `seeded` gives each a sampling seed of its own."""
    dice = random.Random(f"asks {seed}")
    weights = [share.weight for share in mix]
    return [
        Ask(
            prompt=words(share.prompt_tokens, dice),
            max_tokens=share.max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=number if seeded else None,
        )
        for number, share in enumerate(dice.choices(mix, weights, k=count))
    ]
