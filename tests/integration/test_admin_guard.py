"""The admin port does nothing for pages of other sites that an operator's browser has open."""

from __future__ import annotations

import pytest

from tests.helpers.admin import admin_of, error_of
from tests.helpers.rpc import in_loop, serving


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@in_loop
async def test_a_page_of_another_origin_changes_nothing(headers: dict[str, str]) -> None:
    """Whatever it says of itself that is not this very page."""
    async with serving() as (server, _):
        answer = await admin_of(server).call("POST", "/admin/drain", {}, headers)
        assert not server.server.stop_asked.is_set()
    assert (answer.status, error_of(answer)["reason"]) == (403, "FOREIGN_ORIGIN")


@in_loop
async def test_a_form_of_another_site_cannot_send_json() -> None:
    """A body that a form can send without asking is refused."""
    async with serving() as (server, _):
        answer = await admin_of(server).call("POST", "/admin/drain", b"{}", {"content-type": "text/plain"})
        assert not server.server.stop_asked.is_set()
    assert answer.status == 415


@in_loop
async def test_the_page_itself_may() -> None:
    """Its origin is the port's own."""
    async with serving() as (server, _):
        admin = admin_of(server)
        headers = {"origin": admin.url, "sec-fetch-site": "same-origin"}
        answer = await admin.call("POST", "/admin/drain", {}, headers)
    assert answer.status == 202


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evil.example:11437", "", "[::"])
@in_loop
async def test_a_name_that_is_rebound_to_loopback_is_refused(host: str) -> None:
    """Reading, too: such a page would be of the same origin as its own name."""
    async with serving() as (server, _):
        answer = await admin_of(server).get("/admin/status", {"host": host or "nobody"})
    assert (answer.status, error_of(answer)["reason"]) == (403, "FOREIGN_HOST")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:80", "127.8.8.8", "[::1]:11437"])
@in_loop
async def test_loopback_by_any_of_its_names_is_answered(host: str) -> None:
    """A forwarded port has another number."""
    async with serving() as (server, _):
        assert (await admin_of(server).get("/healthz", {"host": host})).status == 200


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/admin/status", "/nothing"])
@in_loop
async def test_every_answer_forbids_frames_and_foreign_content(path: str) -> None:
    """The page may take nothing from elsewhere, and nobody may put it into a frame."""
    async with serving() as (server, _):
        headers = (await admin_of(server).get(path)).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
