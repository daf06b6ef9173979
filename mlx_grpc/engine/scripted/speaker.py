"""What a row of the scripted model says: pure functions of the row and the position."""

from __future__ import annotations

import hashlib
import math

import msgspec

from mlx_grpc.engine.messages import Row, TokenLogprobs
from mlx_grpc.engine.scripted.script import EOS_ID, FIRST_WORD_ID, VOCAB_SIZE, WORDS, Script, prompt_text

# Fake logits: a chosen token stands well above the likeliest others, and nothing is impossible.
_CHOSEN_LOGIT, _FIRST_LOGIT, _RANK_STEP, _RARE_LOGIT = 6.0, 4.0, 0.25, -20.0


class Speaker:
    """What one row says: a pure function of the row and the position."""

    def __init__(self, row: Row, script: Script) -> None:
        self.text = prompt_text(row.prompt)
        self._row = row
        self._reply = script.reply_to(self.text)
        seed = row.sampling.seed if row.sampling.temperature > 0 else 0
        self._digest = hashlib.blake2b(msgspec.msgpack.encode((row.prompt, seed)), digest_size=16).digest()

    def token(self, position: int) -> int:
        """The token at this position, after bias and min_tokens."""
        if self._plain(position):
            return self._wish(position)
        logits = self._logits(position)
        return max(range(VOCAB_SIZE), key=logits.__getitem__)

    def logprobs(self, position: int) -> TokenLogprobs | None:
        """Made-up log-probabilities over the vocabulary, where the row asked for them; they sum to 1."""
        if self._row.top_logprobs < 0:
            return None
        logits = self._logits(position)
        ranked = sorted(range(VOCAB_SIZE), key=lambda token: -logits[token])
        highest = logits[ranked[0]]  # taken out first: a bias may be 1,000
        total = highest + math.log(sum(math.exp(logit - highest) for logit in logits))
        top = ranked[: self._row.top_logprobs]
        return TokenLogprobs(logits[ranked[0]] - total, top, [logits[token] - total for token in top])

    def _plain(self, position: int) -> bool:
        banned = position < self._row.min_tokens and self._wish(position) in self._row.stop_ids
        return not (self._row.sampling.logit_bias or banned)

    def _wish(self, position: int) -> int:
        if self._reply is not None and position <= len(self._reply):
            return self._reply[position] if position < len(self._reply) else EOS_ID
        return self._word(position)

    def _word(self, position: int) -> int:
        digest = hashlib.blake2b(position.to_bytes(8, "big"), key=self._digest, digest_size=8).digest()
        return FIRST_WORD_ID + int.from_bytes(digest, "big") % len(WORDS)

    def _logits(self, position: int) -> list[float]:
        logits = [_RARE_LOGIT] * VOCAB_SIZE
        start = self._word(position) - FIRST_WORD_ID
        for rank in range(len(WORDS)):
            word = FIRST_WORD_ID + (start + rank) % len(WORDS)
            logits[word] = _FIRST_LOGIT - rank * _RANK_STEP
        logits[self._wish(position)] = _CHOSEN_LOGIT
        for token, bias in self._row.sampling.logit_bias.items():
            logits[token] += bias
        if position < self._row.min_tokens:
            for token in self._row.stop_ids:
                logits[token] = -math.inf
        return logits
