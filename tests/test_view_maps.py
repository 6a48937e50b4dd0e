"""The maps besides the weights, in every view: chosen, linked, saved, and the same numbers as Python's."""

import csv
import io
import itertools
import re
import xml.etree.ElementTree as ET
from urllib.parse import quote, unquote

import numpy as np
import pytest

import regard
from regard.attribution import MAPS, default_target, map_of, parse_target
from support.browser import does, numbers, saved, until
from support.decoder import save_decoder
from support.sight import SIGHTS, lab, seen_with

ARROW = "Time flies like an arrow"
SERVED = ("value-weighted", "norms", "gradient")  # by the embedded model, an encoder


@pytest.fixture(scope="module")
def address(arrow):
    return arrow


@pytest.fixture(scope="module")
def flies(address):
    return regard.Lens().read(ARROW)


@pytest.fixture(scope="module")
def decoder(serving, tmp_path_factory):
    """The address of a server of a tiny causal model, and the reading that it shows."""
    folder = save_decoder(tmp_path_factory.mktemp("models") / "small")
    text = "the cat sat on the bank"
    return serving(text, "--model", str(folder)).address, regard.Lens(folder).read(text)


def between_units(reading, name, layer, target=None):
    """A map between units, (H,U,U); H is 1 where all heads are taken together."""
    if target is None and MAPS[name].needs_target:
        target = default_target(reading)
    grouped = map_of(reading, name, layer, target).grouped(reading.unit_of_token, reading.unit_of_token).double()
    return grouped if grouped.ndim == 3 else grouped[None]


def largest(row, count=3):
    """The largest numbers by magnitude, with their signs."""
    return row[row.abs().topk(count).indices].tolist()


def ticks(page):
    """The numbers beside the scale of colours."""
    return [float(text.replace("−", "-")) for text in page.locator("#legend span").all_inner_texts()]


def texts_of(picture):
    return [node.text or "" for node in picture.iter("{http://www.w3.org/2000/svg}text")]


# Each view shows the right numbers


def test_a_map_is_chosen_and_kept_in_the_address(tab, flies):
    page = tab("view=sentence&word=2&layer=5")
    options = page.locator("#map-name option").all_inner_texts()
    assert options == ["weights", "value-weighted", "norms", "gradient", "logits (not here)"]
    assert "map=" not in page.url
    does(page, lambda: page.select_option("#map-name", "value-weighted"))
    assert "map=value-weighted" in page.url
    row = between_units(flies, "value-weighted", 5).mean(0)[2]
    assert numbers(page, "#sentence-says") == pytest.approx(largest(row), rel=1e-4)
    assert page.inner_text("#sentence-says").startswith("flies takes most from ")
    assert "W_O" in page.inner_text("#map-about")
    does(page, lambda: page.go_back())
    assert page.input_value("#map-name") == "weights"
    assert page.is_hidden("#map-about")
    assert page.inner_text("#sentence-says").startswith("flies attends mostly to [CLS] (41 %)")


@pytest.mark.parametrize("name", SERVED)
def test_the_sentence_of_a_link(tab, flies, name):
    page = tab(f"view=sentence&map={name}&layer=5&word=2")
    whole = between_units(flies, name, 5)
    assert numbers(page, "#sentence-says") == pytest.approx(largest(whole.mean(0)[2]), rel=1e-4)
    drawn = (whole[:, 2] >= 0.01 * whole.max()).sum()
    assert page.locator("#lines path").count() == int(drawn)
    widths = page.eval_on_selector_all("#lines path", "all => all.map((p) => Number(p.getAttribute('stroke-width')))")
    assert max(widths) == pytest.approx(0.8 + 4 * float(whole[:, 2].max() / whole.max()), abs=0.01)
    does(page, lambda: page.click("#to button >> text=arrow"))
    column = whole.mean(0)[:, 5]
    assert numbers(page, "#sentence-says") == pytest.approx(largest(column), rel=1e-4)
    assert page.is_hidden("#sinks")


