"""The viewer in a real browser: its numbers are Python's, its links reopen, its files open, its keys suffice."""

import base64
import csv
import io
import json
import sys
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
import torch

import regard
from support import browser as fixtures
from support.browser import does, numbers, saved, type_text, until

ARROW = "Time flies like an arrow"
LONG = " ".join(
    f"The {a} cat sat on the {b} mat." for a in ("old", "grey", "unbelievable") for b in ("red", "flat", "tokenized")
)
VIEWS = ("sentence", "heads", "map", "walk", "compare")


@pytest.fixture(scope="module")
def address(arrow):
    return arrow


@pytest.fixture(scope="module")
def lens(address):
    return regard.Lens()


@pytest.fixture(scope="module")
def flies(lens):
    return lens.read(ARROW)


# Each view shows the right numbers


def test_a_sentence_is_typed_and_a_word_chosen(tab, lens):
    page = tab()
    type_text(page, "The cat sat on the mat")
    reading = lens.read("The cat sat on the mat")
    assert page.locator("#from button").all_inner_texts() == [unit.text for unit in reading.units]
    does(page, lambda: page.click("#from button >> text=cat"))
    expected = reading.weights(0).mean(0)[2]
    assert numbers(page, "#sentence-says") == pytest.approx(expected.topk(3).values.tolist(), abs=1e-6)
    does(page, lambda: page.dblclick("#swatches [data-head='5']"))
    top = reading.weights(0, 5)[2].topk(3)
    assert numbers(page, "#sentence-says") == pytest.approx(top.values.tolist(), abs=1e-6)
    assert page.locator("#sentence-says q").all_inner_texts()[1] == reading.units[int(top.indices[0])].text
    does(page, lambda: page.click("#to button >> text=mat"))
    column = reading.weights(0, 5)[:, 6]
    assert numbers(page, "#sentence-says") == pytest.approx(column.topk(3).values.tolist(), abs=1e-6)
    does(page, lambda: page.check("#hide"))
    words = [unit.index for unit in reading.words]
    assert numbers(page, "#sentence-says") == pytest.approx(column[words].topk(3).values.tolist(), abs=1e-6)


def test_pointing_isolates_and_clicking_holds(tab, flies):
    page = tab("view=sentence&layer=2")
    everything = page.locator("#lines path").count()
    page.hover("#from button >> text=flies")
    until(page, lambda: "flies" in page.inner_text("#sentence-says"))
    assert 0 < page.locator("#lines path").count() < everything
    assert numbers(page, "#sentence-says") == pytest.approx(
        flies.weights(2).mean(0)[2].topk(3).values.tolist(), abs=1e-6
    )
    page.mouse.move(5, 5)
    until(page, lambda: page.locator("#lines path").count() == everything)
    does(page, lambda: page.click("#from button >> text=flies"))
    page.mouse.move(5, 5)
    assert page.get_attribute("#from [aria-pressed=true]", "data-unit") == "2"
    assert "word=2" in page.url


def test_lines_for_a_share_of_the_weight(tab, flies):
    page = tab("view=sentence&word=2&layer=1&heads=3")
    row = flies.weights(1, 3)[2].sort(descending=True).values
    for share in (100, 60, 30):
        does(page, lambda share=share: page.locator("#mass").fill(str(share)))
        needed = int((row.cumsum(0) < row.sum() * share / 100 - 1e-6).sum()) + 1
        shown = int((row[:needed] >= 0.01).sum())
        assert page.locator("#lines path").count() == shown, share


def test_a_pair_has_four_directions(tab, lens):
    page = tab()
    page.click("#add-pair")
    page.fill("#text", "How old are you?")
    page.fill("#pair", "What is your age?")
    does(page, lambda: page.press("#pair", "Enter"))
    reading = lens.read("How old are you?", pair="What is your age?")
    does(page, lambda: page.click("#from button >> text=old"))
    row = reading.weights(0).mean(0)[2]
    for direction, weights in (("ab", row[7:]), ("aa", row[:7])):
        does(page, lambda direction=direction: page.select_option("#direction", direction))
        assert numbers(page, "#sentence-says") == pytest.approx(weights.topk(3).values.tolist(), abs=1e-6)
    does(page, lambda: page.select_option("#direction", "ba"))
    assert page.locator("#lines path").count() == 0
    does(page, lambda: page.click("#from button >> text=age"))
    assert numbers(page, "#sentence-says") == pytest.approx(
        reading.weights(0).mean(0)[10][:7].topk(3).values.tolist(), abs=1e-6
    )


