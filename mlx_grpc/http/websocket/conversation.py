"""/v1/ws: questions and answers on one socket.

Questions are answered one after another, in the order in which they came; a socket holds a bounded number of them. An
idle socket is one task that waits. When the socket closes, the answer being given is cancelled and its row freed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.http.openai.access import headers_of, origin_allowed
from mlx_grpc.http.openai.answers import REASONS
from mlx_grpc.http.openai.bodies import Body
from mlx_grpc.http.openai.errors import ApiError, api_error, internal_error
from mlx_grpc.http.openai.requests import read_priority
from mlx_grpc.http.openai.structure import check_structure
from mlx_grpc.http.token_check import client_of
from mlx_grpc.http.turns import LARGE_BYTES, turns_of
from mlx_grpc.http.websocket import messages as messages
from mlx_grpc.http.websocket.messages import Cancel, Parameters, TextInput
from mlx_grpc.http.websocket.questions import Question, Questions
from mlx_grpc.http.wire.socket import HOLDING, connection_of
from mlx_grpc.request import Chat, Delta, GenerationRequest, Priority
from mlx_grpc.request import Message as Turn
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.intake.validate import validate
from mlx_grpc.service.service import Service

log = logging.getLogger(__name__)

MESSAGE_SECONDS = 0.0003
"""What a message costs besides being parsed: to be taken out, and answered with an error."""
SMALL_CHARACTERS = 4096
"""So little cannot hold so many values that they matter, and need not be encoded to count them."""


class Sockets:
    """The endpoint."""

    def __init__(self, service: Service, origins: Collection[str], slow_reader_seconds: float) -> None:
        self._service = service
        self._slow_reader_seconds = slow_reader_seconds
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. What is refused here is refused as HTTP, before there is a socket."""
        socket = WebSocket(scope, receive, send)
        try:
            priority = self._admit(headers_of(scope))
        except MlxGrpcError as error:
            await _refuse(socket, api_error(error))
        except ApiError as error:
            await _refuse(socket, error)
        else:
            await socket.accept()
            conversation = _Conversation(self._service, socket, client_of(scope), priority, self._slow_reader_seconds)
            await conversation.run()

    def _admit(self, headers: Mapping[str, str]) -> Priority:
        if not origin_allowed(headers, self._origins):
            raise ApiError(403, "pages of this origin may not call; --cors-origin lets them", code="wrong_origin")
        return read_priority(headers)


async def _refuse(socket: WebSocket, error: ApiError) -> None:
    response = Response(error.body(), error.status, error.headers, media_type="application/json")
    await socket.send_denial_response(response)


