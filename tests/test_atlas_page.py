"""The page of an atlas: heat maps of the scores, the heads with the largest, the proofs, a way to each head's map."""

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ET

import pytest
import torch

import regard
from regard.atlas.atlas import Atlas
from regard.atlas.difference import difference
from regard.atlas.example import EXAMPLE, row_of
from regard.atlas.proof import Effect, Proof
from regard.atlas.tables import Example
from regard.attribution.heads import SCORES
from regard.viewer import payload
from regard.viewer.atlas import payload_of
from regard.viewer.bundle import render_atlas_page, render_page
from support.browser import does, saved, until
from support.decoder import save_decoder
from support.encoder_decoders import SOURCE, TARGET
from support.encoder_decoders import save as save_encoder_decoder

TEXT = "the cat sat on the bank money the cat sat on the bank money"
LAYERS, HEADS = 2, 4  # of the decoder in tests/support
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    return regard.Lens(save_decoder(tmp_path_factory.mktemp("models") / "small")).read(TEXT)


def scores(seed=0):
    drawn = torch.Generator().manual_seed(seed)
    names = ("previous", "sink", "entropy", "induction", "retrieval")
    tables = {name: torch.rand(LAYERS, HEADS, generator=drawn) for name in names}
    tables["previous"] = torch.tensor([[0.1, 0.5, 0.49, math.nan], [0.0, 0.002, 0.95, 0.3]])
    return tables | {"entropy": 3 * tables["entropy"]}


PROOF = Proof(
    "previous", "", [(1, 2), (0, 1)], "nats", "repeated random tokens", "prose", (1.25, 3.5),
    [
        Effect("zero", "matters", 2.5, [0.125, 0.25]),
        Effect("zero", "elsewhere", 0.0625, [0.0, 0.03125]),
        Effect("edges", "matters", 2.25, [-0.5, 0.25]),
    ],
)  # fmt: skip


@pytest.fixture(scope="module")
def atlas(reading):
    return Atlas("tiny", "f", {"": scores()}, (PROOF,), {"text": 1234, "repeated": 256}, 7, "A note.", example=reading)


def written(tmp_path_factory, atlas):
    file = tmp_path_factory.mktemp("pages") / "atlas.html"
    file.write_text(render_atlas_page(atlas), "utf-8")
    return file.as_uri()


@pytest.fixture(scope="module")
def address(tmp_path_factory, atlas):
    return written(tmp_path_factory, atlas)


