"""The atlas of a model's heads: its numbers against dense weights, parts, files, differences, and runs that stop."""

import dataclasses
import json
import math
import weakref

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nan

import regard
import regard.hf
from regard.atlas import Atlas, Difference, difference, of_inputs, state
from regard.atlas import make as making
from regard.atlas.inputs import noise, of_noise, open_without_text
from regard.atlas.needle import needles
from regard.atlas.state import begun, kept_at
from regard.atlas.texts import Input, repeated
from regard.attribution.heads import SCORES
from support import decoder, encoder_decoders, models
from support import transformers_models as tiny
from support.data import STORIES, required
from support.planted import plan, truth
from support.planted_texts import tokenizer
from support.planted_weights import build

TEXTS = [
    "The cat sat on the mat; the cat, that is, and not the dog.",
    "In 1903, 214 boats lay in the harbour. “Where,” she asked, “are the others?” Nobody knew.",
]


@pytest.fixture(scope="module")
def embedded():
    return regard.Lens()


@pytest.fixture(scope="module")
def llama():
    return regard.Lens(models.tiny("llama"))


@pytest.fixture(scope="module")
def planted():
    """A decoder of two layers with heads that are known, and 60 words."""
    heads = plan("rotary", 8, True, 0)
    return regard.Lens((build("rotary", 8, heads, 0), tokenizer())), truth(heads)


WORDS = ["ba de fi go ku la ma ne pi ro su ta bi do ba de fi go ku la ma ne", "do ro su ta ne pi do ro su ta bi do ba"]


@pytest.fixture(scope="module")
def made(planted):
    """Its atlas, with proofs and examples."""
    return planted[0].atlas(WORDS)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(state, "cache_folder", lambda *names: tmp_path.joinpath("cache", *names))


def dense(attention):
    return attention.weights.dense().double()


# Against dense weights


def test_a_score_is_the_mean_over_the_rows_of_all_texts(embedded):
    atlas = embedded.atlas(TEXTS, proof=False)
    previous, commas, rows = torch.zeros(6, 12).double(), torch.zeros(6, 12).double(), 0
    for text in TEXTS:
        reading = embedded.read(text)
        words = [n for n, token in enumerate(reading.tokens) if not token.special]
        marks = [n for n in words if not any(letter.isalnum() for letter in reading.tokens[n].text)]
        for layer in range(6):
            weights = dense(reading.attention[layer])
            previous[layer] += weights[:, words, [n - 1 for n in words]].sum(-1)
            commas[layer] += (weights - weights * torch.eye(len(reading.tokens)))[:, words][:, :, marks].sum((-1, -2))
        rows += len(words)
    torch.testing.assert_close(atlas.of("previous").double(), previous / rows, atol=1e-6, rtol=0)
    torch.testing.assert_close(atlas.of("punctuation").double(), commas / rows, atol=1e-6, rtol=0)
    assert atlas.tokens["text"] == rows + 4


def test_induction_is_measured_on_repeated_tokens(planted, made):
    lens, _ = planted
    total, rows = torch.zeros(2, 8).double(), 0
    for sequence in repeated(lens):
        reading, period = lens._read(sequence.encoded, sequence.text), sequence.period
        queries = torch.arange(len(reading.tokens))[sequence.first + period : sequence.first + 2 * period]
        for layer in range(2):
            total[layer] += dense(reading.attention[layer])[:, queries, queries - period + 1].sum(-1)
        rows += len(queries)
    torch.testing.assert_close(made.of("induction").double(), total / rows, atol=1e-6, rtol=0)


def test_planted_heads_are_found_and_proved(planted, made):
    for name in ("previous", "prefix", "copying"):
        assert {head[1:3] for head in made.found(name)} == planted[1][name]
    verdicts = {proof.score: proof.verdict for proof in made.proofs}
    assert verdicts["previous"] == verdicts["prefix"] == "confirmed"


