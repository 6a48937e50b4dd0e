"""Pictures: every label inside and none on top of another, in any script, as PNG and as SVG whose text is text."""

import errno
import io
import json
import math
import os
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import regard
from regard import attribution
from regard.lens.display import check_suffix
from regard.output import image
from regard.output.agreement import picture as picture_of_agreement
from regard.output.json import numbers
from regard.output.maps import Scale
from support import readings as _readings
from support.headed import headed

ARROW = "Time flies like an arrow"
TEXTS = {
    "head": "Hi",
    "five": ARROW,
    "sixty": "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of " * 3,
    "scripts": "我爱北京 שלום עולם مرحبا بالعالم 👍🏽 नमस्ते",
    "formulas": "costs $5 and $x^2$, a_b \\alpha {} <b>&amp;</b> %d",
    "long words": "Donaudampfschifffahrtsgesellschaftskapitän pneumonoultramicroscopicsilicovolcanoconiosis!",
    "control characters": "a\x00b \x1b[31mred\ttab\nline \u202ebidi",
}


@pytest.fixture(scope="module")
def lens():
    return regard.Lens()


@pytest.fixture(scope="module")
def reading(lens):
    return lens.read(ARROW)


PICTURES = [(name, {"layer": 0, "head": 2}) for name in TEXTS]
PICTURES += [("five", {}), ("sixty", {"layer": 5}), ("long words", {"layer": 5}), ("scripts", {"head": 3})]
PICTURES += [("five", {"map": "norms"}), ("sixty", {"map": "norms", "layer": 3}), ("head", {"map": "norms"})]
PICTURES += [("scripts", {"map": "gradient", "layer": 0, "head": 2}), ("five", {"map": "gradient"})]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")  # where no font here has it
@pytest.mark.parametrize(
    ("name", "choice"), PICTURES, ids=lambda case: case if isinstance(case, str) else "-".join(case)
)
def test_nothing_overlaps_and_nothing_is_cut_off(lens, name, choice):
    figure = image.picture(lens.read(TEXTS[name]), **choice)
    check_layout(figure)
    if {"layer", "head"} <= choice.keys():  # labels that lean do not lie in the squares
        renderer, axes = figure.canvas.get_renderer(), figure.axes[0]
        below = axes.get_window_extent(renderer).y0
        assert all(label.get_window_extent(renderer).y1 <= below + 2 for label in axes.get_xticklabels())


