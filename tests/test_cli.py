"""The command line: what it prints, where, and in which width."""

import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from rich.cells import cell_len

import regard
from regard import attribution
from support import encoder_decoders
from support import models as fixtures
from support.cli import ARROW, FLIES, REGARD, could_not, done
from support.headed import headed

COMMANDS = ["explain", "show", "attribute", "compare", "embed", "backends"]


# What it says


@pytest.mark.parametrize("command", COMMANDS)
def test_help_with_an_example(run, command):
    out = done(run(command, "--help"))
    assert f"Example: regard {command}" in out.replace("\n", " ")
    assert done(run(command, "-h")) == out


def test_help_names_every_command(run):
    out = done(run("--help"))
    assert all(command in out for command in COMMANDS)


def test_explain(run):
    out = done(run("explain", ARROW, "--word", "flies", "--layer", 5, "--head", 11))
    assert out.startswith(f"“{ARROW}”\nall-MiniLM-L6-v2: 6 layers × 12 heads; this is layer 5, head 11.\n")
    for title in ("The word comes in", "Query, key, value", "Scores, scaling, softmax", "The weighted sum", "Check"):
        assert f"\n\n{title}\n" in out
    assert "0.1768 = 1/√32" in out
    assert re.search(r"\n   arrow +-?\d+\.\d\d +-?\d+\.\d\d  0\.5\d{3}  █+.?\n", out)
    assert re.search(r"“flies” takes home each value times its weight: 0\.5\d\d × “arrow” \+", out)
    assert float(re.search(r"the largest difference is (\S+)\.\n", out)[1]) < 1e-5
    assert len(re.findall(r"after layer \d", out)) == 6
    assert not re.search(r"[ \t]\n", out)  # nothing but lines
    assert "follows a pattern" not in out


def test_explain_says_that_and_why_it_chose_the_head(run):
    out = " ".join(done(run("explain", ARROW, "--word", "flies")).split())
    chosen = "this is layer 5, head 11, which carries most to “flies” from other words: they have 68% of its weight."
    assert chosen in out
    assert "“[CLS]” has 21% of the weight and 2% of what is added: its value is short." in out
    text = "The bank, which was old, lent her money."
    out = " ".join(done(run("explain", text, "--word", "bank")).split())
    assert "which carries most to “bank” from other words" in out
    numbers = json.loads(done(run("explain", text, "--word", "bank", "--json")))
    shares = zip(numbers["tokens"], numbers["weights"], strict=True)
    of_words = sum(weight for token, weight in shares if token.isalnum() and token != "bank")  # punctuation is no word
    assert f": they have {of_words:.0%} of its weight." in out
    out = done(run("explain", "Hi", "--word", "Hi"))
    assert "layer 0, head 0: in none does “Hi” look at another word." in out


BANANA = "Fruit flies like a banana"


def test_explain_against_another_text(run):
    """It ends with the claim: one vector goes in, and two come out."""
    command = ["explain", ARROW, "--word", "flies", "--against", BANANA]
    out = done(run(*command))
    lesson, parting = out.split("\n\nThe same word in another text\n")
    assert "What changed" not in out
    assert lesson == done(run(*command[:4])).partition("\n\nWhat changed\n")[0]
    question = "How far “flies” is from “flies” in “Fruit flies like a banana”, as a cosine distance: 0 is the same"
    assert " ".join(parting.split()).startswith(question)
    similarity = json.loads(done(run("compare", ARROW, BANANA, "--word", "flies", "--json")))["similarity"]
    expected = [1 - layer[0][1] for layer in similarity]
    rows = re.findall(r"\n   (before layer 0|after layer \d) +(\d\.\d\d)(?: +([█▏▎▍▌▋▊▉]+))?(?=\n)", parting)
    assert [name for name, _, _ in rows] == ["before layer 0", *(f"after layer {n}" for n in range(6))]
    assert [float(number) for _, number, _ in rows] == pytest.approx(expected, abs=0.0051)
    assert [len(bar.rstrip("▏▎▍▌▋▊▉")) for _, _, bar in rows] == pytest.approx([24 * x for x in expected], abs=1)
    assert "The same vector went in; its neighbours alone made two of it, 0.37 apart." in " ".join(parting.split())
    numbers = json.loads(done(run(*command, "--json")))
    assert numbers["against"].pop("distances") == pytest.approx(expected, abs=1e-6)
    assert numbers["against"] == {"text": BANANA, "word": "flies", "note": ""}
    assert "against" not in json.loads(done(run(*command[:4], "--json")))