@pytest.mark.parametrize("name", SERVED)
def test_the_map_of_a_link(tab, flies, name):
    page = tab(f"view=map&map={name}&layer=4&head=7&at=2.5")
    whole = between_units(flies, name, 4)
    head = whole[7 if len(whole) > 1 else 0]
    assert numbers(page, "#map-says") == pytest.approx([float(head[2, 5])], rel=1e-4, abs=1e-7)
    assert ticks(page)[-1] == pytest.approx(float(head.max()), rel=0.5)
    unit = "towards the target" if name == "gradient" else "length of the vector that is added"
    assert page.inner_text("#legend small") == unit
    assert page.inner_text("#map-says").endswith(unit)
    assert "sums to one" not in page.inner_text("#map-hint")


@pytest.mark.parametrize("name", SERVED)
def test_the_walk_of_a_link(tab, flies, name):
    page = tab(f"view=walk&map={name}&layer=5&head=11&word=2")
    row = map_of(flies, name, 5, default_target(flies)).dense()[..., 2, :]
    row = row[11] if row.ndim == 2 else row
    table = page.eval_on_selector_all(
        "#step-sum tbody tr",
        "all => all.map((row) => [...row.querySelectorAll('data')].map((d) => Number(d.getAttribute('value'))))",
    )
    carried, last = np.array(table)[:, 1], np.array(table)[:, -1]
    np.testing.assert_allclose(carried if name == "value-weighted" else last, row, rtol=1e-4, atol=1e-6)
    assert np.array(table).shape[1] == (2 if name == "value-weighted" else 3), "value-weighted is there already"
    assert page.is_enabled("#head"), "the walk is always of one head"
    if name != "value-weighted":
        assert f"By the map chosen, {name}" in page.inner_text("#step-sum")


def test_norms_have_no_heads(tab, flies):
    page = tab("view=map&map=norms&layer=5&head=11")
    assert page.is_disabled("#head")
    assert page.locator("#head option").all_inner_texts() == ["all heads"]
    does(page, lambda: page.click("#tab-heads"))
    assert page.locator("#thumbs canvas").count() == 6
    assert "Layer 5, all heads together" in page.inner_text("#heads-says")
    does(page, lambda: page.click("[data-layer='3'] canvas"))
    assert "layer=3&head=11" in page.url, "the head is kept for other maps"
    does(page, lambda: page.click("#tab-sentence"))
    assert page.is_hidden("#swatches")
    does(page, lambda: page.select_option("#map-name", "weights"))
    assert page.locator("#swatches button").count() == 12
    does(page, lambda: page.click("#tab-heads"))
    assert page.locator("#thumbs canvas").count() == 72


def test_signs_have_a_scale_on_both_sides_of_0(tab, decoder):
    base, reading = decoder
    page = tab("view=map&map=logits&layer=1&head=2&word=5", base=base)
    whole = between_units(reading, "logits", 1)
    peak = float(whole[2, 1:, 1:].abs().max())  # the first word sees only itself
    assert ticks(page) == pytest.approx([-peak, 0, peak], rel=0.1, abs=0.006)
    assert page.inner_text("#legend small") == "towards (+) or against (−) the target"
    assert default_target(reading).name in page.inner_text("#map-about")
    does(page, lambda: page.click("#tab-sentence"))
    signs = {sign: page.locator(f"#lines path.{sign}").count() for sign in ("plus", "minus")}
    row = whole[:, 5]
    peak = float(whole.abs().max())
    assert signs == {"plus": int((row >= 0.01 * peak).sum()), "minus": int((row <= -0.01 * peak).sum())}
    assert signs["minus"] > 0 < signs["plus"]
    assert re.search(r"\([+−]", page.inner_text("#sentence-says"))


