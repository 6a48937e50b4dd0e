"""A decoder in the page: a first token that takes most is set apart, surprise beneath the tokens, the logit lens."""

import csv
import io
import math
import re
import xml.etree.ElementTree as ET
from urllib.parse import quote

import numpy as np
import pytest
import torch

import regard
from regard.viewer.bundle import render_page
from support.browser import does, numbers, saved, until
from support.decoder import save_decoder
from support.headed import headed
from support.readings import made

TEXT = "the cat sat on the bank"
LONG = " ".join(f"w{n * n % 40}" for n in range(300))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_decoder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def address(serving, folder):
    return serving(TEXT, "--model", str(folder)).address


@pytest.fixture(scope="module")
def reading(folder):
    return regard.Lens(folder).read(TEXT)


@pytest.fixture(scope="module")
def sinking(tmp_path_factory):
    """A causal reading of random numbers whose first token takes most of the attention, and its page."""

    def draw(*shape):
        drawn = torch.randn(shape).abs()
        drawn[..., 0, :] += 2  # of queries, keys and values alike
        return drawn

    reading = made("a bb ccc dd e ff g", causal=True, draw=draw)
    page = tmp_path_factory.mktemp("pages") / "sinking.html"
    page.write_text(render_page(reading), "utf-8")
    return reading, page.as_uri()


def columns(page):
    return [page.locator(f"#{side} button").all_inner_texts() for side in ("from", "to")]


# The first token set apart


def test_a_first_token_that_takes_most_is_hidden_and_said(tab, sinking):
    reading, base = sinking
    share = float(torch.stack([reading.weights(layer)[:, 1:, 0] for layer in range(2)]).mean())
    assert share >= 0.5
    page = tab("view=sentence&layer=1&word=5", base=base, offline=True)
    said = f"The first token, “[S]”, takes {100 * share:.0f} % of the attention, the mean over all layers and heads"
    assert page.inner_text("#first-says") == f"{said}; it is hidden here, and all other weights stay as they are."
    assert columns(page) == [["a", "bb", "ccc", "dd", "e", "ff", "g"]] * 2
    row = reading.weights(1).mean(0)[5]
    assert numbers(page, "#sentence-says") == pytest.approx(row[1:].topk(3).values.tolist(), abs=1e-5)
    carried = float(re.search(r"carry ([\d.]+) %", page.inner_text("#share-says"))[1])
    shown = reading.weights(1)[:, 5, 1:]
    assert carried == pytest.approx(100 * float(shown[shown >= 0.01].sum()) / 6, abs=0.51), "nothing is renormalized"
    does(page, lambda: page.click("#first-switch"))
    assert page.inner_text("#first-says") == f"{said}."
    assert "first=shown" in page.url
    assert columns(page)[1][0] == "[S]"
    assert numbers(page, "#sentence-says") == pytest.approx(row.topk(3).values.tolist(), abs=1e-5)
    does(page, lambda: page.uncheck("#hide-first") or page.check("#hide-first"))
    assert "first=hidden" in page.url
    does(page, lambda: page.fill("#word", "[S]") or page.press("#word", "Enter"))
    assert "word=0" in page.url, "a word that is hidden can still be named"


def test_heads_and_map_leave_it_out(tab, sinking):
    reading, base = sinking
    page = tab("view=map&layer=1&head=2&at=5.3", base=base, offline=True)
    weights = reading.weights(1)[2]
    assert numbers(page, "#map-says") == pytest.approx([float(weights[5, 3])], abs=1e-4)
    assert page.get_attribute("#cells", "aria-rowcount") == "7"
    assert "the rest of each row's weight is on the first token, which is hidden" in page.inner_text("#map-hint")
    table = list(csv.reader(io.StringIO(saved(page, "csv")[0].decode())))
    assert table[0][1:] == ["a", "bb", "ccc", "dd", "e", "ff", "g"]
    np.testing.assert_allclose(np.array(table[1:])[:, 1:].astype(float), weights[1:, 1:], atol=1e-5)
    texts = " ".join(ET.fromstring(saved(page, "svg")[0]).itertext())
    assert "Hidden: the first token, “[S]”, which takes" in texts
    does(page, lambda: page.click("#tab-heads"))
    assert page.evaluate("document.querySelector('#thumbs canvas').width") == 7
    does(page, lambda: page.click("#first-switch"))
    assert page.evaluate("document.querySelector('#thumbs canvas').width") == 8
    does(page, lambda: page.click("#tab-walk"))
    assert page.is_hidden("#first-about")
    assert page.locator("#step-softmax tbody tr").count() == len(reading.tokens), "a walk lists all"


