"""Knockouts against the same models with dense attention, in which scores are set to −inf or heads to zero."""

import importlib
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

import regard
from regard.attribution import Target, knockout, knockouts
from support.headed import BODIES, bodied, eager, headed

TEXT = "the cat sat on the mat"
EXACT = 1e-5
bodies = pytest.mark.parametrize("name", BODIES)


def dense_run(model, ids, cuts=(), heads=(), fill="zero"):
    """The final states with scores (layer, head, i, j) at −inf, and heads (layer, head) at zero or at their mean."""
    calls = itertools.count()

    def attend(module, query, key, value, mask, scaling, position_bias=None, **_):
        layer, repeat = next(calls), query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
        scores = query @ key.mT * scaling
        scores = scores if position_bias is None else scores + position_bias
        scores = scores if mask is None else scores.masked_fill(mask < 0, -torch.inf)  # eager adds the lowest number
        for at, head, i, j in cuts:
            if at == layer:
                scores[0, head, i, j] = -torch.inf
        output = scores.softmax(-1).nan_to_num(0) @ value  # of a row of −inf alone: it takes nothing home
        for at, head in heads:
            if at == layer:
                output[:, head] = output[:, head].mean(1, keepdim=True) if fill == "mean" else 0
        return output.transpose(1, 2).contiguous(), None

    AttentionInterface.register("dense-with-cuts", attend)
    AttentionMaskInterface.register("dense-with-cuts", eager_mask)
    model = eager(model)
    model.set_attn_implementation("dense-with-cuts")
    with torch.no_grad():
        return model(input_ids=ids[None], return_dict=True).last_hidden_state[0]


@pytest.fixture(scope="module")
def opened():
    made = {}

    def open_one(name):
        if name not in made:
            model, tokenizer = bodied(name)
            made[name] = model, regard.Lens((model, tokenizer)).read(TEXT)
        return made[name]

    return open_one


def close(result, expected):
    assert float((result.reading.final - expected).abs().max()) <= EXACT * float(expected.abs().max())


def everywhere(reading, rows, columns, at=None):
    places = [(layer, head) for layer in range(reading.layers) for head in range(reading.heads)]
    return [(*place, i, j) for place in at or places for i in rows for j in columns]


def tokens(reading, word):
    return list(reading.word(word).tokens)


@bodies
def test_the_dense_model_of_these_tests_is_the_model(opened, name):
    model, reading = opened(name)
    assert torch.allclose(dense_run(model, reading.ids), reading.final, atol=1e-6)


@bodies
def test_one_edge_in_one_head(opened, name):
    model, reading = opened(name)
    for layer, head in ((0, 1), (1, 2)):
        result = knockout(reading, Target.word(reading, "mat"), edges=[("mat", "cat")], at=[(layer, head)])
        cuts = everywhere(reading, tokens(reading, "mat"), tokens(reading, "cat"), [(layer, head)])
        expected = dense_run(model, reading.ids, cuts)
        close(result, expected)
        rows = tokens(reading, "mat")
        present = reading.final[rows].mean(0)
        assert result.before == pytest.approx(float(present.norm()), rel=1e-6)
        assert result.after == pytest.approx(float(expected[rows].mean(0) @ present / present.norm()), rel=1e-5)
        assert result.change == result.after - result.before != 0
        weights = result.reading.attention[layer].weights.dense()
        assert not weights[head][rows][:, tokens(reading, "cat")].any()
        assert torch.allclose(weights.sum(-1), torch.ones_like(weights[..., 0]), atol=1e-6)


@bodies
@given(data=st.data())
@settings(max_examples=25)
def test_any_edges_anywhere(opened, name, data):
    model, reading = opened(name)
    ends = st.one_of(
        st.sampled_from([word.index for word in reading.words]).map(lambda n: reading.units[n]),
        st.integers(0, len(reading.tokens) - 1).map(reading.token),
        st.sampled_from([(0, 3), (5, 14), (0, len(TEXT))]),
        st.none(),
    )
    edges = data.draw(st.lists(st.tuples(ends, ends), min_size=1, max_size=3))
    places = st.tuples(st.integers(0, reading.layers - 1), st.integers(0, reading.heads - 1))
    at = data.draw(st.none() | st.lists(places, min_size=1, max_size=4, unique=True))

    def members(end):
        if end is None:
            return range(len(reading.tokens))
        if isinstance(end, tuple):
            return [n for n, token in enumerate(reading.tokens) if token.end > end[0] and token.start < end[1]]
        return end.tokens

    cuts = [cut for who, whom in edges for cut in everywhere(reading, members(who), members(whom), at)]
    result = knockout(reading, Target.sentence(reading, "mean"), edges=edges, at=at)
    close(result, dense_run(model, reading.ids, cuts))
    assert result.reading.hidden.isfinite().all()


