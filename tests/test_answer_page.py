"""The page of an answer from documents: one file, whose sentences and passages light each other up."""

import json
import re

import pytest

from regard.viewer import answer as module
from regard.viewer.answer import render, save
from support.answers import ANSWER, FACTS, REPLY, SCORES, MadeUp


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("answer") / "answer.html"
    save(ANSWER, path)
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    """The page; whatever a test does, no message on the console, and no request."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page = context.new_page()
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("dialog", lambda dialog: messages.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    yield page
    context.close()
    assert not messages
    assert [url for url in requests if not url.startswith("data:")] == [address]


def lit(page, kind):
    """By the numbers of what is lit, how strongly."""
    return dict(
        page.eval_on_selector_all(
            f".of-{kind}.lit",
            "all => all.map((node) => [Number(node.dataset.index), Number(node.style.getPropertyValue('--strength'))])",
        )
    )


def strengths(sentence):
    best = max(score for *_, score in SCORES[sentence])
    return {passage: score / best for passage, *_, score in SCORES[sentence] if score >= best / 10}


def rows(page):
    return [row.split("\t") for row in page.locator(".evidence tbody tr").all_inner_texts()]


def test_a_sentence_lights_its_passages_and_shows_three_numbers(page):
    assert lit(page, "passage") == pytest.approx(strengths(0)), "the first sentence, to begin with"
    page.hover(".of-sentence[data-index='1']")
    assert lit(page, "passage") == pytest.approx(strengths(1))
    assert lit(page, "sentence") == {}
    shown = rows(page)
    assert len(shown) == 6
    assert [cells[1:] for cells in shown[:3]] == [
        ["21.60", "59 %", "–"],
        ["3.35", "22 %", "–"],
        ["−0.40", "4.1 %", "–"],
    ]
    heads = page.locator(".evidence thead th").all_inner_texts()
    assert [head.split("\n")[0] for head in heads] == ["Passage", "Knockout", "Attention", "Logits"]
    assert page.locator(".measures dt").all_inner_texts()[0] == "Knockout (nats)"
    assert page.inner_text(".of-passage[data-index='6'] .lit-says") == "21.60 nats"
    page.hover("h1")
    page.mouse.move(2, 2)
    assert lit(page, "passage") == pytest.approx(strengths(0)), "what is held comes back"


def test_a_passage_lights_the_sentences_that_came_from_it(page):
    page.hover(".of-passage[data-index='0']")
    assert lit(page, "sentence") == pytest.approx({0: 1, 1: strengths(1)[0]})
    assert lit(page, "passage") == {}
    assert page.inner_text(".evidence-says") == "Passage 1: sentences 1 and 2 need it."
    page.click(".of-passage[data-index='7']")
    page.mouse.move(2, 2)
    assert lit(page, "sentence") == {2: 1}


def test_keys_reach_every_sentence_and_passage(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "theme"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert lit(page, "passage") == pytest.approx(strengths(2))
    page.keyboard.press("Tab")
    for _ in range(6):
        page.keyboard.press("ArrowDown")
    assert page.inner_text(".evidence-says").startswith("Passage 7")
    assert page.locator(".end[aria-pressed='true']").count() == 1
    assert page.locator(".end[tabindex='0']").count() == 2, "one stop for each column"


def test_markup_is_text_whatever_it_says(page):
    assert page.inner_text("h1") == ANSWER.to_dict()["question"]
    assert [page.locator(".passage-text").nth(n).inner_text() for n in range(7)] == FACTS
    assert page.locator(".sources h3").all_inner_texts() == ["history <i>of</i> Orliston.txt", "notes/visitors.md"]
    sentences = page.locator(".of-sentence").all_inner_texts()
    assert [re.sub(r"\d$", "", sentence) for sentence in sentences] == REPLY
    assert page.locator(".sources i, .sources em, .answer-reply b").count() == 0
    assert page.eval_on_selector(".of-passage[data-index='4'] .passage-text", "n => n.matches(':dir(rtl)')")


def test_a_long_document_scrolls_to_the_source(browser, tmp_path):
    class Long(MadeUp):
        def to_dict(self):
            content = super().to_dict()
            first, *others = content["passages"]
            filler = [{**first, "start": 1000 + n, "text": f"Filler {n}. " * 20} for n in range(200)]
            content["passages"] = [*others, *filler, {**first, "start": 9999}]
            content["sentences"] = content["sentences"][:1]
            content["sentences"][0]["sources"] = [{**content["sentences"][0]["sources"][0], "passage": 211}]
            return content

    save(Long(), tmp_path / "long.html")
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((tmp_path / "long.html").as_uri())
    page.wait_for_function(
        """() => { const box = document.querySelector('.of-passage.lit').getBoundingClientRect();
                   return box.top > 0 && box.bottom < innerHeight; }""",
        timeout=5000,
    )
    assert page.evaluate("scrollY") == 0, "the column scrolls, not the page"
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible(browser, address, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = browser.new_page(color_scheme=theme)
    page.goto(address)
    for selector in (".of-sentence[data-index='1']", ".of-passage[data-index='0']"):
        page.hover(selector)
        results = axe.Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
    page.close()


def test_an_empty_reply_says_so(browser, tmp_path):
    class Empty(MadeUp):
        def to_dict(self):
            return {**super().to_dict(), "reply": "", "sentences": [], "passages": [], "note": "It was <b>stopped</b>."}

    save(Empty(), tmp_path / "empty.html")
    page = browser.new_page()
    page.goto((tmp_path / "empty.html").as_uri())
    assert "The model wrote nothing." in page.inner_text(".answered")
    assert "It was <b>stopped</b>." in page.inner_text(".answered")
    assert "There are no passages." in page.inner_text(".sources")
    page.close()


# The file


def test_the_file_holds_the_answer_and_loads_nothing():
    page = render(ANSWER)
    assert not re.search(r"""(?:src|href)=["']?(?!data:)[\w/]""", page.partition("<script")[0])
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data) == ANSWER.to_dict()
    assert "alert('" not in re.sub(r"\\u003c", "<", page.partition("<script")[0]).replace("&lt;script&gt;alert(", "")
    assert len(page.encode()) < 60_000


def test_it_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "answer.html"
    path.write_text("before")

    class Broken(MadeUp):
        def to_dict(self):
            return {**super().to_dict(), "sentences": [float("nan")]}

    with pytest.raises(ValueError, match="not JSON compliant"):
        save(Broken(), path)
    monkeypatch.setattr(module, "render", lambda answer: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        save(ANSWER, path)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["answer.html"]
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"missing/answer\.html"):
        save(ANSWER, tmp_path / "missing" / "answer.html")
