"""The chat of the page, in a browser: a reply comes token by token, is stopped, and opens in the views."""

import json
import queue
import threading
from types import SimpleNamespace

import pytest

import regard

pytest.importorskip("starlette", reason="the viewer's server, regard[serve], is not installed")

from regard.viewer.api import ViewerAPI
from regard.viewer.server import serve
from support.browser import does, drawn, saved, until
from support.decoder import TEMPLATE, paced_lens, save_decoder


@pytest.fixture(scope="module")
def chatting(tmp_path_factory):
    return save_decoder(tmp_path_factory.mktemp("models") / "chats", TEMPLATE)


@pytest.fixture(scope="module")
def address(serving, chatting):
    plain = save_decoder(chatting.parent / "goes-on")
    return serving("the cat sat", "--model", str(chatting), "--model", str(plain)).address


@pytest.fixture
def paced(chatting):
    """A server in this process, whose model takes its time for each step."""
    lens, step = paced_lens(chatting)
    step.pause = 0.03
    addresses, api = queue.Queue(), ViewerAPI({lens.name: lambda: lens}, opening=("the cat", None))
    threading.Thread(target=serve, args=(api, "127.0.0.1", 0, None, addresses.put), daemon=True).start()
    yield SimpleNamespace(address=addresses.get(timeout=20), step=step)
    api.close()


def send(page, text, **options):
    for name, value in options.items():
        page.fill(f"#{name}", str(value))
    page.fill("#message", text)
    page.press("#message", "Enter")


def ended(page):
    page.wait_for_selector("#send:visible", timeout=20_000)
    drawn(page)


def reply_of(page, n=-1):
    return page.locator("#chat-log .reply").all_text_contents()[n]


def test_a_reply_is_written_and_opens_in_the_views(tab, chatting):
    page = tab()
    page.click("#open-chat")
    assert page.evaluate("document.activeElement.id") == "message"
    send(page, "the cat sat on", most=9)
    ended(page)
    expected = regard.Lens(chatting).chat([{"role": "user", "content": "the cat sat on"}], 9)
    tokens = list(expected)
    assert reply_of(page) == expected.text
    titles = page.locator("#chat-log .piece").evaluate_all("all => all.map((piece) => piece.title)")
    assert len(titles) == 9
    assert all("probability" in title for title in titles)
    for title, token in zip(titles, tokens, strict=True):
        shown = title.rpartition("probability ")[2]
        assert shown == "below 0.1 %" or abs(float(shown.rstrip(" %")) - 100 * token.probability) < 0.6
    assert page.inner_text("#chat-says") == "Cut off at 9 tokens, the most that were asked for."
    reading, marked = expected.reading, page.locator("#from .reply").count()
    assert marked == len(reading.units) - int(reading.unit_of_token[reading.reply.token])
    assert "The model wrote the reply" in page.inner_text("#note")
    html = saved(page, "html")[0].decode()
    assert json.dumps("reply") in html
    does(page, page.reload)
    assert page.locator("#from .reply").count() == marked, "the link has the reading"


def test_stop_keeps_what_was_written_and_the_next_message_goes_on(tab, paced):
    page = tab(base=paced.address)
    page.click("#open-chat")
    send(page, "the bank", most=800, temperature=1.5, seed=3)
    until(page, lambda: page.locator("#chat-log .piece").count() > 5)
    page.click("#stop")
    ended(page)
    count = page.locator("#chat-log .piece").count()
    assert 5 < count < 800
    assert page.inner_text("#chat-says").startswith(f"Stopped after {count} tokens")
    assert page.evaluate("document.activeElement.id") == "message"
    send(page, "on the river", most=3)
    ended(page)
    assert page.locator("#chat-log .person").count() == 2
    assert "the bank" in page.inner_text("#title")
    page.click("#new-chat")
    assert page.locator("#chat-log p").count() == 0


def test_what_cannot_be_sent_is_said_and_given_back(tab):
    page = tab()
    page.click("#open-chat")
    send(page, "  ")
    assert page.inner_text("#problem") == "There is no message: type one."
    long = " ".join(["cat"] * 1100)
    send(page, long)
    until(page, lambda: "reads at most 1,024" in page.inner_text("#problem"))
    assert page.input_value("#message") == long
    assert page.locator("#chat-log p").count() == 0
    assert all("400" in message for message in tab.messages)  # which browsers log themselves
    tab.messages.clear()


def test_a_model_without_a_template_goes_on_with_a_text(tab):
    page = tab("model=goes-on&text=the+cat")
    assert page.inner_text("#open-chat") == "Let the model go on"
    page.click("#open-chat")
    send(page, "the cat <b>sat</b>", most=4)
    ended(page)
    assert page.inner_text("#chat-log").startswith("the cat <b>sat</b>")
    assert page.input_value("#message") == "the cat <b>sat</b>"
    page.locator("#chat-log .reply").focus()
    page.keyboard.press("ArrowRight")
    assert "probability" in page.inner_text("#tip")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_finding_of_axe(tab, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = tab(f"theme={theme}&text=the+cat")
    page.click("#open-chat")
    send(page, "the cat", most=12, temperature=1.5)
    ended(page)
    violations = axe.Axe().run(page).response["violations"]
    findings = [(violation["id"], [node["target"] for node in violation["nodes"]]) for violation in violations]
    assert all(targets == [["#bar"]] for _, targets in findings), findings  # which stands outside of landmarks


def test_a_page_that_is_left_stops_its_reply(tab, paced):
    page, step = tab(base=paced.address), paced.step
    page.click("#open-chat")
    send(page, "the bank", most=900)
    until(page, lambda: page.locator("#chat-log .piece").count() > 2)
    page.goto("about:blank")
    page.wait_for_timeout(500)
    calls = step.calls
    page.wait_for_timeout(500)
    assert step.calls == calls < 100