def test_many_heads_have_colours_of_their_own(tab):
    page = tab()
    colours = page.eval_on_selector_all("#swatches button", "all => all.map((node) => getComputedStyle(node).color)")
    assert len(set(colours)) == 12


def test_a_sink_is_explained(tab, flies):
    page = tab("view=sentence&word=2&layer=4")
    mass = float(flies.weights(4).mean(0)[2][[0, 6]].sum())
    assert mass > 0.5
    assert f"{100 * mass:.0f} % of this attention rests on [CLS]" in page.inner_text("#sinks")


def test_heads_are_pictures_with_names(tab, flies):
    page = tab("view=heads")
    assert page.locator("#thumbs canvas").count() == 72
    assert page.inner_text("[data-layer='0'][data-head='2'] small") == "previous"
    assert "to the previous token" in (page.hover("[data-layer='0'][data-head='2']") or page.inner_text("#heads-says"))
    pixels = page.eval_on_selector(
        "[data-layer='1'][data-head='8'] canvas",
        "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]",
    )
    assert pixels[:2] == [7, 7]
    light = torch.tensor(pixels[2:]).view(7, 7, 4)[..., :3].sum(-1)  # the larger the weight, the darker
    weights = flies.weights(1, 8)
    assert (light.flatten().argsort() == weights.flatten().argsort(descending=True))[:4].all()
    does(page, lambda: page.click("[data-layer='1'][data-head='8']"))
    assert "view=map" in page.url
    assert "layer=1&head=8" in page.url


def test_the_map_tells_the_weight_under_the_pointer(tab, flies):
    page = tab("view=map&layer=3&head=7&word=2")
    weights = flies.weights(3, 7)
    assert numbers(page, "#map-says") == pytest.approx([float(weights[2].max())], abs=1e-6)
    box = page.locator("#deep").bounding_box()
    cell = box["width"] / 7
    for row, column in ((0, 0), (4, 1), (6, 6)):
        page.hover("#deep", position={"x": (column + 0.5) * cell, "y": (row + 0.5) * cell})
        page.wait_for_selector(
            f"#cell-row[aria-rowindex='{row + 1}'] #cell[aria-colindex='{column + 1}']", state="attached"
        )
        assert numbers(page, "#map-says") == pytest.approx([float(weights[row, column])], abs=1e-6)
        assert page.locator("#map-says q").all_inner_texts() == [flies.units[row].text, flies.units[column].text]


def test_the_walk_is_that_of_python(tab, flies):
    page = tab("view=walk&word=2&layer=3&head=10")
    walk = flies.explain("flies", layer=3, head=10)
    rows = page.eval_on_selector_all(
        "#step-softmax tbody tr",
        "all => all.map((row) => [...row.querySelectorAll('data')].map((node) => Number(node.getAttribute('value'))))",
    )
    score, scaled, weight = np.array(rows).T
    assert np.allclose(score, walk.scores[0], atol=1e-5)
    assert np.allclose(scaled, walk.scaled[0], atol=1e-6)
    assert np.allclose(weight, walk.weights[0], atol=1e-7)
    assert float(page.get_attribute("#error", "value")) < 1e-6
    steps = page.locator("#steps > li:visible h2").all_inner_texts()
    assert steps == ["Embedding", "Query, key, value", "Scores", "Scaling", "Weights", "Weighted values", "Context"]
    page.click("#step-next")
    for key, number in (("ArrowRight", 2), ("PageDown", 3), ("ArrowLeft", 2), ("PageUp", 1)):
        page.keyboard.press(key)
        until(page, lambda number=number: page.inner_text("#step-says").startswith(f"Step {number} of 7"))
    assert page.get_attribute("#steps > li.current", "id") == "step-embedding"


