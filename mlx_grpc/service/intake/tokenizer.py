"""Text to token ids and back: a model's own tokenizer, or that of the scripted model.

Streaming needs the bytes of one token alone, which `service.pieces` reads from the vocabulary. Some
tokenizers (WordPiece) have pieces whose text depends on their neighbours: `bytes_are_exact` is False then,
and `service.text` decodes by comparison.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mlx_grpc.engine.scripted import script
from mlx_grpc.models.config_ranges import MOST_TOKEN_IDS, MOST_TOKENS
from mlx_grpc.models.json_file import read_object
from mlx_grpc.models.sources import ModelSourceError
from mlx_grpc.models.tokenizer_trial import check_tokenizer
from mlx_grpc.service.intake.libraries import quiet_transformers
from mlx_grpc.service.intake.panics import WithoutPanics, is_panic
from mlx_grpc.service.intake.pieces import read_pieces
from mlx_grpc.service.intake.templates.chat_template import ChatTemplate, Template, UnusableTemplate
from mlx_grpc.service.intake.templates.child_template import ChildTemplate
from mlx_grpc.service.intake.templates.traits import PassedMessage

log = logging.getLogger(__name__)

SCRIPT_PREFIX = "script:"
AT_ONCE = 4096
"""Characters, or tokens, up to which the interpreter is held: that takes less time than to let go of it and wait for it
again. The library lets go of it in its calls for batches alone, also for a batch of one; the ids are the same."""


class Tokenizer(Protocol):
    """A model's tokenizer. Ids outside the vocabulary have no bytes and no text."""

    vocab_size: int
    eos_ids: tuple[int, ...]
    chat_template: Template | None
    """None for a model without one."""
    bytes_are_exact: bool
    drops_first_space: bool
    special_texts: tuple[str, ...]
    """What the special tokens look like in a text."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Token ids, with the model's usual special tokens around them if asked for.

        Raises UnicodeEncodeError for half a surrogate pair, which JSON can carry.
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text, special tokens included; bytes that are no UTF-8 become U+FFFD."""

    def token_bytes(self, token_id: int) -> bytes:
        """One token's bytes, which need not be whole characters. A special token's are its text."""

    def is_special(self, token_id: int) -> bool:
        """Whether the token is a mark (start, end, turn) rather than text."""

    def close(self) -> None:
        """End the template's processes. Chats are refused from now on; everything else goes on."""


