"""The page at /, in a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from bge_rerank_integrations import InputError, RerankEngine
from bge_rerank_integrations.catalog import languages_of
from bge_rerank_integrations.ranking import TokenUsage
from bge_rerank_integrations.serving.settings import ServerSettings
from serving.fake_engine import FakeEngine
from serving.live import live_server

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
KEY = "the-key-of-this-server"
QUERY = "what is a panda"
WIDTHS = (360, 768, 1280)
AXE = (files("axe_core_python") / "axe.min.js").read_text("utf-8")
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


async def test_the_example_is_right_with_the_built_in_model(client: httpx.AsyncClient) -> None:
    page = (await client.get("/")).text
    example = page[page.index("const EXAMPLE") : page.index("};", page.index("const EXAMPLE"))]
    query, *passages = re.findall(r'"(.+)"', example)
    with RerankEngine("tiny", device="cpu") as engine:
        ranking = engine.rerank(query, passages)
    assert {passages[kept.index].split(",")[0] for kept in ranking[:3]} == {
        "In autumn trees stop making chlorophyll",
        "The yellow pigments that show in autumn were in the leaf all summer",
        "Red colors of autumn leaves come from anthocyanins",
    }
    # not by a hair
    assert ranking[2].score > ranking[3].score + 0.3


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

    def paste(self, query: str, passages: str) -> None:
        """Fill, faster than a long text is typed."""
        self.browser.execute_script(
            "for (const [id, text] of Object.entries(arguments[0])) {"
            "const field = document.getElementById(id); field.value = text;"
            "field.dispatchEvent(new Event('input')); }",
            {"query": query, "passages": passages},
        )

    def rerank(self) -> None:
        self["go"].click()
        self.wait_for_results()

    def wait_for_results(self) -> None:
        """Wait for the results of the last question: those before are shown, and dim, meanwhile."""
        lists = self["lists"]
        self.wait(lambda: lists.is_displayed() and lists.get_attribute("aria-busy") == "false")

    def resize(self, width: int) -> None:
        """Make the window as wide as a device's."""
        device = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)

    def violations(self) -> list[Any]:
        """What axe finds: rule, element and reason."""
        self.browser.execute_script(AXE)
        found: list[Any] = self.browser.execute_async_script(
            "const done = arguments[0]; axe.run().then(({ violations }) => done(violations.map("
            "(rule) => [rule.id, rule.nodes.map((node) => [node.html, node.failureSummary])])))"
        )
        return found

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        overflow = "return document.documentElement.scrollWidth - window.innerWidth"
        return int(self.browser.execute_script(overflow))

    def clipboard(self) -> str:
        permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
        self.browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
        return str(
            self.browser.execute_async_script(
                "navigator.clipboard.readText().then(arguments[0], arguments[0])"
            )
        )

    def wait(self, condition: Any) -> None:
        WebDriverWait(self.browser, 10, 0.02).until(lambda _: condition())

    def texts(self, part: str) -> list[str]:
        found = self.browser.find_elements(By.CSS_SELECTOR, part)
        return [element.text for element in found]

    def console(self) -> list[Any]:
        """What the browser complained of, a refused request or policy among it."""
        return list(self.browser.get_log("browser"))


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FakeEngine, str]]:
    engine = FakeEngine()
    with live_server(engine) as url:
        yield engine, url


