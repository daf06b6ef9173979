"""The live page in a real browser: values change while requests run, cancel cancels, and it comes back by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from mlx_grpc import testing
from mlx_grpc.client import Client
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.testing import LocalServer, Script
from tests.helpers.browser import browser, waiting

SLOW = Script(step_seconds=0.02)


class Call(threading.Thread):
    """A call in a thread, for as long as it takes."""

    def __init__(self, target: str, max_tokens: int) -> None:
        super().__init__(name="a client")
        self._target, self._max_tokens = target, max_tokens
        self.reason = ""

    def run(self) -> None:
        with Client(self._target, retry=False) as client:
            try:
                client.generate(prompt="secret words", max_tokens=self._max_tokens, ignore_eos=True)
            except MlxGrpcError as error:
                self.reason = error.reason


@contextmanager
def calling(server: LocalServer, count: int = 1, max_tokens: int = 2000) -> Iterator[list[Call]]:
    """Calls that run while the block does; what is left of them is cut off."""
    calls = [Call(server.target, max_tokens) for _ in range(count)]
    for call in calls:
        call.start()
    try:
        yield calls
    finally:
        for host in server.catalog.hosts:
            for generation in list(host.dispatcher.calls):
                server.server.service.cancel(generation.request.generation_id)
        for call in calls:
            call.join()


@contextmanager
def page_of(server: LocalServer, **looks: object) -> Iterator[Chrome]:
    """The page, once it shows the server's state; its scripts may not fail meanwhile."""
    with browser(**looks) as page:  # type: ignore[arg-type]
        page.get(server.admin_url)
        waiting(page).until(lambda page: text_of(page, "#state") == "SERVING")
        try:
            yield page
        finally:
            assert not complaints(page)


def text_of(page: Chrome, selector: str) -> str:
    return page.find_element(By.CSS_SELECTOR, selector).text


def value_of(page: Chrome, tile: str) -> str:
    return text_of(page, f"[data-tile={tile}] [data-value]")


def complaints(page: Chrome) -> list[str]:
    """What the browser says against the page: errors of scripts, refusals of the content policy."""
    entries = page.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]


def test_values_change_while_requests_run_and_cancel_cancels() -> None:
    """Rows, tokens and the list follow the calls; the button ends its call, which is then listed."""
    with testing.run(SLOW, max_batch=2) as server, page_of(server) as page:
        assert (value_of(page, "rows"), text_of(page, "#running-count")) == ("0", "0")
        with calling(server, 3) as calls:
            wait = waiting(page)
            wait.until(lambda page: (value_of(page, "rows"), value_of(page, "queue")) == ("2", "1"))
            wait.until(lambda page: value_of(page, "tokens") not in ("", "0"))
            before = text_of(page, "#running .progress span")
            wait.until(lambda page: text_of(page, "#running .progress span") != before)
            assert len(page.find_elements(By.CSS_SELECTOR, "#running tbody tr")) == 3
            assert "secret" not in page.page_source
            page.find_element(By.CSS_SELECTOR, "#running tbody tr button").click()
            wait.until(lambda page: text_of(page, "#running-count") == "2")
            wait.until(lambda page: "CANCELLED_BY_ADMIN" in text_of(page, "#errors"))
        assert [call.reason for call in calls].count("CANCELLED_BY_ADMIN") >= 1
        waiting(page).until(lambda page: text_of(page, "#running-count") == "0")


def test_a_curve_is_told_in_words() -> None:
    """Each has a name and a summary for those who do not see it, and the summary follows the values."""
    with testing.run(SLOW) as server, page_of(server) as page:
        curves = page.find_elements(By.CSS_SELECTOR, "svg[role=img]")
        assert len(curves) == 5
        assert all("over the last" in (curve.get_attribute("aria-label") or "") for curve in curves)
        with calling(server):
            rows = page.find_element(By.CSS_SELECTOR, "[data-tile=rows] svg")
            waiting(page).until(lambda _: "highest 1" in (rows.get_attribute("aria-label") or ""))


def test_a_model_says_how_its_rows_share_the_device() -> None:
    """In a word, and in a sentence for whoever points at the word."""
    with testing.run(SLOW) as server, page_of(server) as page:
        word = page.find_element(By.CSS_SELECTOR, "#models small")
        waiting(page).until(lambda _: "padded" in word.text)
        assert "different lengths are processed together" in (word.get_attribute("title") or "")


def test_refusals_are_listed_with_their_reasons() -> None:
    """The reason, how often it came, and what it says."""
    with testing.run(SLOW) as server, page_of(server) as page, Client(server.target, retry=False) as client:
        for _ in range(2):
            with pytest.raises(MlxGrpcError):
                client.generate(prompt="x", temperature=-1)
        waiting(page).until(lambda page: text_of(page, "#reasons") == "INVALID_FIELD\n2")
        assert "sampling.temperature" in text_of(page, "#errors")


def test_the_page_comes_back_when_the_server_does() -> None:
    """It says that the connection is lost, and shows the next server on that port without being asked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with browser() as page:
        with testing.run(admin_port=port) as server:
            page.get(server.admin_url)
            waiting(page).until(lambda page: text_of(page, "#state") == "SERVING")
        waiting(page).until(lambda page: text_of(page, "#state") == "no connection")
        with testing.run(admin_port=port):
            waiting(page).until(lambda page: text_of(page, "#state") == "SERVING")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_it_fits_the_screen(width: int, dark: bool) -> None:
    """Nothing sticks out to the side, on a phone neither, with requests running."""
    with testing.run(SLOW) as server, page_of(server, width=width, dark=dark) as page, calling(server, 3):
        waiting(page).until(lambda page: text_of(page, "#running-count") == "3")
        wide = page.execute_script("return document.documentElement.scrollWidth")
        ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert wide <= width
    assert (ground == "rgb(14, 19, 18)") is dark


def test_it_can_be_used_without_seeing_it() -> None:
    """Landmarks, table headers with scope, buttons and bars with names, one polite live region."""
    with testing.run(SLOW) as server, page_of(server) as page, calling(server):
        waiting(page).until(lambda page: text_of(page, "#running-count") == "1")
        unnamed = page.execute_script("""
            const nameless = (node) => !(node.getAttribute("aria-label") || node.textContent.trim());
            const named = "button:not([hidden]), progress, a, section > h2";
            return [...document.querySelectorAll(named)].filter(nameless).length
              + [...document.querySelectorAll("th")].filter((node) => node.scope !== "col" || nameless(node)).length
              + [...document.querySelectorAll("table")].filter((node) => !node.caption).length;
        """)
        regions = [
            len(page.find_elements(By.CSS_SELECTOR, name)) for name in ("header", "main", "footer", "[aria-live]")
        ]
        assert "Cancel request" in (
            page.find_element(By.CSS_SELECTOR, "#running button").get_attribute("aria-label") or ""
        )
    assert unnamed == 0
    assert regions == [1, 1, 1, 1]


def test_focus_stays_where_it_is_while_values_change() -> None:
    """A row is changed in place: whoever is on its button stays there."""
    with testing.run(SLOW) as server, page_of(server) as page, calling(server):
        waiting(page).until(lambda page: text_of(page, "#running-count") == "1")
        page.execute_script("document.querySelector('#running button').focus()")
        before = text_of(page, "#running .progress span")
        waiting(page).until(lambda page: text_of(page, "#running .progress span") != before)
        assert page.execute_script("return document.activeElement.textContent") == "Cancel"