def test_a_word_in_several_texts(tab, lens):
    page = tab("view=compare")
    texts = ["He sat on the bank of the river.", "The bank lent the bank money."]
    page.fill("#compare-word", "bank")
    page.fill("#compare-texts", "\n".join(texts))
    does(page, lambda: page.click("#comparing button"))
    assert page.locator("#places li").count() == 3
    assert page.locator("#plane circle").count() == 3
    assert page.locator("#similarities button").count() == 7
    vectors = [lens.read(texts[0]).word("bank").vectors, *(lens.read(texts[1]).word("bank", n).vectors for n in (1, 2))]
    pairs = [(0, 1), (0, 2), (1, 2)]
    for layer in (6, 3):
        does(page, lambda layer=layer: page.locator("#after").fill(str(layer)))
        least = min(float(torch.cosine_similarity(vectors[i][layer], vectors[j][layer], dim=0)) for i, j in pairs)
        assert numbers(page, "#compare-says") == pytest.approx([least], abs=1e-6)


# Links, back and forward


@pytest.mark.parametrize("view", VIEWS)
def test_a_link_reopens_what_was_seen(tab, view):
    page = tab(f"view={view}&text={quote('A cat sat.')}&layer=2&head=4&word=3&theme=dark&mass=80&hide=1")
    shown = page.inner_text("#views")
    again = tab(page.url.partition("#")[2])
    assert again.url == page.url
    assert again.inner_text("#views") == shown
    assert again.input_value("#text") == "A cat sat."
    assert again.get_attribute("#viewer", "data-theme") == "dark"


def test_back_and_forward(tab):
    page = tab()
    does(page, lambda: page.click("#tab-heads"))
    does(page, lambda: page.click("[data-layer='2'][data-head='3']"))
    assert page.is_visible("#map")
    does(page, page.go_back)
    assert page.is_visible("#heads")
    does(page, page.go_back)
    assert page.is_visible("#sentence")
    does(page, page.go_forward)
    does(page, page.go_forward)
    assert page.is_visible("#map")
    assert (page.input_value("#layer"), page.input_value("#head")) == ("2", "3")
    type_text(page, "Another text")
    does(page, page.go_back)
    assert page.input_value("#text") == ARROW


@pytest.mark.parametrize(
    "link",
    [
        "view=nowhere&layer=99&head=-1&word=1e9",
        "layer=%00&heads=a.b&at=9.9.9",
        "view=map&at=500.2&mass=7",
        "reading=0000",
    ],
)
def test_a_broken_link_opens_what_it_can(tab, link):
    page = tab(link)
    if "reading" in link:
        tab.messages.clear()  # the browser itself notes the 404
        expected = "The server no longer has the text of this link. Paste the text, and press Read."
        assert page.inner_text("#problem") == expected
    else:
        assert page.is_visible("#views")


