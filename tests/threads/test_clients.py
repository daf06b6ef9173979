"""Many threads and many event loops on one server, clients that close and streams that are cancelled in any moment."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlx_grpc import testing
from mlx_grpc.client import AsyncClient, Client
from mlx_grpc.client.results.data import Generation
from mlx_grpc.engine.scripted.script import Script
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import Completed

pytestmark = pytest.mark.prove

THREADS = 16
REPLIES = {f"{number}!": f"reply number {number} " * 3 for number in range(THREADS)}
FULL_TIMES, FEW_TIMES = 1000, 20
PATIENCE_SECONDS = 60.0


@pytest.fixture
def times(full_size: bool) -> int:
    """How often each thing is done."""
    return FULL_TIMES if full_size else FEW_TIMES


@pytest.fixture(scope="module")
def server() -> Iterator[testing.LocalServer]:
    with testing.run(Script(replies=REPLIES), max_queue=1000) as server:
        yield server


def in_threads(work: Callable[[int], object], count: int = THREADS) -> list[object]:
    """What the work returns in each of so many threads that start together. Raises what one of them raised."""
    together = threading.Barrier(count)

    def started(number: int) -> object:
        together.wait(PATIENCE_SECONDS)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(started, number) for number in range(count)]]


def prompt(number: int) -> str:
    return f"{number % THREADS}!"


def idle(server: testing.LocalServer) -> bool:
    """Whether the server has let go of every call: asked in its own loop, which no thread may look into."""
    dispatcher = server.catalog.get("").dispatcher
    asyncio.run_coroutine_threadsafe(asyncio.wait_for(dispatcher.idle(), PATIENCE_SECONDS), dispatcher._loop).result()
    return not server.active_rows


def test_many_threads_on_one_client(server: testing.LocalServer, times: int) -> None:
    """Each thread gets the replies to its own prompts, by Generate and by StreamGenerate in turn."""
    with Client(server.target) as client:

        def work(number: int) -> None:
            for turn in range(times // THREADS + 1):
                if turn % 2:
                    assert client.generate(prompt(number)).text == REPLIES[prompt(number)]
                else:
                    assert "".join(client.stream(prompt(number)).text()) == REPLIES[prompt(number)]

        in_threads(work)
    assert idle(server)


def test_many_loops(server: testing.LocalServer, times: int) -> None:
    """Each thread has an event loop and a client of its own, with several calls at once in each."""

    async def calls(number: int) -> None:
        async with AsyncClient(server.target) as client:
            for _ in range(times // (4 * THREADS) + 1):
                answers = await asyncio.gather(*(client.generate(prompt(number + other)) for other in range(4)))
                assert [answer.text for answer in answers] == [REPLIES[prompt(number + other)] for other in range(4)]

    in_threads(lambda number: asyncio.run(calls(number)), 8)
    assert idle(server)


def test_a_client_that_is_closed_while_others_call(server: testing.LocalServer, times: int) -> None:
    """Each call answers, or raises an error of ours; none hangs, and none comes through after the close."""
    moments = random.Random(5)
    for _ in range(times):
        client = Client(server.target, retry=False)
        calls_before_close = moments.randrange(4)
        closing = threading.Semaphore(0)

        def work(number: int, client: Client = client, closing: threading.Semaphore = closing) -> bool:
            try:
                right = client.generate(prompt(number)).text == REPLIES[prompt(number)]
            except MlxGrpcError:
                right = True
            closing.release()
            return right

        def close(
            client: Client = client, closing: threading.Semaphore = closing, calls: int = calls_before_close
        ) -> bool:
            for _ in range(calls):
                closing.acquire()
            client.close()
            return True

        assert all(in_threads(lambda number, work=work, close=close: close() if number == 0 else work(number), 5))  # type: ignore[misc]
        with pytest.raises(MlxGrpcError, match="closed"):
            client.generate(prompt(0))
    assert idle(server)


def test_streams_that_are_cancelled_while_they_finish(server: testing.LocalServer, times: int) -> None:
    """At any event, the last ones most often: what was read is the beginning of the reply, and no row stays."""
    moments = random.Random(6)
    with Client(server.target) as client:

        def work(number: int) -> None:
            for _ in range(times // 8 + 1):
                said, events = "", moments.choice((1, 2, 5, 1000))
                with client.stream(prompt(number)) as stream:
                    for count, event in enumerate(stream, 1):
                        said += getattr(event, "text", "")
                        if count == events or isinstance(event, Completed):
                            break
                assert REPLIES[prompt(number)].startswith(said)

        in_threads(work, 8)
    assert idle(server)


def test_a_stream_that_another_thread_closes(server: testing.LocalServer, times: int) -> None:
    """The reader's iteration ends, with all or with an error of ours; it never hangs."""
    with Client(server.target) as client:

        def work(number: int) -> None:
            for _ in range(times // 4 + 1):
                stream = client.stream(prompt(number))
                begun = threading.Event()

                def close(stream: object = stream, begun: threading.Event = begun) -> None:
                    begun.wait(PATIENCE_SECONDS)
                    stream.close()  # type: ignore[attr-defined]

                closer = threading.Thread(target=close)
                closer.start()
                try:
                    for _ in stream:
                        begun.set()
                except MlxGrpcError:
                    pass
                finally:
                    begun.set()
                    closer.join()

        in_threads(work, 4)
    assert idle(server)


def test_calls_that_come_while_the_server_stops(full_size: bool) -> None:
    """Each ends: with its reply, as DRAINING, or as a server that is not there any more."""
    for _ in range(100 if full_size else 3):
        answers: list[Generation] = []
        with testing.run(Script(replies=REPLIES)) as server:
            clients = [Client(server.target, retry=False, timeout_seconds=PATIENCE_SECONDS) for _ in range(4)]
            begun, pool = threading.Semaphore(0), ThreadPoolExecutor(4)

            def work(client: Client, begun: threading.Semaphore = begun, answers: list[Generation] = answers) -> str:
                while True:
                    try:
                        answers.append(client.generate(prompt(3)))
                    except MlxGrpcError as error:
                        return error.code
                    begun.release()

            ends = [pool.submit(work, client) for client in clients]
            for _ in clients:
                begun.acquire(timeout=PATIENCE_SECONDS)
        codes = {end.result(PATIENCE_SECONDS) for end in ends}
        pool.shutdown()
        for client in clients:
            client.close()
        assert codes <= {"UNAVAILABLE", "CANCELLED"}
        assert {answer.text for answer in answers} == {REPLIES[prompt(3)]}