def test_one_that_takes_little_is_hidden_by_choice(tab, address):
    page = tab("view=map&layer=1&head=2")
    assert page.is_hidden("#first-about")
    assert page.get_attribute("#cells", "aria-rowcount") == "6"
    does(page, lambda: page.check("#hide-first"))
    assert page.get_attribute("#cells", "aria-rowcount") == "5"
    assert page.is_visible("#first-about")


# Surprise beneath the tokens


def test_surprise_and_expectation(tab, reading):
    page = tab("view=sentence&layer=1")
    expected = reading.predictions()
    tokens = page.locator("#expected-tokens button")
    assert page.locator("#expected-tokens bdi").all_inner_texts()[:6] == TEXT.split()
    assert tokens.count() == 7, "all tokens, and what comes next"
    assert tokens.last.inner_text().split() == [expected.texts[-1][0].strip(), "next"]
    assert f"perplexity {float(f'{expected.perplexity:.3g}'):,g}" in page.inner_text("#expected-says")
    label = tokens.nth(2).get_attribute("aria-label")
    nats = float(expected.surprise[1])
    assert label.startswith(f"“sat”: {nats:.{2 if nats < 10 else 1}f} nats, ")
    assert [text.strip() for text in re.findall(r"“(.*?)”", label)[1:]] == [t.strip() for t in expected.texts[1]]
    page.hover("#expected-tokens button >> nth=2")
    assert page.inner_text("#tip").replace("\n", ", ") == label
    assert len(page.inner_text("#tip").splitlines()) == 6
    does(page, lambda: tokens.nth(2).click())
    assert "word=2" in page.url
    assert tokens.nth(2).get_attribute("aria-pressed") == "true"


def test_of_a_long_text_the_tokens_around_the_word(tab, folder):
    page = tab(f"view=sentence&layer=1&word=200&text={quote(LONG)}")
    assert "tokens 129 to 256 of 300, around the chosen word" in page.inner_text("#expected-says")
    assert page.locator("#expected-tokens button").count() == 128
    assert page.locator("#expected-tokens [aria-pressed=true] bdi").inner_text() == LONG.split()[200]


def test_a_masked_language_model_has_predictions_and_no_surprise(tab, tmp_path):
    reading = regard.Lens(headed("BertForMaskedLM", "bert", torch.float32)).read("the cat sat")
    reading.save(tmp_path / "masked.html")
    page = tab("view=sentence", base=(tmp_path / "masked.html").as_uri(), offline=True)
    shown = page.locator("#expected-tokens small").all_inner_texts()
    assert shown == [texts[0].strip() for texts in reading.predictions().texts]
    assert page.is_hidden("#expected-legend")
    does(page, lambda: page.click("#tab-predictions"))
    assert page.locator("#lens .came").count() == 0
    assert page.evaluate("document.querySelector('#lens-colour option[value=next]').disabled")


def test_a_model_without_a_head_has_neither(tab, sinking):
    page = tab("view=sentence", base=sinking[1], offline=True)
    assert page.is_hidden("#expected")
    assert page.is_hidden("#tab-predictions")
    page = tab("view=predictions", base=sinking[1], offline=True)
    assert page.inner_text("#lens-missing") == "made up predicts no tokens."
    assert page.is_hidden("#lens-shown")


# The logit lens


def cells(page, layer):
    return page.locator(f"#lens [data-layer='{layer}']").all_inner_texts()


def test_layers_by_tokens(tab, reading):
    page = tab("view=predictions&layer=0&word=3")
    for layer in range(2):
        expected = reading.predictions(layer=layer)
        assert cells(page, layer) == [texts[0].strip() or "␣" for texts in expected.texts]
    assert page.locator("#lens .came").all_inner_texts() == [*TEXT.split()[1:], ""]
    shown = reading.predictions(layer=0).probabilities[3].tolist()
    assert numbers(page, "#lens-says") == pytest.approx(shown, abs=1e-5)
    assert page.inner_text("#lens-says").startswith("Layer 0, after on: ")
    does(page, lambda: page.click("#lens [data-layer='1'][data-token='4']"))
    assert "layer=1" in page.url
    assert "word=4" in page.url
    assert numbers(page, "#lens-says") == pytest.approx(reading.predictions().probabilities[4].tolist(), abs=1e-5)
    does(page, lambda: page.click("#tab-sentence"))
    assert page.input_value("#layer") == "1"
    assert page.locator("#from .chosen").inner_text() == "the"