@bodies
@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_heads(opened, name, fill):
    model, reading = opened(name)
    heads = [(0, 0), (1, 2), (1, 1)]
    result = knockout(reading, Target.word(reading, "mat"), heads=heads, fill=fill)
    close(result, dense_run(model, reading.ids, heads=heads, fill=fill))
    assert result.name == "layer 0 head 0 is off, layer 1 head 2 is off, layer 1 head 1 is off"
    cuts = everywhere(reading, tokens(reading, "mat"), tokens(reading, "the cat"))
    both = knockout(reading, Target.word(reading, "mat"), heads=heads, fill=fill, edges=[("mat", "the cat")])
    close(both, dense_run(model, reading.ids, cuts, heads, fill))


def test_layers_and_negative_numbers(opened):
    _, reading = opened("bert")
    target = Target.word(reading, "mat")
    whole = knockout(reading, target, edges=[("mat", "cat")], at=[1])
    heads = knockout(reading, target, edges=[("mat", "cat")], at=[(-1, head) for head in range(reading.heads)])
    assert whole.after == heads.after
    assert knockout(reading, target, heads=[(-1, -1)]).after == knockout(reading, target, heads=[(1, 5)]).after


def test_nothing_is_shaped_n_by_n(opened):
    for name in BODIES:
        _, reading = opened(name)
        result = knockout(reading, Target.sentence(reading, "mean"), edges=[("mat", "cat")])
        masks = [attention.weights.scores.mask.given for attention in result.reading.attention]
        assert masks
        assert not any(isinstance(mask, Tensor) for mask in masks)


@bodies
def test_text_that_no_one_sees(opened, name):
    model, reading = opened(name)
    target = Target.sentence(reading, "mean")
    for edges in ([(None, None)], [("cat", None)], [(None, "cat")]):
        result = knockout(reading, target, edges=edges)
        assert result.reading.hidden.isfinite().all()
        assert all(attention.output.isfinite().all() for attention in result.reading.attention)
    blind = knockout(reading, target, edges=[(None, None)])
    assert not any(attention.output.any() for attention in blind.reading.attention)
    close(
        blind,
        dense_run(model, reading.ids, everywhere(reading, range(len(reading.tokens)), range(len(reading.tokens)))),
    )


@bodies
def test_the_judge(opened, name, monkeypatch):
    model, reading = opened(name)
    target = Target.word(reading, "mat")
    changes = knockouts(reading, target)
    assert changes.shape == (len(reading.units),)
    for unit, change in zip(reading.units, changes.tolist(), strict=True):
        others = [n for n in range(len(reading.tokens)) if n not in unit.tokens]
        final = dense_run(model, reading.ids, everywhere(reading, others, unit.tokens))
        present = reading.final[tokens(reading, "mat")].mean(0)
        after = float(final[tokens(reading, "mat")].mean(0) @ present / present.norm())
        assert change == pytest.approx(after - float(present.norm()), abs=1e-5 * float(present.norm()))
    module = importlib.import_module("regard.attribution.knockout")
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 2 * len(reading.tokens))  # two at a time
    assert torch.allclose(knockouts(reading, target), changes, atol=1e-6)


def test_the_judge_of_a_prediction():
    reading = regard.Lens(headed("LlamaForCausalLM", "llama")).read(TEXT)
    sat = reading.word("sat")
    changes = knockouts(reading, Target.next_token(reading, 7, instead_of=9, position=sat.tokens[-1]))
    assert changes[: sat.index].all()  # everything before it counts
    assert not changes[sat.index :].any()  # and nothing after it; from itself it is not hidden


