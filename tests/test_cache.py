"""What methods of eviction go by and what they lose: against their equations on dense weights, and eager attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regard
import regard.hf
from regard.hf import cache
from support.eviction import dense_h2o, dense_kept, dense_kvzip, dense_snapkv, dense_tova
from support.headed import headed
from support.transformers_models import DECODERS, batch, both, make


def dense_of(weights):
    return weights.dense().double()


def close(actual, expected):
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


sizes = st.tuples(st.integers(1, 2), st.sampled_from([(1, 1), (2, 1), (6, 3), (3, 3)]), st.integers(2, 23))


@pytest.fixture(params=[0, cache.FEW], ids=["of many", "of few"])
def _few(request, monkeypatch):
    """Sums over few queries are made of their rows, those over many without; both have to agree."""
    monkeypatch.setattr(cache, "FEW", request.param)


def weights_of(size, seed=0, **options):
    batch, (heads, groups), tokens = size
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, tokens, 7, generator=generator)
    key = torch.randn(batch, groups, tokens, 7, generator=generator)
    return regard.attention(2 * query, key, key, causal=True, **options).weights, groups


@pytest.mark.usefixtures("_few")
@settings(max_examples=30)
@given(sizes, st.data())
def test_the_equations(size, data):
    weights, groups = weights_of(size, window=data.draw(st.sampled_from([None, (4, None)])))
    total = size[2]
    tokens = data.draw(st.integers(1, total))
    dense = dense_of(weights)[:, :, :tokens, :tokens]
    window, kernel = data.draw(st.integers(1, 30)), data.draw(st.sampled_from([1, 3, 7]))
    close(cache.h2o(weights, window, tokens), dense_h2o(dense, groups, window))
    close(cache.tova(weights, tokens), dense_tova(dense, groups))
    for pooling in ("mean", "max"):
        ours = cache.snapkv(weights, window, kernel, pooling, tokens)
        close(ours, dense_snapkv(dense, groups, window, kernel, pooling))
    if tokens < total:
        close(cache.kvzip(weights, tokens), dense_kvzip(dense_of(weights), groups, tokens))


@pytest.mark.usefixtures("_few")
@settings(max_examples=30)
@given(sizes, st.data())
def test_the_mass_that_keys_receive(size, data):
    weights, _ = weights_of(size)
    tokens = data.draw(st.integers(1, size[2]))
    last = data.draw(st.integers(1, tokens))
    dense = dense_of(weights)[:, :, tokens - last : tokens, :tokens]
    seen = (torch.arange(tokens) <= torch.arange(tokens - last, tokens)[:, None]).sum(0)
    close(cache.received(weights, last=last, tokens=tokens), dense.sum(2))
    close(cache.received(weights, "max", last=last, tokens=tokens), dense.amax(2))
    close(cache.received(weights, "mean", last=last, tokens=tokens), dense.sum(2) / seen)
    if last == tokens == size[2]:
        close(cache.received(weights), weights.received().double())


def test_the_mean_is_that_of_kvpress():
    """ObservedAttentionPress: the sum, divided by n, n − 1, … 1, the mean over the heads of a group."""
    weights, groups = weights_of((2, (6, 3), 11))
    theirs = dense_of(weights).sum(2) / torch.arange(11, 0, -1)
    close(cache.received(weights, "mean").unflatten(1, (groups, -1)).mean(2), theirs.view(2, 3, 2, 11).mean(2))


def test_neighbours_are_pooled_as_pytorch_pools():
    """The published code calls avg_pool1d and max_pool1d with a padding of kernel // 2."""
    weights, groups = weights_of((1, (6, 3), 40))
    votes = dense_of(weights)[:, :, -8:, :-8].sum(2)
    for pooling, pool in (("mean", torch.nn.functional.avg_pool1d), ("max", torch.nn.functional.max_pool1d)):
        theirs = pool(votes, kernel_size=5, padding=2, stride=1).view(1, groups, 2, 32).mean(2)
        close(cache.snapkv(weights, 8, 5, pooling)[..., :-8], theirs)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 17), st.data())
def test_the_largest_are_kept_and_ties_go_to_the_lower_key(rows, keys, data):
    numbers = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=rows * keys, max_size=rows * keys))).float()
    numbers = numbers.view(rows, keys)
    budget = data.draw(st.integers(1, keys + 2))
    assert torch.equal(cache.kept(numbers, budget), dense_kept(numbers, budget))


