"""Scores of heads, each against its dense definition in float64, and cases whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regard
from regard.attribution.heads import Sample, measure
from regard.attribution.layers import Layer

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
