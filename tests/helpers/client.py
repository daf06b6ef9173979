"""A real gRPC server whose answers the test scripts: for what a well-behaved server never does to a client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Never

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mlx_grpc.errors import MlxGrpcError, WrongScope
from mlx_grpc.rpc.status import to_status
from mlx_grpc.v1 import (
    generation_pb2,
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    server_pb2,
    server_service_pb2,
    server_service_pb2_grpc,
    tokenizer_service_pb2,
    tokenizer_service_pb2_grpc,
)

PATIENCE_SECONDS = 30.0
"""How long a test waits for an event that must come; reaching it is a failure."""

Event = inference_service_pb2.StreamGenerateResponse
Handler = Callable[["Scripted", Any, Any], Iterator[Event]]
IDS = (("x-request-id", "mine"), ("x-generation-id", "gen-1"))
SENT_WORDS = ("Hel", "lo ", "you")


def started() -> Event:
    return Event(
        started=inference_service_pb2.StartedEvent(
            generation_id="gen-1", request_id="mine", model="tiny", prompt_tokens=3, seed=7
        )
    )


def delta(text: str) -> Event:
    return Event(delta=inference_service_pb2.DeltaEvent(text=text, token_ids=[len(text)]))


def ending() -> Iterator[Event]:
    yield Event(
        finished=inference_service_pb2.FinishedEvent(
            finish_reason=generation_pb2.FINISH_REASON_STOP,
            stop_detail=generation_pb2.StopDetail(stop_token_id=2),
        )
    )
    usage = generation_pb2.Usage(prompt_tokens=3, completion_tokens=4)
    yield Event(completed=inference_service_pb2.CompletedEvent(usage=usage))


def answers(server: Scripted, request: Any, context: Any) -> Iterator[Event]:
    """A whole answer."""
    yield started()
    yield from map(delta, SENT_WORDS)
    yield from ending()


def never_ends(server: Scripted, request: Any, context: Any) -> Iterator[Event]:
    """The beginning of an answer, then nothing until the call is gone."""
    yield started()
    yield delta("Once upon a time")
    server.call_done.wait(PATIENCE_SECONDS)


def sends_nothing(server: Scripted, request: Any, context: Any) -> Iterator[Event]:
    """No message at all until the call is gone."""
    server.call_done.wait(PATIENCE_SECONDS)
    yield from ()


def fails(error: MlxGrpcError, times: int = 1_000, after: int = 0) -> Handler:
    """Fails the first `times` calls, each `after` so many messages; answers the calls after that."""

    def handle(server: Scripted, request: Any, context: Any) -> Iterator[Event]:
        if server.calls > times:
            yield from answers(server, request, context)
            return
        yield from (started(), *map(delta, SENT_WORDS))[:after] if after else ()
        status: Any = to_status(error)
        context.abort_with_status(status._replace(trailing_metadata=(*status.trailing_metadata, *IDS)))

    return handle


class Scripted(
    inference_service_pb2_grpc.InferenceServiceServicer,
    tokenizer_service_pb2_grpc.TokenizerServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
    server_service_pb2_grpc.ServerServiceServicer,
):
    """The servicers. `call_done` is set when a generation's call has ended, however it ended."""

    def __init__(self) -> None:
        self.handler: Handler = answers
        self.address = ""
        self.calls = 0
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.call_done = threading.Event()
        self.call_started = threading.Event()
        self.models = ["a", "b", "c"]
        self.health = health.HealthServicer()
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)

    def StreamGenerate(self, request: Any, context: Any) -> Iterator[Event]:
        self.calls += 1
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        context.set_trailing_metadata(IDS)
        context.add_callback(self.call_done.set)
        self.call_started.set()
        yield from self.handler(self, request, context)

    def Generate(self, request: Any, context: Any) -> inference_service_pb2.GenerateResponse:
        events = list(self.StreamGenerate(request, context))
        return inference_service_pb2.GenerateResponse(
            generation_id="gen-1",
            model="tiny",
            seed=7,
            candidates=[
                inference_service_pb2.Candidate(
                    text="".join(event.delta.text for event in events),
                    finish_reason=generation_pb2.FINISH_REASON_STOP,
                )
            ],
        )

    def Tokenize(self, request: Any, context: Any) -> tokenizer_service_pb2.TokenizeResponse:
        pieces = [bytes([byte]) for byte in request.text.encode()]
        return tokenizer_service_pb2.TokenizeResponse(token_ids=[piece[0] for piece in pieces], pieces=pieces)

    def Detokenize(self, request: Any, context: Any) -> tokenizer_service_pb2.DetokenizeResponse:
        return tokenizer_service_pb2.DetokenizeResponse(text=bytes(request.token_ids).decode())

    def CountTokens(self, request: Any, context: Any) -> tokenizer_service_pb2.CountTokensResponse:
        return tokenizer_service_pb2.CountTokensResponse(count=len(request.text), context_length=100)

    def RenderChat(self, request: Any, context: Any) -> tokenizer_service_pb2.RenderChatResponse:
        text = "".join(part.text for message in request.chat.messages for part in message.content)
        return tokenizer_service_pb2.RenderChatResponse(text=text, token_ids=[1])

    def ListModels(self, request: Any, context: Any) -> model_service_pb2.ListModelsResponse:
        first = int(request.page_token or 0)
        after = first + (request.page_size or 100)
        ready = model_pb2.MODEL_STATE_READY
        return model_service_pb2.ListModelsResponse(
            models=[model_pb2.Model(id=name, state=ready) for name in self.models[first:after]],
            next_page_token=str(after) if after < len(self.models) else "",
        )

    def GetModel(self, request: Any, context: Any) -> model_service_pb2.GetModelResponse:
        return model_service_pb2.GetModelResponse(model=model_pb2.Model(id=request.model or "a"))

    def LoadModel(self, request: Any, context: Any) -> Never:
        context.abort_with_status(to_status(WrongScope("loading needs the admin scope")))
        raise AssertionError

    def UnloadModel(self, request: Any, context: Any) -> model_service_pb2.UnloadModelResponse:
        state = model_pb2.MODEL_STATE_UNLOADED if request.force else model_pb2.MODEL_STATE_UNLOADING
        return model_service_pb2.UnloadModelResponse(model=model_pb2.Model(id=request.model, state=state))

    def GetServerInfo(self, request: Any, context: Any) -> server_service_pb2.GetServerInfoResponse:
        limits = server_pb2.ServerLimits(max_queue=4, max_batch=2)
        return server_service_pb2.GetServerInfoResponse(version="1.2.3", backend="cpu", limits=limits)


@contextmanager
def scripted_server() -> Iterator[Scripted]:
    """The server on a free port of this machine, in this process, until the block ends."""
    scripted = Scripted()
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(scripted, server)
        tokenizer_service_pb2_grpc.add_TokenizerServiceServicer_to_server(scripted, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(scripted, server)
        server_service_pb2_grpc.add_ServerServiceServicer_to_server(scripted, server)
        health_pb2_grpc.add_HealthServicer_to_server(scripted.health, server)
        scripted.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield scripted
        finally:
            scripted.health.enter_graceful_shutdown()
            server.stop(None).wait(PATIENCE_SECONDS)