def test_against_takes_the_first_occurrence_and_says_what_is_unknown(run):
    numbers = {}
    for text in ("fruit flies 爱 flies", "fruit flies 爱 bees"):
        result = run("explain", "flies and flies", "--word", "Flies", "--nth", 2, "--against", text, "--json")
        numbers[text] = json.loads(result.out)["against"]
        assert numbers[text]["note"] == "The model knows 3 of 4 words: it has no token for “爱”."
        assert 0 < numbers[text]["distances"][0] < 0.2  # the place differs
    out = done(run("explain", ARROW, "--word", "flies", "--against", "fruit flies 爱 flies"))
    assert "\n   The model knows 3 of 4 words: it has no token for “爱”.\n   before layer 0" in out


def test_against_in_decoders_and_encoder_decoders(run, tmp_path):
    folder = fixtures.saved("gpt2", tmp_path / "gpt2")
    command = ["explain", "the cat sat", "--model", folder, "--layer", 0, "--head", 1]
    out = done(run(*command, "--word", "cat", "--against", "a cat sat"))
    assert re.search(r"after layer 1 +0\.\d*[1-9]", out)
    out = " ".join(done(run(*command, "--word", "the", "--against", "the mat")).split())
    assert "They stay the same vector to the end. This model is causal: the word sees only what stands before" in out
    folder = encoder_decoders.save("T5", tmp_path / "t5")
    numbers = json.loads(
        done(run("explain", "the cat", "--word", "cat", "--against", "a cat", "--model", folder, "--json"))
    )
    assert numbers["against"]["distances"][0] == pytest.approx(0, abs=1e-6)
    assert numbers["against"]["distances"][-1] > 1e-4
    result = run("explain", "the cat", "--word", "mat", "--pair", "a mat", "--against", "the mat", "--model", folder)
    assert (result.code, result.out) == (2, "")
    assert "--against compares a word of one text: leave out --pair." in " ".join(result.err.split())


def test_the_demo_can_be_read_in_a_minute(run):
    """What make demo prints: 250 words of prose are a minute's reading."""
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^demo:.*\n\t\$\(BIN\)/regard (.+) --save flies.html$", makefile, re.MULTILINE)
    out = done(run(*shlex.split(command)))
    assert out.count("\n") < 60
    rows = re.compile(r"layer \d +\d\.|\d\.\d\d.*\d\.\d\d(?!.* × )")  # two numbers that are no sum
    prose = "\n".join(line for line in out.splitlines() if not rows.search(line))
    assert "is scaled by 0.1768" in prose
    assert 150 < len(re.findall(r"[^\W\d]{2,}", prose)) <= 250


def test_explain_names_a_pattern_of_positions(run):
    out = " ".join(done(run("explain", ARROW, "--word", "flies", "--layer", 0, "--head", 2)).split())
    pattern = (
        "every token gives more than 90% of its weight to the previous token. It tells where words stand, not what"
    )
    assert pattern in out


def test_explain_a_word_of_several_tokens(run):
    out = done(run("explain", "An antidisestablishmentarianism", "--word", "antidisestablishmentarianism"))
    assert re.search(r"“antidisestablishmentarianism” is \d+ tokens; the numbers are their mean", " ".join(out.split()))