class _Conversation:
    """One socket's. Two tasks at most: the one that reads, and the one that answers."""

    def __init__(
        self, service: Service, socket: WebSocket, client: str, priority: Priority, slow_reader_seconds: float
    ) -> None:
        self._service = service
        self._slow_reader_seconds = slow_reader_seconds
        self._socket = socket
        self._client = client
        self._priority = priority
        self._parameters = Parameters()
        self._turns = turns_of(socket.scope)
        self._connection = connection_of(socket.scope)
        self._waiting = Questions(self._connection.hold if self._connection else None)
        self._answering: asyncio.Task[None] | None = None
        self._question: Question | None = None
        """The one that is being answered."""
        self._generating: asyncio.Timeout | None = None
        """What `cancel` ends."""
        self._open: asyncio.Timeout | None = None
        """What a reader that takes nothing ends."""

    async def run(self) -> None:
        """Until the socket closes."""
        try:
            async with asyncio.timeout(None) as self._open:
                while (message := await self._socket.receive())["type"] != "websocket.disconnect":
                    try:
                        await self._take(message)
                    except ApiError as error:
                        await self._complain(error)
                    except MlxGrpcError as error:
                        await self._complain(api_error(error))
        except WebSocketDisconnect:
            pass
        except (TimeoutError, _SlowReader):
            log.info("a socket took nothing for %g s: it is closed", self._slow_reader_seconds)
        finally:
            self._waiting.clear()
            if self._answering:
                self._answering.cancel()
                await asyncio.gather(self._answering, return_exceptions=True)
            if self._question:
                self._question.close()  # a task that was cancelled before it began has closed nothing

    async def _complain(self, error: ApiError) -> None:
        await self._send(messages.error_message(error, ends_answer=False))
        await asyncio.sleep(0)  # hundreds of messages may have come at once, and sending need not have waited

    # What the client says.

    async def _take(self, message: Message) -> None:
        match await self._parsed(message):
            case TextInput() as question:
                self._ask(question.chat())
            case Parameters() as parameters:
                self._configure(parameters)
            case Cancel() if self._generating:
                ending, self._generating = self._generating, None  # it can be told once
                ending.reschedule(asyncio.get_running_loop().time())

    async def _parsed(self, message: Message) -> Body:
        """What was said. The text, and the room that it held, are free then."""
        holding = message.pop(HOLDING, None)
        try:
            text = message.pop("text", None)
            if text is None:
                raise ApiError(400, "messages are text, not bytes", code="invalid_type")
            self._turns.charge(MESSAGE_SECONDS)
            if len(text) > SMALL_CHARACTERS:
                await self._turns.run_each(check_structure(text.encode()))
            run = self._turns.run_alone if len(text) > LARGE_BYTES else self._turns.run
            return await run(messages.parse, text)
        finally:
            if holding:
                holding.close()

    def _configure(self, sent: Parameters) -> None:
        """Only what was sent changes, and only when all of it can be."""
        changes = {name: getattr(sent, name) for name in sent.model_fields_set}
        parameters = self._parameters.model_copy(update=changes)
        try:
            validate(parameters.request(Chat((Turn("user", "?"),)), self._priority))
        except MlxGrpcError as error:
            raise messages.socket_error(error) from None
        self._parameters = parameters

    def _ask(self, chat: Chat) -> None:
        self._waiting.add(self._parameters.request(chat, self._priority))
        self._answer_next()

    # Answers.

    def _answer_next(self, ended: asyncio.Task[None] | None = None) -> None:
        if ended is not None:
            self._answering = None
        if self._answering is None and self._waiting:
            self._question = self._waiting.next()
            self._answering = asyncio.create_task(self._answer(self._question), name="websocket answer")
            self._answering.add_done_callback(self._answer_next)
        if self._connection:
            self._connection.working(self._answering is not None)

    async def _answer(self, question: Question) -> None:
        """Ends with one message: response_complete or error."""
        try:
            try:
                last = await self._generate(question.begin())
            except MlxGrpcError as error:
                last = messages.error_message(messages.socket_error(error, question.chat), ends_answer=True)
            except (WebSocketDisconnect, _SlowReader):
                raise
            except Exception as error:
                last = messages.error_message(internal_error("a socket", error), ends_answer=True)
            finally:
                question.close()
            await self._send(last)
        except WebSocketDisconnect:
            pass  # the task that reads sees it, too
        except _SlowReader:
            if self._open:
                self._open.reschedule(asyncio.get_running_loop().time())

    async def _generate(self, request: GenerationRequest) -> str:
        """Send the answer but for its last message, which is returned."""
        began_seconds = time.monotonic()
        text: list[str] = []
        generation = None
        try:
            async with asyncio.timeout(None) as self._generating, self._open_generation(request) as generation:
                resolved = generation.request
                await self._send(messages.response_start(resolved.generation_id, resolved.model))
                while events := await generation.next_events():
                    for event in events:
                        if isinstance(event, Delta):
                            text.append(event.text)
                            await self._send(messages.token(event.text, time.time()))
        except TimeoutError:
            reason = messages.CANCELLED
        else:
            assert generation.finished is not None
            reason = REASONS[generation.finished.reason]
        finally:
            self._generating = None
        completed = generation.completed if generation else None
        return messages.response_complete("".join(text), time.monotonic() - began_seconds, completed, reason)

    def _open_generation(self, request: GenerationRequest) -> AbstractAsyncContextManager[Generation]:
        return self._service.generation(request, client=self._client)

    async def _send(self, message: str) -> None:
        """Raises WebSocketDisconnect, or _SlowReader."""
        try:
            async with asyncio.timeout(self._slow_reader_seconds):
                await self._socket.send_text(message)
        except TimeoutError:
            raise _SlowReader from None


class _SlowReader(Exception):
    """The client took nothing for too long."""