@pytest.mark.parametrize("sinks", [None, torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0, 0.3])])
def test_the_mass_that_is_lost(sinks):
    weights, groups = weights_of((2, (6, 3), 23), sinks=sinks)
    stay = torch.rand(2, groups, 17) > 0.5  # the keys after those were not judged
    evicted = torch.cat([~stay, torch.zeros(2, groups, 6, dtype=torch.bool)], -1).repeat_interleave(2, 1)
    expected = (dense_of(weights) * evicted[:, :, None]).sum(-1)
    close(cache.lost(weights, stay), expected)
    close(cache.lost(weights, stay, slice(17, None)), expected[..., 17:])
    nothing, everything = torch.ones(2, groups, 23, dtype=torch.bool), torch.zeros(2, groups, 23, dtype=torch.bool)
    assert not cache.lost(weights, nothing).any()
    close(cache.lost(weights, everything), dense_of(weights).sum(-1))  # all but what the sinks took


def test_a_budget_of_all_groups_and_layers_together():
    """As KVzip has it: one threshold for the numbers of all."""
    layers = [weights_of((1, (6, 3), 24), seed)[0] for seed in range(2)]
    numbers = torch.stack([cache.kvzip(weights, 12) for weights in layers])
    kept = cache.kept(numbers.flatten(), 30).view_as(numbers)
    assert int(kept.sum()) == 30
    assert numbers[kept].min() >= numbers[~kept].max()


# The models of transformers


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt-oss"])
@pytest.mark.parametrize("padding", ["none", "left"])
@torch.no_grad()
def test_the_keys_of_eager_attention_are_kept(name, padding):
    """The same for every method, in every layer, group and sequence, by numbers that agree to 1e-5; ties aside."""
    model, inputs = make(DECODERS[name]), batch(padding, tokens=11)
    eager, ours = both(model, lambda: model(**inputs, output_attentions=True))
    real = inputs["attention_mask"][:, None, :, None]  # rows without a key are uniform in eager
    for dense, weights in zip(eager.attentions, ours.attentions, strict=True):
        dense, groups = dense.double() * real, weights.scores.key.shape[1]
        pairs = {
            "h2o": (cache.h2o(weights, 2), dense_h2o(dense, groups, 2)),
            "snapkv": (cache.snapkv(weights, 2, 3), dense_snapkv(dense, groups, 2, 3, "mean")),
            "tova": (cache.tova(weights), dense_tova(dense, groups)),
            "kvzip": (cache.kvzip(weights, 6), dense_kvzip(dense, groups, 6)),
        }
        for ours_by, eager_by in pairs.values():
            torch.testing.assert_close(ours_by.double(), eager_by, rtol=1e-5, atol=1e-5)
            for budget in (3, 5):
                stay, theirs = cache.kept(ours_by, budget), dense_kept(eager_by, budget)
                edge = eager_by.sort(-1, descending=True).values[..., budget - 1, None]
                assert bool(((stay == theirs) | ((eager_by - edge).abs() <= 1e-5)).all())
                evicted = torch.nn.functional.pad(~stay, (0, 11 - stay.shape[-1]))
                loss = (dense * evicted.repeat_interleave(dense.shape[1] // groups, 1)[:, :, None]).sum(-1)
                torch.testing.assert_close(cache.lost(weights, stay).double(), loss, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_on_the_left_is_evicted_first():
    model, inputs = make(DECODERS["llama"], attn_implementation="regard"), batch("left", tokens=11)
    for weights in model(**inputs, output_attentions=True).attentions:
        stay = cache.kept(cache.h2o(weights, 1), 2)  # there are two real tokens in the last sequence
        assert not stay[2, :, :9].any()
        assert stay[2, :, 9:].all()


@torch.no_grad()
def test_the_steps_of_generation_are_those_of_the_whole():
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.float32)
    model.set_attn_implementation("regard")
    ids = torch.tensor([tokenizer("Time flies like an")["input_ids"]])
    wrote = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, min_new_tokens=9, do_sample=False,
        output_attentions=True, return_dict_in_generate=True,
    )  # fmt: skip
    whole = model(wrote.sequences[:, :-1], output_attentions=True).attentions
    for layer, weights in enumerate(whole):
        steps = [step[layer] for step in wrote.attentions]
        close(cache.h2o(steps, 3), cache.h2o(weights, 3).double())
        close(cache.snapkv(steps, 4), cache.snapkv(weights, 4).double())
        close(cache.tova(steps), cache.tova(weights).double())
        close(cache.tova(steps[-1]), cache.tova(weights).double())
        close(cache.received(steps, "mean", 5), cache.received(weights, "mean", 5).double())
        close(cache.kvzip(steps, ids.shape[1]), cache.kvzip(weights, ids.shape[1]).double())
        stay = cache.kept(cache.h2o(weights, 2, ids.shape[1]), 5)
        close(cache.lost(steps, stay), cache.lost(weights, stay).double())
        close(cache.lost(steps[1:], stay), cache.lost(weights, stay, slice(ids.shape[1], None)).double())


@torch.no_grad()
def test_a_reading_and_what_was_recorded():
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.float32)
    reading = regard.Lens((model, tokenizer)).generate("Time flies like an", 9).finish()
    with regard.hf.record() as recorded:
        model(reading.ids[None])
    for (_, attention), of_reading in zip(recorded, reading.attention, strict=True):
        close(cache.snapkv(attention.weights, 4)[0], cache.snapkv(of_reading.weights, 4).double())
        stay = cache.kept(cache.tova(of_reading.weights), 5)
        close(cache.lost(attention.weights, stay[None])[0], cache.lost(of_reading.weights, stay).double())


