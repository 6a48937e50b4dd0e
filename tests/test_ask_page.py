"""A question about documents in the served page: the same answer as in Python, with progress, and cancelled."""

import threading
import time

import pytest

import regard

pytest.importorskip("starlette", reason="the viewer's server, regard[serve], is not installed")

from regard.answers import ask, passages
from regard.viewer.api import ViewerAPI
from regard.viewer.protocol.errors import RequestError
from support.browser import until
from support.decoder import TEMPLATE, save_decoder

DOCUMENT = "the cat sat on the bank\n\nthe money\n\nthe river"
ASK = {"type": "ask", "question": "the cat", "texts": [DOCUMENT, "w1 w2\n\nw3"], "names": ["a.txt", "b.txt"]}


@pytest.fixture(scope="module")
def chatting(tmp_path_factory):
    return save_decoder(tmp_path_factory.mktemp("models") / "chats", TEMPLATE)


@pytest.fixture(scope="module")
def address(serving, chatting):
    return serving("the cat sat", "--model", str(chatting)).address


@pytest.fixture
def api(chatting):
    lens = regard.Lens(chatting)
    api = ViewerAPI({"chats": lambda: lens})
    yield api
    api.close()


def finished(api, message):
    shares = []
    while "progress" in (reply := api.handle(message, wait=0.05)):
        shares.append(reply["progress"])
        message = {**message, "job": reply["job"]}
    return reply, [share for share in shares if share is not None]


def test_the_answer_is_that_of_python(api, chatting):
    reply, shares = finished(api, ASK)
    documents = [
        *passages(DOCUMENT, file="a.txt"),
        *passages("w1 w2\n\nw3", file="b.txt"),
    ]
    expected = ask(regard.Lens(chatting), "the cat", documents, max_tokens=96).to_dict()
    assert {name: reply[name] for name in ("model", "question", "reply", "passages")} == {
        name: expected[name] for name in ("model", "question", "reply", "passages")
    }
    for sentence, other in zip(reply["sentences"], expected["sentences"], strict=True):
        assert sentence["text"] == other["text"]
        for source, same in zip(sentence["sources"], other["sources"], strict=True):
            assert source == pytest.approx(same, abs=1e-6)
    assert shares == sorted(shares)


def test_it_can_be_cancelled(api, monkeypatch):
    started = threading.Event()

    def endless(*arguments, advance, **options):
        for _ in range(2000):
            started.set()
            time.sleep(0.01)
            advance("tokens", 0)
        raise AssertionError("it was not cancelled")

    monkeypatch.setattr("regard.viewer.asking.ask", endless)
    pending = api.handle(ASK, wait=0)
    assert started.wait(10)
    assert api.handle({"type": "cancel", "job": pending["job"]}) == {"jobs": 1}
    assert api.handle({**ASK, "job": pending["job"]}) == {"cancelled": True}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"names": ["a.txt"]}, "names: expected one for each of 2 texts. Got 1."),
        ({"texts": ["the cat", "w1\0w2"]}, "b.txt: it holds a NUL: a binary file, and no text."),
        ({"texts": ["the cat", " "]}, "text: there is no text."),
        ({"texts": []}, "texts: expected 1 to 32 texts."),
        ({"question": ""}, "question: there is no text."),
        ({"by": "pages"}, "by: expected one of paragraphs, sentences, lines. Got 'pages'."),
        ({"model": "other"}, "model: expected one of chats"),
    ],
)
def test_hostile_requests_are_refused(api, change, error):
    with pytest.raises(RequestError) as refused:
        finished(api, {**ASK, **change})
    assert str(refused.value).startswith(error)


def test_a_document_is_asked_in_the_page(tab, tmp_path):
    page = tab()
    (tmp_path / "a <b>.txt").write_text(DOCUMENT)
    page.click("#open-documents")
    assert page.locator("#bar").is_hidden()
    page.press("#question", "Enter")
    assert page.inner_text("#problem") == "There is no question: type one."
    page.set_input_files("#files", tmp_path / "a <b>.txt")
    page.fill("#question", "the cat")
    page.press("#question", "Enter")
    page.wait_for_selector("#answer .answer", timeout=20_000)
    assert page.locator("#answer .sources h3").all_inner_texts() == ["a <b>.txt"]
    assert page.locator("#answer .passage-text").all_inner_texts() == DOCUMENT.split("\n\n")
    page.hover("#answer .of-passage >> nth=1")
    until(page, lambda: page.inner_text(".evidence-says").startswith("Passage 2"))
    page.click("#leave-documents")
    assert page.locator("#bar").is_visible()
    assert page.locator("#from button").count() == 3
