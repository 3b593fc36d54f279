"""The page at /, in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from bge_rerank_integrations import InputError
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.fake_engine import FakeEngine
from serving.live import live_server

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
KEY = "the-key-of-this-server"
QUERY = "what is a panda"
PASSAGES = ["no word of it", "a panda is a bear", "what a panda is"]

in_browser = [
    pytest.mark.enable_socket,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver"),
]


async def test_the_page_asks_nobody_else(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r"https?://[^\s\"'<]+", response.text) == ["http://www.w3.org/2000/svg"]
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy


async def test_the_page_is_not_kept_framed_opened_or_guessed_at(client: httpx.AsyncClient) -> None:
    headers = (await client.get("/")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


class Page:
    """The page, as a person uses it."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        browser.get(url)

    def __getitem__(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def fill(self, query: str, passages: str) -> None:
        for name, text in (("query", query), ("passages", passages)):
            self[name].clear()
            self[name].send_keys(text)

    def wait(self, condition: Any) -> None:
        WebDriverWait(self.browser, 10, 0.02).until(lambda _: condition())

    def texts(self, part: str) -> list[str]:
        found = self.browser.find_elements(By.CSS_SELECTOR, part)
        return [element.text for element in found]

    def console(self) -> list[Any]:
        """What the browser complained of, a refused request or policy among it."""
        return list(self.browser.get_log("browser"))


@pytest.mark.usefixtures("browser")
class TestInABrowser:
    """Needs Chromium; the page's own server is on a socket of this machine."""

    pytestmark = in_browser

    @pytest.fixture
    def page(self, browser: webdriver.Chrome, fake_engine: FakeEngine) -> Iterator[Page]:
        with live_server(fake_engine) as url:
            page = Page(browser, url)
            page.wait(lambda: "fake" in page["about"].text)
            yield page
            assert page.console() == []

    def test_before_and_after_are_shown_with_scores_and_moves(self, page: Page) -> None:
        page.fill(QUERY, "\n".join(PASSAGES))
        page["go"].click()
        page.wait(lambda: page["lists"].is_displayed())
        assert page.texts("#before .text") == PASSAGES
        assert page.texts("#after .text") == [PASSAGES[2], PASSAGES[1], PASSAGES[0]]
        assert page.texts("#after .move") == ["↑ 2", "=", "↓ 2"]
        scores = [float(text.split()[0]) for text in page.texts("#after .score")]
        assert scores == sorted(scores, reverse=True)
        assert re.match(
            r"3 passages in \d+ ms, .* of it scoring; 30 tokens read", page["status"].text
        )
        assert "float32 on cpu" in page["about"].text
        assert len(page.browser.find_elements(By.CSS_SELECTOR, "#lines path")) == 3

    def test_the_keyboard_is_enough(self, page: Page) -> None:
        page.fill(QUERY, "\n".join(PASSAGES))
        page["passages"].send_keys(Keys.CONTROL, Keys.ENTER)
        page.wait(lambda: page["lists"].is_displayed())
        first = page.browser.find_element(By.CSS_SELECTOR, "#after .item")
        first.send_keys(Keys.ENTER)
        assert first.get_attribute("aria-expanded") == "true"
        assert "lit" in str(first.get_attribute("class"))

    def test_logits_are_shown_on_request(self, page: Page) -> None:
        page.fill(QUERY, "\n".join(PASSAGES))
        page["raw"].click()
        page["go"].click()
        page.wait(lambda: page["lists"].is_displayed())
        assert [text.split()[0] for text in page.texts("#after .score")] == [
            "2.50",
            "1.50",
            "-1.50",
        ]

    def test_passages_of_several_lines_have_empty_lines_between_them(self, page: Page) -> None:
        page.fill(QUERY, "one\ntwo\n\nthree")
        assert page["passages-hint"].text == "2 passages"

    def test_missing_texts_are_told_at_their_fields(self, page: Page) -> None:
        page.fill("", "")
        page["go"].click()
        assert page["query-error"].text == "A query is needed."
        assert page["passages-error"].text == "At least one passage is needed."
        assert page.browser.switch_to.active_element == page["query"]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.txt", "one\ntwo\n"),
            ("a.json", json.dumps(["one", {"text": "two", "id": 3}])),
            ("a.jsonl", '{"text": "one"}\n\n{"text": "two"}\n'),
        ],
    )
    def test_a_file_fills_the_field(
        self, page: Page, tmp_path: Path, name: str, content: str
    ) -> None:
        (tmp_path / name).write_text(content)
        page["file"].send_keys(str(tmp_path / name))
        page.wait(lambda: page["passages"].get_property("value") == "one\ntwo")
        assert page["passages-hint"].text == "2 passages"

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.txt", b"\xff\xfe", "a.txt cannot be read"),
            ("a.json", b"{}", "a list was expected"),
            ("a.jsonl", b'{"text": "one"}\n{"id": 3}', "line 2: each item must be a string"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_told_at_the_field(
        self, page: Page, tmp_path: Path, name: str, content: bytes, message: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        page["file"].send_keys(str(tmp_path / name))
        page.wait(lambda: message in page["passages-error"].text)

    def test_an_error_is_told_where_it_belongs(self, browser: webdriver.Chrome) -> None:
        engine = FakeEngine(InputError("document 1 is odd", 1))
        with live_server(engine) as url:
            page = Page(browser, url)
            page["go"].click()
            page.wait(lambda: page["passages-error"].text == "passage 2 is odd")
            engine.error = ZeroDivisionError()
            page["go"].click()
            page.wait(lambda: "failed on this request" in page["server-error"].text)
        page["go"].click()
        page.wait(lambda: "cannot be reached" in page["server-error"].text)
        page.console()

    def test_a_slow_answer_may_be_stopped(self, browser: webdriver.Chrome) -> None:
        engine = FakeEngine(delay_s=30)
        with live_server(engine) as url:
            page = Page(browser, url)
            page["go"].click()
            page.wait(lambda: engine.waiting)
            page["query"].send_keys(Keys.ESCAPE)
            page.wait(lambda: page["status"].text == "Stopped.")
            page.wait(lambda: engine.cancelled)

    def test_the_key_is_asked_for_where_one_is_set(self, browser: webdriver.Chrome) -> None:
        with live_server(FakeEngine(), ServerSettings(api_keys=(KEY,))) as url:
            page = Page(browser, url)
            page.wait(lambda: page["key-form"].is_displayed())
            page["key"].send_keys("wrong", Keys.ENTER)
            page.wait(lambda: page["key-error"].text == "That key is not the server's.")
            page["key"].clear()
            page["key"].send_keys(KEY, Keys.ENTER)
            page.wait(lambda: not page["key-form"].is_displayed())
            page.wait(lambda: "fake" in page["about"].text)
            page["go"].click()
            page.wait(lambda: page["lists"].is_displayed())
        page.console()

    @pytest.mark.parametrize("width", [360, 1280])
    def test_nothing_is_wider_than_the_window(self, page: Page, width: int) -> None:
        page.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        page.fill(QUERY, "word" * 200 + "\nshort")
        page["go"].click()
        page.wait(lambda: page["lists"].is_displayed())
        overflow = "return document.documentElement.scrollWidth - window.innerWidth"
        assert page.browser.execute_script(overflow) <= 0
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