def carried(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def cells(page, part=0):
    """The texts and the names of a grid's cells, and whether they are framed."""
    grid = page.locator("[role=grid].atlas-grid").nth(part)
    return grid.locator("button").evaluate_all(
        "all => all.map((cell) => [cell.textContent, cell.ariaLabel, cell.classList.contains('found')])"
    )


# What the page carries


def test_the_payload_has_every_number_and_no_nan(atlas, reading):
    held = payload_of(atlas)
    for name, table in scores().items():
        there = torch.tensor([[math.nan if v is None else v for v in row] for row in held["parts"][""][name]])
        torch.testing.assert_close(there, table, atol=1e-6, rtol=1e-5, equal_nan=True)
    assert list(held["scores"]) == [name for name in SCORES if name in scores()], "in the order of SCORES"
    assert held["scores"]["retrieval"]["found_from"] == SCORES["retrieval"].found_from
    top = held["top"][""]["previous"]
    assert [(one["layer"], one["head"]) for one in top] == [(1, 2), (0, 1), (0, 2), (1, 3), (0, 0)]
    for one in top:
        weights = reading.weights(one["layer"], one["head"])[one["row"]["unit"]]
        assert one["row"]["word"] == reading.units[one["row"]["unit"]].text
        shown = [word["weight"] for word in one["row"]["attended"]]
        assert shown == pytest.approx(weights.topk(3).values.tolist(), abs=6e-5)
        assert [reading.units[word["unit"]].text for word in one["row"]["attended"]] == [
            word["word"] for word in one["row"]["attended"]
        ]
    assert held["proofs"][0]["verdict"] == PROOF.verdict
    assert json.loads(json.dumps(held, allow_nan=False)) == held


def test_the_row_of_an_example_is_where_the_head_does_most_of_it(reading):
    for head in range(HEADS):
        weights = reading.weights(1, head)
        units = range(len(reading.units))
        later = [u for u in units if u >= len(units) // 2]
        assert row_of(reading, "previous", 1, head).unit == max(later, key=lambda u: float(weights[u, u - 1]))
        assert row_of(reading, "sink", 1, head).unit == max(later, key=lambda u: float(weights[u, 0]))
        again = [u for u in later if u >= 7]  # the text repeats after seven words
        assert row_of(reading, "induction", 1, head).unit == max(again, key=lambda u: float(weights[u, u - 6]))


def test_other_pages_have_no_atlas(tab, reading, tmp_path):
    page = render_page(reading)
    assert carried(page)["atlas"] is None
    (tmp_path / "page.html").write_text(page, "utf-8")
    shown = tab("view=atlas", base=(tmp_path / "page.html").as_uri(), offline=True)
    assert shown.is_hidden("#tab-atlas")
    assert shown.is_visible("#sentence")
    assert "view=sentence" in shown.url
    with pytest.raises(ValueError, match="expected a view of sentence, heads"):
        render_page(reading, view="atlas")


# What is seen


def test_it_opens_with_the_heat_map_of_the_first_score(tab):
    page = tab(offline=True)
    assert page.inner_text("h1") == "The heads of tiny"
    facts = "2 layers × 4 heads · tokens read: 1,234 of text and 256 of repeated random tokens · seed 7"
    assert page.inner_text("#about") == facts
    assert page.inner_text("#note") == "A note."
    assert page.get_attribute("#tab-atlas", "aria-selected") == "true"
    assert [text for text, _, _ in cells(page)] == [".10", ".50", ".49", "–", "", "", ".95", ".30"]
    assert [label for _, label, found in cells(page) if found] == [
        "Layer 0, head 1: 0.500, found",
        "Layer 1, head 2: 0.950, found",
    ]
    assert cells(page)[3][1] == "Layer 0, head 3: not measured"
    about = page.inner_text("#score-about")
    assert "attends to the previous token. Share from 0 to 1, measured on text, 1,234 tokens." in about
    assert "From 0.5 on a head is one that does this: 2 of 7 are." in about
    assert page.get_attribute("#score-about a", "href") in SCORES["previous"].paper
    assert page.inner_text("#scores h2 >> nth=1") == "On repeated random tokens"
    assert "confirmed" in page.inner_text("#scores [data-score=previous]")
    colours = page.locator("#score-maps button").evaluate_all("all => all.map((c) => getComputedStyle(c).background)")
    assert len(set(colours)) == 8, "a colour for each number, and none for the missing one"


def test_the_proof_has_both_numbers_and_the_verdict(tab):
    page = tab(offline=True)
    proof = page.inner_text("#score-proofs")
    assert f"✓ {PROOF.verdict}" in proof
    assert PROOF.sentence in proof
    assert "1.2, 0.1." in proof.replace(" and ", ", "), "the heads that were switched off"
    rows = page.locator(".proof tbody tr").all_inner_texts()
    assert [" ".join(row.split()) for row in rows] == [
        "On repeated random tokens; 1.25 as the model is",
        "The heads give 0 +2.500 +0.188 +0.125 to +0.250",
        "Their edges are cut +2.250 −0.125 −0.500 to +0.250",
        "On prose; 3.50 as the model is",
        "The heads give 0 +0.063 +0.016 0.000 to +0.031",
    ]
    does(page, lambda: page.click("#scores [data-score=entropy]"))
    assert page.inner_text("#score-proofs") == ""


def test_another_score_is_chosen_and_kept_in_the_address(tab, atlas):
    page = tab(offline=True)
    page.focus("#scores [data-score=previous]")
    page.keyboard.press("ArrowDown")
    does(page, lambda: page.keyboard.press("Enter"))
    assert "score=sink" in page.url
    assert page.inner_text("#score-name") == "sink"
    assert page.evaluate("document.activeElement.dataset.score") == "sink", "the focus stays"
    does(page, lambda: page.click("#scores [data-score=entropy]"))
    assert not any(found for _, _, found in cells(page))
    assert page.get_attribute("#score-legend", "aria-label").endswith("nats from 0 up, linear")
    does(page, page.go_back)
    assert page.inner_text("#score-name") == "sink"
    again = tab("view=atlas&score=retrieval&layer=1&head=3", offline=True)
    value = float(atlas.of("retrieval")[1, 3])
    assert again.inner_text("#atlas-says").startswith(f"Layer 1, head 3: {value:.3f}")


# The way to the map of a head, and back


def test_a_head_leads_to_its_map_by_keyboard_and_back(tab, reading):
    page = tab(offline=True)
    assert page.locator("#score-maps [tabindex='0']").count() == 1, "the grid is one stop"
    assert page.inner_text("#atlas-says").startswith("Layer 1, head 2: 0.950, found."), "the largest is chosen"
    page.focus("#score-maps [tabindex='0']")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#tip").split("\n")[0] == "Layer 0, head 2: 0.490"
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#tip").split("\n")[0] == "Layer 0, head 1: 0.500, found"
    assert page.inner_text("#atlas-says").startswith("Layer 0, head 1: 0.500, found")
    does(page, lambda: page.keyboard.press("Enter"))
    assert "view=map" in page.url
    assert (page.input_value("#layer"), page.input_value("#head")) == ("0", "1")
    assert page.is_hidden("#tip")
    assert page.inner_text("h1") == TEXT
    assert page.inner_text("#atlas-about-says").startswith("In the atlas, head 1 of layer 0 was found for ")
    assert "previous 0.500" in page.inner_text("#atlas-about-says")
    does(page, lambda: page.click("#atlas-back"))
    assert page.inner_text("h1") == "The heads of tiny"
    assert page.locator("#score-maps [aria-selected='true']").get_attribute("aria-label").startswith("Layer 0, head 1")


def test_a_head_with_a_large_score_leads_to_the_row_that_shows_it(tab, atlas, reading):
    page = tab("view=atlas&score=induction", offline=True)
    best = atlas.top("induction", 1)[0]
    row = row_of(reading, "induction", best.layer, best.head)
    to, weight = row.words[0]
    item = page.locator("#score-heads li").first
    words = f"From {reading.units[row.unit].text} to {reading.units[to].text} "
    assert item.inner_text().replace("\xa0", " ").split("\n")[-1].startswith(words)
    does(page, lambda: item.locator("button").click())
    assert f"view=map&layer={best.layer}&head={best.head}&word={row.unit}" in page.url
    assert f"at={row.unit}.{to}" in page.url
    assert f"{weight:.4f}" in page.inner_text("#map-says")
    for view in ("sentence", "heads", "walk"):
        does(page, lambda view=view: page.click(f"#tab-{view}"))
        assert page.is_visible("#atlas-back")
    does(page, lambda: page.click("#tab-atlas"))
    assert page.is_hidden("#atlas-back")


def test_hovering_says_the_number_and_what_else_the_head_does(tab, atlas):
    page = tab("view=atlas&score=retrieval", offline=True)
    page.hover("#score-maps button >> nth=6")
    said = page.inner_text("#atlas-says")
    assert said.startswith(f"Layer 1, head 2: {float(atlas.of('retrieval')[1, 2]):.3f}")
    assert "previous 0.950" in said
    assert "\nalso previous 0.950" in page.inner_text("#tip")
    page.mouse.move(2, 2)
    until(page, lambda: page.is_hidden("#tip"))


# Taken along


def test_it_is_saved_as_a_table_a_picture_and_a_page(tab, atlas, tmp_path):
    page = tab("view=atlas&score=induction", offline=True)
    content, name = saved(page, "csv")
    assert name.startswith("tiny-atlas-induction-")
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert len(rows) == LAYERS * HEADS
    for row in rows:
        for score, table in scores().items():
            value = float(table[int(row["layer"]), int(row["head"])])
            assert (row[score] == "") if math.isnan(value) else float(row[score]) == pytest.approx(value, rel=1e-5)
    picture = ET.fromstring(saved(page, "svg")[0])
    texts = [node.text or "" for node in picture.iter(f"{SVG}text")]
    assert texts[0] == "Induction: all heads of tiny"
    assert f"{float(atlas.of('induction')[0, 0]):.2f}"[1:] in texts
    framed = [node for node in picture.iter(f"{SVG}rect") if node.get("stroke")]
    assert len(framed) == 2 * len(atlas.found("induction")), "a dark line and a light one"
    assert saved(page, "png")[0].startswith(b"\x89PNG")
    file = tmp_path / "again.html"
    file.write_bytes(saved(page, "html")[0])
    again = tab(base=file.as_uri(), offline=True)
    assert again.inner_text("#score-name") == "induction"
    assert cells(again) == cells(page)


# Two models


def test_a_difference_has_both_numbers_and_the_largest_changes(tab, tmp_path_factory, atlas, reading):
    base = Atlas("base", "g", {"": scores(1) | {"previous": torch.full((LAYERS, HEADS), 0.4)}})
    changed = difference(base, atlas)
    page = tab(base=written(tmp_path_factory, changed), offline=True)
    assert page.inner_text("h1") == "The heads of tiny, compared with base"
    assert "those of tiny less those of base" in page.inner_text("#score-about")
    labels = [label for _, label, _ in cells(page)]
    assert labels[0] == "Layer 0, head 0: 0.400 → 0.100 (−0.300)"
    assert [label for _, label, found in cells(page) if found] == [
        "Layer 0, head 1: 0.400 → 0.500 (+0.100), changed",
        "Layer 1, head 2: 0.400 → 0.950 (+0.550), changed",
    ]
    first = page.locator("#score-heads li").first.inner_text()
    assert "Layer 1, head 2 +0.550 (0.400 → 0.950)" in " ".join(first.split())
    below, above = (page.locator("#score-maps button").nth(n) for n in (4, 6))
    shades = [node.evaluate("node => getComputedStyle(node).backgroundColor") for node in (below, above)]
    (red, _, blue), (other_red, _, other_blue) = (map(int, re.findall(r"\d+", shade)) for shade in shades)
    assert blue > red, "blue below 0"
    assert other_red > other_blue, "orange above"
    does(page, lambda: page.click("#score-maps button >> nth=6"))
    assert "view=map&layer=1&head=2" in page.url
    assert page.inner_text("#title") == reading.text


# Models with three attentions, and pages without a text


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """An atlas of an encoder-decoder: of encoder, decoder and cross-attention."""
    folder = save_encoder_decoder("T5", tmp_path_factory.mktemp("models") / "t5")
    example = regard.Lens(folder).read(SOURCE, TARGET)
    sizes = {part: (own.layers, own.heads) for part, own in example.parts.items()}
    tables = {part: {"punctuation": torch.rand(*size)} for part, size in sizes.items()}
    tables["cross"]["alignment"] = torch.rand(*sizes["cross"]) * 2 - 1
    return Atlas("t5", "", tables, example=example)


def test_the_parts_of_an_encoder_decoder_stand_below_each_other(tab, tmp_path_factory, three):
    page = tab(base=written(tmp_path_factory, three), offline=True)
    assert page.locator("#score-maps h3").all_inner_texts() == ["Encoder", "Decoder", "Cross-attention"]
    best = three.top("punctuation", 1, "encoder")[0]
    assert page.inner_text("#atlas-says").startswith(f"Encoder: Layer {best.layer}, head {best.head}: {best.value:.3f}")
    layers = [three.of("punctuation", part).shape[0] for part in three.parts]
    rows = page.locator("#score-maps [role=grid]").evaluate_all("all => all.map((grid) => grid.children.length - 1)")
    assert rows == layers
    for part, layer in (("encoder", 1), ("decoder", 2)):
        number = three.parts.index(part)
        cell = page.locator("#score-maps [role=grid]").nth(number).locator("button").last
        does(page, cell.click)
        until(page, lambda: "view=map" in page.url)
        assert (page.input_value("#attention"), page.input_value("#layer")) == (part, str(layer))
        does(page, lambda: page.click("#atlas-back"))
    does(page, lambda: page.click("#scores [data-score=alignment]"))
    assert page.locator("#score-maps h3").all_inner_texts() == ["Cross-attention"]
    assert "correlation from −1 to 1" in page.get_attribute("#score-legend", "aria-label")


def test_a_head_whose_numbers_are_not_carried_says_so(tab, tmp_path_factory, atlas, monkeypatch):
    monkeypatch.setattr(payload, "EXACT_LIMIT", 0)
    monkeypatch.setattr(payload, "KEYS_LIMIT", 3000)
    monkeypatch.setattr(payload, "PICTURES_LIMIT", 500)
    page = tab(base=written(tmp_path_factory, atlas), offline=True)
    said = []
    for cell in page.locator("#score-maps button").all():
        cell.hover()
        said.append("This page holds a coarse picture of its map." in page.inner_text("#atlas-says"))
    assert not said[6], "the head that is shown first"
    assert any(said)
    does(page, lambda: page.click(f"#score-maps button >> nth={said.index(True)}"))
    assert page.is_visible("#map")


def test_a_loaded_atlas_shows_the_words_that_it_has_kept(tab, tmp_path_factory):
    kept = Example("", "previous", 1, 2, "cat", [("the", 0.75)])
    page = tab(base=written(tmp_path_factory, Atlas("loaded", "", {"": scores()}, examples=[kept])), offline=True)
    first = page.locator("#score-heads li").first
    assert first.inner_text().replace("\xa0", " ").endswith("From cat to the 75 %")
    does(page, lambda: first.locator("button").click())
    assert "view=atlas&layer=1&head=2" in page.url


def test_without_a_text_there_is_the_atlas_alone(tab, tmp_path_factory):
    page = tab(base=written(tmp_path_factory, Atlas("loaded", "", {"": scores()})), offline=True)
    assert page.is_hidden("#bar")
    assert "no maps of the heads" in page.inner_text("#atlas-hint")
    does(page, lambda: page.click("#score-maps button >> nth=5"))
    assert page.inner_text("#atlas-says").startswith("Layer 1, head 1: 0.002")
    assert "view=atlas&layer=1&head=1" in page.url
    assert page.locator("#score-maps [aria-selected='true']").count() == 1
    assert saved(page, "csv")[0]


# Whatever it holds


def test_names_are_never_markup_and_missing_numbers_are_said(tab, tmp_path_factory, reading):
    bad = "<script>alert(1)</script>"
    tables = {
        bad: torch.tensor([[1e30, -1e-30]]),
        "previous": torch.full((1, 2), math.nan),
        "__proto__": torch.ones(1, 2),
    }
    proof = Proof(bad, bad, [], "nats", bad, bad, (math.nan, math.inf), [Effect("zero", "matters", math.nan, [])])
    odd = Atlas(f"{bad}</title>", "", {"": tables, bad: {bad: torch.ones(0, 0)}}, (proof,), {bad: 1}, note=bad)
    page = tab(base=written(tmp_path_factory, odd), offline=True)
    assert page.inner_text("h1") == f"The heads of {bad}</title>"
    assert {text for text, _, _ in cells(page)} == {"–"}
    assert "not measured" in page.inner_text("#scores [data-score=previous]")
    for button in page.locator("#scores button").all():
        does(page, button.click)
        assert page.locator("#score-maps button").count() == 2
    does(page, lambda: page.locator("#scores button", has_text=bad).click())
    assert page.inner_text("#score-name") == bad
    assert page.locator("main script, main img").count() == 0
    assert saved(page, "svg")[0]
    nothing = tab(base=written(tmp_path_factory, Atlas("none", "", {"": {}}, example=reading)), offline=True)
    assert nothing.inner_text("#score-name") == "No score was measured."


# For everybody


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_it_fits_and_no_finding_of_axe(tab, width, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = tab(f"view=atlas&theme={theme}", width, 740, offline=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off"
    boxes = page.locator("#score-maps button").evaluate_all("all => all.map((c) => c.getBoundingClientRect().right)")
    assert max(boxes) <= width
    violations = axe.Axe().run(page).response["violations"]
    findings = [(violation["id"], [node["target"] for node in violation["nodes"]]) for violation in violations]
    assert all(targets == [['div[role="tablist"]']] for _, targets in findings), (
        findings
    )  # which stands outside of landmarks


def test_a_model_of_thousands_of_heads_is_no_burden(tab, tmp_path_factory):
    tables = {name: torch.rand(80, 64) for name in SCORES if SCORES[name].of != "cross"}
    page = tab(base=written(tmp_path_factory, Atlas("large", "", {"": tables})), offline=True)
    assert page.locator("#score-maps button").count() == 5120
    took = page.evaluate(
        """async () => {
          const start = performance.now();
          document.querySelector("[data-score=induction]").click();
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          return performance.now() - start;
        }"""
    )
    assert took < 5000, "with one transition a cell it took twenty seconds"


def test_the_example_repeats_its_beginning():
    first, second = EXAMPLE[: len(EXAMPLE) // 3], EXAMPLE.rindex("The old clock")
    assert EXAMPLE.startswith(EXAMPLE[second:])
    assert first != EXAMPLE[second:]
