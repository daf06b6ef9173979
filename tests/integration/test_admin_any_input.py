"""Whatever is sent to the admin port, the answer is in its form and never a 500."""

from __future__ import annotations

import http.client
import json
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_grpc import testing

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
BODIES = (
    st.binary(max_size=200)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"model": VALUES}, optional={"force": VALUES}).map(lambda value: json.dumps(value).encode())
)
PATHS = st.sampled_from(["/admin/models/load", "/admin/models/unload", "/admin/requests/gen-1/cancel"]) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), max_size=40
).map(lambda text: f"/admin/{text}")


def test_any_body_and_path_get_a_proper_answer() -> None:
    """Accepted, or a 4xx that says code, reason, message and field; and the server takes calls afterwards."""
    with testing.run() as server:
        host, _, port = server.server.admin.address.rpartition(":")

        @settings(max_examples=300, deadline=None, database=None)
        @given(path=PATHS, body=BODIES)
        def send(path: str, body: bytes) -> None:
            with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
            if answer.status != 202:
                assert 400 <= answer.status < 500, content
                assert set(json.loads(content)["error"]) == {"code", "reason", "message", "field"}

        send()
        assert server.server.service.refusal() is None