def check_layout(figure):
    """Every text is inside what is saved, and none on top of another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [text for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_visible()]
    shown = [text for text in texts if text.get_text().strip() and text.get_window_extent(renderer).width]
    tight = figure.get_tightbbox(renderer).padded(0.1)  # what is saved
    dots = figure.dpi_scale_trans.inverted()
    for text in shown:
        box = text.get_window_extent(renderer).transformed(dots)
        assert tight.x0 <= box.x0
        assert tight.y0 <= box.y0
        assert box.x1 <= tight.x1
        assert box.y1 <= tight.y1
    upright = [text.get_window_extent(renderer).padded(-1) for text in shown if text.get_rotation() in (0, 90)]
    assert not [pair for pair in combinations(upright, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_every_text_can_be_saved(lens, tmp_path, name, suffix):
    path = tmp_path / f"picture{suffix}"
    reading = lens.read(TEXTS[name])
    reading.save(path, layer=1, head=4)
    content = path.read_bytes()
    if suffix == ".png":
        with Image.open(path) as picture:
            picture.verify()
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
    else:
        texts = svg_texts(content)
        for unit in reading.units[:20]:
            assert any(text.startswith(regard.lens.words.printable(unit.text)[:10]) for text in texts), unit.text
    if name == "five":
        reading.save(path, layer=1, head=4)
        assert path.read_bytes() == content  # the same picture is the same file


def svg_texts(content):
    elements = ElementTree.fromstring(content).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()).strip() for element in elements]


def test_what_the_picture_of_a_head_says(reading, tmp_path):
    reading.save(tmp_path / "a.svg", layer=5, head=11)
    texts = svg_texts((tmp_path / "a.svg").read_bytes())
    assert {ARROW, "all-MiniLM-L6-v2, layer 5, head 11", "This word …", "… looks at this one", "100%"} <= set(texts)
    assert [text for text in texts if text in ("[CLS]", *ARROW.split(), "[SEP]")] == [
        "[CLS]",
        *ARROW.split(),
        "[SEP]",
    ] * 2
    shown = [f"{100 * w:.0f}" for row in reading.weights(5, 11).tolist() for w in row if w >= 0.005]
    assert [text for text in texts if text.isdigit()] == shown


def test_the_numbers_on_the_cells_can_be_read(reading):
    for text in image.picture(reading, layer=0, head=2).axes[0].texts:
        assert text.get_color() == ("black" if int(text.get_text()) > 35 else "white")


@pytest.mark.parametrize(
    ("choice", "shape", "title"),
    [
        ({}, (6, 12), "all-MiniLM-L6-v2, 6 layers × 12 heads"),
        ({"layer": 2}, (1, 12), "all-MiniLM-L6-v2, layer 2, 12 heads"),
        ({"layer": -1}, (1, 12), "all-MiniLM-L6-v2, layer 5, 12 heads"),
        ({"head": -1}, (6, 1), "all-MiniLM-L6-v2, head 11 in 6 layers"),
    ],
)
def test_the_grid_has_all_heads(reading, choice, shape, title):
    figure = image.picture(reading, **choice)
    (axes,) = figure.axes[:1]
    assert axes.get_title() == title
    mosaic = axes.images[0].get_array().filled(math.nan) ** 2
    side = mosaic.shape[0] / (shape[0] + image.GAP * (shape[0] - 1))  # of a square
    heads = [int(label.get_text()) for label in axes.get_xticklabels()]
    layers = [int(label.get_text()) for label in axes.get_yticklabels()]
    assert (len(layers), len(heads)) == shape
    for y, layer in enumerate(layers):
        for x, head in enumerate(heads):
            top, left = (int(n * (1 + image.GAP) * side) for n in (y, x))
            weights = reading.weights(layer, head).numpy()
            cell = side / len(weights)
            for i, j in ((0, 0), (2, 5), (6, 6)):
                shown = mosaic[int(top + (i + 0.5) * cell), int(left + (j + 0.5) * cell)]
                assert shown == pytest.approx(weights[i, j], abs=1e-6)


@pytest.mark.parametrize("choice", [{"layer": 5, "head": 11}, {"layer": 5}, {"head": 3}, {}], ids="-".join)
def test_a_picture_stands_alone(reading, tmp_path, choice):
    """Text, model, layer and head, and the scale of the colours: what a reader of a paper needs."""
    reading.save(tmp_path / "a.svg", **choice)
    texts = svg_texts((tmp_path / "a.svg").read_bytes())
    assert {ARROW, "weight", "0%", "5%", "100%"} <= set(texts)
    assert any(text.startswith("all-MiniLM-L6-v2, ") for text in texts)
    assert {str(number) for number in choice.values()} <= set(" ".join(texts).replace(",", "").split())


def test_a_picture_of_many_heads_is_one_image(lens, tmp_path):
    """A pair of axes a head takes ten seconds where there are hundreds."""
    figure = image.picture(lens.read(ARROW))
    assert len(figure.axes) + len(figure.axes[0].child_axes) == 2
    assert sum(len(axes.images) for axes in figure.axes) == 1


def test_the_cells_are_large_enough_to_stay_sharp_where_images_are_smoothed(reading):
    for choice in ({"layer": 0, "head": 0}, {}):
        cells = image.picture(reading, **choice).axes[0].images[0].get_array()
        assert max(cells.shape) > 700


def test_a_long_word_is_cut_beside_the_picture_and_whole_above_it(lens):
    word = "Donaudampfschifffahrtsgesellschaftskapitän"
    figure = image.picture(lens.read(f"Der {word} fährt"), layer=0, head=0)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[2] == word[:29] + "…"
    assert word in figure._suptitle.get_text()


def test_a_long_text_becomes_a_picture_of_its_largest_weights(lens, monkeypatch):
    monkeypatch.setitem(image.CELL_LIMITS, "head", 20)
    reading = lens.read("the cat sat on the mat and " * 10)
    figure = image.picture(reading, layer=2, head=3)
    shown = figure.axes[0].images[0].get_array() ** 2
    assert shown.shape == (20 * 51, 20 * 51)
    assert figure.axes[0].get_title().endswith("layer 2, head 3; a cell is the largest of its weights")
    assert shown.max() == pytest.approx(float(reading.weights(2, 3).max()), abs=1e-5)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "[CLS]"
    assert len(labels) == 20


def test_a_font_is_looked_for_where_the_first_lacks_a_character():
    assert image.families("plain text é ü") == ["DejaVu Sans"]
    assert image.families("\U0010fffd")[0] == "DejaVu Sans"
    have = image._characters()
    assert "DejaVu Sans" in have
    for letter in "我あ한नไ𝔘":
        families = image.families(letter)
        anywhere = any(ord(letter) in covered for covered in have.values())
        assert any(ord(letter) in have[name] for name in families) == anywhere
    assert not [name for name in have if "Color" in name]


def test_without_matplotlib(reading, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"^Pictures need matplotlib: pip install 'regard\[plot\]'\.$"):
        reading.save(tmp_path / "a.png")


def test_pictures_leave_no_figure_behind(reading, tmp_path):
    reading.save(tmp_path / "a.png")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


# What can be saved, and what gets in the way


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.png.txt", ".png", "a.PNGX"])
def test_an_unknown_kind_of_file(reading, tmp_path, name):
    with pytest.raises(ValueError, match=r"^Expected a file that ends in \.html, \.png, \.svg or \.json\. Got '"):
        reading.save(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_the_case_of_a_suffix_does_not_matter():
    assert check_suffix("A.PNG") == ".png"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".json"])
def test_the_old_file_survives(reading, tmp_path, monkeypatch, suffix):
    class FullDisk(io.FileIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / f"a{suffix}"
    path.write_text("old")
    monkeypatch.setattr("regard._internal.files.open", FullDisk, raising=False)
    with pytest.raises(OSError, match="No space left on device") as error:
        reading.save(path, layer=0, head=0)
    assert error.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_layer_and_head_are_checked(reading, tmp_path):
    with pytest.raises(IndexError, match="There is no layer 6"):
        reading.save(tmp_path / "a.png", layer=6)
    with pytest.raises(IndexError, match="There is no head 12"):
        image.picture(reading, head=12)
    with pytest.raises(IndexError, match="There is no head 12"):
        numbers(reading, head=12)


def test_numbers_are_those_of_the_layers_and_heads_asked_for(reading):
    everything = numbers(reading)
    assert (everything["layers"], everything["heads"]) == (list(range(6)), list(range(12)))
    single = numbers(reading, -1, 3)
    assert (single["layers"], single["heads"]) == ([5], [3])
    assert single["attention"] == [[everything["attention"][5][3]]]
    assert [unit["text"] for unit in single["units"]] == ["[CLS]", *ARROW.split(), "[SEP]"]


def test_json_has_null_for_nan(tmp_path):
    reading = _readings.made("a b", draw=lambda *shape: torch.full(shape, torch.nan))
    reading.save(tmp_path / "a.json")
    numbers = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert numbers["attention"][0][0][0] == [None] * 3
    for suffix in (".png", ".svg"):
        reading.save(tmp_path / f"a{suffix}")


def test_too_many_numbers(reading, monkeypatch):
    monkeypatch.setattr("regard.output.json.NUMBERS_LIMIT", 3000)
    with pytest.raises(
        ValueError, match=r"^3,528 numbers are too many for JSON \(at most 3,000\): choose a layer and a head"
    ):
        numbers(reading)
    assert numbers(reading, layer=0)


# Maps


def expected_cells(reading, name, layer, target=None):
    """A map between words, from its dense matrix: by head, or one of all heads."""
    matrix = attribution.map_of(reading, name, layer, target).dense()
    by_key = torch.stack([matrix[..., list(unit.tokens)].sum(-1) for unit in reading.units], -1)
    return torch.stack([by_key[..., list(unit.tokens), :].mean(-2) for unit in reading.units], -2)


@pytest.fixture(scope="module")
def decoded():
    return regard.Lens(headed("GPT2LMHeadModel", "gpt2", torch.float32)).read("the cat sat on the mat")


def test_a_map_is_drawn_from_zero_to_its_largest(reading):
    figure = image.picture(reading, layer=5, map="norms")
    axes = figure.axes[0]
    cells, largest = expected_cells(reading, "norms", 5), float(expected_cells(reading, "norms", 5).max())
    drawn = axes.images[0]
    assert axes.get_title() == "all-MiniLM-L6-v2, norms, layer 5, all heads"
    assert (drawn.get_clim(), drawn.get_cmap().name) == ((0, 1), "viridis")
    side = drawn.get_array().shape[0] // 7
    shown = torch.tensor(drawn.get_array()[side // 2 :: side, side // 2 :: side].data)
    assert torch.allclose(shown**2 * largest, cells, rtol=1e-4, atol=1e-5)
    (bar,) = axes.child_axes
    assert bar.get_ylabel() == "length of what is added"
    labels = [label.get_text() for label in bar.get_yticklabels()]
    assert [float(label) for label in labels] == pytest.approx(
        [largest * n for n in (0, 0.01, 0.05, 0.2, 0.5, 1)], rel=0.01
    )
    numbers_on_cells = [int(text.get_text()) for text in axes.texts]
    assert numbers_on_cells == [round(100 * n / largest) for n in cells.flatten().tolist() if n >= 0.005 * largest]


def test_negative_numbers_have_colours_of_their_own(decoded):
    target = attribution.Target.next_token(decoded)
    figure = image.picture(decoded, layer=1, head=2, map="logits")
    axes, cells = figure.axes[0], expected_cells(decoded, "logits", 1, target)[2]
    assert cells.min() < 0 < cells.max()
    drawn = axes.images[0]
    assert (drawn.get_clim(), drawn.get_cmap().name) == ((-1, 1), "PuOr_r")
    assert axes.get_title() == f"GPT2LMHeadModel, logits, layer 1, head 2\nfor {target.name}"
    side = drawn.get_array().shape[0] // len(cells)
    shown = torch.tensor(drawn.get_array()[side // 2 :: side, side // 2 :: side].data)
    assert torch.allclose(shown.sign() * shown**2, cells / cells.abs().max(), atol=1e-5)
    assert any(text.get_text().startswith("−") for text in axes.texts)


def test_numbers_can_be_read_on_the_cells_of_either_scale():
    import matplotlib

    for signed, name in ((False, "viridis"), (True, "PuOr_r")):
        scale = Scale(1.0, signed)
        for share in torch.linspace(-1 if signed else 0, 1, 201).tolist():
            place = float(scale.place(torch.tensor(share)))
            behind = matplotlib.colormaps[name]((place + 1) / 2 if signed else place)[:3]
            before = 1.0 if image.ink(share, scale) == "white" else 0.0
            linear = [
                channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in behind
            ]
            luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
            contrast = (max(luminance, before) + 0.05) / (min(luminance, before) + 0.05)
            assert contrast >= (4.4 if signed else 3), (name, share)


def test_the_grid_of_a_map_has_one_scale(reading):
    figure = image.picture(reading, map="value-weighted")
    largest = max(float(expected_cells(reading, "value-weighted", layer).max()) for layer in range(6))
    (bar,) = figure.axes[0].child_axes
    assert float(bar.get_yticklabels()[-1].get_text()) == pytest.approx(largest, rel=0.005)
    shown = image.picture(reading, map="norms")
    assert shown.axes[0].get_title() == "all-MiniLM-L6-v2, norms, 6 layers"
    assert [label.get_text() for label in shown.axes[0].get_xticklabels()] == ["all"]


def test_a_cell_of_a_long_text_has_the_number_of_largest_magnitude(decoded, monkeypatch):
    monkeypatch.setitem(image.CELL_LIMITS, "head", 4)
    target = attribution.Target.next_token(decoded)
    figure = image.picture(decoded, layer=1, head=2, map="logits")
    drawn = figure.axes[0].images[0].get_array()
    tokens = attribution.map_of(decoded, "logits", 1, target).dense()[2]
    count = len(tokens)
    bounds = [n * count // 4 for n in range(5)]
    side = drawn.shape[0] // 4
    for r in range(4):
        for c in range(4):
            cell = tokens[bounds[r] : bounds[r + 1], bounds[c] : bounds[c + 1]].flatten()
            largest = float(cell[cell.abs().argmax()])
            place = float(drawn[r * side, c * side])
            assert math.copysign(place**2, place) == pytest.approx(largest / float(tokens.abs().max()), abs=1e-5)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".json"])
@pytest.mark.parametrize("name", ["value-weighted", "norms", "gradient"])
def test_every_map_can_be_saved(reading, tmp_path, name, suffix):
    reading.save(tmp_path / f"a{suffix}", layer=2, map=name)
    if suffix == ".json":
        saved = json.loads((tmp_path / "a.json").read_text())
        assert (saved["map"], saved["heads"]) == (name, [None] if name == "norms" else list(range(12)))
        expected = expected_cells(reading, name, 2, attribution.default_target(reading) if name == "gradient" else None)
        assert torch.allclose(torch.tensor(saved["attention"][0]), expected.reshape(-1, 7, 7), rtol=1e-4, atol=1e-9)


def test_maps_that_cannot_be_saved(reading, tmp_path):
    for bad, error in (({"map": "nroms"}, "no map 'nroms'"), ({"map": "norms", "head": 1}, "has no heads")):
        for suffix in (".png", ".json"):
            with pytest.raises(ValueError, match=error):
                reading.save(tmp_path / f"a{suffix}", **bad)
    assert not os.listdir(tmp_path)


# The methods side by side


@pytest.mark.parametrize("name", ["head", "five", "sixty", "scripts", "long words"])
@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
def test_the_methods_side_by_side_fit(lens, name):
    reading = lens.read(TEXTS[name])
    check_layout(agreement_of(reading))


def agreement_of(reading):
    return picture_of_agreement(attribution.agreement(reading, attribution.Target.sentence(reading)))


def test_each_column_has_its_scale_and_its_rank_correlation(reading):
    side = attribution.agreement(reading, attribution.Target.sentence(reading))
    axes = picture_of_agreement(side).axes[0]
    heads = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
    assert heads == ["knockout", *side.relevance]
    assert [label.get_text() for label in axes.get_yticklabels()] == [unit.text for unit in reading.units]
    for drawn, values in zip(axes.images, [side.knockout, *side.relevance.values()], strict=True):
        shown = torch.tensor(drawn.get_array()[:, 0].data)
        assert torch.allclose(shown.sign() * shown**2, (values / values.abs().max()).float(), atol=1e-5)
    texts = {text.get_text() for text in axes.texts}
    assert {f"ρ = {rho:.2f}".replace("-", "−") for rho in side.correlation.values()} | {"the judge"} <= texts