def test_a_target_is_chosen(tab, flies):
    page = tab("view=sentence&map=gradient&layer=5&word=5")
    assert "The target: the sentence's vector." in page.inner_text("#map-about")
    assert page.get_attribute("#target", "placeholder") == "the sentence's vector"
    does(page, lambda: page.fill("#target", "word:arrow") or page.press("#target", "Enter"))
    assert "The target: the vector of “arrow”." in page.inner_text("#map-about")
    assert "target=word%3Aarrow" in page.url
    row = between_units(flies, "gradient", 5, parse_target(flies, "word:arrow")).mean(0)[5]
    assert numbers(page, "#sentence-says") == pytest.approx(largest(row), rel=1e-4)
    again = tab(page.url.partition("#")[2])
    assert again.inner_text("#sentence-says") == page.inner_text("#sentence-says")
    does(page, lambda: page.fill("#target", "word:dog") or page.press("#target", "Enter"))
    tab.messages.clear()  # the browser itself notes the answer 400
    assert "There is no word 'dog'" in page.inner_text("#problem")
    assert "The target: the sentence's vector." in page.inner_text("#map-about")
    does(page, lambda: page.select_option("#map-name", "norms"))
    assert page.is_hidden("#for-target")


# What is not there is said


def test_a_map_that_there_is_not(tab):
    page = tab("view=map&map=%3Cb%3Eflow&layer=5&head=11")
    assert page.inner_text("#problem").startswith("There is no map “<b>flow”: there are weights, value-weighted,")
    assert page.is_visible("#map")
    assert page.input_value("#map-name") == "weights"
    assert "map=" not in page.url.replace("view=map", "")


def test_a_map_that_the_model_cannot_serve(tab):
    page = tab("view=sentence&map=logits&layer=5")
    sentence = "all-MiniLM-L6-v2 predicts no next token."
    assert page.inner_text("#problem") == f"The map “logits” is not there. {sentence} The weights are shown instead."
    assert page.locator("#lines path").count() > 0
    option = page.locator("#map-name option[value=logits]")
    assert option.is_disabled()
    assert option.get_attribute("title") == sentence
    page.click("#details summary")
    assert sentence in page.inner_text("#memory")


# Files


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("view", ["sentence", "heads", "map", "walk"])
def test_a_saved_page_shows_the_same(tab, tmp_path, view, name):
    page = tab(f"view={view}&map={name}&layer=5&head=11&word=2&theme=light")
    content, file = saved(page, "html")
    (tmp_path / file).write_bytes(content)
    alone = tab(base=(tmp_path / file).as_uri(), offline=True)
    assert f"map={name}" in unquote(alone.url)
    place = "#step-sum" if view == "walk" else f"#{view}-says"
    assert numbers(alone, place) == pytest.approx(numbers(page, place), rel=1e-4, abs=1e-6)
    assert alone.inner_text("#map-about") == page.inner_text("#map-about")
    pixels = "all => all.map((c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])"
    if view == "heads":
        images = [side.eval_on_selector_all("#thumbs canvas", pixels) for side in (page, alone)]
        assert len(images[0]) == len(images[1]) == (6 if name == "norms" else 72)
        assert max(np.abs(np.subtract(*pair)).max() for pair in zip(*images, strict=True)) <= 8, "a step of the colours"
    for other in ("sentence", "map", "walk"):
        does(alone, lambda other=other: alone.click(f"#tab-{other}"))
        assert alone.is_hidden("#problem"), alone.inner_text("#problem")


def test_a_page_is_saved_with_its_target(tab, tmp_path, flies):
    page = tab("view=map&map=gradient&target=word:arrow&layer=5&head=11&at=2.5")
    content, file = saved(page, "html")
    (tmp_path / file).write_bytes(content)
    alone = tab(base=(tmp_path / file).as_uri(), offline=True)
    assert "The target: the vector of “arrow”." in alone.inner_text("#map-about")
    assert alone.is_hidden("#for-target")
    expected = between_units(flies, "gradient", 5, parse_target(flies, "word:arrow"))[11, 2, 5]
    assert numbers(alone, "#map-says") == pytest.approx([float(expected)], rel=1e-4, abs=1e-7)