def test_explain_a_decoder(run, tmp_path):
    folder = fixtures.saved("llama", tmp_path / "llama")
    out = done(run("explain", "the cat sat", "--word", "cat", "--layer", 1, "--head", 0, "--model", folder))
    assert "tokens that the model does not let it see are hidden; the softmax" in " ".join(out.split())
    assert re.search(r"\n   s +-?\d+\.\d\d +-?\d+\.\d\d  hidden\n", out)
    folder = fixtures.saved("gpt-oss", tmp_path / "gpt-oss")
    out = done(run("explain", "the cat sat", "--word", "cat", "--layer", 1, "--head", 0, "--model", folder))
    assert re.search(r"that sum to 1, with 0\.\d{4} that a sink takes\.", " ".join(out.split()))
    folder = fixtures.saved("t5", tmp_path / "t5")
    out = done(run("explain", "the cat sat", "--word", "cat", "--layer", 1, "--head", 0, "--model", folder))
    assert "This model does not scale it; the model's bias for the two positions is added" in " ".join(out.split())


def test_a_source_and_a_target(run, tmp_path):
    folder = encoder_decoders.save("T5", tmp_path / "t5")
    texts = ("the cat sat", "--pair", "a mat", "--model", folder)
    out = done(run("show", *texts, "--layer", 1, "--head", 2))
    assert "cross-attention, layer 1, head 2: each row is where a word of the target looks in the source" in out
    assert "encoder, layer 1, head 2" in done(run("show", *texts, "--layer", 1, "--head", 2, "--attention", "encoder"))
    numbers = json.loads(done(run("explain", *texts, "--word", "mat", "--json")))
    assert (numbers["attention"], numbers["text"], numbers["target_text"]) == ("cross", "the cat sat", "a mat")
    assert numbers["error"] < 1e-5
    could_not(
        run("show", *texts, "--attention", "sideways"), r"expected encoder or decoder or cross\. Got 'sideways'\."
    )


def test_explain_json(run):
    out = done(run("explain", ARROW, "--word", "flies", "--layer", 3, "--head", 10, "--json"))
    numbers = json.loads(out)
    contract = "text model tokens words word layer head query keys scores scaled weights context error"
    assert " ".join(numbers) == f"{contract} carried made pieces unknown note caution"
    assert numbers["tokens"] == ["[CLS]", *ARROW.split(), "[SEP]"]
    assert numbers["words"] == ARROW.split()
    assert [numbers[name] for name in ("text", "word", "layer", "head")] == [ARROW, "flies", 3, 10]
    assert all(len(numbers[name]) == 7 for name in ("keys", "scores", "scaled", "weights"))
    assert sum(numbers["weights"]) == pytest.approx(1, abs=1e-6)
    for key, score in zip(numbers["keys"], numbers["scores"], strict=True):
        assert sum(q * k for q, k in zip(numbers["query"], key, strict=True)) == pytest.approx(score, abs=1e-4)
    assert 0 <= numbers["error"] < 1e-5


def test_show(run):
    out = done(run("show", ARROW, "--layer", 5, "--head", 11))
    assert out.startswith("layer 5, head 11: each row is where a word looks, in per cent\n")
    assert re.search(r"\nflies +21 +3 +5 +3 +4 +58 +6\n", out)
    assert "all layers and heads, mean" in done(run("show", ARROW))
    assert "layer 5, mean of its heads" in done(run("show", ARROW, "--layer", -1))
    assert "all layers, head 11:" in done(run("show", ARROW, "--head", -1))
    numbers = json.loads(done(run("show", ARROW, "--layer", 5, "--head", 11, "--json")))
    assert (numbers["layers"], numbers["heads"]) == ([5], [11])
    assert numbers["attention"][0][0][2][5] == pytest.approx(0.58, abs=0.005)