def test_retrieval_is_measured_on_needles():
    lens = decoder.with_words(positions=256)
    atlas = lens.atlas(TEXTS, proof=False)
    hits, count = torch.zeros(1, 4), 0
    for text in needles(lens):
        reading = lens._read(text.encoded, text.text)
        queries, keys = text.answer.T
        hits[0] += (dense(reading.attention[0])[:, queries].argmax(-1) == keys).sum(-1)
        count += len(keys)
    torch.testing.assert_close(atlas.of("retrieval"), hits / count)


# Which model has which scores


def test_a_decoder_has_every_score_of_self_attention(made):
    assert made.names == [name for name, score in SCORES.items() if score.of != "cross" and score.text != "needle"]
    assert made.parts == [""]
    for name in made.names:
        table, (least, largest) = made.of(name), SCORES[name].range
        assert table.shape == (2, 8)
        assert table.isfinite().all()
        assert (table >= (-math.inf if least is None else least) - 1e-6).all()
        assert (table <= (math.inf if largest is None else largest) + 1e-6).all()
    assert set(made.tokens) == {"text", "repeated"}  # it has too few positions for a needle


def test_an_encoder_has_no_needles_and_one_without_a_head_no_copying(embedded):
    atlas = embedded.atlas(["Time flies like an arrow."], proof=False)
    assert set(atlas.tokens) == {"text", "repeated"}
    assert not {"copying", "retrieval", "alignment"} & set(atlas.names)
    assert atlas.of("separator").shape == (6, 12)
    with pytest.raises(LookupError, match=r"'copying' was not measured of all-MiniLM-L6-v2: there are previous, next,"):
        atlas.of("copying")
    with pytest.raises(LookupError, match="There is no part 'cross' of all-MiniLM-L6-v2: it has ''"):
        atlas.of("previous", "cross")


def test_stories260k():
    atlas = regard.Lens(required(STORIES)).atlas(TEXTS)
    assert {head[1:3] for head in atlas.found("previous")[:2]} == {(1, 3), (3, 6)}
    assert atlas.names == [name for name, score in SCORES.items() if score.of != "cross"]
    assert {"text", "repeated", "needle"} == set(atlas.tokens)
    assert {proof.score for proof in atlas.proofs} >= {"previous"}


@pytest.mark.parametrize("kind", ["Bart", "T5"])
def test_an_encoder_decoder_has_three_parts(kind):
    lens = regard.Lens(encoder_decoders.encoder_decoder(kind))
    pair = encoder_decoders.SOURCE, encoder_decoders.TARGET
    atlas = lens.atlas([pair])
    assert atlas.parts == ["encoder", "decoder", "cross"]
    shapes = {"Bart": [(2, 4), (3, 5), (3, 5)], "T5": [(2, 3), (3, 3), (3, 3)]}[kind]
    assert [atlas.of("entropy", part).shape for part in atlas.parts] == shapes
    assert set(atlas.scores["cross"]) == {
        name for name, score in SCORES.items() if score.of != "self" and score.text == "text"
    }
    assert "induction" in atlas.scores["encoder"]
    assert "induction" in atlas.scores["decoder"]
    reading = lens.read(*pair)
    ids = len(reading.tokens), len(reading.decoder.tokens)
    assert atlas.tokens["text"] == sum(ids)
    rows = [n for n, token in enumerate(reading.decoder.tokens) if not token.special]
    last = [dense(reading.cross.attention[layer])[:, rows, -1].mean(-1) for layer in range(3)]
    torch.testing.assert_close(atlas.of("last", "cross").double(), torch.stack(last), atol=1e-6, rtol=0)
    with pytest.raises(TypeError, match=r"text 0: an encoder-decoder reads pairs \(source, target\)"):
        lens.atlas(["the cat sat"])


def test_what_the_context_leaves_out_is_said(llama):
    atlas = llama.atlas(["the cat sat", "the cat sat on the mat " * 30], proof=False)
    assert "1 text was read in part: this model takes at most 64 tokens." in atlas.note
    assert atlas.tokens["text"] < 64 + 20


