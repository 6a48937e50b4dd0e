"""The decoder and the translator of dates in the lesson: what they write, and where they look, in a browser."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from regard.playground import site
from regard.playground.models import models
from support.browser import until


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """The lesson with the two small models alone, and what the page complains of."""
    folder = tmp_path_factory.mktemp("lesson2") / "site"
    site.write(folder, [model for model in models() if model.name != "encoder"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(viewport={"width": 360, "height": 740})
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.server_port}/lesson.html#decoder")
    yield SimpleNamespace(page=page, folder=folder)
    page.close()
    server.shutdown()
    server.server_close()
    assert not messages, messages


def section(page, name):
    page.evaluate("name => { location.hash = name; }", name)
    page.wait_for_selector(f"#{name}[data-built]:not([aria-busy='true'])", timeout=20_000)
    return page.locator(f"#{name}")


def type_into(page, node, text):
    node.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def test_the_decoder_writes_what_is_chosen(opened):
    page = opened.page
    part = section(page, "decoder")
    story, buttons = part.locator(".story"), part.locator(".candidates button")
    beginning = story.inner_text()
    first = part.locator(".candidates data").evaluate_all("all => all.map((node) => Number(node.value))")
    assert first == sorted(first, reverse=True)
    assert 0 < sum(first) <= 1 + 1e-6
    lens = part.locator(".lens tbody tr")
    assert lens.count() == 5  # a row for each layer; the last one is the model's own prediction
    likeliest = buttons.first.inner_text()
    assert lens.last.inner_text().split()[1] == likeliest
    third = buttons.nth(2).inner_text().replace("␣", " ")
    buttons.nth(2).press("Enter")
    until(page, lambda: story.inner_text() == beginning + third)
    until(page, lambda: part.locator(".candidates data").first.get_attribute("value") != str(first[0]))
    assert page.evaluate("document.activeElement === document.querySelectorAll('#decoder .candidates button')[2]")
    part.get_by_role("button", name="Write 20 tokens").press("Enter")
    until(page, lambda: len(story.inner_text()) > len(beginning + third) + 20)
    type_into(page, part.get_by_label("Beginning"), "Once upon a")
    until(page, lambda: story.inner_text() == "Once upon a")
    until(page, lambda: buttons.first.inner_text() == "␣time")


def test_each_written_character_looks_at_its_source(opened):
    page = opened.page
    part = section(page, "cross-attention")
    says = part.locator(".lines .reads")
    for character in "1987":
        part.locator(".lines .from").get_by_role("button", name=character, exact=True).focus()
        assert says.inner_text().startswith(f"“{character}” gives most to “{character}”")
    type_into(page, part.get_by_label("A date"), "Dec 24, 2014")
    until(page, lambda: part.locator(".written").inner_text() == "It writes: 2014-12-24")
    assert part.locator(".lines .from button").count() == 11
    assert part.locator(".lines .to li").count() == 12


def test_the_translator_writes_step_by_step_and_errs_where_it_was_not_trained(opened):
    page = opened.page
    part = section(page, "trained-transformer")
    write = part.get_by_role("button", name="Write the likeliest")
    written, rows = part.locator(".written"), part.locator(".alignment tbody tr")
    for n in range(10):
        assert rows.count() == n + 1
        write.press("Enter")
        until(page, lambda n=n: rows.count() == n + 2)
    assert written.inner_text() == "Written: 1987-03-03"
    write.press("Enter")
    until(page, lambda: part.locator(".reads").first.inner_text() == "It has written 1987-03-03, which is right.")
    assert write.is_disabled()
    assert page.evaluate("document.activeElement.textContent") == "Begin again"
    part.get_by_role("button", name="Begin again").press("Enter")
    until(page, lambda: rows.count() == 1)
    part.locator(".candidates button").nth(1).press("Enter")
    until(page, lambda: rows.count() == 2)
    assert not written.inner_text().startswith("Written: 1")
    verdicts = part.locator(".limits tbody tr").evaluate_all("rows => rows.map((row) => row.children[3].textContent)")
    assert verdicts[:2] == ["✓", "✓"]
    assert "✗" in verdicts[2:]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_two_models_are_opened_at_once_from_a_disk(opened, browser):
    """Their scripts call one function, and each model gets its own file."""
    page = browser.new_page()
    page.goto(f"{opened.folder.as_uri()}/lesson.html#feed-forward")  # which needs no model
    page.locator(".contents input[type=checkbox]").press("Space")  # all sections on one page
    for name in ("decoder", "cross-attention", "trained-transformer"):
        page.wait_for_selector(f"#{name}[data-built]:not([aria-busy='true'])", timeout=20_000)
        assert page.locator(f"#{name} .problem").all_inner_texts() == []
    page.close()