def test_show_json_says_what_the_model_does_not_know(run):
    numbers = json.loads(done(run("show", "I like 🪰 bugs", "--layer", "0", "--head", "0", "--json")))
    assert numbers["note"] == "The model knows 3 of 4 words: it has no token for “🪰”."


def test_show_what_fits(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = done(run("show", "the cat sat on the mat and " * 60, "--layer", 1))
    assert "… the first 13 of 422; --save map.png or map.html shows all" in out
    assert max(map(cell_len, out.splitlines())) <= 60


@pytest.mark.parametrize("command", ["show", "explain"])
def test_the_help_names_every_map(run, command):
    out = done(run(command, "--help"))
    assert all(name in out for name in attribution.MAPS)


def test_show_a_map(run):
    out = done(run("show", ARROW, "--layer", 5, "--map", "norms"))
    assert out.startswith("norms, layer 5, all heads: each cell is how much all heads take from there; 100 is ")
    row = re.search(r"\nflies((?: +\d+){7})\n", out)[1].split()
    norms = attribution.norms(regard.Lens().read(ARROW), 5).dense()
    assert [int(number) for number in row] == [round(100 * n / float(norms.max())) for n in norms[2].tolist()]
    out = done(run("show", ARROW, "--head", 11, "--map", "gradient", "--target", "text:Time passes"))
    assert out.startswith(
        "gradient, all layers, head 11: each cell is how much the target gains by the weight, for the "
    )
    assert "the similarity with “Time passes”" in " ".join(out.split())


def test_show_json_of_a_map(run):
    numbers = json.loads(done(run("show", ARROW, "--layer", 5, "--map", "norms", "--json")))
    assert [numbers[name] for name in ("layers", "heads", "map", "target")] == [[5], [None], "norms", None]
    assert numbers["unit"] == "length of what is added"
    expected = attribution.norms(regard.Lens().read(ARROW), 5).dense()
    assert torch.allclose(torch.tensor(numbers["attention"][0][0]), expected, rtol=1e-5)
    options = ["--map", "gradient", "--target", "word:flies[3]", "--layer", 2, "--head", 1]
    numbers = json.loads(done(run("show", ARROW, *options, "--json")))
    assert (numbers["heads"], numbers["map"]) == ([1], "gradient")
    assert numbers["target"] == "number 3 of the vector of “flies”"
    weights = json.loads(done(run("show", ARROW, "--layer", 5, "--head", 11, "--json")))
    assert [weights[name] for name in ("map", "unit", "target")] == ["weights", "weight", None]


def decoder(folder):
    """A tiny GPT-2 with its head, in a folder."""
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = headed("GPT2LMHeadModel", "gpt2", torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_show_what_each_token_adds_to_a_logit(run, tmp_path):
    folder = decoder(tmp_path / "gpt2")
    reading = regard.Lens(folder).read("the cat sat on")
    target = attribution.Target.next_token(reading)
    expected = sum(attribution.logits(reading, target, layer).dense().sum(0) for layer in range(2))
    out = done(run("show", "the cat sat on", "--map", "logits", "--target", "next", "--model", folder))
    legend = "logits, all layers and heads, sum: each cell is what is added to the target's logit, for the next token "
    assert " ".join(out.split()).startswith(legend)
    rows = [row.split()[1:] for row in out.split("\n\n")[1].splitlines()[1:]]
    shown = [[0 if cell == "·" else int(cell.replace("−", "-")) for cell in row] for row in rows]
    assert shown == (100 * expected / expected.abs().max()).round().int().tolist()


def test_explain_under_a_map(run):
    command = ["explain", ARROW, "--word", "flies", "--layer", 5, "--head", 11, "--map", "value-weighted"]
    out = done(run(*command))
    assert re.search(r"\n   \[CLS\] +0\.21\d\d +0\.0\d+ +2%  ▍\n", out)
    assert re.search(r"\n   arrow +0\.58\d\d +3\.5\d+ +82%  █+.?\n", out)
    numbers = json.loads(done(run(*command, "--json")))["taken"]
    assert list(numbers) == ["map", "unit", "target", "head", "units", "weights", "values"]
    assert (numbers["map"], numbers["head"], numbers["units"][2]) == ("value-weighted", 11, "flies")
    matrix = attribution.value_weighted(regard.Lens().read(ARROW), 5)
    assert numbers["values"] == pytest.approx(matrix[11, 2].tolist(), rel=1e-5)
    assert numbers["weights"] == pytest.approx(regard.Lens().read(ARROW).weights(5, 11)[2].tolist(), rel=1e-5)
    command[-1] = "norms"
    assert "of all heads together; its weights are their mean" in " ".join(done(run(*command)).split())
    assert json.loads(done(run(*command, "--json")))["taken"]["head"] is None


def test_attribute(run):
    out = done(run("attribute", ARROW, "--target", "text:Time passes quickly"))
    assert out.startswith(
        f"“{ARROW}”\nall-MiniLM-L6-v2: what each word does for the similarity with “Time passes quickly”\n"
    )
    row = re.search(r"\nTime +(\S+) +(\S+) +(\S+) +(\S+)\n", out).groups()
    loss = -attribution.knockouts(reading := regard.Lens().read(ARROW), target := other(reading))
    assert row[0] == f"{100 * loss[1] / loss.abs().max():.0f}"
    relevance = attribution.relevance(reading, target).tokens - 1 / 7
    assert row[3] == f"{100 * relevance[1] / relevance.max():.0f}"
    assert re.search(r"\nrank correlation +the judge( +−?\d\.\d\d){3}\n", out)
    assert "over 5 words" in " ".join(out.split())
    assert "\nLeft out: logits: they explain a next token, and not the similarity with “Time passes quickly”.\n" in out
    assert not re.search(r"[ \t]\n", out)


def other(reading):
    return attribution.Target.similarity(reading, "Time passes quickly")


def test_attribute_json(run):
    numbers = json.loads(done(run("attribute", ARROW, "--word", "flies", "--json")))
    contract = "text model target layer head units judged knockout relevance correlation left_out note"
    assert " ".join(numbers) == contract
    assert numbers["target"] == "the vector of “flies”"
    assert numbers["units"] == ["[CLS]", *ARROW.split(), "[SEP]"]
    assert (
        list(numbers["relevance"]) == list(numbers["correlation"]) == ["weights, rollout", "norms, rollout", "gradient"]
    )
    assert list(numbers["left_out"]) == ["logits"]
    assert all(len(values) == 7 for values in (numbers["knockout"], *numbers["relevance"].values()))
    rolled = attribution.rollout(regard.Lens().read(ARROW), word="flies").units
    assert numbers["relevance"]["weights, rollout"] == pytest.approx(rolled.tolist(), rel=1e-5)


def test_attribute_in_one_layer_and_head(run):
    out = done(run("attribute", ARROW, "--word", "flies", "--layer", -1))
    assert "all-MiniLM-L6-v2, layer 5: what each word does for the vector of “flies”\n" in out
    assert re.search(r"\nrank correlation +the judge( +−?\d\.\d\d){4}\n", out)
    numbers = json.loads(done(run("attribute", ARROW, "--word", "flies", "--layer", 5, "--head", 11, "--json")))
    assert (numbers["layer"], numbers["head"]) == (5, 11)
    assert list(numbers["relevance"]) == ["weights", "value-weighted", "gradient"]
    assert numbers["left_out"]["norms"] == "norms: they are of all heads together."


def test_attribute_a_next_token(run, tmp_path):
    folder = decoder(tmp_path / "gpt2")
    numbers = json.loads(done(run("attribute", "the cat sat", "--target", "next", "--model", folder, "--json")))
    assert list(numbers["relevance"]) == ["weights, rollout", "norms, rollout", "gradient", "logits"]
    assert numbers["left_out"] == {}


def test_attribute_a_long_text_shows_the_words_that_matter_most(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = done(run("attribute", "the cat sat on the mat and " * 5, "--target", "sentence"))
    assert "… and 13 more" in out
    assert len(out.splitlines()) < 50
    assert max(map(cell_len, out.splitlines())) <= 80


@pytest.mark.parametrize("suffix", [".png", ".svg", ".json"])
def test_save_an_attribution(run, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    assert "rank correlation" in done(run("attribute", ARROW, "--word", "flies", "--save", path))
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".json": b"{"}
    assert path.read_bytes()[:9].startswith(starts[suffix])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".json", ".html"])
@pytest.mark.parametrize(
    "command",
    [
        ["show"],
        ["explain", "--word", "flies"],
        ["show", "--map", "gradient"],
        ["explain", "--word", "flies", "--map", "value-weighted"],
    ],
    ids=["show", "explain", "show-map", "explain-map"],
)
def test_save(run, tmp_path, command, suffix):
    path = tmp_path / f"a{suffix}"
    result = run(*command, ARROW, "--layer", 1, "--head", 2, "--save", path)
    assert (result.code, result.err) == (0, "")
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".json": b"{", ".html": b"<!"}
    assert path.read_bytes()[:9].lower().startswith(starts[suffix].lower())