def test_texts_are_checked_first(llama):
    def never(stage, share):
        raise AssertionError

    for texts, kind in (("the cat", TypeError), ([], ValueError), (["the cat", " "], ValueError), ([1], TypeError)):
        with pytest.raises(kind, match="atlas: text"):
            llama.atlas(texts, progress=never)


# Models that no lens opens


def test_a_whisper_is_measured_on_its_inputs():
    family = tiny.SEQ2SEQ["whisper"]
    model = tiny.make(family)
    inputs, _, _ = tiny.seq2seq_inputs(family, "none")
    stages = []
    atlas = of_inputs(model, inputs, name="a whisper", progress=lambda *step: stages.append(step))
    assert atlas.parts == ["encoder", "decoder", "cross"]
    assert [atlas.of("entropy", part).shape for part in atlas.parts] == [(2, 3), (2, 2), (2, 2)]
    assert not {"separator", "punctuation", "copying"} & set(atlas.names)
    assert "alignment" in atlas.scores["cross"]
    assert stages == [("measuring", n / 6) for n in range(1, 7)]
    with torch.no_grad(), regard.hf.record() as recorded:
        model(**inputs)
    weights = [dense(attention) for _, attention in recorded]
    previous = torch.stack([layer.diagonal(-1, -2, -1).sum(-1) / layer.shape[-1] for layer in weights[:2]]).mean(1)
    torch.testing.assert_close(atlas.of("previous", "encoder").double(), previous, atol=1e-6, rtol=0)
    last = torch.stack([weights[n][..., -1].mean((0, 2)) for n in (3, 5)])
    torch.testing.assert_close(atlas.of("last", "cross").double(), last, atol=1e-6, rtol=0)


def test_tokens_that_repeat_are_noticed_among_inputs():
    model = tiny.make(tiny.SEQ2SEQ["whisper"])
    inputs = noise(model, seed=3)
    ids = inputs["decoder_input_ids"][0].tolist()
    assert ids[0] == model.config.decoder_start_token_id
    assert ids[1:10] * 4 == ids[1:]
    assert not set(ids[1:]) & {0, 1, 2, 3}
    atlas = of_inputs(model, inputs)
    assert atlas.tokens["repeated"] == 27
    with torch.no_grad(), regard.hf.record() as recorded:
        model(**inputs)
    rows = torch.arange(10, 19)  # which come the second time
    expected = [dense(recorded[n].attention)[0][:, rows, rows - 8].mean(-1) for n in (2, 4)]
    torch.testing.assert_close(atlas.of("induction", "decoder").double(), torch.stack(expected), atol=1e-6, rtol=0)


def test_cross_attention_of_a_source_as_long_as_the_target_is_told_by_its_name():
    family = tiny.SEQ2SEQ["bart"]
    ids = torch.arange(4, 12)[None]
    atlas = of_inputs(tiny.make(family), {"input_ids": ids, "decoder_input_ids": ids})
    assert atlas.parts == ["encoder", "decoder", "cross"]
    assert "alignment" in atlas.scores["cross"]
    assert "next" not in atlas.scores["cross"]


def test_a_folder_that_reads_no_text(tmp_path):
    tiny.make(tiny.VIT).save_pretrained(tmp_path / "sees")
    model = open_without_text(tmp_path / "sees")
    atlas = of_noise(model)
    assert (atlas.model, atlas.note) == ("sees", "It reads no text, and was given noise as pixel_values.")
    assert atlas.of("previous").shape == (2, 3)
    assert torch.equal(of_noise(model).of("entropy"), atlas.of("entropy"))
    assert not torch.equal(of_noise(model, seed=1).of("entropy"), atlas.of("entropy"))
    assert open_without_text(tmp_path) is None
    assert open_without_text(models.saved("bert", tmp_path / "reads")) is None


# Tables and files


def same(atlas, other):
    for name in ("model", "fingerprint", "seed", "note"):
        assert getattr(atlas, name) == getattr(other, name)
    assert dict(atlas.tokens) == dict(other.tokens)
    assert atlas.parts == other.parts
    for part, tables in atlas.scores.items():
        assert list(tables) == list(other.scores[part])
        for name, table in tables.items():
            torch.testing.assert_close(table, other.scores[part][name], rtol=0, atol=0, equal_nan=True)
    assert list(atlas.proofs) == list(other.proofs)
    assert list(atlas.examples) == list(other.examples)