def test_the_judge_of_a_classifier():
    reading = regard.Lens(headed("GPT2ForSequenceClassification", "gpt2")).read(TEXT)
    target = Target.label(reading, "POSITIVE")
    changes = knockouts(reading, target)
    for n, word in enumerate(reading.words):
        others = [
            (token, word) for token in map(reading.token, range(len(reading.tokens))) if token.index != word.index
        ]
        assert changes[n] == pytest.approx(knockout(reading, target, edges=others).change, abs=1e-6)


def test_the_native_encoder(embedded_lens, tmp_path):
    reading = embedded_lens.read("Time flies like an arrow")
    target = Target.word(reading, "flies")
    result = knockout(reading, target, edges=[("flies", "arrow")], at=[(5, 11)])
    assert torch.equal(result.reading.hidden[:6], reading.hidden[:6]) or torch.allclose(
        result.reading.hidden[:6], reading.hidden[:6], atol=1e-5
    )
    row = reading.attention[5].weights[11, 2].clone()
    row[5] = 0
    assert torch.allclose(result.reading.attention[5].weights[11, 2], row / row.sum(), atol=1e-6)
    changes = knockouts(reading, target)
    edges = [(who, "arrow") for who in ("[CLS]", "Time", "flies", "like", "an", "[SEP]")]
    assert changes[5] == pytest.approx(knockout(reading, target, edges=edges).change, abs=1e-4)


def test_the_new_reading_is_a_reading(opened, tmp_path):
    _, reading = opened("bert")
    result = knockout(reading, edges=[("mat", "cat")])
    assert result.target.name == "the sentence's vector"
    assert result.reading.note == "Read with a knockout: “mat” may not look at “cat”."
    assert not result.reading.weights(0)[:, reading.word("mat").index, reading.word("cat").index].any()
    assert torch.equal(result.reading.unit_of_token, reading.unit_of_token)
    again = knockout(result.reading, result.target, heads=[(0, 0)])  # starts from the model, not from the knockout
    assert again.after == pytest.approx(knockout(reading, result.target, heads=[(0, 0)]).after)
    assert knockout(reading, edges=[(0, 1)]).name == "“the” may not look at “cat”"


# Bad input


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, ValueError, r"knockout: name the heads or the edges"),
        ({"edges": [("dog", "cat")]}, LookupError, r"There is no word 'dog' in the text. The nearest: "),
        ({"edges": [("cat", "the")]}, LookupError, r"“the” occurs twice; choose one with nth=1 or nth=2"),
        ({"edges": [("cat", 17)]}, LookupError, r"There is no word 17"),
        ({"edges": [((100, 200), "cat")]}, ValueError, r"no token between the characters 100 and 200: the text has 22"),
        ({"edges": ("cat", "mat")}, ValueError, r"edges: expected \(who, whom\) for each. Got 'cat'"),
        ({"edges": [("cat", "mat")], "at": [2]}, IndexError, r"There is no layer 2"),
        ({"edges": [("cat", "mat")], "at": [(1, 6)]}, IndexError, r"There is no head 6 in layer 1: .* heads 0 to 5"),
        ({"heads": [(2, 0)]}, IndexError, r"There is no layer 2: BertModel has layers 0 to 1"),
        ({"heads": [(0, -7)]}, IndexError, r"There is no head -7 in layer 0"),
        ({"heads": (0, 1)}, ValueError, r"heads: expected \(layer, head\) for each. Got 0"),
        ({"heads": [(0, 1)], "fill": "noise"}, ValueError, r"fill: expected 'zero' or 'mean'. Got 'noise'"),
    ],
)
def test_bad_input(opened, options, error, match):
    _, reading = opened("bert")
    with pytest.raises(error, match=match):
        knockout(reading, **options)


def test_words_and_targets_of_another_text(opened):
    _, reading = opened("bert")
    other = reading.lens.read("the mat is unbelievable")
    with pytest.raises(ValueError, match=r"'unbelievable' is a word of another text than 'the cat"):
        knockout(reading, edges=[("cat", other.word("unbelievable"))])
    with pytest.raises(ValueError, match=r"was made for another text"):
        knockout(reading, Target.sentence(other), edges=[("cat", "mat")])