def test_compare(run):
    out = done(run("compare", *FLIES, "--word", "flies"))
    assert out.startswith("1 A Time flies like an arrow\n2 A The bird")
    assert "before the first layer" in out
    assert all(f"after layer {n}\n" in out for n in range(6))
    last = " ".join(out.split())
    assert "every “flies” is the same word (0.98 to 1.00: only the place differs)" in last
    assert re.search(r"part into A \(1 and 2\) and B \(3 and 4\): 0\.62 within 1 and 2, 0\.89 within 3 and 4", last)
    numbers = json.loads(done(run("compare", *FLIES, "--word", "flies", "--json")))
    assert numbers["clusters"] == [[0, 1], [2, 3]]
    assert len(numbers["similarity"]) == 7


def test_compare_leaves_out_a_text_without_the_word(run):
    result = run("compare", FLIES[0], "A cat sat", FLIES[2], "--word", "flies", "--json")
    assert result.code == 0
    assert json.loads(result.out)["texts"] == [FLIES[0], FLIES[2]]
    assert result.err.startswith("regard: A text was left out. In 'A cat sat': There is no word 'flies' in the text.")
    could_not(run("compare", FLIES[0], "A cat sat", "--word", "flies"), "In 'A cat sat': There is no word 'flies'")
    could_not(run("compare", *[f"{text} {text}" for text in FLIES[:2]], "a cat", "--word", "flies"), "occurs twice")