@pytest.fixture
def uneven(made):
    """An atlas of two parts, with heads that are not there."""
    scores = {"encoder": {"previous": torch.tensor([[0.1, 0.9], [0.75, nan]])}, "cross": made.scores[""]}
    return dataclasses.replace(made, scores=scores, note="“A note”")


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_an_atlas_is_loaded_as_it_was_saved(made, uneven, suffix, tmp_path):
    for number, atlas in enumerate([made, uneven]):
        path = tmp_path / f"{number}.{suffix}"
        atlas.save(path)
        same(atlas, Atlas.load(path))
    assert made.examples
    assert {example.score for example in made.examples} <= set(SCORES)
    assert json.dumps(made.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"An atlas is read from a \.json or \.parquet file\. Got '.*a\.txt'\."),
        ("a.json", b"{", "a.json is damaged"),
        ("a.json", b'{"a": 1}', "a.json is no atlas: expected the format 'regard atlas 1'. Got None"),
        ("a.json", b'{"format": "regard atlas 1", "scores": {}}', "a.json is damaged: it holds no atlas"),
        ("a.parquet", b"PAR1", "a.parquet is no atlas, or is damaged"),
    ],
)
def test_a_file_that_is_no_atlas_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Atlas.load(tmp_path / name)
    with pytest.raises(OSError, match="No such file"):
        Atlas.load(tmp_path / "none.json")


def test_a_parquet_file_of_something_else_is_refused(tmp_path):
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="is no atlas, or is damaged"):
        Atlas.load(tmp_path / "a.parquet")


