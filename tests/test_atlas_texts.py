"""What an atlas reads: texts, random tokens that are repeated, needles and their answers."""

import pytest
import torch

import regard
from regard.atlas.needle import answers, needles
from regard.atlas.texts import check_pairs, default_pairs, default_texts, ordinary_tokens, repeated, texts
from support import decoder, models


@pytest.fixture(scope="module")
def embedded():
    return regard.Lens()


@pytest.fixture(scope="module", params=["llama", "gpt2", "gpt-oss", "roberta", "bert"])
def tiny(request):
    return regard.Lens(models.tiny(request.param))


def test_the_default_texts_are_of_many_kinds_of_tokens():
    for text in default_texts():
        assert 250 <= len(text.split()) <= 300
        for kind in (str.isdigit, str.isupper, ".".__eq__, '"'.__eq__, "\n".__eq__):
            assert any(map(kind, text)), kind
    for source, target in default_pairs():
        assert len(target) < len(source)


def test_texts_are_read_as_far_as_the_context_goes(tiny):
    for text in texts(tiny):
        assert len(text.ids) <= tiny.model.max_length
        reading, sample = text.read(tiny)
        assert torch.equal(reading.ids, text.ids)
        assert sample.text == "text"
        assert sample.rows.sum() == len(text.ids) - len(tiny.model.prefix_ids) - len(tiny.model.suffix_ids)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ("one text", TypeError, "expected a list of texts"),
        ([], ValueError, "there are none"),
        (["a", " \n"], ValueError, "text 1: the text is empty"),
        (["a", 3], TypeError, "text 1: expected a str"),
        ([("source", "target")], TypeError, "text 0: expected a str"),
    ],
)
def test_texts_that_cannot_be_read_are_named(embedded, given, kind, message):
    with pytest.raises(kind, match=message):
        texts(embedded, given)


def test_pairs_that_cannot_be_read_are_named():
    assert check_pairs([("a", "b")]) == [("a", "b")]
    with pytest.raises(TypeError, match=r"text 1: an encoder-decoder reads pairs \(source, target\)"):
        check_pairs([("a", "b"), "a"])
    with pytest.raises(ValueError, match="text 0: the text is empty"):
        check_pairs([("a", "")])


def test_random_tokens_are_ordinary_ones_repeated(embedded):
    model, ordinary = embedded.model, set(ordinary_tokens(embedded.model))
    sequences = repeated(embedded)
    assert len(sequences) == 4
    for sequence in sequences:
        ids = sequence.ids
        assert ids[:1].tolist() == model.prefix_ids
        assert ids[-1:].tolist() == model.suffix_ids
        periods = ids[1:-1].reshape(4, 64)
        assert (periods == periods[0]).all()
        assert len(set(periods[0].tolist())) == 64
        assert set(periods[0].tolist()) <= ordinary
    assert len({tuple(sequence.ids.tolist()) for sequence in sequences}) == 4


def test_the_seed_decides_the_tokens(embedded):
    first, again, other = (repeated(embedded, seed=seed)[0].ids for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_ordinary_tokens_are_neither_special_nor_added_nor_reserved(tiny):
    model = tiny.model
    ordinary = {model.tokenizer.id_to_token(id) for id in ordinary_tokens(model)}
    assert ordinary
    assert not ordinary & {"<pad>", "<s>", "<unk>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "<0x41>", None}


def test_the_rows_of_repeated_tokens_have_occurred_before(tiny):
    for sequence in repeated(tiny):
        assert len(sequence.ids) <= tiny.model.max_length
        _, sample = sequence.read(tiny)
        ids, rows = sample.ids, sample.rows.nonzero()[:, 0].tolist()
        assert len(rows) == 3 * sequence.period
        for row in rows:
            assert ids[row] == ids[row - sample.period]
            assert row - sample.period >= sample.first


def test_a_period_is_as_long_as_the_vocabulary_is_large(tmp_path):
    lens = regard.Lens(decoder.save_decoder(tmp_path))  # of 48 words and the token for others
    lens_tokens = repeated(lens)[0]
    assert lens_tokens.period == len(ordinary_tokens(lens.model)) < 64


def test_the_tokens_of_a_head_that_is_linear_have_directions(tmp_path):
    lens = regard.Lens(decoder.save_decoder(tmp_path))
    sequence = repeated(lens)[0]
    reading, sample = sequence.read(lens)
    unembedding = lens.model.head.unembedding.double()
    norm = lens.model.final_norm.weight.double()
    for n in (0, 5, 60):
        direction = sample.directions[sample.direction_of[n]]
        torch.testing.assert_close(direction, norm * unembedding[sample.ids[n]])
    assert repeated(regard.Lens())[0].read(regard.Lens())[1].directions is None  # it has no head
    assert len(sample.directions) == sequence.period
    assert reading.ids.tolist() == sequence.ids.tolist()


@pytest.fixture(scope="module")
def decoder_512():
    return decoder.with_words(positions=512)


def test_each_token_of_an_answer_has_its_place_in_the_needle(decoder_512):
    inputs = needles(decoder_512)
    assert len(inputs) == 8
    assert answers(inputs) >= 50
    for text in inputs:
        statement = text.text[text.text.index("The secret words of") :].partition(".")[0]
        words = statement.partition(" are ")[2].split(", ")
        assert text.text.endswith(f"Answer: {statement}")
        pieces, ids = text.encoded.pieces, text.ids
        places = text.answer[:, 1].tolist()
        assert "".join(pieces[place].removeprefix("##") for place in places) == "".join(words)
        assert (ids[text.answer[:, 0] + 1] == ids[text.answer[:, 1]]).all()
        assert max(places) < text.answer[0, 0]
        assert len(ids) <= 512
        _, sample = text.read(decoder_512)
        assert sample.text == "needle"
        assert sample.rows.nonzero()[:, 0].tolist() == text.answer[:, 0].tolist()


def test_needles_are_at_all_depths(decoder_512):
    inputs = needles(decoder_512)
    depths = [int(text.answer[0, 1]) / len(text.ids) for text in inputs]
    assert depths == sorted(depths)
    assert depths[0] < 0.05
    assert depths[-1] > 0.8
    assert len({text.text for text in inputs}) == 8


def test_a_context_without_room_has_no_needle():
    assert needles(regard.Lens(models.tiny("roberta"))) == []  # 20 positions
