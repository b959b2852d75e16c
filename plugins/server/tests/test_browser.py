"""The page in a real browser: what people do, and what models must not be able to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
EVIL = '<img src=x onerror="document.title=1"> [a](javascript:document.title=2) <script>document.title=3</script>'
CALLS, THINKS, GOES_ON = 1, 2, 4
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


class Page:
    """The page of a server, in a context of its own; nothing is asked elsewhere, and no rule is broken."""

    def __init__(self, context: Any, server: Any) -> None:
        self.server, self.complaints, self.elsewhere = server, [], []
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        own = f"http://127.0.0.1:{server.port}/"
        self.page.on("request", lambda asked: asked.url.startswith((own, "blob:")) or self.elsewhere.append(asked.url))
        self.page.goto(own)

    def settings(self, **values: Any) -> None:
        self.page.evaluate("text => localStorage.setItem('sis.settings', text)", json.dumps(values))
        self.page.reload()

    def say(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")
        self.page.wait_for_selector("#send:visible")
        self.page.wait_for_selector("article.assistant .under button")

    def texts(self, role: str = "assistant") -> list[str]:
        return list(self.page.locator(f"article.{role} .body").all_inner_texts())


@pytest.fixture
def page(browser: Any, calling: Any) -> Iterator[Page]:
    context = browser.new_context()
    found = Page(context, calling)
    found.settings(maxTokens="12", seed="1", samplers={})
    yield found
    assert found.complaints == []
    assert found.elsewhere == []
    context.close()


def test_a_chat_outlives_a_reload(page: Page) -> None:
    page.say("Tell me a tale of a hen.")
    page.say("And a goat?")
    said = page.texts()
    assert len(said) == 2
    assert all(said)
    assert "tokens" in page.page.inner_text("article.assistant:last-child .under")
    page.page.reload()
    page.page.wait_for_selector("article.assistant")
    assert page.texts() == said
    page.page.click("#new")
    assert page.texts() == []
    page.page.click("#chats-button")
    page.page.click("#chats .title")
    assert page.texts() == said


def test_branches_stay(page: Page) -> None:
    page.say("Tell me a tale of a hen.")
    first = page.texts()
    page.page.click("article.user button:has-text('Edit')")
    page.say("Tell me a tale of a goat.")
    assert page.texts("user") == ["Tell me a tale of a goat."]
    second = page.texts()
    page.page.click("article.user button:has-text('‹')")
    assert (page.texts("user"), page.texts()) == (["Tell me a tale of a hen."], first)
    page.page.reload()
    page.page.wait_for_selector("article.user .branch:has-text('1 / 2')")
    page.page.click("article.user button:has-text('›')")
    assert page.texts() == second
    page.page.click("article.assistant button:has-text('Again')")
    page.page.wait_for_selector("article.assistant .branch:has-text('2 / 2')")
    page.page.click("article.assistant button:has-text('‹')")
    assert page.texts() == second


def test_stopping_frees_the_sequence(page: Page) -> None:
    page.settings(samplers={"script": GOES_ON}, maxTokens="900", seed="1")
    page.page.fill("#text", "Tell me a tale of a hen.")
    before = page.server.served.engine.counts.cancelled
    page.page.press("#text", "Enter")
    page.page.wait_for_selector("#stop:visible")
    page.server.until(lambda: page.server.served.engine.n_open == 1)
    page.page.press("body", "Escape")
    page.page.wait_for_selector("#send:visible")
    page.server.until(lambda: page.server.served.engine.n_open == 0)
    assert page.server.served.engine.counts.cancelled == before + 1


def test_what_a_model_says_is_text(page: Page) -> None:
    page.settings(samplers={"regex": re.escape(EVIL)}, maxTokens="200", seed="1")
    page.say(EVIL)
    (said,) = page.texts()
    assert "onerror" in said
    assert page.page.locator("#chat img, #chat script, #chat a[href^=javascript]").count() == 0
    assert page.page.title() == "tiny"


def test_calls_are_shown_and_answered_by_hand(page: Page) -> None:
    page.settings(samplers={"script": CALLS}, tools=json.dumps([LOOK]))
    page.say("How many hens are there?")
    call = page.page.inner_text(".call")
    assert "look" in call
    assert '"where": "the coop"' in call
    page.page.evaluate("""() => {
      const settings = JSON.parse(localStorage.getItem('sis.settings'));
      localStorage.setItem('sis.settings', JSON.stringify({ ...settings, samplers: { script: 2 } }));
    }""")
    page.page.reload()
    page.page.fill("form.results textarea", "two hens")
    page.page.click("form.results button")
    page.page.wait_for_selector("article.assistant:last-child .under button")
    assert page.texts("tool") == ["two hens"]
    assert page.texts()[-1] == "There are two hens."
    assert page.page.locator("article.assistant:last-child details").count() == 1


def test_a_phone_in_the_dark_by_keyboard(browser: Any, calling: Any) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme="dark")
    page = Page(context, calling)
    page.settings(maxTokens="12", seed="1", samplers={})
    page.say("Tell me a tale of a hen.")
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 64
    page.page.keyboard.press("Alt+o")
    page.page.wait_for_selector("#options:visible")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector("#options", state="hidden")
    page.page.keyboard.press("Alt+c")
    with page.page.expect_download() as saved:
        page.page.click("#export")
    assert len(json.loads(saved.value.path().read_text())["chat"]["nodes"]) == 2
    assert page.complaints == page.elsewhere == []
    context.close()
