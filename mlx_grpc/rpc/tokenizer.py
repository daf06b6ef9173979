"""TokenizerService over gRPC."""

from __future__ import annotations

from mlx_grpc.errors import InvalidField
from mlx_grpc.request import Chat
from mlx_grpc.rpc import convert, large
from mlx_grpc.rpc.context import Context
from mlx_grpc.service.intake.encode import encode, off_loop, rendered
from mlx_grpc.service.intake.validate import check_token_ids
from mlx_grpc.service.service import Service
from mlx_grpc.v1 import tokenizer_service_pb2 as pb
from mlx_grpc.v1 import tokenizer_service_pb2_grpc

MOST_DETOKENIZED = 1024 * 1024
"""Token ids in one call, or the model's context where that is longer."""
TextOrChat = pb.TokenizeRequest | pb.CountTokensRequest


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
        _, tokenizer = self._service.tokenizer(request.model)
        ids = await encode(source, tokenizer, special)
        return await off_loop(
            len(ids), lambda: pb.TokenizeResponse(token_ids=ids, pieces=[tokenizer.token_bytes(one) for one in ids])
        )

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Context) -> pb.DetokenizeResponse:
        """The text of these ids."""
        host, tokenizer = self._service.tokenizer(request.model)
        vocab_size = max(host.vocab_size, tokenizer.vocab_size)

        most = max(MOST_DETOKENIZED, host.context_length)
        if len(request.token_ids) > most:
            raise InvalidField(
                f"there are {len(request.token_ids)} token ids, which may be at most {most}", field="token_ids"
            )

        def detokenized() -> str:
            ids = request.token_ids[:]
            check_token_ids(ids, vocab_size, "token_ids")
            return tokenizer.decode(ids)

        return pb.DetokenizeResponse(text=await off_loop(len(request.token_ids), detokenized))

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        """How many tokens, beside how many there may be."""
        source = await large.off_loop(request, lambda: _input(request))
        host, tokenizer = self._service.tokenizer(request.model)
        ids = await encode(source, tokenizer)
        return pb.CountTokensResponse(count=len(ids), context_length=host.context_length)

    async def RenderChat(self, request: pb.RenderChatRequest, context: Context) -> pb.RenderChatResponse:
        """What the model sees of a conversation."""
        if not request.HasField("chat"):
            raise InvalidField("chat is required", field="chat")
        chat = await large.off_loop(request, lambda: convert.chat(request.chat))
        _, tokenizer = self._service.tokenizer(request.model)
        text = await rendered(chat, tokenizer)
        ids = await off_loop(len(text), lambda: tokenizer.encode(text, False))
        return pb.RenderChatResponse(text=text, token_ids=ids)


def _input(request: TextOrChat) -> str | Chat:
    match request.WhichOneof("input"):
        case "text":
            return request.text
        case "chat":
            return convert.chat(request.chat)
    raise InvalidField("one of text and chat is required", field="input")
