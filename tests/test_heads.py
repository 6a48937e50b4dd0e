"""Scores of heads, each against its dense definition in float64, and cases whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import regard
import regard.hf
from regard.attribution.heads import SCORES, Edges, Sample, measure, sample_of
from regard.attribution.heads.named import PATTERNS, POSITIONS, pattern_shares, strict_pattern
from regard.attribution.layers import Layer, layer_of
from regard.lens.reading import Reading
from support.encoder_decoders import HEADED, SOURCE, TARGET, eager, encoder_decoder
from support.models import tiny

Numbers = np.ndarray


# What each score says, of dense weights and scores in float64, a head at a time, by loops over pairs


def share(weights: Numbers, sample: Sample, is_edge: Callable[[int, int], bool]) -> float:
    rows = sample.rows.nonzero()[:, 0].tolist()
    sums = [sum(w for j, w in enumerate(weights[i]) if is_edge(i, j)) for i in rows]
    return sum(sums) / len(rows) if rows else 0.0


def of_pairs(sample: Sample) -> dict[str, Callable[[int, int], bool]]:
    """Whether key j is an edge of query i, pattern by pattern."""
    ids, keys, special, stops = (t.tolist() for t in (sample.ids, sample.key_ids, sample.special, sample.punctuation))
    elsewhere: Callable[[int, int], bool] = lambda i, j: not sample.same_text or i != j  # noqa: E731
    return {
        "previous": lambda i, j: j == i - 1,
        "next": lambda i, j: j == i + 1,
        "itself": lambda i, j: j == i,
        "first": lambda i, j: j == 0,
        "last": lambda i, j: j == len(keys) - 1,
        "separator": lambda i, j: j > 0 and special[j],
        "punctuation": lambda i, j: stops[j] and elsewhere(i, j),
        "same": lambda i, j: ids[i] == keys[j] and elsewhere(i, j),
        "duplicate": lambda i, j: ids[i] == keys[j] and j < i,
        "induction": lambda i, j: j == i - sample.period + 1,
        "prefix": lambda i, j: j > 0 and ids[i] == keys[j - 1] and j - 1 < i,
    }


def come_once(sample: Sample) -> torch.Tensor:
    """The rows whose token has come once before, of tokens that come again after a period."""
    places = enumerate(sample.rows.tolist())
    return torch.tensor([counts and i - sample.first < 2 * sample.period for i, counts in places], dtype=torch.bool)


def sink(weights: Numbers, sample: Sample) -> float:
    rows = [i for i, counts in enumerate(sample.rows.tolist()) if counts and i > 0]
    return sum(bool(weights[i, 0] > 0.3) for i in rows) / max(1, len(rows))


def entropy(weights: Numbers, sample: Sample) -> float:
    rows = weights[sample.rows.numpy()]
    return float(-np.where(rows > 0, rows * np.log(np.where(rows > 0, rows, 1)), 0).sum() / max(1, len(rows)))


def distance(weights: Numbers, sample: Sample) -> float:
    places = np.abs(np.arange(weights.shape[0])[:, None] - np.arange(weights.shape[1]))
    return float((weights * places)[sample.rows.numpy()].sum() / max(1, int(sample.rows.sum())))


def positional(scores: Numbers, sample: Sample) -> float:
    """R² of a least-squares fit of a number for each distance."""
    centred, squares = dict[int, list[float]](), 0.0
    for i in sample.rows.nonzero()[:, 0].tolist():
        seen = np.flatnonzero(scores[i] != -np.inf)
        mean = scores[i, seen].mean() if len(seen) else 0.0
        squares += float((scores[i, seen] ** 2).sum())
        for j in seen:
            centred.setdefault(i - int(j), []).append(float(scores[i, j] - mean))
    all_of = np.concatenate([np.zeros(1), *map(np.array, centred.values())])
    fitted = np.concatenate([np.zeros(1), *(np.full(len(c), np.mean(c)) for c in centred.values())])
    total = (all_of**2).sum()
    return float(1 - ((all_of - fitted) ** 2).sum() / total) if total > 1e-10 * squares else 0.0


def alignment(weights: Numbers, sample: Sample) -> float:
    rows = sample.rows.numpy()
    if weights[rows].sum() < 1e-6 * rows.sum() or not rows.any():
        return 0.0
    i, j = np.meshgrid(np.arange(weights.shape[0])[rows], np.arange(weights.shape[1]), indexing="ij")
    cov = np.cov(np.stack([i.ravel(), j.ravel()]), aweights=weights[rows].ravel(), bias=True)
    return float(cov[0, 1] / math.sqrt(cov[0, 0] * cov[1, 1])) if min(cov[0, 0], cov[1, 1]) >= 1e-6 else 0.0


def dense(layer: Layer, sample: Sample) -> dict[str, list[float]]:
    """Every score of a text or of repeated tokens that needs weights and scores alone, from dense float64."""
    weights, scores = dense_weights(layer)
    heads, edges = range(len(weights)), of_pairs(sample)
    expected = {name: [share(weights[h], sample, is_edge) for h in heads] for name, is_edge in edges.items()}
    once = replace(sample, rows=come_once(sample))
    expected["induction"] = [share(weights[h], once, edges["induction"]) for h in heads]
    for score in (sink, entropy, distance, alignment):
        expected[score.__name__] = [score(weights[h], sample) for h in heads]
    expected["positional"] = [positional(scores[h], sample) for h in heads]
    return expected


def dense_weights(layer: Layer) -> tuple[Numbers, Numbers]:
    """Weights and scores of a layer, in float64, from its queries and keys, by the equation."""
    given = layer.weights.scores
    query, key = given.query[0].double(), given.key[0].double().repeat_interleave(given.n_rep, 0)
    scores = given.scale * query @ key.mT
    if given.softcap is not None:
        scores = given.softcap * (scores / given.softcap).tanh()
    if given.bias is not None:
        scores = scores + given.bias[0].double()
    start, stop = (bound[0][:, None] for bound in given.mask.spans)
    keys = torch.arange(key.shape[1])
    scores = scores.masked_fill((keys < start) | (keys >= stop), -torch.inf)
    sinks = layer.weights.sinks
    rest = 0.0 if sinks is None else sinks.double()[:, None, None].exp()
    powers = scores.exp()
    total = powers.sum(-1, keepdim=True) + rest
    return torch.where(total > 0, powers / total, 0.0).numpy(), scores.numpy()


# Made-up layers and samples


def made_layer(query: torch.Tensor, key: torch.Tensor, **options: Any) -> Layer:
    attention = regard.attention(query, key, torch.randn(key.shape).to(key), **options)
    return Layer("made up", attention, None, None, None, ())


def made_sample(ids: torch.Tensor, key_ids: torch.Tensor | None = None, **others: Any) -> Sample:
    keys = ids if key_ids is None else key_ids
    plain: dict[str, Any] = {
        "text": "text",
        "rows": torch.ones(len(ids), dtype=torch.bool),
        "special": torch.zeros(len(keys), dtype=torch.bool),
        "punctuation": torch.zeros(len(keys), dtype=torch.bool),
        "same_text": key_ids is None,
    }
    return Sample(ids=ids, key_ids=keys, **(plain | others))


@st.composite
def options(draw: st.DrawFn, cross: bool) -> dict[str, Any]:
    """What a layer and its sample are made of."""
    return {
        "seed": draw(st.integers(0, 10**6)),
        "queries": draw(st.sampled_from([1, 2, 3, 17, 40])),
        "keys": draw(st.sampled_from([1, 2, 19, 33])),
        "groups": draw(st.sampled_from([1, 2, 4])),
        "causal": not cross and draw(st.booleans()),
        "window": draw(st.sampled_from([None, None, (3, 0), (2, 5), (1, None)])),
        "softcap": draw(st.sampled_from([None, None, 2.0])),
        "bias": draw(st.sampled_from([None, None, "alibi", "random"])),
        "sinks": draw(st.booleans()),
        "period": draw(st.integers(1, 20)),
        "dtype": draw(st.sampled_from([torch.float32, torch.float32, torch.float64])),
    }


def made(given: dict[str, Any], *, cross: bool, text: str) -> tuple[Layer, Sample]:
    """A layer of four heads and a sample, at random."""
    torch.manual_seed(given["seed"])
    queries = int(given["queries"])
    keys = int(given["keys"]) if cross else queries
    query = 2 * torch.randn(4, queries, 8, dtype=given["dtype"])
    key = torch.randn(given["groups"], keys, 8, dtype=given["dtype"])
    apart = (torch.arange(queries)[:, None] - torch.arange(keys)).abs()
    biases = {"alibi": -apart * torch.tensor([0.1, 0.5, 1.0, 3.0])[:, None, None], "random": torch.randn(queries, keys)}
    bias = biases.get(given["bias"])
    layer = made_layer(
        query,
        key,
        causal=given["causal"],
        window=given["window"],
        softcap=given["softcap"],
        bias=None if bias is None else bias.to(query),
        sinks=torch.randn(4) if given["sinks"] else None,
    )
    numbers = [torch.randint(0, 6, (size,)) for size in (queries, keys)]
    kinds = [torch.rand(keys) < 0.2 for _ in range(2)]
    rows = torch.rand(queries) < 0.8
    return layer, made_sample(
        numbers[0],
        numbers[1] if cross else None,
        text=text,
        rows=rows,
        special=kinds[0],
        punctuation=kinds[1],
        period=given["period"],
    )


@pytest.mark.parametrize("text", ["text", "repeated"])
@settings(max_examples=60, deadline=None)
@given(options(cross=False))
def test_scores_of_self_attention_equal_their_dense_definitions(text: str, given: dict[str, Any]) -> None:
    layer, sample = made(given, cross=False, text=text)
    measured, expected = measure(layer, sample), dense(layer, sample)
    for name in measured.keys() - {"copying"}:
        np.testing.assert_allclose(measured[name], expected[name], atol=1e-5, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(options(cross=True))
def test_scores_of_cross_attention_equal_their_dense_definitions(given: dict[str, Any]) -> None:
    layer, sample = made(given, cross=True, text="text")
    measured, expected = measure(layer, sample), dense(layer, sample)
    assert measured.keys() == {"first", "last", "separator", "punctuation", "same", "entropy", "alignment"}
    for name, numbers in measured.items():
        np.testing.assert_allclose(numbers, expected[name], atol=1e-5, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(options(cross=False))
def test_the_rule_of_edges_names_the_pairs_whose_weight_the_share_is(given: dict[str, Any]) -> None:
    layer, sample = made(given, cross=False, text="text")
    weights = torch.from_numpy(dense_weights(layer)[0])
    for name, score in SCORES.items():
        if score.edges is None or not score.whom:
            continue
        edges = score.edges(sample)
        pairs = dense_rule(edges, weights.shape)
        expected = torch.tensor(
            [[of_pairs(sample)[name](i, j) for j in range(weights.shape[2])] for i in range(weights.shape[1])]
        )
        assert torch.equal(pairs.expand_as(weights)[0], expected), name
        torch.testing.assert_close(edges.share(layer.weights).double(), (weights * pairs).sum(-1), atol=1e-6, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(options(cross=False))
def test_edges_that_the_rule_cuts_have_no_weight_left(given: dict[str, Any]) -> None:
    layer, sample = made(given, cross=False, text="text")
    scores = layer.weights.scores
    for score in SCORES.values():
        if score.edges is None:
            continue
        edges = score.edges(sample)
        cut = regard.attention(scores.query, scores.key, scores.key, mask=others(edges.rule())).of_sequence(0)
        share = edges.share(cut.weights)
        assert share.shape == layer.weights.shape[:2]
        assert float(share.abs().max()) < 1e-6, score.name


def others(rule: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *at: ~rule(*at)


def dense_rule(edges: Edges, shape: Sequence[int]) -> torch.Tensor:
    heads, queries, keys = (torch.arange(size) for size in shape)
    rule = edges.rule()(torch.zeros(1, dtype=torch.long), heads[:, None, None], queries[:, None], keys)
    return rule.expand(*shape)


# Masks and numbers that the kernel does not take


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_given_mask_a_bias_of_minus_infinity_and_large_scores(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    query, key = (8 * torch.randn(2, 30, 16)).to(dtype), (8 * torch.randn(2, 30, 16)).to(dtype)
    hidden = torch.rand(30, 30) < 0.4
    hidden[7] = True  # a row that sees nothing
    ids = torch.randint(0, 5, (30,))
    sample = made_sample(ids, special=ids == 1, punctuation=ids == 2)
    bias = torch.zeros(30, 30).masked_fill(hidden, -torch.inf)
    layers = [made_layer(query, key, mask=~hidden), made_layer(query, key, bias=bias.to(dtype))]
    by_bias = dense(layers[1], sample)
    for layer in layers:
        assert float(layer.weights.lse.max()) > 64
        for name, numbers in measure(layer, sample).items():
            np.testing.assert_allclose(numbers, by_bias[name], atol=1e-5, err_msg=name)


# Answers that are known


def following(place: Callable[[int], int], queries: int, keys: int | None = None, weight: float = 1.0) -> Layer:
    """A layer of one head, in which each query gives this weight to one key, if there is such, and shares the rest."""
    keys = queries if keys is None else keys
    query = torch.zeros(1, queries, keys)
    score = 40.0 if weight == 1 else math.log(weight * (keys - 1) / (1 - weight))
    for i in range(queries):
        if 0 <= place(i) < keys:
            query[0, i, place(i)] = score
    return made_layer(query, torch.eye(keys)[None], scale=1.0)


@pytest.mark.parametrize(
    ("name", "place", "rows"),
    [
        ("previous", lambda i: i - 1, 7),
        ("next", lambda i: i + 1, 7),
        ("itself", lambda i: i, 8),
        ("first", lambda i: 0, 8),
        ("last", lambda i: 7, 8),
        ("separator", lambda i: 4, 8),
        ("punctuation", lambda i: 2, 7),
        ("same", lambda i: (i + 4) % 8, 8),
    ],
)
def test_heads_that_follow_a_pattern(name: str, place: Callable[[int], int], rows: int) -> None:
    """Of 8 tokens, 4 twice; each row that has such a key gives it 0.9 of its weight, and 0.1 / 7 to each other."""
    special, punctuation = torch.arange(8) == 4, torch.arange(8) == 2
    sample = made_sample(torch.arange(8) % 4, special=special, punctuation=punctuation)
    score = float(measure(following(place, 8, weight=0.9), sample)[name])
    assert score == pytest.approx(0.9 * rows / 8, abs=1e-6)


@pytest.mark.parametrize(("name", "shift"), [("duplicate", 0), ("induction", 1), ("prefix", 1)])
def test_heads_that_look_back_in_repeated_tokens(name: str, shift: int) -> None:
    period, first = 6, 1  # after a token that begins the text
    ids = torch.cat([torch.tensor([99]), torch.arange(period), torch.arange(period)])
    sample = made_sample(ids, text="repeated", rows=torch.arange(13) > period, period=period, first=first)
    scores = measure(following(lambda i: i - period + shift if i > period else -1, 13, weight=0.8), sample)
    assert float(scores[name]) == pytest.approx(0.8, abs=1e-6)
    others = {"duplicate", "induction", "prefix"} - {name} - ({"induction", "prefix"} if shift else set())
    for other in others:
        assert float(scores[other]) == pytest.approx(0.2 / 12, abs=1e-6)


def test_induction_is_of_tokens_that_come_the_second_time() -> None:
    ids = torch.arange(5).repeat(4)
    sample = made_sample(ids, text="repeated", rows=torch.arange(20) >= 5, period=5)
    scores = measure(following(lambda i: i % 5 + 1 if i >= 5 else -1, 20, weight=0.8), sample)  # the first occurrence
    assert float(scores["induction"]) == pytest.approx(0.8, abs=1e-6)
    assert float(scores["prefix"]) > 0.8


def test_a_sink_takes_more_than_three_tenths() -> None:
    sample = made_sample(torch.arange(10))
    assert float(measure(following(lambda i: 0, 10, weight=0.31), sample)["sink"]) == 1.0
    assert float(measure(following(lambda i: 0, 10, weight=0.29), sample)["sink"]) == 0.0
    layer = following(lambda i: 0 if i % 3 else -1, 10, weight=0.9)  # six of the nine rows after the first
    assert float(measure(layer, sample)["sink"]) == pytest.approx(6 / 9)


def test_a_learned_sink_is_no_token() -> None:
    layer = made_layer(torch.zeros(1, 10, 4), torch.zeros(1, 10, 4), sinks=torch.tensor([math.log(30.0)]))
    scores = measure(layer, made_sample(torch.arange(10)))  # 1/40 for each of ten keys, 3/4 for the sink
    assert float(scores["first"]) == pytest.approx(1 / 40)
    assert float(scores["sink"]) == 0.0
    assert float(scores["entropy"]) == pytest.approx(math.log(40) / 4, abs=1e-5)


def test_entropy_and_distance_of_a_head_that_looks_at_all_alike() -> None:
    layer = made_layer(torch.zeros(1, 9, 4), torch.zeros(1, 9, 4), causal=True)
    scores = measure(layer, made_sample(torch.arange(9)))
    assert float(scores["entropy"]) == pytest.approx(sum(math.log(i + 1) for i in range(9)) / 9, abs=1e-6)
    assert float(scores["distance"]) == pytest.approx(sum(i / 2 for i in range(9)) / 9, abs=1e-6)
    assert float(scores["positional"]) == 0.0  # there is no variance


@pytest.mark.parametrize("causal", [False, True])
def test_scores_that_are_a_function_of_the_distance_are_positional(causal: bool) -> None:
    """As rotary positions make them of tokens that are all alike: q·k = cos(0.3 (i − j))."""
    angle = 0.3 * torch.arange(200.0)
    turned = torch.stack([angle.cos(), angle.sin()], -1)[None]
    layer = made_layer(turned, turned, scale=5.0, causal=causal, window=None if causal else (1000, 1000))
    # Rows see other distances, and so have other means: centring them leaves a little that distance does not explain.
    expected = positional(dense_weights(layer)[1][0], made_sample(torch.arange(200)))
    assert float(measure(layer, made_sample(torch.arange(200)))["positional"]) == pytest.approx(expected, abs=1e-5)
    assert expected > 0.95


def test_scores_of_random_content_are_not_positional() -> None:
    torch.manual_seed(0)
    layer = made_layer(torch.randn(4, 300, 16), torch.randn(4, 300, 16), causal=True)
    assert float(measure(layer, made_sample(torch.arange(300)))["positional"].max()) < 0.02


@pytest.mark.parametrize("causal", [False, True])
def test_both_ways_to_the_share_that_distance_explains_agree(causal: bool) -> None:
    """Of more rows than a block has: from products, and from all scores, which a window that hides nothing demands."""
    torch.manual_seed(1)
    query, key = torch.randn(6, 700, 16), torch.randn(2, 700, 16) + 3 * torch.randn(16)
    rows = torch.rand(700) < 0.7
    plain = made_layer(query, key, causal=causal)
    masked = made_layer(query, key, causal=causal, mask=torch.ones(700, 700, dtype=torch.bool))
    sample = made_sample(torch.arange(700), rows=rows)
    scores = [measure(layer, sample)["positional"] for layer in (plain, masked)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-6, rtol=0)
    assert float(scores[0].min()) > 0


def test_alignment_goes_from_one_to_minus_one() -> None:
    sample = made_sample(torch.arange(20), torch.arange(41))
    assert float(measure(following(lambda i: 2 * i, 20, 41), sample)["alignment"]) == pytest.approx(1, abs=1e-5)
    assert float(measure(following(lambda i: 40 - 2 * i, 20, 41), sample)["alignment"]) == pytest.approx(-1, abs=1e-5)
    assert float(measure(following(lambda i: 17, 20, 41), sample)["alignment"]) == 0.0
    assert float(measure(following(lambda i: -1, 20, 41), sample)["alignment"]) == pytest.approx(0, abs=1e-5)


# Copying and retrieval


def test_copying_equals_its_dense_definition() -> None:
    torch.manual_seed(0)
    heads, groups, tokens, width, dim = 6, 2, 40, 8, 24
    output = nn.Linear(heads * width, dim)
    directions, own = torch.randn(15, dim), torch.randint(-1, 15, (tokens,))
    values = torch.randn(groups, tokens, width)
    attention = regard.attention(torch.randn(heads, tokens, 4), torch.randn(groups, tokens, 4), values)
    # A head that copies: its value of a token is made of the token's direction, and W_O takes it there.
    rows = torch.rand(tokens) < 0.8
    layer = Layer("made up", attention, output, None, None, ())
    sample = made_sample(
        torch.arange(tokens), text="repeated", rows=rows, period=20, directions=directions, direction_of=own
    )
    expected = []
    for h in range(heads):
        by_head = output.weight.detach().double()[:, h * width : (h + 1) * width]
        logits = values[h // 3].double() @ by_head.T @ directions.double().T
        hits = [int(logits[j].argmax()) == int(own[j]) for j in range(tokens) if rows[j] and own[j] >= 0]
        expected.append(sum(hits) / len(hits))
    np.testing.assert_allclose(measure(layer, sample)["copying"], expected, atol=1e-6)


def test_a_head_that_copies_and_one_that_does_the_opposite() -> None:
    directions = torch.eye(10)
    values = torch.stack([torch.eye(10), -torch.eye(10)])  # of ten tokens, in two heads
    output = nn.Linear(20, 10, bias=False)
    output.weight.data = torch.cat([torch.eye(10), torch.eye(10)], 1)
    layer = Layer("made up", regard.attention(values, values, values), output, None, None, ())
    own = {"directions": directions, "direction_of": torch.arange(10)}
    scores = measure(layer, made_sample(torch.arange(10), text="repeated", period=10, **own))
    assert scores["copying"].tolist() == [1.0, 0.0]
    for unknown in ({}, {"directions": directions}):
        scores = measure(layer, made_sample(torch.arange(10), text="repeated", period=10, **unknown))
        assert scores["copying"].isnan().all()
    without_output = replace(layer, module=None)
    scores = measure(without_output, made_sample(torch.arange(10), text="repeated", period=10, **own))
    assert scores["copying"].isnan().all()


def test_retrieval_is_the_share_of_the_answer_at_which_the_needle_has_the_largest_weight() -> None:
    layer = following(lambda i: i - 20 if i != 27 else 3, 30, weight=0.4)
    answer = torch.tensor([[25, 5], [26, 6], [27, 7], [28, 8]])
    sample = made_sample(torch.arange(30), text="needle", answer=answer)
    assert measure(layer, sample).keys() == {"retrieval"}
    assert float(measure(layer, sample)["retrieval"]) == 0.75
    alike = made_layer(torch.zeros(1, 30, 4), torch.zeros(1, 30, 4))  # the first of equal weights counts
    assert float(measure(alike, sample)["retrieval"]) == 0.0
    assert measure(layer, made_sample(torch.arange(30), text="needle"))["retrieval"].isnan().all()


def test_the_edges_of_retrieval_are_the_places_of_the_answer() -> None:
    sample = made_sample(torch.arange(30), text="needle", answer=torch.tensor([[25, 5], [26, 6]]))
    rows, keys = torch.arange(30)[:, None], torch.arange(30)
    edges = SCORES["retrieval"].edges
    assert edges is not None
    rule = edges(sample).rule()(rows * 0, rows * 0, rows, keys)
    assert rule.nonzero().tolist() == [[25, 5], [26, 6]]
    share = edges(sample).share(following(lambda i: i - 20, 30, weight=0.4).weights)
    assert share[0, [25, 26]].tolist() == pytest.approx([0.4, 0.4], abs=1e-6)
    assert float(share.sum()) == pytest.approx(0.8, abs=1e-6)
    without = edges(made_sample(torch.arange(30), text="text"))
    assert not without.rule()(rows * 0, rows * 0, rows, keys).any()


# Texts at the edges


@pytest.mark.parametrize("text", ["text", "repeated"])
def test_a_text_of_one_token_repeated(text: str) -> None:
    torch.manual_seed(0)
    layer = made_layer(torch.randn(2, 33, 8), torch.randn(2, 33, 8))
    sample = made_sample(torch.zeros(33, dtype=torch.long), text=text, period=1)
    expected = dense(layer, sample)
    for name, numbers in measure(layer, sample).items():
        if name != "copying":
            np.testing.assert_allclose(numbers, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("text", ["text", "repeated"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_a_text_of_special_tokens_alone_has_scores_of_zero(text: str, tokens: int) -> None:
    layer = made_layer(torch.randn(2, tokens, 8), torch.randn(2, tokens, 8), causal=True)
    special = torch.ones(tokens, dtype=torch.bool)
    sample = made_sample(torch.arange(tokens), text=text, rows=~special, special=special, period=1)
    for name, numbers in measure(layer, sample).items():
        assert numbers.isnan().all() if name == "copying" else (numbers == 0).all(), name


def test_a_layer_that_does_not_fit_the_sample_is_refused() -> None:
    x = torch.randn(1, 2, 5, 8)
    batched = Layer("made up", regard.attention(x, x, x), None, None, None, ())
    with pytest.raises(
        ValueError, match=r"^measure: layer: expected weights \(H, 5, 5\).*without a batch\. Got \(1, 2"
    ):
        measure(batched, made_sample(torch.arange(5)))
    with pytest.raises(ValueError, match=r"expected weights \(H, 6, 6\)"):
        measure(made_layer(x[0], x[0]), made_sample(torch.arange(6)))


def test_every_score_is_described() -> None:
    assert list(SCORES) == [
        *("previous", "next", "itself", "first", "last", "separator", "punctuation", "same"),
        *("sink", "entropy", "distance", "positional", "duplicate", "induction", "prefix", "copying"),
        *("retrieval", "alignment"),
    ]
    for name, score in SCORES.items():
        assert score.name == name
        assert "https://arxiv.org/abs/" in score.paper
        assert (score.edges is not None) == (bool(score.whom) or name in ("sink", "retrieval"))
        if score.found_from is not None:
            least, largest = score.range
            assert least is not None
            assert largest is not None
            assert least < score.found_from < largest


# Models


def of_weights(weights: torch.Tensor, sample: Sample) -> dict[str, list[float]]:
    """Every score that needs weights alone, of those that a model itself gives."""
    heads, edges = weights.double().numpy(), of_pairs(sample)
    expected = {name: [share(head, sample, is_edge) for head in heads] for name, is_edge in edges.items()}
    scores = (sink, entropy, distance, alignment)
    return expected | {score.__name__: [score(head, sample) for head in heads] for score in scores}


@pytest.mark.parametrize("kind", HEADED)
def test_the_heads_of_an_encoder_decoder_are_those_of_eager_attention(kind: str) -> None:
    model, tokenizer = encoder_decoder(kind)
    reading = regard.Lens((model, tokenizer)).read(SOURCE, TARGET)
    with torch.no_grad():
        output = eager(model)(
            input_ids=reading.ids[None], decoder_input_ids=reading.decoder.ids[None], output_attentions=True
        )
    parts = (reading, output.encoder_attentions), (reading.decoder, output.decoder_attentions)
    for part, attentions in (*parts, (reading.cross, output.cross_attentions)):
        sample = sample_of(part)
        for layer, weights in enumerate(attentions):
            measured, expected = measure(layer_of(part, layer), sample), of_weights(weights[0], sample)
            assert "alignment" in measured if part is reading.cross else "positional" in measured
            for name in measured.keys() - {"positional"}:
                np.testing.assert_allclose(measured[name], expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "gpt-oss"])
def test_what_was_recorded_has_the_scores_of_a_reading(kind: str) -> None:
    model, tokenizer = tiny(kind)
    lens = regard.Lens((model, tokenizer))
    reading = lens.read("the cat sat on the mat, and time flies like an arrow")
    sample = sample_of(reading)
    assert reading.ids is not None
    with torch.no_grad(), regard.hf.record() as recorded:
        model(input_ids=reading.ids[None])
    for n in range(len(recorded)):
        layer = layer_of(recorded, n)
        single = replace(layer, attention=layer.attention.of_sequence(0))
        for name, numbers in measure(single, sample).items():
            torch.testing.assert_close(numbers, measure(layer_of(reading, n), sample)[name], atol=1e-5, rtol=0)


# Where heads look, in the viewer and the walk


def test_the_shares_of_a_viewer_are_the_scores_over_every_token() -> None:
    lens = regard.Lens()
    reading = lens.read("The cat sat, and the dog sat; time flies like an arrow. " * 25)
    sample = sample_of(reading)
    assert sample.rows.sum() > 256
    weights = reading.attention[1].weights.dense().double().numpy()
    shares, measured = pattern_shares(reading, 1), measure(layer_of(reading, 1), sample)
    assert shares.shape == (12, len(PATTERNS))
    for n, name in enumerate(PATTERNS):
        assert torch.equal(shares[:, n], measured[name])
        expected = [share(weights[h], sample, of_pairs(sample)[name]) for h in (0, 7)]
        np.testing.assert_allclose(shares[[0, 7], n], expected, atol=1e-5, err_msg=name)


def test_of_a_very_long_text_only_positions_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = regard.Lens().read("Time flies like an arrow, and time flies.")
    every = pattern_shares(reading, 0)
    monkeypatch.setattr("regard.attribution.heads.named.LONG", 8)
    shares = pattern_shares(reading, 0)
    for n, name in enumerate(PATTERNS):
        assert torch.equal(shares[:, n], every[:, n]) if name in POSITIONS else shares[:, n].isnan().all()


def test_cross_attention_has_no_token_before(read_cross: Reading) -> None:
    shares = dict(zip(PATTERNS, pattern_shares(read_cross, 0).unbind(1), strict=True))
    assert all((shares[name] == 0).all() for name in ("previous", "next", "itself"))
    assert (shares["first"] > 0).all()
    assert strict_pattern(read_cross, 0, 0) in (None, "first", "last")


@pytest.fixture
def read_cross() -> Reading:
    reading = regard.Lens(encoder_decoder("Bart")).read(SOURCE, TARGET).cross
    assert reading is not None
    return reading