# What cannot be said


def test_only_weights_of_a_layer():
    weights, _ = weights_of((1, (2, 1), 5))
    with pytest.raises(TypeError, match=r"expected regard.Weights .*, of a layer or of its steps.* Got \(1, 2, 5, 5\)"):
        cache.tova([weights.dense()])
    with pytest.raises(TypeError, match="Got nothing"):
        cache.tova([])
    with pytest.raises(ValueError, match=r"keys have to grow by the queries of a step\. .* nor do different layers"):
        cache.tova([weights, weights])


def test_queries_that_are_not_there():
    weights, _ = weights_of((1, (2, 1), 7))
    query, key = torch.randn(1, 2, 1, 7), torch.randn(1, 1, 7, 7)
    step = regard.attention(query, key, key, causal=True).weights
    with pytest.raises(ValueError, match="the last 4 of 7 queries are not there: the first is that of token 6"):
        cache.snapkv(step, 4)
    with pytest.raises(ValueError, match="the last 8 of 7 queries are not there"):
        cache.received(weights, last=8)
    with pytest.raises(ValueError, match="are not there"):
        cache.tova(step, tokens=5)
    for tokens in (0, 8):
        with pytest.raises(ValueError, match=f"tokens: expected 1 to 7, as many as there are keys. Got {tokens}"):
            cache.tova(weights, tokens)
    for tokens in (0, 7):
        with pytest.raises(ValueError, match=f"tokens: expected those of the context, 1 to 6 of 7. Got {tokens}"):
            cache.kvzip(weights, tokens)


@torch.no_grad()
def test_a_last_query_that_does_not_see_the_last_key():
    model = make(DECODERS["llama"], head=True, attn_implementation="regard")
    padded = model(**batch("right", tokens=11), output_attentions=True).attentions[0]
    with pytest.raises(ValueError, match="the last query does not see the last key, as in a static cache"):
        cache.h2o(padded, 2)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    inputs = batch(tokens=11)
    static = model.generate(**inputs, **options, cache_implementation="static", output_attentions=True).attentions
    with pytest.raises(ValueError, match="does not see the last key, as in a static cache with room for more"):
        cache.tova(static[1][0])
    with pytest.raises(ValueError, match="Those of a static or a sliding cache do not"):
        cache.tova([step[0] for step in static[1:]])
    sliding = make(DECODERS["gemma2"], head=True, attn_implementation="regard")
    steps = [step[0] for step in sliding.generate(**inputs, **options, output_attentions=True).attentions]
    with pytest.raises(ValueError, match="Those of a static or a sliding cache do not"):
        cache.h2o(steps, 2)
    assert cache.tova(steps[-1]).shape == (3, 2, 5)  # of one step, with the keys that it has


def test_options_out_of_range():
    weights, _ = weights_of((1, (2, 1), 7))
    for kernel in (0, 4, -1):
        with pytest.raises(ValueError, match=f"snapkv: kernel: expected an odd number.* Got {kernel}"):
            cache.snapkv(weights, kernel=kernel)
    with pytest.raises(ValueError, match=r"snapkv: pooling: expected 'mean' or 'max'\. Got 'sum'"):
        cache.snapkv(weights, 3, pooling="sum")
    with pytest.raises(ValueError, match=r"h2o: window: expected 0 or more\. Got -1"):
        cache.h2o(weights, -1)
    with pytest.raises(ValueError, match=r"expected 1 query or more\. Got 0"):
        cache.snapkv(weights, 0)
    with pytest.raises(ValueError, match=r"reduce: expected 'mean', 'max' or 'sum'\. Got 'min'"):
        cache.received(weights, "min")
    with pytest.raises(ValueError, match="budget: expected a number of keys, at least 3, for the window of 3"):
        cache.kept(cache.h2o(weights, 3), 2)
    for budget in (0, 2.5):
        with pytest.raises(ValueError, match=f"kept: budget: expected a number of keys, at least 1. Got {budget}"):
            cache.kept(torch.rand(3, 7), budget)
    for stay in (torch.ones(1, 2, 7) > 0, torch.ones(1, 1, 8) > 0, torch.ones(1, 1, 7), torch.ones(1, 7) > 0):
        with pytest.raises(ValueError, match=r"lost: kept: expected bool \(1, 1, 'keys'\), .* at most 7 keys. Got "):
            cache.lost(weights, stay)
