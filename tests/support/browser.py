"""A browser for the tests of the viewer: its pages, and what is done to them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium to drive: install the package chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def tab(browser, address):
    """Opens a page. Whatever a test does: no message on the console, no request to another host."""
    messages, requested, opened, hosts = [], [], [], {""}

    def open_tab(to="", width=1280, height=800, base=address, **more):
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **more)
        page = context.new_page()
        hosts.add(urlsplit(base).netloc)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(f"{base}#{to}" if to else base)
        drawn(page)
        opened.append(context)
        return page

    open_tab.messages = messages
    yield open_tab
    for context in opened:
        context.close()
    assert not messages, messages
    assert all(
        urlsplit(url).netloc in hosts or url.startswith(("data:", "blob:http://127.0.0.1")) for url in requested
    ), requested


def drawn(page):
    page.wait_for_selector("#viewer[data-drawn]", timeout=20_000)


def does(page, action):
    """Does something, and waits until it is drawn."""
    page.evaluate("delete document.getElementById('viewer').dataset.drawn")
    action()
    drawn(page)


def until(page, condition):
    """Waits until something is so."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    assert condition()


def numbers(page, selector):
    return [
        float(value)
        for value in page.eval_on_selector_all(
            f"{selector} data", "all => all.map((node) => node.getAttribute('value'))"
        )
    ]


def type_text(page, text):
    page.fill("#text", text)
    does(page, lambda: page.press("#text", "Enter"))


def saved(page, kind):
    with page.expect_download() as waiting:
        page.click(f"#exports [data-kind={kind}]")
    return Path(waiting.value.path()).read_bytes(), waiting.value.suggested_filename


def answer_working(route, share):
    head = json.dumps({"progress": share, "job": 7, "arrays": []}).encode()
    head += b" " * (-len(head) % 4)
    route.fulfill(body=struct.pack("<I", len(head)) + head, content_type="application/octet-stream")
