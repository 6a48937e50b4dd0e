"""Contextualised embeddings of texts: by token, word and sentence; and of files, as Parquet."""

import csv
import dataclasses
import itertools
import json
import pickle
import random

import numpy as np
import pytest
import torch
import transformers
from tokenizers import processors

import regard
from support import data
from support import models as fixtures
from support.models import ODD
from support.oracles import ranks, spearman

LONG = "Attention is a weighted average of what the words around bring with them. " * 30


@pytest.fixture(scope="module")
def lens():
    return regard.Lens()


@pytest.fixture(scope="module")
def varied():
    """64 texts of all lengths, some longer than the 256 tokens that the model makes sentence vectors of."""
    chance = random.Random(0)
    words = ["time", "flies", "like", "an", "arrow", "the", "newspaper", "antidisestablishmentarianism", "42", "isn't"]
    lengths = [1, 2, 3, 5, 8, 13, 21, 34, 55, 8, 3, 89, 5, 2, 13, 1, 300]
    texts = [" ".join(chance.choices(words, k=lengths[n % len(lengths)])) + chance.choice(".?!") for n in range(54)]
    return [*texts, *ODD, LONG, LONG[:-30]]


# Sentences


@pytest.mark.filterwarnings("default")  # of sentence-transformers and what it stands on
def test_sentences_are_those_of_sentence_transformers(lens, varied):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(fixtures.EMBEDDED), device="cpu")
    expected = model.encode(varied, batch_size=16, show_progress_bar=False)
    actual = lens.embed(varied, truncation="truncate")
    assert len(varied) == len(actual) == 64
    assert actual.vectors.shape == (64, 384)
    assert actual.vectors.dtype == np.float32
    cosines = (actual.vectors * expected).sum(-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() > 0.99999
    np.testing.assert_allclose(np.linalg.norm(actual.vectors, axis=-1), 1, atol=1e-6)
    long = [cut is not None for cut in actual.truncated]
    assert sum(long) >= 4
    assert all(0 < cut < len(text) for cut, text in zip(actual.truncated, varied, strict=True) if cut is not None)
    assert actual.spans == [[(0, cut or len(text))] for cut, text in zip(actual.truncated, varied, strict=True)]


def test_sts_benchmark(lens):
    file = data.required(data.STS)
    with open(file, encoding="utf-8", newline="") as lines:
        rows = [row[4:7] for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert len(rows) == 1500
    texts = list(dict.fromkeys(text for row in rows for text in row[1:]))
    vector = dict(zip(texts, torch.from_numpy(lens.embed(texts).vectors).double(), strict=True))
    scores = torch.tensor([[float(score), float(vector[a] @ vector[b])] for score, a, b in rows])
    assert spearman(*scores.double().T) == pytest.approx(0.867, abs=0.001)


def test_spearman():
    values = torch.tensor([1.0, 2, 2, 4, 5])
    assert ranks(values).tolist() == [1, 2.5, 2.5, 4, 5]
    assert spearman(values, values.exp()) == pytest.approx(1)
    assert spearman(values, -values) == pytest.approx(-1)


@pytest.mark.parametrize("pool", ["mean", "cls", "max"])
def test_how_a_sentence_is_made_of_its_tokens(lens, pool):
    states = lens.read(ODD[0]).hidden[-1]
    expected = {"mean": states.mean(0), "cls": states[0], "max": states.amax(0)}[pool]
    actual = torch.from_numpy(lens.embed(ODD[:1], pool=pool).vectors[0])
    torch.testing.assert_close(actual, expected / expected.norm(), atol=1e-5, rtol=0)


def test_a_model_that_says_nothing_of_sentences_gives_them_as_they_are(tmp_path):
    lens = regard.Lens(fixtures.saved("llama", tmp_path))
    text = "the cat sat"
    actual = torch.from_numpy(lens.embed([text], layers=1).vectors[0])
    torch.testing.assert_close(actual, lens.read(text).hidden[1].mean(0), atol=1e-5, rtol=0)
    describing(tmp_path, {"pooling_mode": "mean"}, kinds=("Transformer", "Pooling", "Normalize"), max_seq_length=5)
    actual = regard.Lens(tmp_path).embed([text], truncation="truncate")
    assert np.linalg.norm(actual.vectors[0]) == pytest.approx(1, abs=1e-5)
    assert actual.truncated == [6]  # <s> ▁the ▁ c a
    (tmp_path / "sentence_bert_config.json").write_text("{}")
    assert regard.Lens(tmp_path).embed([text]).truncated == [None]


# Tokens and words


def test_tokens_and_words_are_those_of_the_reading(lens):
    for text in (*ODD, LONG):
        reading = lens.read(text)
        tokens, words = (lens.embed([text], level=level) for level in ("token", "word"))
        assert tokens.spans[0] == [(t.start, t.end) for t in reading.tokens if t.end]
        assert words.spans[0] == [(word.start, word.end) for word in reading.words]
        of_text = reading.hidden[-1][[t.end > 0 for t in reading.tokens]]
        np.testing.assert_allclose(tokens.vectors[0], of_text, atol=1e-5)
        of_words = torch.stack([word.vectors[-1] for word in reading.words])
        np.testing.assert_allclose(words.vectors[0], of_words, atol=1e-5)
        assert tokens.truncated == words.truncated == [None]
        assert all(text[a:b].strip() == text[a:b] != "" for a, b in tokens.spans[0] + words.spans[0])


def test_words_of_a_long_text_are_cut_where_the_model_ends(lens):
    actual = lens.embed([LONG * 2], level="word", truncation="truncate")
    assert actual.truncated == [actual.spans[0][-1][1]]
    assert actual.vectors[0].shape == (len(actual.spans[0]), 384)


def test_layers(lens):
    states = lens.read(ODD[0]).hidden
    for layers, expected in ((0, states[0]), (-1, states[6]), (3, states[3]), ([1, -1], (states[1] + states[6]) / 2)):
        actual = lens.embed(ODD[:1], level="token", layers=layers)
        np.testing.assert_allclose(actual.vectors[0], expected[1:-1], atol=1e-5)
    assert lens.embed(ODD[:1], layers=np.int64(2)).vectors.shape == (1, 384)
    for layer in (7, -8):
        with pytest.raises(
            IndexError, match=rf"^embed: layers: expected 0 \(static\) to 6 \(the last\)\. Got {layer}\.$"
        ):
            lens.embed(ODD, layers=layer)


@pytest.mark.parametrize("name", ["embedded", "llama", "gpt2", "bert", "t5"])
def test_a_vector_does_not_depend_on_what_it_was_batched_with(lens, tmp_path, name):
    other = lens if name == "embedded" else regard.Lens(fixtures.saved(name, tmp_path))
    texts = ["the", "the cat sat on the mat", "Fruit flies like", "a", "banana, isn't it", "👍🏽 the"]
    for level in ("token", "word", "sentence"):
        together = other.embed(texts, level=level)
        alone = [other.embed([text], level=level) for text in texts]
        for actual, reading, spans in zip(together.vectors, alone, together.spans, strict=True):
            np.testing.assert_allclose(actual, reading.vectors[0], atol=1e-5)
            assert spans == reading.spans[0]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_few_tokens_at_a_time(tmp_path, name, monkeypatch):
    from regard.models import hidden_states, packed

    lens, texts, done = regard.Lens(fixtures.saved(name, tmp_path)), [*fixtures.TEXTS, "a cat", "the mat"], []
    actual = lens.embed(texts, "token")
    monkeypatch.setattr(hidden_states, "TOKENS_AT_ONCE", 12)
    monkeypatch.setattr(packed, "TOKENS_AT_ONCE", 12)
    few = lens.embed(texts, "token", progress=lambda texts, tokens: done.append(texts))
    assert sum(done) == len(texts)
    for first, second in zip(actual.vectors, few.vectors, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize(("layers", "inner"), [(-1, False), (2, False), (1, True), ("all", True)])
def test_no_states_are_kept_that_nobody_asks_for(monkeypatch, layers, inner):
    model, tokenizer = fixtures.tiny("llama")
    lens, calls = regard.Lens((model, tokenizer)), []
    monkeypatch.setattr(lens.model.states, "model", Calling(model, calls))
    lens.embed(["the cat", "a mat", "the cat sat on the mat"], "token", layers)
    assert calls
    assert {(call["output_hidden_states"], call["use_cache"]) for call in calls} == {(inner, False)}
    assert all(call["attention_mask"].all() for call in calls)  # nothing is padded


class Calling:
    """A model that writes down how it is called."""

    def __init__(self, model, calls):
        self.model, self.calls, self.device = model, calls, model.device

    def __call__(self, **arguments):
        self.calls.append(arguments)
        return self.model(**arguments)


def test_a_model_with_more_states_than_tokens_is_refused(monkeypatch):
    model, tokenizer = fixtures.tiny("llama")
    lens = regard.Lens((model, tokenizer))
    embed = model.get_input_embeddings()

    def with_virtual_tokens(input_ids, attention_mask, **options):
        tokens = torch.cat([torch.zeros(len(input_ids), 3, model.config.hidden_size), embed(input_ids)], 1)
        return model(inputs_embeds=tokens, **options)

    with_virtual_tokens.device = model.device
    monkeypatch.setattr(lens.model.states, "model", with_virtual_tokens)
    with pytest.raises(ValueError, match=r"^embed: LlamaModel adds 3 positions of its own to a text"):
        lens.embed(["a mat"], "word")


def test_spans_are_those_of_a_reading_where_the_tokenizer_trims_them():
    """RoBERTa's post-processor takes the space off a token's span, and of a token that is a space all of it."""
    model, tokenizer = fixtures.tiny("roberta")
    ends = ("<pad>", 0), ("<s>", 1)
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True)
    lens, text = regard.Lens((model, tokenizer)), "a saw  a mat"
    expected = [(token.start, token.end) for token in lens.read(text).tokens if not token.special]
    assert lens.embed([text], "token").spans == [expected]
    assert all(start < end for start, end in expected)


@pytest.mark.parametrize(
    ("name", "kind", "inner"),
    [
        ("bert", "BertForMaskedLM", "bert"),
        ("llama", "LlamaForCausalLM", "model"),
        ("gpt2", "GPT2LMHeadModel", "transformer"),
    ],
)
def test_the_states_below_a_head(name, kind, inner):
    """What predicts tokens gives logits in the place of the last layer's states."""
    model, tokenizer = fixtures.tiny(name)
    with_head = getattr(transformers, kind)(model.config).eval()
    getattr(with_head, inner).load_state_dict(model.state_dict(), strict=False)
    for layers in (-1, [0, 1]):
        expected = regard.Lens((model, tokenizer)).embed(["the cat", "a mat"], "word", layers).vectors
        vectors = regard.Lens((with_head, tokenizer)).embed(["the cat", "a mat"], "word", layers).vectors
        for text, other in zip(vectors, expected, strict=True):
            np.testing.assert_array_equal(text, other)


# Longer texts than the model takes


def by_hand(lens, text, size):
    """(before + tokens + after,dim), each token from the window in which it is farthest from both ends."""
    model = lens.model
    ids = model.tokenizer.encode(text, add_special_tokens=False).ids
    step, before = size // 2, len(model.prefix_ids)
    starts = [*range(0, len(ids) - size, step), len(ids) - size]
    read = [
        lens.model.forward(torch.tensor([[*model.prefix_ids, *ids[at : at + size], *model.suffix_ids]]), None).final[0]
        for at in starts
    ]
    best = [
        max(range(len(starts)), key=lambda n: min(i - starts[n], starts[n] + size - 1 - i)) for i in range(len(ids))
    ]
    last = len(starts) - 1
    states = [read[n][before + i - starts[n]] for i, n in enumerate(best)]
    return torch.stack([*read[0][:before], *states, *read[last][before + size :]])


@pytest.mark.parametrize("name", ["embedded", "bert", "gpt2"])
def test_long_texts_are_read_in_windows(lens, tmp_path, name):
    other = lens if name == "embedded" else regard.Lens(fixtures.saved(name, tmp_path))
    model = other.model
    text = LONG * 3 if name == "embedded" else "the cat sat on the mat, unbelievable, isn't it? " * 9
    special = len(model.prefix_ids) + len(model.suffix_ids)
    actual = other.embed([text], level="token")
    expected = by_hand(other, text, model.max_length - special)
    assert actual.truncated == [None]
    assert actual.windows[0] > 2
    assert actual.spans[0][-1][1] in (len(text.rstrip()), len(text))  # in some alphabets a space is a token
    inner = expected[len(model.prefix_ids) : len(expected) - len(model.suffix_ids)]
    np.testing.assert_allclose(actual.vectors[0], inner.detach().numpy(), atol=2e-5)
    for pool in ("mean", "max"):
        states = by_hand(other, text, model.pooling.max_length - special)
        wanted = states.mean(0) if pool == "mean" else states.amax(0)
        wanted = wanted / wanted.norm() if name == "embedded" else wanted
        sentence = other.embed([text], pool=pool)
        np.testing.assert_allclose(sentence.vectors[0], wanted.detach().numpy(), atol=2e-5)
        assert sentence.spans == [[(0, len(text))]]


@pytest.mark.parametrize("pool", ["cls", "last"])
def test_of_several_windows_each_has_its_share_in_the_first_and_last_vectors(lens, pool):
    """Texts that differ only past the limit have different vectors; the rule, by hand."""
    text, model = LONG * 2, lens.model
    other = text[:-60] + "and something quite different at its very end."
    vector, another = lens.embed([text, other], pool=pool).vectors
    assert vector @ another < 0.9999
    ids, size = model.tokenizer.encode(text, add_special_tokens=False).ids, 254
    starts = [*range(0, len(ids) - size, 127), len(ids) - size]
    ends = [0, *((n + m + size + 1) // 2 for n, m in itertools.pairwise(starts)), len(ids)]
    read = [model.forward(torch.tensor([[101, *ids[at : at + size], 102]]), None)[0][-1][0] for at in starts]
    tokens = [last - first for first, last in itertools.pairwise(ends)]
    wanted = sum(n * states[0 if pool == "cls" else -1] for n, states in zip(tokens, read, strict=True))
    np.testing.assert_allclose(vector, (wanted / wanted.norm()).detach(), atol=2e-5)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_every_window_begins_with_the_prompt(lens, pool):
    text = "word " * 300
    plain, asked, actual = (
        lens.embed([text], pool=pool, prompt_text=prompt) for prompt in ("", "question: ", "answer: ")
    )
    assert plain.windows == asked.windows == [2]
    assert (asked.tokens[0] - plain.tokens[0]) % 2 == 0
    assert actual.vectors[0] @ asked.vectors[0] < 0.999  # else the last window would not know what is asked
    assert asked.spans == [[(0, len(text))]]


def test_too_long_is_an_error_where_that_is_asked(lens):
    message = r"^embed: text 1: it has 302 tokens, and all-MiniLM-L6-v2 takes at most 256\.$"
    with pytest.raises(ValueError, match=message):
        lens.embed(["short", "word " * 300], truncation="error")
    assert lens.embed(["word " * 300], level="word", truncation="error").windows == [1]


# How vectors are made


def test_layers_mixed(lens):
    states = lens.read(ODD[0]).hidden[:, 1:-1]
    for layers, mix, expected in (
        ([1, -1], "mean", (states[1] + states[6]) / 2),
        ([1, -1], "concatenate", torch.cat((states[1], states[6]), 1)),
        ("all", "mean", states.mean(0)),
        ("all", "concatenate", states.transpose(0, 1).flatten(1)),
    ):
        actual = lens.embed(ODD[:1], level="token", layers=layers, aggregate=mix)
        np.testing.assert_allclose(actual.vectors[0], expected, atol=1e-5)


def test_words_of_several_tokens(lens):
    text = "unhappinesses antidisestablishmentarianism"
    tokens = lens.embed([text], level="token").vectors[0]
    ends = [len([1 for start, _ in lens.embed([text], level="token").spans[0] if start < 13])]
    first, second = np.split(tokens, ends)
    assert len(first) > 1
    assert len(second) > 2
    for subwords, expected in (
        ("mean", [first.mean(0), second.mean(0)]),
        ("first", [first[0], second[0]]),
        ("last", [first[-1], second[-1]]),
        ("first-last", [np.concatenate((first[0], first[-1])), np.concatenate((second[0], second[-1]))]),
    ):
        actual = lens.embed([text], level="word", subtoken_pooling=subwords)
        np.testing.assert_allclose(actual.vectors[0], np.stack(expected), atol=1e-5)


def test_parts_have_seen_the_whole(lens):
    text = "Berlin is the capital of Germany. The city has 3.7 million inhabitants."
    parts = [(0, 33), (34, len(text))]
    actual = lens.embed([text, "One more."], spans=[parts, []])
    assert actual.spans == [parts, []]
    assert [array.shape for array in actual.vectors] == [(2, 384), (0, 384)]
    tokens = lens.embed([text], level="token")
    starts = np.array([start for start, _ in tokens.spans[0]])
    for vector, (start, end) in zip(actual.vectors[0], parts, strict=True):
        expected = tokens.vectors[0][(start <= starts) & (starts < end)].mean(0)
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
    alone = lens.embed([text[34:]]).vectors[0]
    assert actual.vectors[0][1] @ lens.embed(["Berlin"]).vectors[0] > alone @ lens.embed(["Berlin"]).vectors[0]
    with pytest.raises(ValueError, match=r"^embed: text 0: no token begins between the characters 6 and 7\.$"):
        lens.embed([text], spans=[[(6, 7)]])


def test_words_that_are_given(lens):
    texts = ["Don't stop \u200b me", "no words given"]
    given = [[(0, 2), (2, 5), (6, 10), (11, 12)], None]  # Do n't stop, and a sign that is no token
    actual = lens.embed(texts, "word", spans=given)
    assert actual.spans == [given[0][:3], [(0, 2), (3, 8), (9, 14)]]
    tokens = lens.embed(texts, "token")
    assert tokens.spans[0] == [(0, 3), (3, 4), (4, 5), (6, 10), (13, 15)]
    expected = tokens.vectors[0]
    np.testing.assert_allclose(actual.vectors[0], [expected[0], expected[:3].mean(0), expected[3]], atol=1e-6)


def test_bfloat16(lens, varied):
    if lens.model.fastest_dtype != torch.bfloat16:
        pytest.skip("this processor has no instructions for bfloat16")
    exact, actual = (lens.embed(varied, dtype=dtype).vectors for dtype in ("float32", "auto"))
    assert (exact * actual).sum(-1).min() > 0.999
    np.testing.assert_array_equal(actual, lens.embed(varied, dtype="bfloat16").vectors)
    assert np.abs(exact - actual).max() > 1e-4


def test_to_the_bit_whatever_is_beside_it(lens, varied):
    if lens.model.fastest_dtype != torch.bfloat16 and regard.models.linear._kernel is None:
        pytest.skip("regard was installed without its kernel")
    together = lens.embed(varied).vectors
    for n in range(0, len(varied), 5):
        np.testing.assert_array_equal(lens.embed([varied[n]]).vectors[0], together[n])
    np.testing.assert_array_equal(lens.embed(varied[::-1]).vectors[::-1], together)


def describing(folder, pooling, prompts=None, kinds=("Transformer", "Pooling"), **settings):
    """A folder that says as sentence-transformers' do how sentence vectors are made."""
    modules = [
        {
            "idx": n,
            "name": str(n),
            "path": f"{n}_{kind}" if n else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 24, **pooling}))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 30, "do_lower_case": False} | settings)
    )
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts or {}))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cls_token": "[CLS]", "sep_token": "[SEP]"}))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("pooling", "more"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {}),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, {}),
        ({"pooling_mode": "lasttoken"}, {}),
        ({"pooling_mode": "mean"}, {"prompts": {"query": "the mat: ", "plain": ""}, "default_prompt_name": "query"}),
        (
            {"pooling_mode": "mean", "include_prompt": False},
            {"prompts": {"query": "the mat: "}, "default_prompt_name": "query"},
        ),
    ],
    ids=["cls", "max", "last", "prompt", "prompt left out"],
)
def test_as_the_folder_says(tmp_path, pooling, more):
    from sentence_transformers import SentenceTransformer

    describing(fixtures.saved("bert", tmp_path), pooling, more)
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(fixtures.TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(regard.Lens(tmp_path).embed(fixtures.TEXTS).vectors, expected, atol=1e-5)
    if "prompts" in more and "plain" in more["prompts"]:
        lens, model = regard.Lens(tmp_path), SentenceTransformer(str(tmp_path), device="cpu")
        expected = model.encode(fixtures.TEXTS, prompt_name="plain", show_progress_bar=False)
        np.testing.assert_allclose(lens.embed(fixtures.TEXTS, prompt="plain").vectors, expected, atol=1e-5)


def test_what_the_folder_says_and_regard_does_not_compute(tmp_path):
    describing(fixtures.saved("bert", tmp_path), {"pooling_mode": "mean"}, kinds=("Transformer", "Pooling", "LSTM"))
    lens = regard.Lens(tmp_path)
    for pool in (None, "mean"):
        with pytest.raises(
            ValueError, match="makes sentence vectors with its module LSTM, which regard does not compute"
        ):
            lens.embed(["the cat"], pool=pool)
    assert lens.embed(["the cat"], level="word").vectors[0].shape == (2, 24)
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(ValueError, match=r"modules\.json is damaged"):
        regard.Lens(tmp_path)


# Texts that cannot be embedded, and texts that are there twice


def test_texts_are_checked_before_the_work_begins(lens, monkeypatch):
    monkeypatch.setattr("regard.lens.embed._TOKENIZED_AT_ONCE", 2)
    done, texts = [], ["a", "b", "c", "", "word " * 300, "\x00", "a"]
    with pytest.raises(ValueError, match=r"^embed: text 3: the text is empty\.$") as error:
        lens.embed(texts, truncation="error", progress=lambda texts, tokens: done.append(texts))
    assert set(error.value.reasons) == {3, 4, 5}
    assert not done
    with pytest.raises(ValueError, match=r"^embed: text 1: no token begins between the characters 7 and 9"):
        lens.embed(["a", "two texts"], spans=[[(0, 1)], [(0, 3), (7, 9)]], progress=lambda *_: done.append(1))
    assert not done


@pytest.mark.parametrize("level", ["sentence", "word", "token"])
def test_texts_left_out(lens, level):
    texts = ["a mat", "", "the cat", "\ud800"]
    actual = lens.embed(texts, level, on_error="skip")
    alone = lens.embed([texts[0], texts[2]], level)
    assert actual.errors == {
        1: "embed: text 1: the text is empty.",
        3: "embed: text 3: the text is not valid Unicode at character 0.",
    }
    assert len(actual) == 4
    for n, m in ((0, 0), (2, 1)):
        np.testing.assert_array_equal(actual.vectors[n], alone.vectors[m])
        assert actual.spans[n] == alone.spans[m]
    for n in (1, 3):
        assert not actual.vectors[n].any()
        assert actual.vectors[n].shape == ((384,) if level == "sentence" else (0, 384))
        assert (actual.spans[n], actual.truncated[n], actual.windows[n], actual.tokens[n]) == ([], None, 0, 0)
    assert lens.embed(["", " "], level, on_error="skip").errors.keys() == {0, 1}
    assert lens.embed(["a", "b"], level, on_error="skip").errors == {}


def not_finite(lens, monkeypatch, value):
    """The lens, with a model that gives `value` for texts in which "newspaper" stands."""
    model, ids = lens.model, lens.model.tokenizer.encode("newspaper", add_special_tokens=False).ids

    def states(pieces, layers, dtype):
        for n, hidden in model.states(pieces, layers, dtype):
            broken = ids[0] in pieces[n]
            yield n, {layer: tensor * value if broken else tensor for layer, tensor in hidden.items()}

    monkeypatch.setattr(lens, "model", dataclasses.replace(model, states=states))
    return lens


@pytest.mark.parametrize(("value", "called"), [(torch.nan, "nan"), (torch.inf, "infinity")])
@pytest.mark.parametrize("level", ["sentence", "token"])
def test_what_is_not_a_number_is_an_error(lens, monkeypatch, value, called, level):
    broken = not_finite(lens, monkeypatch, value)
    texts = ["a mat", "a newspaper", "the cat"]
    message = f"embed: text 1: all-MiniLM-L6-v2 gives {called} for it."
    if level == "sentence":
        message = message.replace("infinity", "nan")  # to unit length
    with pytest.raises(ValueError, match=f"^{message}$"):
        broken.embed(texts, level)
    actual = broken.embed(texts, level, on_error="skip")
    assert actual.errors == {1: message}
    assert all(np.isfinite(vectors).all() for vectors in actual.vectors)


def test_identical_texts_are_computed_once(lens, monkeypatch):
    model, read = lens.model, []

    def states(pieces, layers, dtype):
        read.extend(pieces)
        return model.states(pieces, layers, dtype)

    monkeypatch.setattr(lens, "model", dataclasses.replace(model, states=states))
    done, texts = [], ["a mat", "the cat", "a mat", LONG, "a mat", LONG]
    actual = lens.embed(texts, progress=lambda texts, tokens: done.append((texts, tokens)))
    assert len(read) == 2 + actual.windows[3]
    assert sum(texts for texts, _ in done) == len(texts)
    for n, m in ((0, 2), (0, 4), (3, 5)):
        np.testing.assert_array_equal(actual.vectors[n], actual.vectors[m])
    words = lens.embed(["a mat", "a mat"], "word", spans=[[(0, 1)], None])
    assert words.spans == [[(0, 1)], [(0, 1), (2, 5)]]


# Sentence vectors otherwise than the folder says


def test_poolings_one_after_the_other(lens):
    cls, largest = (lens.embed(ODD[:1], pool=pool).vectors[0] for pool in ("cls", "max"))
    actual = lens.embed(ODD[:1], pool=["cls", "max"]).vectors[0]
    assert actual.shape == (768,)
    assert np.linalg.norm(actual) == pytest.approx(1, abs=1e-6)
    for half, alone in ((actual[:384], cls), (actual[384:], largest)):
        np.testing.assert_allclose(half / np.linalg.norm(half), alone, atol=1e-6)


def test_the_first_numbers_of_a_vector(lens):
    whole = lens.embed(ODD).vectors
    np.testing.assert_array_equal(lens.embed(ODD, dims=100).vectors, whole[:, :100])
    actual = lens.embed(ODD[:1], dims=3, spans=[[(0, 5), (6, 11)]])
    np.testing.assert_array_equal(actual.vectors[0], lens.embed(ODD[:1], spans=[[(0, 5), (6, 11)]]).vectors[0][:, :3])


def test_any_prompt(lens):
    actual = lens.embed(["the cat"], prompt_text="the mat and ")
    np.testing.assert_allclose(actual.vectors[0], lens.embed(["the mat and the cat"]).vectors[0], atol=1e-6)
    assert actual.spans == [[(0, 7)]]


@pytest.mark.parametrize("name", ["embedded", "folder", "pair"])
def test_a_lens_can_be_pickled(lens, tmp_path, monkeypatch, name):
    if name == "folder":
        monkeypatch.chdir(fixtures.saved("bert", tmp_path).parent)
        other = regard.Lens(tmp_path.name)
    else:
        other = lens if name == "embedded" else regard.Lens(fixtures.tiny("llama"))
    pickled = pickle.dumps(other)
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    assert repr(again) == repr(other)
    np.testing.assert_array_equal(again.embed(["the cat"]).vectors, other.embed(["the cat"]).vectors)


def test_no_texts(lens):
    for level in ("token", "word", "sentence"):
        assert len(lens.embed([], level=level)) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": "one"}, TypeError, "^embed: expected a list of texts. Got a str.$"),
        ({"texts": ["a", ""]}, ValueError, "^embed: text 1: the text is empty.$"),
        ({"texts": ["a", None]}, TypeError, "^embed: text 1: expected a str. Got NoneType.$"),
        ({"texts": ["\ud800"]}, ValueError, "^embed: text 0: the text is not valid Unicode at character 0.$"),
        (
            {"texts": ["\x00"], "names": ["line 7"]},
            ValueError,
            "^embed: line 7: the text contains no tokens for all-MiniLM-L6-v2: ",
        ),
        ({"level": "page"}, ValueError, "^embed: level: expected 'token', 'word' or 'sentence'. Got 'page'.$"),
        ({"pool": "sum"}, ValueError, "^embed: pool: expected 'mean', 'cls', .* or 'mean_sqrt_len'. Got"),
        ({"aggregate": "sum"}, ValueError, "^embed: aggregate: expected 'mean' or 'concatenate'. Got 'sum'.$"),
        (
            {"subtoken_pooling": "sum"},
            ValueError,
            "^embed: subtoken_pooling: expected 'mean', 'first', 'last' or 'first-last'. Got",
        ),
        ({"truncation": "no"}, ValueError, "^embed: truncation: expected 'windows', 'truncate' or 'error'. Got 'no'.$"),
        (
            {"dtype": "int4"},
            ValueError,
            "^embed: dtype: expected 'float32', 'bfloat16', 'int8' or 'auto'. Got 'int4'.$",
        ),
        ({"layers": "some"}, ValueError, "^embed: layers: expected numbers or 'all'. Got 'some'.$"),
        ({"prompt": "query"}, ValueError, r"^embed: prompt: expected a prompt that all-MiniLM-L6-v2 has \(none\). Got"),
        ({"prompt": "query", "level": "word"}, ValueError, "^embed: prompt= can only be used with level='sentence'.$"),
        (
            {"spans": []},
            ValueError,
            r"^embed: spans= cannot be used with level='token' and needs one entry per text \(1\).$",
        ),
        ({"layers": []}, ValueError, "^embed: layers: expected at least one layer. Got none.$"),
        ({"layers": True}, TypeError, "^embed: layers: expected whole numbers or 'all'. Got True.$"),
        ({"texts": None}, TypeError, "^embed: expected a list of texts. Got a NoneType.$"),
        ({"pool": 3}, TypeError, "^embed: pool: expected a pooling mode, or several. Got 3.$"),
        ({"dims": "8"}, TypeError, "^embed: dims: expected a whole number. Got '8'.$"),
        ({"layers": np.array([0, 9])}, IndexError, r"^embed: layers: expected 0 \(static\) to 6 \(the last\). Got 9.$"),
        ({"layers": [1, 1.5]}, TypeError, "^embed: layers: expected whole numbers or 'all'. Got 1.5.$"),
        ({"pool": []}, ValueError, "^embed: pool: expected at least one pooling mode. Got none.$"),
        ({"dims": 0}, ValueError, "^embed: dims: expected a positive number. Got 0.$"),
        (
            {"dims": 385},
            ValueError,
            "^embed: dims: expected at most 384, the size of all-MiniLM-L6-v2's vectors. Got 385.$",
        ),
        ({"dims": 8, "level": "token"}, ValueError, "^embed: dims= can only be used with level='sentence'.$"),
        ({"prompt_text": "a", "prompt": "b"}, ValueError, "^embed: prompt= and prompt_text= cannot be used together"),
        (
            {"prompt_text": "word " * 300},
            ValueError,
            "^embed: text 0: .* takes at most 256 tokens, and the special tokens and the prompt take 302",
        ),
        ({"on_error": "stop"}, ValueError, "^embed: on_error: expected 'raise' or 'skip'. Got 'stop'.$"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_what_cannot_be_embedded(lens, arguments, error, message):
    with pytest.raises(error, match=message):
        lens.embed(**{"texts": ["a text"], **arguments})


def test_old_names_of_options_still_work(lens):
    text = "An unbelievable arrow"
    old = {"layers": [1, 2], "mix": "concatenate", "subwords": "first", "parts": [[(3, 15)]]}
    new = {"layers": [1, 2], "aggregate": "concatenate", "subtoken_pooling": "first", "spans": [[(3, 15)]]}
    with pytest.warns(DeprecationWarning, match=r"^embed: (mix|subwords|parts)= is now called ") as warned:
        actual = lens.embed([text], "word", **old)
    assert len(warned) == 3
    assert {warning.filename for warning in warned} == {__file__}
    np.testing.assert_array_equal(actual.vectors[0], lens.embed([text], "word", **new).vectors[0])
    with pytest.warns(
        DeprecationWarning, match=r"^embed: truncation='cut' is now called truncation='truncate'\.$"
    ) as truncating:
        actual = lens.embed([LONG * 2], truncation="cut")
    assert truncating[0].filename == __file__
    assert actual.truncated == lens.embed([LONG * 2], truncation="truncate").truncated != [None]
    with pytest.warns(DeprecationWarning, match="RefusedError is now called RejectedTextsError"):
        assert regard.lens.embed.RefusedError is regard.lens.RejectedTextsError