# Files


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_shown_can_be_saved(tab, view):
    from PIL import Image

    page = tab(f"view={view}&word=2&layer=3&head=10")
    content, name = saved(page, "svg")
    picture = ET.fromstring(content)
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert name.startswith(f"time-flies-like-an-{view}" if view != "compare" else "bank-compare")
    texts = [node.text or "" for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert any("flies" in text for text in texts) or view in ("heads", "compare")
    content, _ = saved(page, "png")
    with Image.open(io.BytesIO(content)) as image:
        assert min(image.size) > 200
        assert len(image.convert("RGB").getcolors(1 << 24)) > 5
    content, _ = saved(page, "csv")
    rows = list(csv.reader(io.StringIO(content.decode())))
    assert len(rows) > 3
    assert len({len(row) for row in rows}) == 1


def test_the_csv_has_the_numbers(tab, flies):
    weights = flies.weights(3, 10)
    content, _ = saved(tab("view=map&layer=3&head=10"), "csv")
    rows = list(csv.reader(io.StringIO(content.decode())))
    assert rows[0][1:] == [unit.text for unit in flies.units]
    np.testing.assert_allclose(np.array([row[1:] for row in rows[1:]], float), weights, atol=1e-6)
    content, _ = saved(tab("view=sentence&layer=3&word=2"), "csv")
    for row in csv.DictReader(io.StringIO(content.decode())):
        expected = float(flies.weights(3, int(row["head"]))[int(row["from"]), int(row["to"])])
        assert float(row["weight"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("view", VIEWS)
def test_the_saved_page_shows_the_same(tab, tmp_path, view):
    page = tab(f"view={view}&word=2&layer=3&head=10&theme=light")
    content, name = saved(page, "html")
    file = tmp_path / name
    file.write_bytes(content)
    alone = tab(f"view={view}&word=2&layer=3&head=10&theme=light", base=file.as_uri(), offline=True)
    shown = {
        "sentence": "#sentence-says",
        "heads": "#heads-says",
        "map": "#map-says",
        "walk": "#steps",
        "compare": "#compare-says",
    }[view]
    assert numbers(alone, shown) == pytest.approx(numbers(page, shown), abs=2e-5)
    assert alone.is_hidden("#ask")
    assert alone.is_visible("#tab-compare") == (view == "compare")
    again, _ = saved(alone, "html")
    assert again.decode().count("<script") == content.decode().count("<script") == 3


# Long texts


@pytest.fixture(scope="module")
def far(serving, tmp_path_factory):
    """A server of a tiny random model that takes 10,000 tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("far")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(96))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=10_000,
        initializer_range=0.6,
    )
    BertModel(config).save_pretrained(folder)
    text = folder / "text.txt"
    text.write_text(" ".join(f"w{(n * n) % 96}" for n in range(9_000)))
    started = serving(str(text), "--model", str(folder))
    return SimpleNamespace(address=started.address, reading=regard.Lens(folder).read(text.read_text()))


def test_a_map_of_nine_thousand_words(tab, far):
    page = tab("view=map&layer=1&head=1", base=far.address)
    reading = far.reading
    assert len(reading.units) == 9_002
    weights = reading.attention[1].weights
    page.hover("#deep")
    until(page, lambda: "mean of" in page.inner_text("#map-says"))
    box = page.locator("#deep").bounding_box()
    page.wait_for_timeout(300)
    row, column = (
        int(page.get_attribute(*place)) - 1 for place in (("#cell-row", "aria-rowindex"), ("#cell", "aria-colindex"))
    )
    text = page.inner_text("#map-says")
    cell = int(text.partition("mean of ")[2].partition(" ×")[0])
    rows, columns = (slice(n // cell * cell, min(n // cell * cell + cell, 9_002)) for n in (row, column))
    assert numbers(page, "#map-says") == pytest.approx([float(weights[1, rows, columns].double().mean())], rel=1e-4)
    page.fill("#jump-from", "4321")
    page.fill("#jump-to", "w16")
    does(page, lambda: page.click("#jump button"))
    at = next(n for n in (*range(4321, 9_002), *range(4321)) if reading.units[n].text == "w16")
    assert f"at=4321.{at}" in page.url
    assert numbers(page, "#map-says") == pytest.approx([float(weights[1, 4321, at])], abs=1e-7)
    again = tab(page.url.partition("#")[2], base=far.address)
    assert numbers(again, "#map-says") == numbers(page, "#map-says")
    does(page, lambda: page.select_option("#reduce", "max"))
    page.click("#zoom-all")
    page.wait_for_timeout(600)
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    until(page, lambda: "largest of" in page.inner_text("#map-says"))


def test_sentence_and_walk_of_nine_thousand_words(tab, far):
    page = tab("view=sentence&layer=1&word=4321&heads=1", base=far.address)
    row = far.reading.units[4321].attends_to(1, 1)
    assert numbers(page, "#sentence-says") == pytest.approx(row.topk(3).values.tolist(), abs=1e-6)
    shown = {
        int(unit) for unit in page.eval_on_selector_all("#to button", "all => all.map((node) => node.dataset.unit)")
    }
    assert set(row.topk(100).indices.tolist()) & {n for n in range(9_002) if row[n] >= 0.001} <= shown
    assert page.locator("#from button").count() == 100
    does(page, lambda: page.click("#tab-walk"))
    assert page.locator("#step-softmax tbody tr").count() == 12
    does(page, lambda: page.click("#tab-heads"))
    assert page.locator("#thumbs canvas").count() == 4


def test_its_file_stays_small(tab, far, tmp_path):
    page = tab("view=map&layer=1&head=1", base=far.address)
    content, name = saved(page, "html")
    assert len(content) < 10_000_000
    (tmp_path / name).write_bytes(content)
    alone = tab("view=map&layer=1&head=1", base=(tmp_path / name).as_uri(), offline=True)
    assert "words" in alone.inner_text("#about")
    does(alone, lambda: alone.click("#tab-heads"))
    does(alone, lambda: alone.click("#tab-sentence"))


# What takes long


def test_progress_is_shown_and_can_be_cancelled(tab):
    page = tab()
    asked = []

    def slow(route):
        question = json.loads(route.request.post_data)
        asked.append(question)
        if question["type"] == "thumbnails":
            fixtures.answer_working(route, 0.4)
        else:
            route.continue_()

    page.route("**/api", slow)
    page.click("#tab-heads")
    page.wait_for_selector("#progress:visible")
    assert page.inner_text("#progress-says") == "Drawing the heads: 40 %"
    assert page.get_attribute("#progress-bar", "value") == "0.4"
    page.click("#cancel")
    until(page, lambda: page.is_visible("#problem"))
    assert "Cancelled" in page.inner_text("#problem")
    page.wait_for_timeout(300)
    assert {"type": "cancel", "job": 7} in asked
    before = len(asked)
    page.wait_for_timeout(700)
    assert len(asked) == before, "it went on asking"


def test_a_server_that_is_gone_is_told(tab, serving):
    started = serving(ARROW)
    page = tab(base=started.address)
    started.process.kill()
    started.process.wait()
    does(page, lambda: page.click("#tab-heads"))
    assert page.inner_text("#problem") == "The server does not answer: is “regard serve” still running?"
    tab.messages.clear()  # the browser notes the refused connection


def test_errors_of_the_reader_are_told(tab):
    page = tab()
    does(page, lambda: (page.fill("#word", "zebra"), page.press("#word", "Enter"), page.click("#tab-walk")))
    page.fill("#word", "zebra")
    page.press("#word", "Enter")
    assert page.inner_text("#problem") == "There is no word “zebra” in the text."
    page.fill("#text", "  ")
    page.press("#text", "Enter")
    assert page.inner_text("#problem") == "There is no text to read: type or paste one."


# Care


def test_the_keyboard_alone(tab, flies):
    """From the text to each view, a word, a head and a file, without the pointer."""
    page = tab()
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.press("Control+A")
    page.keyboard.type("The dog barked")
    does(page, lambda: page.keyboard.press("Enter"))
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none", f"focus on {name} cannot be seen"
        seen.append(name)
        if name == "tab-sentence":
            break
    assert "read" in seen
    for view in VIEWS[1:]:
        does(page, lambda: page.keyboard.press("ArrowRight"))
        assert page.is_visible(f"#{view}")
    for _ in range(2):
        does(page, lambda: page.keyboard.press("ArrowLeft"))
    while page.evaluate("document.activeElement.id") != "cells":
        page.keyboard.press("Tab")
    place = page.get_attribute("#cell-row", "aria-rowindex"), page.get_attribute("#cell", "aria-colindex")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    until(page, lambda: page.get_attribute("#cell", "aria-colindex") == "1")
    assert page.get_attribute("#cell-row", "aria-rowindex") == str(int(place[0]) + 1)
    does(page, lambda: page.keyboard.press("Enter"))
    assert f"word={place[0]}" in page.url
    with page.expect_download():
        while page.evaluate("document.activeElement.dataset.kind") != "csv":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_no_serious_finding_of_axe(tab, view, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = tab(f"view={view}&word=2&layer=3&head=10&theme={theme}", bypass_csp=True)
    page.wait_for_timeout(200)  # colours that fade in
    violations = axe.Axe().run(page).response["violations"]
    serious = [
        (violation["id"], [node["html"][:100] for node in violation["nodes"]][:3])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
    assert not serious, serious


@pytest.mark.parametrize(("width", "height"), [(360, 640), (3840, 2160)])
@pytest.mark.parametrize("view", VIEWS)
def test_small_and_large_windows(tab, view, width, height):
    page = tab(f"view={view}&word=2&layer=3&head=10", width, height)
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.is_visible(f"#tab-{view}")


def test_the_labels_of_a_comparison_can_be_read_on_a_phone(tab):
    page = tab("view=compare", 360, 640)
    boxes = [label.bounding_box() for label in page.locator("#plane text").all()]
    assert len(boxes) == 4
    assert all(box["height"] >= 12 and box["x"] >= 0 and box["x"] + box["width"] <= 360 for box in boxes)


def test_a_map_uses_a_large_window(tab):
    page = tab("view=map", 3840, 2160)
    assert page.locator("#deep").bounding_box()["height"] > 1400


@pytest.mark.parametrize(
    "text",
    ["القطة تنام على السرير", "猫は眠っている。犬は走る。", "👩🏽‍🚀 naïve 𝔘𝔫𝔦 नमस्ते", "a" + "\u0301" * 10_000 + " cat"],
)
def test_any_script(tab, text):
    page = tab()
    type_text(page, text)
    for view in VIEWS[:4]:
        does(page, lambda view=view: page.click(f"#tab-{view}"))
        assert page.is_hidden("#problem"), page.inner_text("#problem")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_text_stays_text(tab):
    hostile = "</script><img src=x onerror=alert(1)> <script>alert(2)</script> <b>bold"
    page = tab()
    type_text(page, hostile)
    for view in VIEWS[:4]:
        does(page, lambda view=view: page.click(f"#tab-{view}"))
        assert page.locator("#viewer img, #viewer script, #viewer b >> text=bold").count() == 0
    assert page.input_value("#text") == hostile


# In a notebook


@pytest.fixture
def notebook(browser, flies):
    """A page with two of the viewer's widgets in it, as a notebook shows them; their Python is this process."""
    pytest.importorskip("anywidget", reason="anywidget, regard[notebook], is not installed")
    viewers = [flies.view(layer=3, head=10), flies.view(word=flies.units[2])]
    sent = [[] for _ in viewers]
    for viewer, box in zip(viewers, sent, strict=True):
        viewer.send = lambda content, buffers=(), box=box: box.append((content, buffers))

    def ask(number, message):
        viewers[number]._on_message(None, message, [])
        content, buffers = sent[number].pop()
        return [content, *(base64.b64encode(buffer).decode() for buffer in buffers)]

    page = browser.new_page(viewport={"width": 1000, "height": 900})
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.expose_function("ask", ask)
    page.route(
        "http://notebook.test/",
        lambda route: route.fulfill(body="<!doctype html><body></body>", content_type="text/html"),
    )
    page.route(
        "http://notebook.test/widget.js",
        lambda route: route.fulfill(body=viewers[0]._esm, content_type="text/javascript"),
    )
    page.goto("http://notebook.test/")
    traits = [{name: getattr(viewer, name) for name in ("markup", "look", "options")} for viewer in viewers]
    page.evaluate(
        """async (traits) => {
          const widget = (await import("http://notebook.test/widget.js")).default;
          traits.forEach((values, n) => {
            const listeners = [];
            const model = {
              get: (name) => values[name],
              on: (name, listener) => listeners.push(listener),
              send: async (message) => {
                const [content, ...buffers] = await window.ask(n, message);
                const bytes = buffers.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
                listeners.forEach((listener) => listener(content, bytes.map((node) => new DataView(node.buffer))));
              },
            };
            const box = document.createElement("div");
            box.id = `cell${n}`;
            document.body.append(box);
            widget.render({ model, el: box });
          });
        }""",
        traits,
    )
    yield page
    page.close()
    assert not messages, messages


def test_two_widgets_in_a_notebook(notebook, flies):
    first, second = (notebook.locator(f"#cell{n} #viewer[data-drawn]") for n in (0, 1))
    first.wait_for()
    second.wait_for()
    values = "all => all.map((node) => Number(node.getAttribute('value')))"
    values_shown = first.locator("#map-says data").evaluate_all(values)
    assert values_shown == pytest.approx([float(flies.weights(3, 10)[1].max())], abs=1e-6)
    values_shown = second.locator("#sentence-says data").evaluate_all(values)
    assert values_shown == pytest.approx(flies.weights(0).mean(0)[2].topk(3).values.tolist(), abs=1e-6)
    second.locator("#tab-walk").click()
    second.locator("#error").wait_for()
    second.locator("#text").fill("A new text")
    second.locator("#text").press("Enter")
    until(notebook, lambda: "3 words" in second.locator("#about").inner_text())
    assert first.locator("#map").is_visible()
    assert notebook.url == "http://notebook.test/"


def test_a_picture_stands_where_widgets_are_off(flies, monkeypatch):
    pytest.importorskip("anywidget", reason="anywidget, regard[notebook], is not installed")
    data, _ = flies.view(layer=3, head=10)._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"].startswith("Reading('Time flies like an arrow'")
    assert "application/vnd.jupyter.widget-view+json" in data
    assert flies._repr_mimebundle_() == {"text/plain": repr(flies)}  # in a terminal
    monkeypatch.setitem(sys.modules, "google.colab", None)  # as in a notebook
    assert "application/vnd.jupyter.widget-view+json" in flies._repr_mimebundle_()[0]
    with pytest.raises(IndexError, match="There is no layer 9"):
        flies.view(layer=9)