def test_colours_of_the_token_that_came(tab, reading):
    page = tab("view=predictions&layer=0&theme=light")
    does(page, lambda: page.select_option("#lens-colour", "next"))
    assert "lens=next" in page.url
    shades = page.eval_on_selector_all(
        "#lens [data-layer='1']", "all => all.map((cell) => cell.style.getPropertyValue('--shade'))"
    )
    assert shades[-1] == "", "nothing came after the last"
    lightness = [sum(map(int, re.findall(r"\d+", shade))) for shade in shades[:-1]]
    came = [math.exp(-nats) for nats in reading.predictions().surprise[:-1].tolist()]
    assert np.argmin(lightness) == np.argmax(came)
    assert "token that came next" in page.get_attribute("#lens-legend", "aria-label")


def test_keys_go_from_cell_to_cell(tab):
    page = tab("view=predictions&layer=0&word=3")
    page.focus("#lens [tabindex='0']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    focused = "[document.activeElement.dataset.layer, document.activeElement.dataset.token]"
    assert page.evaluate(focused) == ["1", "4"]
    until(page, lambda: "after the" in page.inner_text("#lens-says"))
    does(page, lambda: page.keyboard.press("Enter"))
    assert "word=4" in page.url


def test_a_long_text_is_shown_in_parts(tab):
    page = tab(f"view=predictions&layer=1&word=200&text={quote(LONG)}")
    assert page.inner_text("#lens-range") == "tokens 128 to 255 of 300"
    assert len(cells(page, 1)) == 128
    does(page, lambda: page.click("#lens-later"))
    assert page.inner_text("#lens-range") == "tokens 256 to 299 of 300"
    assert page.is_disabled("#lens-later")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_saved_page_shows_the_same(tab, tmp_path):
    page = tab("view=predictions&layer=0&word=3&theme=light")
    content, file = saved(page, "html")
    (tmp_path / file).write_bytes(content)
    alone = tab(base=(tmp_path / file).as_uri(), offline=True)
    assert "view=predictions" in alone.url
    for layer in range(2):
        assert cells(alone, layer) == cells(page, layer)
    assert alone.inner_text("#lens-says") == page.inner_text("#lens-says")
    does(alone, lambda: alone.click("#tab-sentence"))
    does(page, lambda: page.click("#tab-sentence"))
    assert alone.inner_text("#expected") == page.inner_text("#expected")


def test_the_picture_and_the_table(tab, reading):
    page = tab("view=predictions&layer=0&word=3")
    texts = " ".join(ET.fromstring(saved(page, "svg")[0]).itertext())
    for text in ("Logit lens of all 2 layers", "layer", "next", "Probability of the predicted token", *TEXT.split()):
        assert text in texts
    rows = list(csv.DictReader(io.StringIO(saved(page, "csv")[0].decode())))
    assert len(rows) == 12
    for row in rows:
        expected = reading.predictions(1, layer=int(row["layer"]))
        place = int(row["token"])
        assert float(row["probability"]) == pytest.approx(float(expected.probabilities[place, 0]), abs=1e-5)
        if row["next_token"]:
            came = math.exp(-float(expected.surprise[place]))
            assert float(row["probability_of_next"]) == pytest.approx(came, abs=1e-5)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", ["sentence", "predictions"])
def test_no_serious_finding_of_axe(tab, view, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = tab(f"view={view}&word=2&layer=1&theme={theme}", bypass_csp=True)
    page.wait_for_timeout(200)  # colours that fade in
    violations = axe.Axe().run(page).response["violations"]
    serious = [
        (violation["id"], [node["html"][:100] for node in violation["nodes"]][:3])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
    assert not serious, serious


def test_on_a_phone(tab):
    page = tab("view=predictions&word=2&layer=1", 360, 740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    does(page, lambda: page.click("#tab-sentence"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
