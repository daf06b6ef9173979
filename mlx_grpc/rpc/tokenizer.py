"""TokenizerService over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat
from mlx_grpc.rpc import convert, large
from mlx_grpc.rpc.context import Context, client_of
from mlx_grpc.service.intake.look_up import look_up, text_of
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import tokenizer_service_pb2 as pb
from mlx_grpc.v1 import tokenizer_service_pb2_grpc

TextOrChat = pb.TokenizeRequest | pb.CountTokensRequest
_PART_TOKENS = 16 * 1024
"""An answer is put together in parts, between which other threads have the interpreter."""


class TokenizerServicer(tokenizer_service_pb2_grpc.TokenizerServiceServicer):
    """The same tokenizer and template that generation uses; no engine is needed.

    A tokenizer may have tokens that its model has no embedding for. Here they are shown as they are, and go both ways;
    a generation refuses them.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Tokenize(self, request: pb.TokenizeRequest, context: Context) -> pb.TokenizeResponse:
        """Token ids, and the bytes of each."""
        source = await large.off_loop(request, lambda: _input(request))
        special = request.add_special_tokens if request.HasField("add_special_tokens") else True
        if isinstance(source, Chat) and request.HasField("add_special_tokens"):
            raise InvalidField("a chat's template brings its own special tokens", field="add_special_tokens")
        client = client_of(context)
        host, tokenizer = self._service.tokenizer(request.model, client)

        def answer(_: str, ids: Sequence[int]) -> pb.TokenizeResponse:
            return _with_pieces(ids, tokenizer)

        return await look_up(
            source, tokenizer, host.context_length, host.turns, answer, caller=client, add_special_tokens=special
        )

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Context) -> pb.DetokenizeResponse:
        """The text of these ids."""
        client = client_of(context)
        host, tokenizer = self._service.tokenizer(request.model, client)
        vocab_size = max(host.vocab_size, tokenizer.vocab_size)
        return pb.DetokenizeResponse(text=await text_of(request.token_ids, vocab_size, tokenizer, host.turns, client))

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        """How many tokens, beside how many there may be."""
        source = await large.off_loop(request, lambda: _input(request))
        client = client_of(context)
        host, tokenizer = self._service.tokenizer(request.model, client)
        context_length = host.context_length
        count = await look_up(source, tokenizer, context_length, host.turns, lambda _, ids: len(ids), caller=client)
        return pb.CountTokensResponse(count=count, context_length=context_length)

    async def RenderChat(self, request: pb.RenderChatRequest, context: Context) -> pb.RenderChatResponse:
        """What the model sees of a conversation."""
        if not request.HasField("chat"):
            raise InvalidField("chat is required", field="chat")
        chat = await large.off_loop(request, lambda: convert.chat(request.chat))
        client = client_of(context)
        host, tokenizer = self._service.tokenizer(request.model, client)

        def answer(text: str, ids: Sequence[int]) -> pb.RenderChatResponse:
            return pb.RenderChatResponse(text=text, token_ids=ids)

        return await look_up(chat, tokenizer, host.context_length, host.turns, answer, caller=client)


def _with_pieces(ids: Sequence[int], tokenizer: Tokenizer) -> pb.TokenizeResponse:
    response = pb.TokenizeResponse()
    for start in range(0, len(ids), _PART_TOKENS):
        part = ids[start : start + _PART_TOKENS]
        response.token_ids.extend(part)
        response.pieces.extend(map(tokenizer.token_bytes, part))
    return response


def _input(request: TextOrChat) -> str | Chat:
    match request.WhichOneof("input"):
        case "text":
            return request.text
        case "chat":
            return convert.chat(request.chat)
    raise InvalidField("one of text and chat is required", field="input")
