"""The blocking client over a real channel."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from grpc_health.v1 import health_pb2

from mlx_grpc import errors
from mlx_grpc.client import Cancelled, Client, HealthStatus, ModelState
from mlx_grpc.request import Completed, Delta, FinishReason, Started
from tests.helpers.client import (
    PATIENCE_SECONDS,
    SENT_WORDS,
    Scripted,
    fails,
    never_ends,
    scripted_server,
    sends_nothing,
)

FULL = errors.QueueFull("the queue is full", retry_after_seconds=0.25)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def client(server: Scripted) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def test_a_stream_is_an_iterator_of_events(client: Client) -> None:
    """Started comes first, Completed last, the text between."""
    events = list(client.stream("hi"))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Completed)
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "Hello you"


def test_the_text_alone(client: Client) -> None:
    """The simple case: pieces of text."""
    assert tuple(client.stream("hi").text()) == SENT_WORDS


def test_a_streams_result_counts_what_was_read_before(client: Client) -> None:
    """`result` after some events is the whole generation."""
    stream = client.stream("hi")
    next(stream)
    next(stream)
    result = stream.result()
    assert (result.text, result.finish_reason, result.stop_token_id) == ("Hello you", FinishReason.STOP, 2)
    assert (result.generation_id, result.seed, result.usage.completion_tokens) == ("gen-1", 7, 4)


def test_generate_returns_all_at_once(client: Client) -> None:
    """The unary call."""
    assert client.generate("hi", max_tokens=3).text == "Hello you"


def test_the_token_and_version_reach_the_server(server: Scripted) -> None:
    """In each call's metadata."""
    with Client(server.address, token="secret") as client:
        client.generate("hi")
    assert server.metadata[0]["authorization"] == "Bearer secret"
    assert str(server.metadata[0]["user-agent"]).startswith("mlx-grpc-python/")


def test_breaking_out_of_a_loop_cancels_the_call(server: Scripted, client: Client) -> None:
    """Also when the stream still has a name."""
    server.handler = never_ends
    stream = client.stream("hi")
    for event in stream:
        if isinstance(event, Delta):
            break
    assert server.call_done.wait(PATIENCE_SECONDS)
    assert list(stream) == []
    assert stream.text_so_far == "Once upon a time"


def test_breaking_out_of_the_text_cancels_the_call(server: Scripted, client: Client) -> None:
    """The generator of texts owns the call as well."""
    server.handler = never_ends
    for _ in client.stream("hi").text():
        break
    assert server.call_done.wait(PATIENCE_SECONDS)


def test_leaving_the_with_block_cancels_the_call(server: Scripted, client: Client) -> None:
    """The stream is still held, and not read to its end."""
    server.handler = never_ends
    with client.stream("hi") as stream:
        next(stream)
    assert server.call_done.wait(PATIENCE_SECONDS)


def test_losing_a_stream_cancels_the_call(server: Scripted, client: Client) -> None:
    """Garbage collection is a way to leave."""
    server.handler = never_ends
    stream = client.stream("hi")
    next(stream)
    del stream
    gc.collect()
    assert server.call_done.wait(PATIENCE_SECONDS)


def test_close_ends_a_reader_in_another_thread(server: Scripted, client: Client) -> None:
    """The thread that waits for the next event sees the end of the iterator, no error."""
    server.handler = never_ends
    stream = client.stream("hi")
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.extend(stream))
    reader.start()
    assert server.call_started.wait(PATIENCE_SECONDS)
    stream.close()
    reader.join(PATIENCE_SECONDS)
    assert not reader.is_alive()
    assert server.call_done.wait(PATIENCE_SECONDS)


def test_closing_the_client_cancels_its_streams(server: Scripted) -> None:
    """Nothing goes on behind a closed client, and it can be closed again."""
    server.handler = never_ends
    client = Client(server.address)
    next(client.stream("hi"))
    client.close()
    client.close()
    assert server.call_done.wait(PATIENCE_SECONDS)
    with pytest.raises(errors.MlxGrpcError, match="closed"):
        client.generate("hi")


def test_closing_the_client_ends_a_call_in_another_thread(server: Scripted) -> None:
    """The thread that waits for an answer gets Cancelled."""
    server.handler = sends_nothing
    client = Client(server.address)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.generate, "hi")
        assert server.call_started.wait(PATIENCE_SECONDS)
        client.close()
        with pytest.raises(Cancelled):
            answer.result(PATIENCE_SECONDS)


