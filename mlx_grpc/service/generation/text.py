"""Tokens to text while they come: whole characters, up to the first stop string, tokens beside their text."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mlx_grpc.request import Delta, TokenLogprob
from mlx_grpc.service.generation.stops import StopStrings
from mlx_grpc.service.intake.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"


class TextStream:
    """One candidate's text. Push tokens as they are sampled, take what may be sent, finish at the end.

    - A character is released when all its bytes are there; bytes that can never be UTF-8 become U+FFFD. A
      character still incomplete at the end is dropped: the token ids tell of it.
    - A token is released, with its log-probability, as soon as all its text is. At a stop string the text
      ends before its first character, and tokens whose text starts there or later are dropped.
    - Special tokens have no text (unless `skip_special` is False), but are released in their place. A stop string that
      has a special token's text in it is found at that token, which is then dropped like all of the stop string.
    - The text of the first `min_tokens` tokens is not searched for stop strings.
    - `start_of_text`: SentencePiece writes the space before a word into the word's token, and so also puts
      one in front of a text. An answer in a chat is a text, and loses that space; what goes on from a prompt
      keeps it, so that prompt + text is the whole.

    What comes out does not depend on how the tokens were grouped. A token's cost does not grow with the text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: Sequence[str] = (),
        *,
        skip_special: bool = True,
        start_of_text: bool = False,
        min_tokens: int = 0,
    ) -> None:
        self.matched: str | None = None
        self.tokens_seen = 0
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._min_tokens = min_tokens
        self._stops = StopStrings(stops, tokenizer.special_texts if stops and skip_special else ())
        self._decoder = _decoder_for(tokenizer, start_of_text)
        self._text_chars = 0
        # Places in the stream of text and of marks for special tokens, which is what is searched.
        self._stream_chars = 0
        self._released_chars = 0
        self._held: deque[_Token] = deque()
        self._texts: list[str] = []
        self._tokens: list[_Token] = []

    @property
    def text_chars(self) -> int:
        """Characters of the text so far, released or not: the place where the next token's text begins."""
        return self._text_chars

    def push(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        """Sampled tokens, and their log-probabilities if they were asked for.

        Once `matched` names a stop string the text is over, and further tokens are ignored; `tokens_seen`
        counts up to the token that completed it.
        """
        for position, token_id in enumerate(token_ids):
            if self.matched is not None:
                return
            self._push_one(token_id, logprobs[position] if logprobs else None)

    def take(self) -> Delta | None:
        """What was released since the last call, or None for nothing."""
        if not self._texts and not self._tokens:
            return None
        texts, tokens = self._texts, self._tokens
        self._texts, self._tokens = [], []
        return Delta(
            "".join(texts),
            tuple(token.token_id for token in tokens),
            tuple(token.logprob for token in tokens if token.logprob is not None),
        )

    def push_end(self, token_id: int) -> None:
        """The token that ended the candidate. It is not released, and has no text, but may complete a stop string."""
        if self.matched is None and self._tokenizer.is_special(token_id):
            self.tokens_seen += 1
            self._add(self._mark(token_id))

    def finish(self) -> None:
        """No more tokens: release what was held back, unless a stop string has ended the text."""
        if self.matched is None:
            self._add(self._decoder.finish())
        if self.matched is None:
            self._release(self._stops.flush())
        self._tokens += self._held
        self._held.clear()

    def _push_one(self, token_id: int, logprob: TokenLogprob | None) -> None:
        self.tokens_seen += 1
        start = self._stream_chars
        if self._skip_special and self._tokenizer.is_special(token_id):
            stream = self._mark(token_id)
            pending = self._decoder.pending and not stream
        else:
            stream = self._decoder.push(token_id)
            pending = self._decoder.pending
        # A character in the making ends one past what is decoded.
        self._held.append(_Token(token_id, logprob, start, start + len(stream) + pending))
        self._add(stream)
        self._release_tokens()

    def _mark(self, token_id: int) -> str:
        """What the search sees of a special token: a mark, or nothing where no stop string has its text."""
        mark = self._stops.mark(self._tokenizer.token_bytes(token_id).decode(errors="replace"))
        if mark and self._decoder.pending:
            # Tokens of a character in the making come before the mark, and the character after it: they wait no longer.
            held = [token._replace(end_char=min(token.end_char, self._stream_chars)) for token in self._held]
            self._held = deque(held)
            self._release_tokens()
        return mark

    def _add(self, stream: str) -> None:
        """New text, or a mark."""
        if not stream:
            return
        self._stream_chars += len(stream)
        self._text_chars += len(self._stops.readable(stream))
        if self.tokens_seen <= self._min_tokens:
            self._release(stream)
            return
        safe, self.matched = self._stops.feed(stream)
        self._release(safe)
        if self.matched is not None:
            self._tokens += (token for token in self._held if token.start_char < self._released_chars)
            self._held.clear()

    def _release(self, stream: str) -> None:
        self._released_chars += len(stream)
        if text := self._stops.readable(stream):
            self._texts.append(text)

    def _release_tokens(self) -> None:
        while self._held and self._held[0].end_char <= self._released_chars:
            self._tokens.append(self._held.popleft())


class _Token(NamedTuple):
    """A token and where its text or mark lies, in characters from the start of the stream."""

    token_id: int
    logprob: TokenLogprob | None
    start_char: int
    end_char: int


class _Decoder(Protocol):
    """Turns tokens into whole characters."""

    @property
    def pending(self) -> bool:
        """Whether the last token ended within a character."""

    def push(self, token_id: int) -> str:
        """The characters that this token completes."""

    def finish(self) -> str:
        """Whole characters not given yet."""


def _decoder_for(tokenizer: Tokenizer, start_of_text: bool) -> _Decoder:
    if tokenizer.bytes_are_exact:
        return _ByteDecoder(tokenizer, drop_space=start_of_text and tokenizer.drops_first_space)
    return _WindowDecoder(tokenizer)


class _ByteDecoder:
    """For tokenizers whose text is the bytes of its tokens, one after the other."""

    def __init__(self, tokenizer: Tokenizer, drop_space: bool) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_space = drop_space

    @property
    def pending(self) -> bool:
        return bool(self._utf8.getstate()[0])

    def push(self, token_id: int) -> str:
        piece = self._tokenizer.token_bytes(token_id)
        if self._drop_space and piece:
            self._drop_space = False
            piece = piece.removeprefix(b" ")
        return self._utf8.decode(piece)

    def finish(self) -> str:
        return ""


class _WindowDecoder:
    """For all others (WordPiece, word suffixes): what a token adds is seen by decoding it after the tokens of
    the last addition, and these alone. Tokens wait while their text ends in U+FFFD, but no more of them than
    a character can have bytes: then it is no character in the making."""

    _MAX_HELD = 4

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []
        self._held: list[int] = []

    @property
    def pending(self) -> bool:
        return bool(self._held)

    def push(self, token_id: int) -> str:
        self._held.append(token_id)
        text = self._added()
        if text.endswith(REPLACEMENT) and len(self._held) < self._MAX_HELD:
            return ""
        self._before, self._held = self._held, []
        return text

    def finish(self) -> str:
        return self._added().rstrip(REPLACEMENT) if self._held else ""

    def _added(self) -> str:
        known = self._tokenizer.decode(self._before) if self._before else ""
        return self._tokenizer.decode(self._before + self._held)[len(known) :]