def test_a_long_page_says_which_maps_it_leaves_out(tab, tmp_path):
    reading = regard.Lens().read(" ".join(f"The fox {n} jumps over the lazy dog." for n in range(60)))
    reading.save(tmp_path / "long.html")
    page = tab("view=map&map=gradient&layer=5&head=11", base=(tmp_path / "long.html").as_uri(), offline=True)
    assert "the file leaves its numbers out; a server, regard serve, shows it." in page.inner_text("#problem")
    assert page.input_value("#map-name") == "weights"
    does(page, lambda: page.select_option("#map-name", "value-weighted"))
    assert page.is_hidden("#problem")
    assert len(numbers(page, "#map-says")) == 1


@pytest.mark.parametrize("view", ["sentence", "heads", "map", "walk"])
@pytest.mark.parametrize("name", ["norms", "logits"])
def test_pictures_and_tables_name_the_map(tab, decoder, view, name):
    base, reading = decoder
    page = tab(f"view={view}&map={name}&layer=1&head=2&word=5", base=base)
    content, file = saved(page, "svg")
    picture = ET.fromstring(content)
    words = " ".join(texts_of(picture))
    title = {"norms": "Norms of what the heads add together", "logits": "Logit attribution"}[name]
    assert name in file
    if view != "walk":
        assert title in words
    if name == "logits":
        assert default_target(reading).name in words
        assert "towards" in words
        assert "against" in words
    else:
        assert "ength of the vector that is added" in words
    table, file = saved(page, "csv")
    rows = list(csv.reader(io.StringIO(table.decode())))
    whole = between_units(reading, name, 1)
    if view == "sentence":
        assert rows[0][-1] == name
        h, u, v = (0 if rows[1][1] == "all" else int(rows[1][1])), int(rows[1][2]), int(rows[1][4])
        assert float(rows[1][-1]) == pytest.approx(float(whole[h, u, v]), rel=1e-5)
        assert (rows[1][1] == "all") == (name == "norms")
    elif view == "map":
        assert rows[0][0] == f"{name}, from \\ to"
        head = whole[0 if name == "norms" else 2]
        np.testing.assert_allclose(np.array(rows[1:])[:, 1:].astype(float), head, rtol=1e-4, atol=1e-6)
    elif view == "walk":
        column = rows[0].index("norms, all heads" if name == "norms" else name)
        row = map_of(reading, name, 1, default_target(reading)).dense()
        row = row[reading.units[5].tokens[0]] if name == "norms" else row[2, reading.units[5].tokens[0]]
        np.testing.assert_allclose([float(line[column]) for line in rows[1:]], row, rtol=1e-4, atol=1e-6)


# For everybody


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_signs_can_be_told_apart_by_everybody(tab, decoder, theme):
    page = tab(f"view=map&map=logits&layer=1&head=2&theme={theme}", base=decoder[0])
    pixels = page.eval_on_selector("#legend canvas", "c => [...c.getContext('2d').getImageData(0, 0, 256, 1).data]")
    colours = np.array(pixels).reshape(256, 4)[:, :3]
    for sight, matrix in SIGHTS.items():
        labs = [lab(seen_with(colours[place], matrix)) for place in (0, 64, 128, 192, 255)]
        least = min(np.linalg.norm(a - b) for a, b in itertools.combinations(labs, 2))
        assert least > 12, f"{sight}: {least:.1f}"  # CIE76: about 2 is just noticeable


def test_the_choice_fits_on_a_phone(tab):
    page = tab("view=sentence&map=gradient&layer=5&word=2", 360, 740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for control in ("#map-name", "#target", "#layer"):
        box = page.locator(control).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_a_long_text_is_shown_by_any_map(tab, decoder):
    base, _ = decoder
    text = " ".join(f"w{(n * n) % 40}" for n in range(700))
    for name in ("norms", "gradient"):
        page = tab(f"view=sentence&map={name}&layer=1&word=699&text={quote(text)}", base=base)
        until(page, lambda page=page: page.locator("#lines path").count() > 0)
        does(page, lambda page=page: page.click("#tab-map"))
        until(page, lambda page=page: page.locator("#map-says data").count() == 1)
        assert page.is_hidden("#problem")