def test_compare_says_nothing_that_is_not_so(run):
    out = " ".join(done(run("compare", FLIES[0], FLIES[2], "--word", "flies")).split())
    assert out.endswith("After the last they are alike to 0.63.")
    out = " ".join(done(run("compare", ARROW, ARROW, ARROW, "--word", "flies")).split())
    assert out.endswith("After the last they do not part into groups.")


def test_embed(run, tmp_path, monkeypatch):
    file, out = tmp_path / "lines.txt", tmp_path / "out.parquet"
    file.write_text("One line.\n\nAnother line.\n")
    assert done(run("embed", file, "--out", out)) == f"2 texts, 2 vectors of 384 numbers in {out}\n"
    assert pq.read_table(out).num_rows == 2
    could_not(
        run("embed", file, "--out", out),
        r"out.parquet is there already: choose another name. \(--overwrite replaces it.\)",
    )
    result = done(run("embed", file, file, "--out", out, "--level", "word", "--layers", 0, "--json", "--overwrite"))
    assert json.loads(result) == {"texts": 4, "vectors": 12, "tokens": 20, "truncated": 0, "bad": 0, "dim": 384}
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a " * 600)))
    result = run("embed", "-", "--out", out, "--pool", "cls", "--truncation", "truncate", "--overwrite")
    assert result.code == 0
    assert result.err == "regard: 1 text was longer than the model reads and is truncated: see column `truncated`.\n"
    assert pq.read_table(out)["truncated"].to_pylist() == [True]