@pytest.mark.usefixtures("browser")
class TestInABrowser:
    """Needs Chromium; the page's own server is on a socket of this machine."""

    pytestmark = in_browser

    @pytest.fixture
    def fake_engine(self, server: tuple[FakeEngine, str]) -> FakeEngine:
        """The server's engine, as if it were new."""
        vars(server[0]).clear()
        vars(server[0]).update(vars(FakeEngine()))
        return server[0]

    @pytest.fixture
    def page(
        self, browser: webdriver.Chrome, server: tuple[FakeEngine, str], fake_engine: FakeEngine
    ) -> Iterator[Page]:
        page = Page(browser, server[1])
        # the example has run
        page.wait_for_results()
        yield page
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        assert page.console() == []

    def test_before_and_after_are_shown_with_scores_and_moves(self, page: Page) -> None:
        page.fill(QUERY, "\n".join(PASSAGES))
        page["go"].click()
        page.wait_for_results()
        assert page.texts("#before .text") == PASSAGES
        assert page.texts("#after .text") == [PASSAGES[2], PASSAGES[1], PASSAGES[0]]
        assert page.texts("#after .move") == ["↑ 2", "=", "↓ 2"]
        scores = [float(text.split()[0]) for text in page.texts("#after .score")]
        assert scores == sorted(scores, reverse=True)
        assert re.match(
            r"3 passages in [\d.]+ s, [\d.]+ s of it scoring; 30 tokens read", page["status"].text
        )
        assert "float32 on cpu" in page["about"].text
        assert len(page.browser.find_elements(By.CSS_SELECTOR, "#lines path")) == 3

    def test_the_example_runs_on_load_without_a_jump(
        self, page: Page, fake_engine: FakeEngine
    ) -> None:
        assert len(fake_engine.calls) == 1
        assert len(page.texts("#after .item")) == len(page.texts("#before .item")) > 3
        page.resize(360)
        page.browser.refresh()
        page.wait_for_results()
        assert page.browser.execute_script("return scrollY") == 0

    def test_the_keyboard_is_enough(self, page: Page) -> None:
        page.fill(QUERY, "\n".join(PASSAGES))
        page["passages"].send_keys(Keys.CONTROL, Keys.ENTER)
        page.wait_for_results()
        first = page.browser.find_element(By.CSS_SELECTOR, "#after .item")
        first.send_keys(Keys.ENTER)
        assert first.get_attribute("aria-expanded") == "true"
        assert "lit" in str(first.get_attribute("class"))

    def test_sentences_that_matter_are_marked_on_request(self, page: Page) -> None:
        long = "🐼 Bears. So a panda is here. Nothing else."
        # ChromeDriver types no characters beyond the basic plane
        page.paste("a panda is here. so", "no word of it. None.\n" + long)
        page["mark"].click()
        page.rerank()
        marked = [text.strip() for text in page.texts("#after mark")]
        assert marked == ["🐼 Bears.", "So a panda is here.", "Nothing else."]
        assert page.texts("#after .text") == [long, "no word of it. None."]
        first, second, *_ = page.browser.find_elements(By.CSS_SELECTOR, "#after .text > *")
        assert first.get_attribute("title") == "0.4208"
        assert second.get_attribute("title") == "0.9707"
        expanded = page.browser.find_elements(By.CSS_SELECTOR, "#after [aria-expanded=true]")
        assert [item.get_attribute("data-index") for item in expanded] == ["1"]
        assert page.texts("#before mark") == []

    def test_logits_are_shown_on_request(self, page: Page) -> None:
        page.fill(QUERY, "\n".join(PASSAGES))
        page["raw"].click()
        page["go"].click()
        page.wait_for_results()
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

    @pytest.mark.parametrize("event", ["paste", "drop"])
    def test_a_file_is_pasted_or_dropped(self, page: Page, event: str) -> None:
        page.browser.execute_script(
            """
            const files = new DataTransfer();
            files.items.add(new File(['["one", "two"]'], "a.json"));
            const [made, field] = arguments[0] === "paste"
              ? [ClipboardEvent, "clipboardData"] : [DragEvent, "dataTransfer"];
            const given = { bubbles: true, cancelable: true, [field]: files };
            document.body.dispatchEvent(new made(arguments[0], given));
            """,
            event,
        )
        page.wait(lambda: page["passages"].get_property("value") == "one\ntwo")

    def test_pasted_text_stays_text(self, page: Page) -> None:
        page.fill(QUERY, "one")
        page["passages"].send_keys(Keys.CONTROL, "a")
        page["passages"].send_keys(Keys.CONTROL, "c")
        page["passages"].send_keys(Keys.CONTROL, "v")
        page["passages"].send_keys(Keys.CONTROL, "v")
        assert page["passages"].get_property("value") == "oneone"

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

    def test_old_results_are_dim_while_a_new_answer_is_awaited(
        self, page: Page, fake_engine: FakeEngine
    ) -> None:
        assert not page["stop"].is_displayed()
        page.rerank()
        fake_engine.delay_s = 30
        page["go"].click()
        page.wait(lambda: fake_engine.waiting)
        assert float(page["lists"].value_of_css_property("opacity")) < 0.6
        page.wait(lambda: page["elapsed"].text not in ("", "0.0 s"))
        assert re.fullmatch(r"\d+\.\d s", page["elapsed"].text)
        page["stop"].send_keys(Keys.ENTER)
        page.wait(lambda: fake_engine.cancelled)
        page.wait(lambda: page["status"].text.startswith("Stopped."))
        assert float(page["lists"].value_of_css_property("opacity")) == 1
        assert not page["stop"].is_displayed()
        assert page["elapsed"].text == ""
        assert page.browser.switch_to.active_element == page["go"]

    def test_truncated_texts_and_tokens_are_told(self, page: Page, fake_engine: FakeEngine) -> None:
        fake_engine.usage = TokenUsage(1_533, [9, 512, 1_012], [2], 1, query_truncated=True)
        page.fill(QUERY, "\n".join(PASSAGES))
        page.rerank()
        assert page.texts("#after .note") == [
            "1,012 tokens, its end not read", "512 tokens", "9 tokens",
        ]  # fmt: skip
        assert page["cut"].text.startswith("Longer than the model reads: the query and 1 passage.")
        fake_engine.usage = None
        page["go"].click()
        page.wait(lambda: page["cut"].text == "" and page["status"].text.startswith("3"))
        assert page.texts("#after .note") == ["10 tokens"] * 3

    @pytest.mark.parametrize(
        ("model", "query", "passages", "told"),
        [
            ("tiny", "почему?", "because", "of the query are not Latin; this model reads English"),
            ("tiny", "why?", "葉子變色", "of the passages are not Latin"),
            ("tiny", "почему?", "葉子變色", "of the query and the passages"),
            ("tiny", "pourquoi? 42", "because", ""),
            ("tiny", "why?", "Es ist das Wasser.", "the passages may be German; this model reads"),
            ("BAAI/bge-reranker-base", "почему?", "葉子變色", "of the query are not Chinese or"),
            ("BAAI/bge-reranker-v2-m3", "почему?", "葉子變色", ""),
            ("a model of one's own", "почему?", "葉子變色", ""),
        ],
    )
    def test_letters_that_the_model_does_not_read_are_warned_of(
        self, page: Page, model: str, query: str, passages: str, told: str
    ) -> None:
        page.browser.execute_script("languages = arguments[0]", languages_of(model))
        page.fill(query, passages)
        assert told in page["language"].text
        assert bool(told) == bool(page["language"].text)

    def test_the_server_tells_the_languages_of_its_model(
        self, page: Page, fake_engine: FakeEngine
    ) -> None:
        fake_engine.model = "tiny"
        page.browser.refresh()
        page.wait(lambda: "tiny" in page["about"].text)
        page.fill("почему?", "because")
        assert "this model reads English" in page["language"].text

    def test_texts_run_in_their_own_direction(self, page: Page) -> None:
        page.fill("ما هو الباندا", "الباندا دب\na bear")
        page.rerank()
        directions = [
            element.value_of_css_property("direction")
            for element in page.browser.find_elements(By.CSS_SELECTOR, "#before .text")
        ]
        assert directions == ["rtl", "ltr"]
        for name in ("query", "passages"):
            assert page[name].value_of_css_property("direction") == "rtl"

    def test_requests_go_below_the_page_s_own_path(self, page: Page) -> None:
        page.browser.execute_script("history.replaceState(null, '', '/below/')")
        asked = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        before = len(page.browser.execute_script(asked))
        page["go"].click()
        page.wait(lambda: len(page.browser.execute_script(asked)) > before)
        assert page.browser.execute_script(asked)[-1].endswith("/below/rerank")
        page.console()

    def test_the_keyboard_goes_through_the_form_in_its_order(self, page: Page) -> None:
        order = []
        for _ in range(9):
            focused = page.browser.switch_to.active_element
            order.append(focused.get_attribute("id"))
            focused.send_keys(Keys.TAB)
        shared = ["link", "curl", "python"]
        assert order == ["query", "passages", "open", "go", "raw", "mark", *shared]

    def test_results_are_announced_and_do_not_take_the_focus(self, page: Page) -> None:
        page.rerank()
        assert page["status"].get_attribute("role") == "status"
        assert page.browser.switch_to.active_element == page["go"]
        assert page.browser.execute_script("return scrollY") == 0

    @pytest.mark.parametrize("width", WIDTHS)
    def test_axe_finds_nothing(self, page: Page, fake_engine: FakeEngine, width: int) -> None:
        page.resize(width)
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
            fake_engine.error = None
            fake_engine.usage = TokenUsage(99, [9] * 8, [2], 1, query_truncated=True)
            page.browser.refresh()
            page.wait_for_results()
            assert page.violations() == []
            page.browser.execute_script("languages = 'English'")
            page["query"].send_keys("почему? " * 9)
            page["mark"].click()
            page.rerank()
            assert page["language"].is_displayed()
            assert page["cut"].is_displayed()
            assert page.texts("#after mark")
            assert page.violations() == []
            fake_engine.error = InputError("document 1 is odd", 1)
            page["go"].click()
            page.wait(lambda: page["passages-error"].text)
            assert page.violations() == []
        page.console()

    def test_a_phone_shows_the_results_at_once(self, page: Page) -> None:
        page.resize(360)
        page.rerank()
        top = page.browser.execute_script(
            "return document.getElementById('status').getBoundingClientRect().top"
        )
        assert -1 < top < 50

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
            page.wait_for_results()
        page.console()

    def test_one_of_several_models_is_chosen(self, browser: webdriver.Chrome, page: Page) -> None:
        assert not page["models"].is_displayed()
        first, second = FakeEngine(model="first"), FakeEngine(model="tiny")
        with live_server({"first": first, "own": second}) as url:
            page = Page(browser, url)
            page.wait(lambda: page["about"].text.startswith("first"))
            # the example, by the first model
            page.wait_for_results()
            first.calls.clear()
            assert page.violations() == []
            page.paste("почему?", "because")
            assert page["language"].text == ""
            page["model"].send_keys("own")
            assert page["about"].text.startswith("own")
            assert "this model reads English" in page["language"].text
            page.rerank()
            assert (len(first.calls), len(second.calls)) == (0, 1)

    def test_two_models_are_compared(self, browser: webdriver.Chrome) -> None:
        first, second = FakeEngine(model="first"), FakeEngine(model="tiny")
        second.usage = TokenUsage(99, [9] * 3, [2], 1, query_truncated=True)
        with live_server({"first": first, "own": second}) as url:
            page = Page(browser, url)
            page.wait(lambda: page["about"].text.startswith("first"))
            page.wait_for_results()
            first.calls.clear()
            page.paste(QUERY, "\n".join(PASSAGES))
            page["compared"].send_keys("own")
            page.rerank()
            assert page.texts("#lists h2") == ["first", "own"]
            assert page.texts("#before .text") == PASSAGES[::-1]
            assert page.texts("#after .text") == PASSAGES[::-1]
            assert page.texts("#after .move") == ["="] * 3
            assert page.texts("#before .move") == []
            # the moves are from the first model's places to the second's
            browser.execute_script("last.after.results.reverse(); show(50)")
            assert page.texts("#after .move") == ["↑ 2", "=", "↓ 2"]
            of_each = page["status"].text.split(" · ")
            for told, name, tokens in zip(of_each, ("first", "own"), (30, 99), strict=True):
                assert re.fullmatch(rf"{name}: 3 passages in .*; {tokens} tokens read", told)
            assert page["cut"].text.startswith("own: Longer than the model reads: the query")
            assert (len(first.calls), len(second.calls)) == (1, 1)
            for width in WIDTHS:
                page.resize(width)
                assert page.violations() == []
                assert page.overflow() <= 0
            page.resize(360)
            tops = [page[name].rect["y"] for name in ("before", "after")]
            assert tops == sorted(tops)
            second.error = ZeroDivisionError()
            page["go"].click()
            page.wait(lambda: page["server-error"].text.startswith("own: "))
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.console()

    def test_the_language_of_the_model_beside_it_is_told(self, browser: webdriver.Chrome) -> None:
        engines = {"first": FakeEngine(model="first"), "own": FakeEngine(model="tiny")}
        with live_server(engines) as url:
            page = Page(browser, url)
            page.wait(lambda: page["about"].text.startswith("first"))
            page.paste("почему?", "because")
            assert page["language"].text == ""
            page["compared"].send_keys("own")
            assert "this model reads English" in page["language"].text

    def test_a_link_restores_what_was_asked_and_asks_it(
        self, page: Page, fake_engine: FakeEngine
    ) -> None:
        passages = "50 % & more\nof it # 1\n\nчто + 🐼"
        page.paste("why = 'so'?", passages)
        page["raw"].click()
        page["link"].click()
        page.wait(lambda: page["copy-status"].text.startswith("Link copied"))
        link = page.clipboard()
        assert link == page.browser.current_url
        page.browser.get("about:blank")
        page.browser.get(link)
        assert page["query"].get_property("value") == "why = 'so'?"
        assert page["passages"].get_property("value") == passages
        assert page["raw"].is_selected()
        assert not page["mark"].is_selected()
        page.wait_for_results()
        assert page.texts("#after .score")[0].startswith("-")
        asked, _ = fake_engine.calls[-1]
        assert asked == tuple(("why = 'so'?", text) for text in passages.split("\n\n"))
        # the address bar's fragment is never sent
        assert urlsplit(link).query == ""
        assert urlsplit(link).fragment

    def test_a_link_in_the_open_page_is_read_too(self, page: Page) -> None:
        page.browser.execute_script("location.hash = 'query=q&passage=one&passage=two&mark=true'")
        page.wait(lambda: page["query"].get_property("value") == "q")
        page.wait_for_results()
        assert page["passages"].get_property("value") == "one\ntwo"
        assert page["mark"].is_selected()
        assert sorted(page.texts("#after .text")) == ["one", "two"]

    def test_a_link_chooses_models(self, browser: webdriver.Chrome) -> None:
        with live_server({"first": FakeEngine(), "own": FakeEngine()}) as url:
            page = Page(browser, f"{url}/#query=q&passage=one&model=own&compared=first")
            page.wait(lambda: page["about"].text.startswith("own"))
            assert page["compared"].get_property("value") == "first"
            page["link"].click()
            page.wait(lambda: page["copy-status"].text)
            assert page.clipboard().endswith("#query=q&passage=one&model=own&compared=first")
            browser.execute_script("location.hash = 'query=q&passage=one&model=gone'")
            page.wait(lambda: "gone, which this server does not have" in page["server-error"].text)

    def test_the_key_is_in_nothing_that_is_copied(self, browser: webdriver.Chrome) -> None:
        with live_server(FakeEngine(), ServerSettings(api_keys=(KEY,))) as url:
            page = Page(browser, url)
            page.wait(lambda: page["key-form"].is_displayed())
            page["key"].send_keys(KEY, Keys.ENTER)
            page.wait(lambda: page["link"].is_displayed())
            for name in ("link", "curl", "python"):
                page[name].click()
                page.wait(lambda name=name: name in page["copy-status"].text.lower())
                assert KEY not in page.clipboard()
                if name == "curl":
                    assert '-H "Authorization: Bearer $BGE_RERANK_API_KEY"' in page.clipboard()
        page.console()

    @pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
    def test_the_copied_command_runs(self, page: Page) -> None:
        page.paste('what\'s a "panda" $HOME `id` \\', "\n".join(PASSAGES))
        page["curl"].click()
        page.wait(lambda: page["copy-status"].text == "Command for curl copied.")
        command = page.clipboard().replace("curl ", "curl --silent --fail --noproxy '*' ", 1)
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
        results = json.loads(done.stdout)["results"]
        assert [result["index"] for result in results] == [1, 2, 0]

    def test_the_copied_program_runs(
        self, page: Page, fake_engine: FakeEngine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        query = 'what\'s a panda "so" \\n 🐼'
        page.paste(query, "\n".join(PASSAGES))
        page["raw"].click()
        page["python"].click()
        page.wait(lambda: page["copy-status"].text == "Program in Python copied.")
        exec(page.clipboard(), {})
        printed = capsys.readouterr().out.splitlines()
        assert printed[0] == "fake"
        assert [line.partition(" ")[2] for line in printed[1:]] == [
            PASSAGES[1], PASSAGES[2], PASSAGES[0],
        ]  # fmt: skip
        assert printed[1].startswith("0.5000 ")
        assert fake_engine.calls[-1][0][0][0] == query

    def test_without_a_clipboard_the_text_is_shown(self, page: Page) -> None:
        page.browser.execute_script(
            "Object.defineProperty(navigator, 'clipboard', { value: undefined })"
        )
        page["curl"].click()
        page.wait(lambda: page["copied"].is_displayed())
        assert page["copied"].get_property("value").startswith("curl 'http://127.0.0.1:")
        assert page.browser.switch_to.active_element == page["copied"]
        assert page.violations() == []

    @pytest.mark.parametrize("width", WIDTHS)
    def test_nothing_is_wider_than_the_window(self, page: Page, width: int) -> None:
        page.resize(width)
        page.paste(QUERY, "word" * 200 + "\nshort")
        page["mark"].click()
        page["go"].click()
        page.wait_for_results()
        assert page.overflow() <= 0