def load_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a model folder or a `script:` model. Raises ValueError in one line for all else."""
    if path.startswith(SCRIPT_PREFIX):
        return ScriptedTokenizer()
    try:
        check_tokenizer(Path(path))
    except ModelSourceError as error:
        raise ValueError(str(error)) from error
    tokenizer = HuggingFaceTokenizer(Path(path))
    if template := tokenizer.chat_template:
        log.info("the chat template in %s %s", path, template.fault or template.traits.summary())
    return tokenizer


class HuggingFaceTokenizer:
    """A folder with a `tokenizer.json`, or what transformers can make one from. Never runs code from the
    folder, and never asks a model hub."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder with a tokenizer")
        self._template = _auto_tokenizer(folder)
        self._backend = WithoutPanics(self._template.backend_tokenizer)
        # Settings that some tokenizer files carry over from training: a prompt is never cut or filled up.
        self._backend.no_truncation()
        self._backend.no_padding()
        decoder = self._backend.decoder
        # A decoder's pickled state is its part of tokenizer.json.
        self._pieces = read_pieces(None if decoder is None else json.loads(decoder.__getstate__()))
        self._added = self._backend.get_added_tokens_decoder()
        self._bytes: dict[int, bytes] = {}
        self.vocab_size: int = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.eos_ids = _eos_ids(folder, self._template.eos_token_id)
        self.special_texts = tuple(self._added[number].content for number in self._added if self.is_special(number))
        self.chat_template = _own_template(self._template) if self._template.chat_template else None
        self.bytes_are_exact = self._pieces is not None
        self.drops_first_space = self._pieces is not None and self._pieces.drops_first_space

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        if not text.isascii():
            text.encode()  # the backend calls half a surrogate pair a TypeError
        if len(text) <= AT_ONCE:
            short: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
            return short
        (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        if len(token_ids) <= AT_ONCE:
            short: str = self._backend.decode(list(token_ids), skip_special_tokens=False)
            return short
        (text,) = self._backend.decode_batch([list(token_ids)], skip_special_tokens=False)
        return str(text)

    def token_bytes(self, token_id: int) -> bytes:
        piece = self._bytes.get(token_id)
        if piece is None:
            if not 0 <= token_id < self.vocab_size:
                return b""
            piece = self._bytes[token_id] = self._read_bytes(token_id)
        return piece

    def is_special(self, token_id: int) -> bool:
        added = self._added.get(token_id)
        return added is not None and (added.special or token_id in self.eos_ids)

    def close(self) -> None:
        if self.chat_template is not None:
            self.chat_template.close()

    def _read_bytes(self, token_id: int) -> bytes:
        piece: str | None = self._backend.id_to_token(token_id)
        if piece is None:  # a gap in the vocabulary
            return b""
        if self.is_special(token_id):
            return piece.encode()
        if self._pieces is None:
            return self.decode([token_id]).encode()
        return self._pieces.to_bytes(piece, added=token_id in self._added)


class ScriptedTokenizer:
    """The scripted model's tokenizer and its chat template, which is fixed:

    `<|start|>role`, a newline, the content, `<|end|>` and a newline for each message, and
    `<|start|>assistant` with a newline at the end. A template argument `raise` makes it fail with that text,
    as a strict template would.
    """

    vocab_size = script.VOCAB_SIZE
    eos_ids: tuple[int, ...] = (script.EOS_ID,)
    bytes_are_exact = True
    drops_first_space = False
    special_texts = tuple(script.SPECIALS)
    _special_bytes: Mapping[int, bytes] = {number: text.encode() for text, number in script.SPECIALS.items()}

    def __init__(self) -> None:
        self.chat_template: Template | None = ChatTemplate(_render_scripted)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return script.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        if token_id in self._special_bytes:
            return self._special_bytes[token_id]
        return script.token_bytes(token_id) if 0 <= token_id < self.vocab_size else b""

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special_bytes

    def close(self) -> None:
        """The template is ours, and runs in this process."""


def _render_scripted(
    messages: Sequence[PassedMessage], template_args: Mapping[str, Any], add_generation_prompt: bool
) -> str:
    if "raise" in template_args:
        raise ValueError(template_args["raise"])
    text = "".join(f"<|start|>{message['role']}\n{message['content']}<|end|>\n" for message in messages)
    return text + "<|start|>assistant\n" if add_generation_prompt else text


def _own_template(tokenizer: Any) -> Template:
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:  # several, and none is the default
        return UnusableTemplate(_first_line(error))
    return ChildTemplate(source, tokenizer.special_tokens_map)


def _auto_tokenizer(folder: Path) -> Any:
    try:
        with quiet_transformers() as transformers:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=False, local_files_only=True
            )
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        missing = not (folder / "tokenizer.json").is_file()
        reason = "tokenizer.json is missing" if missing else _first_line(error)
        raise ValueError(f"the tokenizer in {folder} cannot be read: {reason}") from error
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer in {folder} has no fast form; add a tokenizer.json")
    return tokenizer


def _eos_ids(folder: Path, tokenizer_eos_id: int | None) -> tuple[int, ...]:
    """The end tokens that generation_config.json, else config.json, lists, and the tokenizer's own."""
    ids = set() if tokenizer_eos_id is None else {tokenizer_eos_id}
    for name in ("generation_config.json", "config.json"):
        try:
            listed = read_object(folder / name).get("eos_token_id")
        except FileNotFoundError:
            continue
        except ModelSourceError as error:
            raise ValueError(str(error)) from error
        if listed is not None:
            ids |= _id_set(listed, folder / name)
            break
    return tuple(sorted(ids))


def _id_set(listed: object, path: Path) -> set[int]:
    ids: list[Any] = listed if isinstance(listed, list) else [listed]
    if len(ids) > MOST_TOKEN_IDS or not all(type(token_id) is int for token_id in ids):
        raise ValueError(f"{path}: eos_token_id is no token id and no list of them")
    return {token_id for token_id in ids if 0 <= token_id < MOST_TOKENS}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