def test_embed_with_all_that_a_row_may_have(run, tmp_path):
    rows = [{"body": {"text": f"One line {n}. And more."}, "key": n, "year": 1990 + n} for n in range(2)]
    file, out = tmp_path / "a.json", tmp_path / "out.parquet"
    file.write_text(json.dumps(rows))
    options = ["--column", "body.text", "--id", "key", "--keep", "year", "--places", "--chunk", "sentences"]
    options += ["--pool", "mean", "--pool", "max", "--dims", "500", "--prompt-text", "query: "]
    assert done(run("embed", file, "--out", out, *options)) == f"2 texts, 4 vectors of 500 numbers in {out}\n"
    columns = pq.read_table(out).drop_columns("vector").to_pydict()
    assert columns == {
        "text_id": ["0", "0", "1", "1"], "file": [str(file)] * 4, "line": [1, 1, 2, 2],
        "year": [1990, 1990, 1991, 1991], "index": [0, 1, 0, 1], "start": [0, 12, 0, 12], "end": [11, 21, 11, 21],
        "chunk": ["One line 0.", "And more.", "One line 1.", "And more."], "truncated": [False] * 4,
    }  # fmt: skip


def test_numbers_agree_with_their_nouns(run, tmp_path):
    (tmp_path / "a.txt").write_text("One line.\n" + "long " * 600)
    out = tmp_path / "out.parquet"
    result = run("embed", tmp_path / "a.txt", "--out", out, "--truncation", "truncate", "--dims", 1)
    assert result.out == f"2 texts, 2 vectors of 1 number in {out}\n"
    assert result.err == "regard: 1 text was longer than the model reads and is truncated: see column `truncated`.\n"
    (tmp_path / "b.txt").write_text("One line.\n\0\n\0\n")
    result = run("embed", tmp_path / "b.txt", "--out", out, "--overwrite", "--on-error", "skip")
    assert result.out == f"1 text, 1 vector of 384 numbers in {out}\n"
    assert result.err.endswith("regard: 2 records were left out.\n")


def test_only_the_first_of_many_bad_records_are_named(run, tmp_path):
    (tmp_path / "a.txt").write_text("good\n" + "\0\n" * 50)
    result = run("embed", tmp_path / "a.txt", "--out", tmp_path / "out.parquet", "--on-error", "skip")
    assert len(result.err.splitlines()) == 21
    assert result.err.endswith("regard: 50 records were left out, the first of them named above.\n")


def test_what_is_left_out_of_a_folder_is_said(run, tmp_path):
    for name in ("a.txt", "README.md", "page.html"):
        (tmp_path / name).write_text("text")
    result = run("embed", tmp_path, "--out", tmp_path / "out.parquet")
    assert result.out.startswith("1 text, ")
    assert result.err == (
        f"regard: {tmp_path}/README.md was skipped: it describes the folder.\n"
        f"regard: {tmp_path}/page.html was skipped: its type is not known.\n"
    )


def test_backends(run):
    out = done(run("backends"))
    assert "serves" in out
    rows = json.loads(done(run("backends", "--json")))
    assert all(set(row) == {"name", "serves", "reasons", "what"} for row in rows)
    assert all(bool(row["what"]) == row["serves"] for row in rows)
    assert any(row["serves"] for row in rows)
    assert all(row["serves"] or row["reasons"] for row in rows)


