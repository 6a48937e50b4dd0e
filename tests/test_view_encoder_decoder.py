"""An encoder-decoder in the viewer: three attentions to choose from, the same numbers as Python's, saved as well."""

import pytest
import torch

import regard
from regard.viewer.api import ViewerAPI
from regard.viewer.protocol.errors import RequestError
from regard.viewer.tiles import Matrix
from support.browser import does, drawn, numbers
from support.encoder_decoders import SOURCE, TARGET, encoder_decoder, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save("Bart", tmp_path_factory.mktemp("models") / "bart")


@pytest.fixture(scope="module")
def reading(folder):
    return regard.Lens(folder).read(SOURCE, TARGET)


@pytest.fixture(scope="module")
def address(serving, folder):
    return serving(SOURCE, "--model", str(folder)).address


def strongest(row, count=3):
    return row.topk(count).values.tolist()


def shown(page, side):
    return page.locator(f"#{side} button").all_inner_texts()


def check_views(page, reading):
    """What the views say of the cross-attention of layer 1, head 2, and of the other attentions."""
    cross = reading.cross
    weights = cross.weights(1, 2)
    assert shown(page, "from") == [unit.text for unit in cross.units]
    assert shown(page, "to") == [unit.text for unit in reading.units]
    does(page, lambda: page.click("#from [data-unit='2']"))
    assert page.inner_text("#sentence-says").startswith("cat attends mostly to ")
    assert numbers(page, "#sentence-says") == pytest.approx(strongest(weights[2]), abs=1e-5)
    does(page, lambda: page.click("#to [data-unit='5']"))
    assert page.inner_text("#sentence-says").startswith("mat gets most attention from ")
    assert numbers(page, "#sentence-says") == pytest.approx(strongest(weights[:, 5]), abs=1e-5)
    does(page, lambda: page.click("#tab-heads"))
    assert page.locator("#thumbs canvas").evaluate_all("all => all.map(({width, height}) => [width, height])") == [
        [len(reading.units), len(cross.units)]
    ] * (3 * 5)
    does(page, lambda: page.click("#tab-map"))
    page.fill("#jump-from", "cat")
    page.fill("#jump-to", "mat")
    does(page, lambda: page.press("#jump-to", "Enter"))
    assert page.inner_text("#map-says").startswith("cat attends to mat")
    assert numbers(page, "#map-says") == pytest.approx([float(weights[2, 5])], abs=1e-5)
    does(page, lambda: page.click("#tab-walk"))
    assert numbers(page, "[data-slot=check]")[0] < 1e-5
    assert page.locator("[data-slot=scores] tbody th").all_inner_texts() == [
        token.text.strip() or "␣" for token in reading.tokens
    ]
    assert page.locator("#step-vectors figure:visible").count() == 1  # a query, and no key of its own
    does(page, lambda: page.select_option("#attention", "decoder"))
    assert "attention=decoder" in page.url
    assert page.locator("#step-vectors figure:visible").count() == 3
    does(page, lambda: page.click("#tab-sentence"))
    assert shown(page, "from") == shown(page, "to") == [unit.text for unit in reading.decoder.units]
    does(page, lambda: page.select_option("#attention", "encoder"))
    assert shown(page, "from") == [unit.text for unit in reading.units]
    assert page.locator("#layer option").count() == 2
    does(page, lambda: page.go_back())
    assert page.input_value("#attention") == "decoder"


def test_a_source_and_a_target_are_read_and_looked_at(tab, reading):
    page = tab("layer=1&head=2&heads=2")
    assert page.is_hidden("#for-attention")
    assert "given a second text" in page.inner_text("#note")
    page.click("#add-pair")
    page.fill("#pair", TARGET)
    does(page, lambda: page.press("#pair", "Enter"))
    assert page.input_value("#attention") == "cross"
    check_views(page, reading)
    page.reload()
    drawn(page)
    assert page.input_value("#attention") == "decoder"
    assert shown(page, "to") == [unit.text for unit in reading.decoder.units]


def test_a_saved_page_shows_the_same(browser, reading, tmp_path):
    reading.save(tmp_path / "page.html", layer=1, head=2)
    page = browser.new_page()
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(f"file://{tmp_path}/page.html")
    drawn(page)
    check_views(page, reading)
    assert not messages
    page.close()


# Without a browser


@pytest.fixture(scope="module")
def api(folder):
    lens = regard.Lens(folder)
    api = ViewerAPI({"bart": lambda: lens})
    yield api
    api.close()


def test_each_attention_has_an_id_of_its_own(api, reading):
    first = api.handle({"type": "read", "text": SOURCE, "pair": TARGET}, wait=60)
    assert first["attentions"] == ["encoder", "decoder", "cross"]
    text, _, name = first["reading"].partition(".")
    assert (name, first["attention"]) == ("cross", "cross")
    for part, own in reading.parts.items():
        described = api.handle({"type": "metadata", "reading": f"{text}.{part}"}, wait=60)
        assert described["attention"] == part
        assert described["units"] == [unit.text for unit in own.units]
        assert (described["columns"] or described)["units"] == [unit.text for unit in own.columns.units]
        layer = {"reading": f"{text}.{part}", "layer": 1}
        weights = api.handle({"type": "layer_weights", **layer}, wait=60)["weights"]
        assert (weights - own.weights(1)).abs().max() < 1e-6
        for side, rows in (("from", own.weights(1)[:, 1]), ("to", own.weights(1)[:, :, 1])):
            row = api.handle({"type": "word_weights", **layer, "word": 1, "side": side}, wait=60)["weights"]
            assert (row - rows).abs().max() < 1e-6
        tile = {"level": 0, "row": 0, "column": 0, "head": 2}
        cells = api.handle({"type": "tile", **layer, **tile, "hide": True}, wait=60)["cells"]
        kept, columns = ([unit.index for unit in of.units if not unit.special] for of in (own, own.columns))
        assert (cells - own.weights(1, 2)[kept][:, columns]).abs().max() < 1e-6
    with pytest.raises(RequestError, match="expected encoder or decoder or cross"):
        api.handle({"type": "metadata", "reading": f"{text}.sideways"}, wait=60)
    alone = api.handle({"type": "read", "text": SOURCE}, wait=60)
    assert (alone["attention"], alone["attentions"], alone["columns"]) == ("encoder", ["encoder"], None)


def test_a_notebook_opens_with_an_attention(reading):
    pytest.importorskip("anywidget")
    options = reading.view(layer=2, head=4).options["opening"]
    assert (options["attention"], options["layer"], options["head"]) == ("cross", 2, 4)
    options = reading.view(attention="encoder", word="mat").options["opening"]
    assert (options["attention"], options["word"]) == ("encoder", 5)
    with pytest.raises(IndexError, match="There is no layer 2"):
        reading.view(attention="encoder", layer=2)


def test_cells_of_a_target_much_shorter_than_its_source():
    """Pooled cells against means of the weights between words."""
    lens = regard.Lens(encoder_decoder("T5"))
    cross = lens.read(" ".join([SOURCE] * 60), TARGET).cross
    matrix = Matrix(cross, 1, 2)
    assert matrix.shape == (5, 361)
    assert matrix.top == 1
    weights = cross.weights(1, 2)
    expected = torch.stack(
        [weights[rows][:, n : n + 2].mean() for rows in ([0, 1], [2, 3], [4]) for n in range(0, 361, 2)]
    )
    assert (matrix.tile(1, 0, 0) - expected.view(3, 181)).abs().max() < 1e-6
    assert matrix.tile(0, 0, 1).shape == (5, 105)
    assert matrix.thumbnail().shape == (1, 46)