def test_pictures_and_other_files(made, tmp_path):
    for suffix, beginning in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        made.save(tmp_path / f"a.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes().startswith(beginning)
    with pytest.raises(ValueError, match=r"Expected a file that ends in \.html, \.png, \.svg, \.json or \.parquet"):
        made.save(tmp_path / "a.pdf")
    with pytest.raises(FileNotFoundError):
        made.save(tmp_path / "none" / "a.json")


def test_what_a_notebook_shows(made):
    assert "previous" in made._repr_html_()
    content, metadata = made._repr_png_()
    assert content.startswith(b"\x89PNG")
    assert made.model in metadata["alt"]


def test_tables_have_a_row_for_each_head_and_score(uneven):
    table = uneven.to_pandas()
    assert list(table.columns) == ["part", "layer", "head", "score", "value"]
    assert len(table) == 3 + 16 * len(uneven.scores["cross"])
    row = table[(table.part == "encoder") & (table.layer == 1)]
    assert row["value"].tolist() == [0.75]
    pd.testing.assert_frame_equal(uneven.to_arrow().to_pandas(), table, check_dtype=False)


def test_top_and_found(uneven):
    assert uneven.top("previous", 2, "encoder")[0][:3] == ("encoder", 0, 1)
    assert [head.value for head in uneven.found("previous")] == [pytest.approx(0.9), 0.75]
    assert len(uneven.top("previous", 9, "encoder")) == 3  # a head that is not there has no place
    assert uneven.found("entropy") == []


# Differences


def atlas_of(table, model="a", **more):
    return Atlas(model, f"weights of {model}", {"": {"previous": torch.tensor(table)}}, **more)


def test_a_difference_is_the_change_of_each_head(tmp_path):
    base, tuned = atlas_of([[0.1, 0.75], [nan, 0.5]], "base"), atlas_of([[0.2, 0.25], [nan, 0.9]], "tuned")
    change = difference(base, tuned)
    assert (change.against, change.model) == ("base", "tuned")
    torch.testing.assert_close(change.of("previous"), torch.tensor([[0.1, -0.5], [nan, 0.4]]), equal_nan=True)
    assert [head[1:3] for head in change.top("previous")] == [(0, 1), (1, 1), (0, 0)]
    assert change.top("previous", 1)[0].value == -0.5
    table = change.to_pandas()
    assert table[["base", "value", "change"]].round(4).to_numpy().tolist()[1] == [0.75, 0.25, -0.5]
    change.save(tmp_path / "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["change"][""]["previous"][1] == [None, pytest.approx(0.4)]
    change.save(tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").column_names == [
        "part", "layer", "head", "score", "base", "value", "change",
    ]  # fmt: skip


def test_models_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"difference: a has 1 × 2 .*, and b 2 × 1 .*: only models of the same shape"):
        difference(atlas_of([[0.1, 0.2]]), atlas_of([[0.1], [0.2]], "b"))
    other = Atlas("b", "", {"": {"next": torch.zeros(1, 2)}})
    with pytest.raises(ValueError, match="no score was measured both of a and of b"):
        difference(atlas_of([[0.1, 0.2]]), other)
    with pytest.raises(TypeError, match=r"atlas: expected an Atlas\. Got a str"):
        difference(atlas_of([[0.1, 0.2]]), "b.json")


def test_a_difference_says_what_makes_it_mean_little():
    one = atlas_of([[0.1]])
    assert difference(one, one).note == "Both have the same weights."
    other = atlas_of([[0.1]], "b", seed=1)
    assert difference(one, other).note == "The two were measured on other texts, so that small changes mean nothing."
    assert isinstance(difference(one, other), Difference)


# Runs


def test_readings_are_released_one_after_the_other(llama, monkeypatch):
    alive, read = [], Input.read

    def watched(self, *arguments):
        assert not any(reading() for reading in alive)
        reading, sample = read(self, *arguments)
        alive.append(weakref.ref(reading))
        return reading, sample

    monkeypatch.setattr(Input, "read", watched)
    llama.atlas(TEXTS, proof=False)
    assert len(alive) == 7


def test_progress_goes_from_stage_to_stage_and_never_back(planted):
    steps = []
    planted[0].atlas(WORDS, progress=lambda stage, share: steps.append((stage, share)))
    stages = [stage for stage, _ in steps]
    assert stages == sorted(stages)
    for stage in ("measuring", "proving"):
        shares = [share for name, share in steps if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)
    assert len({share for stage, share in steps if stage == "measuring"}) > 20  # also within a text


def stopped_at(stage, share):
    def stop(name, done):
        if name == stage and done >= share:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(("stage", "share"), [("measuring", 0.5), ("proving", 0.6)])
def test_a_run_that_was_stopped_goes_on(planted, made, stage, share, monkeypatch):
    lens, _ = planted
    kept = kept_at(lens, WORDS, 0)
    with pytest.raises(KeyboardInterrupt):
        lens.atlas(WORDS, resume=True, progress=stopped_at(stage, share))
    content = json.loads(kept.read_text())
    assert content["done"] > 0
    assert (len(content["proofs"]) > 0) == (stage == "proving")
    calls, measure = [], making.measure
    monkeypatch.setattr(making, "measure", lambda *given: calls.append(given) or measure(*given))
    again = lens.atlas(WORDS, resume=True)
    assert len(calls) == 2 * (6 - content["done"])  # of two layers
    same(made, again)
    assert not kept.exists()


def test_what_is_kept_is_of_these_weights_texts_and_seed(llama):
    paths = {
        kept_at(llama, TEXTS, 0),
        kept_at(llama, TEXTS, 1),
        kept_at(llama, TEXTS[:1], 0),
        kept_at(llama, None, 0),
        kept_at(regard.Lens(models.tiny("qwen3")), TEXTS, 0),
    }
    assert len(paths) == 5


@pytest.mark.parametrize("content", ["{", '{"done": 3}', "[]"])
def test_a_damaged_state_is_begun_anew(content, tmp_path):
    path = tmp_path / "state.json"
    path.write_text(content)
    assert (begun(path).path, begun(path).done) == (path, 0)


def test_nothing_is_kept_unasked(llama, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        llama.atlas(TEXTS, progress=stopped_at("measuring", 0.5))
    assert not (tmp_path / "cache").exists()
