"""The viewer's page where it once misled: what it says is so, stays so, and can be taken along."""

import csv
import io
import itertools
import json
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest

import regard
from support import browser as fixtures
from support.browser import does, numbers, saved, type_text, until
from support.decoder import save_decoder
from support.models import EMBEDDED
from support.sight import SIGHTS, lab, seen_with

ARROW = "Time flies like an arrow"
BANK = "He sat down on the bank of the river and counted the money that the bank had lent him, then walked home."
VIEWS = ("sentence", "heads", "map", "walk", "compare")
LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"


@pytest.fixture(scope="module")
def address(arrow):
    return arrow


@pytest.fixture(scope="module")
def lens(address):
    return regard.Lens()


@pytest.fixture(scope="module")
def flies(lens):
    return lens.read(ARROW)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny causal model, of a few words and the new line, as a folder."""
    return save_decoder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def causal(serving, small):
    """A server of the causal model, and of the embedded one beside it."""
    text = "the cat sat\nthe bank on the river"
    started = serving(text, "--model", str(small), "--model", str(_embedded()))
    return SimpleNamespace(address=started.address, reading=regard.Lens(small).read(text), text=text)


def _embedded():
    return EMBEDDED


def svg_of(page):
    content, _ = saved(page, "svg")
    return ET.fromstring(content)


def texts_of(picture):
    return [node.text or "" for node in picture.iter("{http://www.w3.org/2000/svg}text")]


# Sentence


def test_the_slider_hides_lines_and_leaves_the_numbers(tab, flies):
    page = tab("view=sentence&word=2&layer=5")
    weights = [f"{weight:.3f}" for weight in flies.weights(5).mean(0)[2].tolist()]
    for share in (100, 70, 30):
        does(page, lambda share=share: page.locator("#mass").fill(str(share)))
        assert page.locator("#lines svg > text").all_text_contents() == weights
        assert set(weights) <= set(texts_of(svg_of(page)))
    row = flies.weights(5)[:, 2].sort(descending=True).values
    kept = [(head, int((head.cumsum(0) < head.sum() * 0.3 - 1e-6).sum()) + 1) for head in row]
    carried = sum(float(head[:count][head[:count] >= 0.01].sum()) for head, count in kept) / len(row)
    assert page.inner_text("#share-says") == f"The lines drawn carry {100 * carried:.0f} % of the weight."


def test_a_long_text_can_be_pointed_at_and_keeps_its_place(tab, causal, small):
    words = [f"w{(n * n) % 40}" for n in range(700)]
    reading = regard.Lens(small).read(" ".join(words))
    page = tab(f"view=sentence&word=400&layer=1&text={quote(' '.join(words))}", base=causal.address)
    weights = reading.weights(1)
    until(page, lambda: page.locator("#lines path").count() > 0)
    place = "#from [data-unit='395']"
    page.locator(place).scroll_into_view_if_needed()
    page.hover(place)
    until(page, lambda: page.locator(f"{place}.chosen").count() == 1)
    expected = weights.mean(0)[395].topk(3).values.tolist()
    assert numbers(page, "#sentence-says") == pytest.approx(expected, abs=1e-5)
    before = page.locator(place).bounding_box()["y"]
    does(page, lambda: page.click(place))
    assert "word=395" in page.url
    assert page.locator(place).bounding_box()["y"] == before
    rows = list(csv.DictReader(io.StringIO(saved(page, "csv")[0].decode())))
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(4, abs=1e-3), "all of the weight of four heads"
    drawn = weights[:, 395]
    carried = float(drawn[drawn >= 0.01].sum()) / 4
    text_shown = float(re.search(r"carry ([\d.]+) %", page.inner_text("#share-says"))[1])
    assert text_shown == pytest.approx(100 * carried, abs=0.51)
    words_left = page.locator("#from .gap").first
    words_left.click()
    until(page, lambda: page.locator("#from [data-unit='0']").count() == 1)


def test_something_is_drawn_at_once(tab):
    page = tab(f"view=sentence&text={quote(' '.join(['river bank'] * 17))}")
    assert page.locator("#lines path").count() > 10
    assert "attends mostly to" in page.inner_text("#sentence-says")
    phone = tab("view=sentence&word=2&layer=5", 360, 740)
    assert phone.locator("#lines").bounding_box()["y"] < 560


@pytest.mark.parametrize(("direction", "word"), [("ba", 2), ("bb", 2), ("ab", 10), ("aa", 10)])
def test_a_direction_without_the_word_is_a_sentence(tab, direction, word):
    page = tab()
    page.click("#add-pair")
    page.fill("#text", "How old are you?")
    page.fill("#pair", "What is your age?")
    does(page, lambda: page.press("#pair", "Enter"))
    does(page, lambda: page.click(f"#from [data-unit='{word}']"))
    does(page, lambda: page.select_option("#direction", direction))
    mine, other = ("first", "second") if word == 2 else ("second", "first")
    expected = f"is in the {mine} text, and the lines shown are of words of the {other} attending."
    assert expected in page.inner_text("#sentence-says")


def test_lines_and_bars_name_their_head(tab, flies):
    page = tab("view=sentence&word=2&layer=5&heads=11")
    box = page.locator("#lines").bounding_box()
    bar = page.locator("#lines rect").last
    place = {name: float(bar.get_attribute(name)) for name in ("x", "y", "width", "height")}
    page.mouse.move(box["x"] + place["x"] + place["width"] / 2, box["y"] + place["y"] + 7)
    until(page, lambda: page.is_visible("#tip"))
    assert page.inner_text("#tip").startswith("Head 11: flies → ")
    path = page.locator("#lines path").last.get_attribute("d")
    left, start, *_, right, end = map(float, re.findall(r"[\d.]+", path))
    page.mouse.move(box["x"] + (left + right) / 2, box["y"] + (start + end) / 2)
    until(page, lambda: page.inner_text("#tip").startswith("Head 11: flies → "))
    page.mouse.move(5, 5)
    until(page, lambda: page.is_hidden("#tip"))


def test_words_that_the_model_does_not_know_are_marked(tab):
    page = tab(f"view=sentence&text={quote('I like 🪰 bugs 时间')}")
    assert page.locator("#from .unknown").all_inner_texts() == ["🪰", "时", "间"]
    assert page.is_visible("#note")
    assert "3 of 6 words" in page.inner_text("#note")
    assert "Not in the model's vocabulary: 🪰, 时, 间." in texts_of(svg_of(page))
    does(page, lambda: page.click("#tab-walk"))
    assert page.locator("#step-softmax .unknown").all_inner_texts() == ["🪰", "时", "间"]
    type_text(page, "I like bugs")
    assert page.is_hidden("#note")


# Heads, map, walk


def test_a_causal_model_is_scaled_by_more_than_its_first_word(tab, causal):
    page = tab("view=heads", base=causal.address)
    ink = page.eval_on_selector_all(
        "#thumbs canvas",
        """all => all.map((c) => {
          const pixels = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
          let darkest = 999;
          for (let n = 0; n < pixels.length; n += 4) {
            const [row, column] = [Math.floor(n / 4 / c.width), (n / 4) % c.width];
            if (row && column) darkest = Math.min(darkest, pixels[n] + pixels[n + 1] + pixels[n + 2]);
          }
          return darkest;
        })""",
    )
    assert max(ink) - min(ink) <= 3, "each head's largest weight beyond the first word has the full colour"
    assert "the first word set apart" in page.inner_text("#heads-hint")
    does(page, lambda: page.click("#tab-map"))
    rest = causal.reading.weights(0, 0)[1:, 1:]
    assert float(page.locator("#legend span").last.inner_text()) == pytest.approx(float(rest.max()), abs=0.006)


def test_a_causal_walk_opens_at_a_word_that_sees_others(tab, causal):
    page = tab("view=walk&layer=1&head=2", base=causal.address)
    assert page.inner_text("#walk .lead q").strip("“”") == "river"
    does(page, lambda: page.fill("#word", "0") or page.press("#word", "Enter"))
    formula = page.inner_text("[data-slot=powers]")
    assert re.fullmatch(r"e\s*[−\d.]+\s*/ \(e\s*[−\d.]+\s*\)", formula), formula
    assert all(name.strip() for name in page.locator("#step-softmax tbody th").all_inner_texts())
    assert "⏎" in page.locator("#step-softmax tbody th").all_inner_texts()


def test_the_norm_and_the_rotation_are_steps(tab, causal):
    page = tab("view=walk&layer=1&head=2&word=3", base=causal.address)
    shown = "all => all.filter((item) => !item.hidden).map((item) => item.querySelector('h2').textContent)"
    names = ["Embedding", "Norm", "Query, key, value", "Rotation", "Scores"]
    assert page.eval_on_selector_all("#steps > li", shown)[:5] == names
    assert "LlamaRMSNorm" in page.inner_text("#step-norm")
    assert "turn the normed x into three vectors of 8 numbers" in page.inner_text("#step-vectors")
    assert page.locator("#step-norm canvas").count() == page.locator("#step-rotation canvas").count() == 1
    assert "not what decides the model's answer" in page.inner_text("#walk > .hint")


def test_the_first_token_whose_angle_is_0_has_the_rotation_too(tab, causal):
    """Its vector before the first layer says nothing of its place."""
    page = tab("view=walk&layer=0&head=2&word=0", base=causal.address)
    assert page.is_visible("#step-rotation")
    assert "the same in every sentence." in page.inner_text("#step-embedding")


def test_a_comparison_of_a_causal_model_says_what_a_word_saw(tab, causal):
    texts = quote("the bank sat\nthe cat on the bank")
    page = tab(f"view=compare&same=bank&texts={texts}", base=causal.address)
    assert "a word sees only the words before it" in page.inner_text("#compare-notes")


def test_the_steps_of_the_walk_stay_where_they_are(tab):
    page = tab("view=walk&word=2&layer=5&head=11")
    layout = "(list) => [getComputedStyle(list).display, getComputedStyle(list).fontSize, list.offsetWidth]"
    before = page.eval_on_selector("#steps", layout)
    for number in (1, 2, 3):
        page.click("#step-next")
        until(page, lambda number=number: page.inner_text("#step-says").startswith(f"Step {number} of 7"))
        page.wait_for_timeout(700)
        assert page.eval_on_selector("#steps", layout) == before
        box = page.locator("#step-next").bounding_box()
        assert 0 <= box["y"] < 200
        heading = page.locator("#steps .current h2").bounding_box()
        assert heading["y"] >= box["y"] + box["height"], "the buttons cover no heading"


def test_the_walk_shows_what_each_token_adds(tab, lens):
    reading = lens.read("The bank of the river")
    layer, head = 3, 5  # much of the weight goes to [CLS], whose value is short
    walk = reading.explain("bank", layer=layer, head=head)
    carried = walk.carried[0]
    page = tab(f"view=walk&word=2&layer={layer}&head={head}&text={quote(reading.text)}")
    rows = page.eval_on_selector_all(
        "#step-sum tbody tr",
        "all => all.map((row) => [...row.querySelectorAll('data')].map((d) => Number(d.getAttribute('value'))))",
    )
    np.testing.assert_allclose(np.array(rows)[:, 0], walk.weights[0], atol=1e-6)
    np.testing.assert_allclose(np.array(rows)[:, 1], carried, atol=1e-5)
    text_shown = page.eval_on_selector_all(
        "[data-slot=carried] data", "all => all.map((d) => Number(d.getAttribute('value')))"
    )
    share = carried / carried.sum()
    heaviest = int(walk.weights[0].argmax())
    assert any(abs(number - float(share[heaviest])) < 1e-5 for number in text_shown)
    assert float(share[heaviest]) < float(walk.weights[0][heaviest]), "the example is one of a sink"


def test_the_error_is_a_number_that_a_reader_knows(tab):
    page = tab("view=walk&word=2&layer=5&head=11")
    error = float(page.get_attribute("#error", "value"))
    text_shown = page.inner_text("#error")
    assert re.fullmatch(r"0\.0*1", text_shown)
    assert error <= float(text_shown) <= 10 * error


def test_a_map_opens_where_the_link_says(tab, lens):
    text = " ".join([BANK] * 3)
    page = tab(f"view=map&layer=0&head=4&at=30.44&text={quote(text)}")
    reading = lens.read(text)
    assert numbers(page, "#map-says") == pytest.approx([float(reading.weights(0, 4)[30, 44])], abs=1e-6)
    until(page, lambda: "seen=" in page.url)
    left, top, width = map(float, re.search(r"seen=([\d._-]+)", page.url)[1].split("_"))
    assert width < len(reading.units) / 2
    assert left < 44 < left + width
    assert top < 30 < top + width
    again = tab(page.url.partition("#")[2])
    assert again.url == page.url
    fill = "#deep canvas"
    colours = again.eval_on_selector(
        fill, "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    )
    assert colours > 20, "the map is there"


def test_the_map_says_what_its_rows_sum_to(tab):
    page = tab("view=map&layer=5&head=11")
    assert "every row sums to one" in page.inner_text("#map-hint")
    does(page, lambda: page.check("#hide"))
    assert "sums to one" not in page.inner_text("#map-hint")
    assert "special tokens, which are hidden" in page.inner_text("#map-hint")


# Compare


def test_texts_without_the_word_are_left_out_and_said(tab):
    page = tab()
    does(page, lambda: page.click("#tab-compare"))
    page.fill("#compare-word", "bank")
    page.fill("#compare-texts", "The bank lent.\nNo such word.\nThe river bank.")
    does(page, lambda: page.click("#comparing button"))
    assert page.locator("#places li").count() == 2
    assert "1 text left out" in page.inner_text("#compare-notes")
    assert "No such word." in page.inner_text("#compare-notes")


def test_identical_texts_are_one_group(tab):
    page = tab(f"view=compare&same=bank&texts={quote(chr(10).join(['The bank lent money.'] * 3))}")
    colours = page.eval_on_selector_all("#plane g", "all => all.map((g) => getComputedStyle(g).color)")
    assert len(set(colours)) == 1
    assert "The vectors are the same in all places." in page.inner_text("#compare-notes")


@pytest.mark.parametrize("state", [0, 6])
def test_the_labels_of_identical_places_do_not_touch_on_a_phone(tab, state):
    texts = quote(chr(10).join(["The bank lent money."] * 4))
    page = tab(f"view=compare&same=bank&texts={texts}&after={state}", width=360)
    boxes = [label.bounding_box() for label in page.locator("#plane text").all()]
    assert len(boxes) == 4
    for box, other in itertools.combinations(boxes, 2):
        assert box["y"] + box["height"] <= other["y"] or other["y"] + other["height"] <= box["y"]


def test_the_labels_of_many_places_keep_apart(tab):
    page = tab(f"view=compare&same=bank&texts={quote(chr(10).join([f'{BANK} {n} banks' for n in range(30)]))}")
    assert page.locator("#places li").count() == 60
    boxes = [label.bounding_box() for label in page.locator("#plane text").all()]
    assert boxes
    frame = page.locator("#plane svg").bounding_box()
    for box in boxes:
        assert box["y"] >= frame["y"] - 1
        assert box["y"] + box["height"] <= frame["y"] + frame["height"] + 1
    for box, other in itertools.combinations(boxes, 2):
        apart_x = box["x"] + box["width"] <= other["x"] + 2 or other["x"] + other["width"] <= box["x"] + 2
        apart_y = box["y"] + box["height"] <= other["y"] + 6 or other["y"] + other["height"] <= box["y"] + 6
        assert apart_x or apart_y


# Texts, models, servers


def test_a_server_that_was_started_anew_is_no_matter(tab, serving):
    started = serving(ARROW)
    page = tab("view=sentence", base=started.address)
    started.process.kill()
    started.process.wait()
    serving(ARROW, "--port", str(urlsplit(started.address).port))
    for view in ("heads", "map", "walk"):
        does(page, lambda view=view: page.click(f"#tab-{view}"))
        assert page.is_hidden("#problem"), page.inner_text("#problem")
    tab.messages.clear()  # the browser itself notes the answer 404


def test_a_long_text_is_there_after_reloads_and_restarts(tab, serving):
    started = serving(ARROW)
    page = tab(base=started.address)
    text = " ".join([BANK] * 25)
    assert len(text) > 2000
    type_text(page, text)
    for _ in range(3):
        does(page, page.reload)
        assert page.input_value("#text") == text
    started.process.kill()
    started.process.wait()
    serving(ARROW, "--port", str(urlsplit(started.address).port))
    does(page, page.reload)
    assert page.input_value("#text") == text
    tab.messages.clear()


def test_a_link_to_a_text_that_is_gone_stays_a_plain_message(tab):
    page = tab("view=sentence&reading=00000000")
    for _ in range(2):
        message = "The server no longer has the text of this link. Paste the text, and press Read."
        assert page.inner_text("#problem") == message
        assert page.is_hidden("#views")
        does(page, page.reload)
    tab.messages.clear()


def test_a_cancelled_reading_stays_cancelled(tab):
    page = tab()
    asked = []

    def slow(route):
        question = json.loads(route.request.post_data)
        asked.append(question)
        if question["type"] == "read" and question["text"] != ARROW:
            fixtures.answer_working(route, 0.2)
        else:
            route.continue_()

    page.route("**/api", slow)
    page.fill("#text", "a very long text")
    page.press("#text", "Enter")
    page.wait_for_selector("#progress:visible")
    does(page, lambda: page.click("#cancel"))
    until(page, lambda: "Reading was cancelled" in page.inner_text("#problem"))
    read = sum(question["type"] == "read" for question in asked)
    for view in ("heads", "map", "walk"):
        does(page, lambda view=view: page.click(f"#tab-{view}"))
        assert page.is_visible(f"#{view}")
    page.wait_for_timeout(500)
    assert sum(question["type"] == "read" for question in asked) == read, "it began again"
    assert page.input_value("#text") == "a very long text"
    assert f"text={quote(ARROW).replace('%20', '+')}" in page.url
    page.press("#text", "Enter")
    page.wait_for_selector("#progress:visible")
    assert sum(question["type"] == "read" for question in asked) > read, "it begins again when it is asked for"


def test_one_choice_of_model_everywhere(tab, causal):
    page = tab("view=heads", base=causal.address)
    names = page.locator("#model option").all_inner_texts()
    assert len(names) == 2
    does(page, lambda: page.select_option("#model", names[1]))
    for view in ("map", "walk", "sentence"):
        does(page, lambda view=view: page.click(f"#tab-{view}"))
        assert page.input_value("#model") == names[1]
        assert page.inner_text("#about").startswith(names[1])
    does(page, lambda: page.click("#tab-compare"))
    assert page.locator("#similarities button").count() == 7, "six layers, and before them"
    does(page, lambda: page.select_option("#model", names[0]))
    assert page.is_visible("#compare")
    assert page.locator("#similarities button").count() == 3


# Files


@pytest.mark.parametrize("view", VIEWS)
def test_a_saved_picture_stands_alone(tab, view):
    page = tab(f"view={view}&word=2&layer=5&head=11&text={quote(f'Time flies {LONG_WORD}')}")
    picture = svg_of(page)
    text_shown = " ".join(texts_of(picture))
    assert "all-MiniLM-L6-v2" in text_shown
    if view == "compare":
        for text in ("bank", "after layer 5", "Similarity", "1.00", "The [bank] lent her the money."):
            assert text in text_shown
        return
    assert LONG_WORD in text_shown.replace(" ", ""), "the whole text, long word and all"
    expected = {
        "sentence": ["Layer 5", "all 12 heads", "flies", "Weight"],
        "heads": ["6 layers × 12 heads", "layer", "head", "Weight", "largest"],
        "map": ["layer 5, head 11", "flies", "Weight", "0.00"],
        "walk": ["layer 5, head 11", "flies", "score", "weight"],
    }[view]
    for text in expected:
        assert text in text_shown, text
    if view in ("sentence", "map"):
        assert re.search(r"Donaudampf\S*…\S* stands for", text_shown)
    width, height = (float(picture.get(side)) for side in ("width", "height"))
    assert picture.get("viewBox") == f"0 0 {width:g} {height:g}"
    assert not list(picture.iter("{http://www.w3.org/2000/svg}image")), "shapes, sharp at any size"


@pytest.mark.parametrize("text", ["a \x01 b\x0c c", "x" * 300 + "👩🏽‍🚀" * 300, "القطة تنام 猫は眠っている", "  \t x"])
@pytest.mark.parametrize("view", ["sentence", "map"])
def test_any_text_makes_a_picture(tab, view, text):
    page = tab(f"view={view}&text={quote(text)}")
    picture = svg_of(page)
    assert float(picture.get("width")) < 3000
    assert saved(page, "png")[0].startswith(b"\x89PNG")
    assert page.is_hidden("#problem"), page.inner_text("#problem")


def test_names_of_files_differ_where_what_is_shown_does(tab):
    names = set()
    shown = [
        "view=sentence&layer=3", "view=sentence&layer=4", "view=sentence&layer=4&word=2", "view=map&layer=3&head=2",
        "view=map&layer=3&head=3", "view=sentence&layer=3&heads=1.2", "view=map&layer=3&head=2&theme=dark",
        "view=map&layer=3&head=2&text=Time+flies+like+an+arrow+does", "view=compare&after=2", "view=compare&after=3",
    ]  # fmt: skip
    for link in shown:
        page = tab(link)
        for kind in ("svg", "csv"):
            names.add(saved(page, kind)[1])
    assert len(names) == 2 * len(shown)


@pytest.mark.parametrize(
    "link",
    [
        "view=sentence&layer=3&word=4&heads=1.5.7&mass=60&theme=dark&hide=1",
        "view=map&layer=2&head=7&at=2.5&theme=light&scale=log",
        "view=walk&layer=5&head=11&word=2&step=4&theme=dark",
        "view=heads&layer=4&head=2&theme=dark",
        "view=compare&after=2&theme=light",
    ],
)
def test_a_saved_page_opens_as_it_was_shown(tab, tmp_path, link):
    page = tab(link)
    content, name = saved(page, "html")
    (tmp_path / name).write_bytes(content)
    alone = tab(base=(tmp_path / name).as_uri(), offline=True)
    choices = dict(pair.split("=") for pair in link.split("&"))
    address = dict(pair.split("=") for pair in unquote(alone.url.partition("#")[2]).split("&"))
    assert choices.items() <= address.items()
    assert alone.is_visible(f"#{choices['view']}")
    assert alone.get_attribute("#viewer", "data-theme") == choices["theme"]
    says = f"#{choices['view']}-says"
    if choices["view"] != "walk":
        assert alone.inner_text(says) == page.inner_text(says)
    does(alone, lambda: alone.click("#tab-map"))
    again, name = saved(alone, "html")
    (tmp_path / f"again-{name}").write_bytes(again)
    assert tab(base=(tmp_path / f"again-{name}").as_uri(), offline=True).is_visible("#map")


# For everybody


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_heads_can_be_told_apart_by_everybody(tab, theme):
    page = tab(f"view=sentence&theme={theme}")
    colours = [
        [int(number) for number in re.findall(r"\d+", colour)[:3]]
        for colour in page.eval_on_selector_all("#swatches button", "all => all.map((b) => getComputedStyle(b).color)")
    ]
    assert len(colours) == 12
    for sight, matrix in SIGHTS.items():
        labs = [lab(seen_with(colour, matrix)) for colour in colours]
        least = min(np.linalg.norm(a - b) for a, b in itertools.combinations(labs, 2))
        assert least > 12, f"{sight}: {least:.1f}"  # CIE76: about 2 is just noticeable
    paper = [
        int(n) for n in re.findall(r"\d+", page.eval_on_selector("#viewer", "v => getComputedStyle(v).backgroundColor"))
    ]
    luminance = [float(np.array([0.2126, 0.7152, 0.0722]) @ seen_with(c, np.eye(3))) for c in (paper, *colours)]
    for light in luminance[1:]:
        assert (max(light, luminance[0]) + 0.05) / (min(light, luminance[0]) + 0.05) >= 2.95


def test_names_and_headings(tab):
    page = tab()
    assert page.get_by_role("slider", name="Show the strongest lines").count() == 1
    assert page.locator("h1").count() == 1
    assert page.get_by_role("heading", level=1).inner_text() == ARROW
    type_text(page, "Another text")
    assert page.get_by_role("heading", level=1).inner_text() == "Another text"


def test_motion_is_left_out_where_it_is_unwelcome(tab):
    page = tab("view=walk&word=2", reduced_motion="reduce")
    for _ in range(6):
        page.click("#step-next")
    first = page.locator("#steps .current").bounding_box()["y"]
    page.wait_for_timeout(400)
    assert page.locator("#steps .current").bounding_box()["y"] == first


def test_forced_colours_show_what_is_chosen(tab):
    page = tab("view=sentence&word=2", forced_colors="active")
    border = "t => getComputedStyle(t).borderBottomColor + getComputedStyle(t).borderBottomWidth"
    assert page.eval_on_selector("#tab-sentence", border) != page.eval_on_selector("#tab-heads", border)
    back = "b => getComputedStyle(b).backgroundColor"
    assert page.eval_on_selector("#from .chosen", back) != page.eval_on_selector("#from button:not(.chosen)", back)
    strokes = page.eval_on_selector_all("#lines g", "all => all.map((g) => getComputedStyle(g).color)")
    assert len(set(strokes)) == 12


def test_the_words_of_the_page(tab):
    page = tab("view=sentence&word=2&layer=5")
    assert page.inner_text("#sentence-says").startswith(
        "flies attends mostly to [CLS] (41 %), Time (17 %) and flies (14 %)"
    )
    assert "Show the strongest lines, up to 100 % of the weight" in page.inner_text("#sentence .settings")
    assert page.inner_text("#add-pair") == "Add a second text"
    assert "memory" not in page.inner_text("#about")
    page.click("#details summary")
    assert "of memory" in page.inner_text("#memory")
    does(page, lambda: page.click("#tab-walk"))
    assert page.inner_text("#walk .lead").startswith("How head 0 of layer 5 computes its output for flies")


def test_a_kernel_that_is_gone_is_told_in_words(browser, flies):
    pytest.importorskip("anywidget", reason="anywidget, regard[notebook], is not installed")
    viewer = flies.view(layer=3, head=10)
    page = browser.new_page()
    page.route("http://notebook.test/", lambda route: route.fulfill(body="<body></body>", content_type="text/html"))
    page.route(
        "http://notebook.test/widget.js",
        lambda route: route.fulfill(body=viewer._esm, content_type="text/javascript"),
    )
    page.goto("http://notebook.test/")
    page.evaluate(
        """async (values) => {
          const widget = (await import("http://notebook.test/widget.js")).default;
          const model = { get: (name) => values[name], on() {}, send() { throw new Error("Cannot send"); } };
          const el = document.createElement("div");
          document.body.append(el);
          widget.render({ model, el });
        }""",
        {name: getattr(viewer, name) for name in ("markup", "look", "options")},
    )
    until(page, lambda: page.locator("#waiting").inner_text() == "The kernel was restarted. Run the cell again.")
    page.close()
