"""The methods side by side: each column is what its method says, and the rank correlation is Spearman's."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import regard
from regard import attribution
from regard.attribution import Target
from regard.attribution.agreement import METHODS, rank_correlation
from support.headed import headed

ARROW = "Time flies like an arrow"


@pytest.fixture(scope="module")
def reading():
    return regard.Lens().read(ARROW)


@pytest.fixture(scope="module")
def decoder():
    return regard.Lens(headed("GPT2LMHeadModel", "gpt2", torch.float32))


numbers = st.lists(st.integers(-3, 3), min_size=3, max_size=9)


def ranks(values):
    """By the definition: 1 + how many are smaller, and half of the others that are equal."""
    return [1 + sum(y < x for y in values) + (sum(y == x for y in values) - 1) / 2 for x in values]


@given(numbers, st.randoms(use_true_random=False))
def test_the_rank_correlation_is_that_of_pearson_between_ranks(values, random):
    others = random.sample(values, len(values))
    x, y = torch.tensor(ranks(values)).double(), torch.tensor(ranks(others)).double()
    result = rank_correlation(torch.tensor(values).double(), torch.tensor(others).float())
    if len(set(values)) == 1:
        assert math.isnan(result)
    else:
        assert result == pytest.approx(float(torch.corrcoef(torch.stack([x, y]))[0, 1]), abs=1e-12)


def test_an_order_that_cannot_be_known():
    assert math.isnan(rank_correlation(torch.ones(5), torch.rand(5)))
    assert math.isnan(rank_correlation(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])))


def test_each_column_is_what_its_method_says(reading):
    target = Target.word(reading, "flies")
    side = attribution.agreement(reading, target)
    assert torch.equal(side.knockout, -attribution.knockouts(reading, target))
    rows = torch.zeros(7, dtype=torch.float64)
    rows[2] = 1
    expected = {
        "weights, rollout": attribution.rollout(reading, word="flies").units,
        "norms, rollout": attribution.rollout(reading, word="flies", of="norms").units,
        "gradient": attribution.relevance(reading, target).tokens - rows,
    }
    assert list(side.relevance) == list(expected)
    for name, column in expected.items():
        assert torch.allclose(side.relevance[name].double(), column.double()), name
    assert side.judged.tolist() == [False, True, False, True, True, True, False]
    judged = [1, 3, 4, 5]
    for name, column in expected.items():
        rho = rank_correlation(column[judged].abs(), side.knockout[judged].abs())
        assert side.correlation[name] == pytest.approx(rho)
    assert side.left_out.keys() == METHODS.keys() - expected.keys() == {"logits"}
    assert "next token" in side.left_out["logits"]


def test_a_target_that_reads_all_tokens_judges_all_words(reading):
    side = attribution.agreement(reading, Target.sentence(reading))
    assert side.judged.tolist() == [False, True, True, True, True, True, False]


def test_words_of_several_tokens_have_the_sum_of_theirs():
    reading = regard.Lens().read("An antidisestablishmentarianism flies")
    target = Target.sentence(reading)
    side = attribution.agreement(reading, target)
    rolled = attribution.rollout(reading, tokens=range(len(reading.tokens))).tokens
    tokens = list(reading.units[2].tokens)
    assert len(tokens) > 1
    assert float(side.relevance["weights, rollout"][2]) == pytest.approx(float(rolled[tokens].sum()))


def test_the_logits_of_all_layers_and_heads(decoder):
    reading = decoder.read("the cat sat on the mat")
    target = Target.next_token(reading)
    side = attribution.agreement(reading, target)
    assert side.left_out == {}
    added = sum(attribution.logits(reading, target, layer).dense().double()[:, -1].sum(0) for layer in range(2))
    assert torch.allclose(side.relevance["logits"].double(), reading.by_unit(added), rtol=1e-5, atol=1e-6)
    assert not side.judged[-1]


@pytest.mark.parametrize("head", [None, 11])
@pytest.mark.parametrize("layer", [2, 5])
def test_the_maps_of_one_layer(reading, layer, head):
    target = Target.word(reading, "flies")
    side = attribution.agreement(reading, target, layer, head)
    heads = slice(None) if head is None else slice(head, head + 1)
    for name in ("weights", "value-weighted"):
        row = attribution.map_of(reading, name, layer).dense()[heads, 2].mean(0)
        assert torch.allclose(side.relevance[name], row, rtol=1e-5), name
    received = attribution.gradient(reading, target, layer).dense()[heads].sum(1).mean(0)
    assert torch.allclose(side.relevance["gradient"], received, rtol=1e-4, atol=1e-7)
    assert ("norms" in side.left_out) == (head is not None)
    if head is None:
        assert torch.allclose(side.relevance["norms"], attribution.norms(reading, layer).dense()[2], rtol=1e-5)
    at = [layer if head is None else (layer, head)]
    for unit in reading.units:
        edges = [(reading.token(n), reading.token(unit.tokens[0])) for n in range(7) if n != unit.index]
        change = attribution.knockout(reading, target, edges=edges, at=at).change
        assert float(side.knockout[unit.index]) == pytest.approx(-change, abs=1e-5)


def test_the_logits_of_one_layer(decoder):
    reading = decoder.read("the cat sat on the mat")
    target = Target.next_token(reading)
    added = attribution.logits(reading, target, 1).dense()[:, -1]
    side = attribution.agreement(reading, target, -1)
    assert torch.allclose(side.relevance["logits"], reading.by_unit(added.sum(0)), rtol=1e-5, atol=1e-6)
    side = attribution.agreement(reading, target, 1, 2)
    assert torch.allclose(side.relevance["logits"], reading.by_unit(added[2]), rtol=1e-5, atol=1e-6)


def test_layers_and_heads_that_are_not_there(reading):
    target = Target.sentence(reading)
    for bad in ((6, None), (0, 12), (-7, None)):
        with pytest.raises(IndexError, match=r"There is no (layer|head)"):
            attribution.agreement(reading, target, *bad)
    with pytest.raises(ValueError, match="head: give the layer that it is a head of"):
        attribution.agreement(reading, target, head=3)


def test_progress_counts_every_unit(reading):
    steps = []
    attribution.agreement(reading, Target.sentence(reading), advance=steps.append)
    assert sum(steps) == len(reading.units)


def test_as_json(reading):
    side = attribution.agreement(reading, Target.sentence(reading))
    loaded = json.loads(json.dumps(side.to_dict()), parse_constant=pytest.fail)
    assert loaded["correlation"] == pytest.approx(side.correlation)
    few = attribution.agreement(short := reading.lens.read("Hi"), Target.sentence(short))
    assert set(json.loads(json.dumps(few.to_dict()), parse_constant=pytest.fail)["correlation"].values()) == {None}


def test_a_reading_that_cannot_be_read_again(reading):
    import dataclasses

    alone = dataclasses.replace(reading, lens=None)
    with pytest.raises(ValueError, match="read the text with a Lens"):
        attribution.agreement(alone, Target.sentence(reading))