def test_what_was_cut_is_said_on_stderr(run):
    for command in (
        ["explain", "--word", "7", "--nth", "1"],
        ["show"],
        ["show", "--layer", "0", "--head", "0", "--json"],
    ):
        result = run(*command, "7 dogs " * 300)
        assert result.code == 0
        assert re.fullmatch(
            r"regard: Only the first [\d,]+ of 2,100 characters were read: [^\n]*at most 512 tokens\.\n", result.err
        )
    result = run("compare", "7 dogs " + "and " * 600, "7 dogs", "--word", "dogs")
    assert result.err.count("characters were read") == 1


# How it looks


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(run, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for text, word in ((ARROW, "flies"), ("我爱北京天安门 and 👍🏽 antidisestablishmentarianism!", "and")):
        out = done(run("explain", text, "--word", word, "--layer", 3, "--head", 10))
        lesson = out.partition("\nThe same word in another text\n")[0]
        other = f"{text} {text}"
        parting = done(run("explain", text, "--word", word, "--layer", 3, "--head", 10, "--against", other))
        assert parting.startswith(lesson.partition("\nWhat changed\n")[0])
        assert max(map(cell_len, parting.splitlines())) <= width
        out += done(run("show", text))
        out += done(run("show", text, "--map", "gradient"))
        out += done(run("attribute", text, "--word", word))
        assert max(map(cell_len, out.splitlines())) <= width
        assert re.search(r"\d\.\d{4}", out)  # no number loses its end
        rows = re.findall(r"^   \S+.*?(-?\d+\.\d\d) +(-?\d+\.\d\d) +(\d\.\d{4})(?: |$)", out, re.MULTILINE)
        assert len(rows) == len(json.loads(done(run("explain", text, "--word", word, "--json")))["tokens"])


def test_columns_line_up_in_wide_scripts(run):
    out = done(run("show", "我爱 abc 👍🏽", "--layer", 0, "--head", 0))
    table, note = out.split("\n\n")[1:]
    assert len({cell_len(row) for row in table.splitlines()}) == 1
    assert note == "The model knows 2 of 4 words: it has no token for “爱”, “👍🏽”.\n"


def test_control_characters_do_not_reach_the_terminal(run):
    text = "red \x1b[31malert\x07 \u202ebidi\u202c tab\tnew\nline \x9b5m"
    for command in (["explain", "--word", "alert"], ["show"], ["explain", "--word", "no\x1b[0mne"]):
        result = run(*command, text)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.out + result.err), ascii(result)
    result = run("compare", text, text, "--word", "alert")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.out + result.err)
    assert run("explain", "a\x00b", "--word", "a\x00b").code == 0


def test_colour_where_there_is_colour(run):
    """In a terminal of 100 columns."""
    near, far = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = {**inherited, "COLUMNS": "100", "TERM": "xterm-256color"}
    with subprocess.Popen([*REGARD, "show", ARROW], stdout=far, stderr=subprocess.PIPE, env=environment) as process:
        os.close(far)
        written = b""
        try:
            while output := os.read(near, 1 << 16):
                written += output
        except OSError:  # the other end is closed
            pass
        assert process.wait(60) == 0, process.stderr.read()
    os.close(near)
    plain = done(run("show", ARROW))
    assert "\x1b" not in plain
    assert COLOUR.search(written.decode())
    assert STYLE.sub("", written.decode()).replace("\r\n", "\n") == plain


STYLE, COLOUR = re.compile(r"\x1b\[[0-9;]*m"), re.compile(r"\x1b\[(?:[0-9;]*;)?[34][0-8](?:;[0-9;]*)?m")


@pytest.mark.parametrize("command", [["show"], ["explain", "--word", "flies"]], ids=["show", "explain"])
def test_readable_without_colour(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "100")
    plain = done(run(*command, ARROW))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = done(run(*command, ARROW))
    assert COLOUR.search(coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    quiet = done(run(*command, ARROW))
    assert not COLOUR.search(quiet)  # bold is no colour
    assert STYLE.sub("", coloured) == STYLE.sub("", quiet) == plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not COLOUR.search(done(run(*command, ARROW)))