def test_an_error_is_typed_and_carries_the_retry_delay(server: Scripted) -> None:
    """QUEUE_FULL with its RetryInfo, and the ids from the trailing metadata."""
    server.handler = fails(FULL)
    with Client(server.address, retry=False) as client, pytest.raises(errors.QueueFull) as caught:
        client.generate("hi")
    assert caught.value.retry_after_seconds == 0.25
    assert caught.value.metadata["generation_id"] == "gen-1"
    assert server.calls == 1


def test_a_call_is_retried_before_its_first_message(server: Scripted, client: Client) -> None:
    """Two refusals, then the answer."""
    server.handler = fails(FULL, times=2)
    assert "".join(client.stream("hi").text()) == "Hello you"
    assert server.calls == 3


def test_a_call_is_never_retried_after_its_first_message(server: Scripted, client: Client) -> None:
    """What was sent once would come twice."""
    server.handler = fails(errors.Draining("going down"), after=2)
    stream = client.stream("hi")
    with pytest.raises(errors.Draining):
        list(stream)
    assert server.calls == 1
    assert stream.text_so_far == SENT_WORDS[0]
    assert list(stream) == []


def test_a_bad_field_is_not_retried(server: Scripted, client: Client) -> None:
    """It would be as bad again."""
    server.handler = fails(errors.InvalidField("stop.max_tokens: at least 1", field="stop.max_tokens"))
    with pytest.raises(errors.InvalidField) as caught:
        client.generate("hi")
    assert (caught.value.field, server.calls) == ("stop.max_tokens", 1)


def test_nobody_there_is_unavailable() -> None:
    """A target that refuses connections, seen by the client alone."""
    with scripted_server() as gone:
        address = gone.address
    with Client(address, retry=False) as client, pytest.raises(errors.Unavailable):
        client.generate("hi")


def test_a_deadline_ends_the_call_on_both_sides(server: Scripted) -> None:
    """The client's default deadline holds for calls that name none."""
    server.handler = sends_nothing
    with Client(server.address, timeout_seconds=0.2) as client, pytest.raises(errors.DeadlineExceeded):
        client.generate("hi")
    assert server.call_done.wait(PATIENCE_SECONDS)


def test_models_are_listed_page_by_page(client: Client) -> None:
    """Three models, two a page."""
    assert [model.id for model in client.list_models(page_size=2)] == ["a", "b", "c"]


def test_tokens_go_there_and_back(client: Client) -> None:
    """The four tokenizer calls."""
    tokens = client.tokenize("héy")
    assert tokens.pieces[0] == b"h"
    assert client.detokenize(tokens.token_ids) == "héy"
    assert client.count_tokens("four").count == 4
    assert client.render_chat([{"role": "user", "content": "hi"}]).text == "hi"


def test_server_info(client: Client) -> None:
    """Limits and versions arrive."""
    info = client.server_info()
    assert (info.version, info.backend, info.limits.max_queue) == ("1.2.3", "cpu", 4)


def test_health_is_told_and_watched(server: Scripted, client: Client) -> None:
    """A change reaches the watcher; a name that nobody knows is said to be unknown."""
    assert client.health() is HealthStatus.SERVING
    assert client.health("models/none") is HealthStatus.SERVICE_UNKNOWN
    with client.watch() as watch:
        assert next(watch) is HealthStatus.SERVING
        server.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert next(watch) is HealthStatus.NOT_SERVING


def test_models_are_managed(client: Client) -> None:
    """One model, unloading it, and an operator's call without the operator's rights."""
    assert client.get_model().id == "a"
    assert client.unload_model("a").state is ModelState.UNLOADING
    assert client.unload_model("a", force=True).state is ModelState.UNLOADED
    with pytest.raises(errors.WrongScope):
        client.load_model("a")


@pytest.mark.parametrize("method", ["generate('hi')", "stream('hi').result()"])
def test_ctrl_c_ends_a_call(server: Scripted, method: str) -> None:
    """A real SIGINT, in a real process: KeyboardInterrupt there, and the call is gone here."""
    server.handler = sends_nothing
    program = f"""
from mlx_grpc.client import Client
try:
    with Client({server.address!r}) as client:
        client.{method}
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert server.call_started.wait(PATIENCE_SECONDS)
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert (out.strip(), process.returncode) == ("interrupted", 0)
    assert server.call_done.wait(PATIENCE_SECONDS)
