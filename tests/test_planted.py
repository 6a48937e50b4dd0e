"""Planted models do what they were made for, and the scores of heads find that, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import regard
import regard.hf
from regard.attribution.heads import measure, sample_of
from regard.attribution.layers import layer_of
from regard.models.residual import output_by_head
from support.planted import GROUPS, HEAD_DIM, IMPLIED, LAYERS, PERIOD, SIZES, Planted, plan, two_heads
from support.planted_scores import all_scores, scores_of, wrong
from support.planted_strength import Calibration, example
from support.planted_texts import needle_tokens, random_tokens, repeated_tokens, text_of, text_sample, tokenizer
from support.planted_weights import build

SEEDS = 5  # of each kind; tests/planted.py tries 1,000
KINDS = [(scheme, groups) for scheme, all_groups in GROUPS.items() for groups in all_groups]
kinds = pytest.mark.parametrize(("scheme", "groups"), KINDS, ids=[f"{scheme}-G{groups}" for scheme, groups in KINDS])


def weights_of(model, tokens):
    """(layers,H,N,N), dense."""
    with regard.hf.record() as recorded, torch.no_grad():
        model(tokens[None])
    return torch.stack([attention.weights.dense()[0] for _, attention in recorded])


@kinds
@pytest.mark.parametrize("strong", [True, False], ids=["strong", "weak"])
def test_all_are_found_and_none_invented(scheme, groups, strong):
    for seed in range(SEEDS):
        heads = plan(scheme, groups, strong, seed)
        assert wrong(all_scores(build(scheme, groups, heads, seed), scheme, seed), heads) == [], (seed, heads)


@kinds
def test_weights_are_those_of_the_equations(scheme, groups):
    for seed, strong in ((0, True), (1, False)):
        heads = plan(scheme, groups, strong, seed)
        model = build(scheme, groups, heads, seed)
        calibration, generator = Calibration(model, scheme, heads), torch.Generator().manual_seed(seed)
        for tokens in (random_tokens(generator), repeated_tokens(PERIOD, generator)):
            weights = weights_of(model, tokens)
            for head in heads:
                if head.pattern in ("copying", "retrieval"):  # random, and in part random
                    continue
                error = (weights[head.layer, head.head] - calibration.weights(head, tokens)).abs().max()
                assert error <= 1e-4, head


@kinds
def test_the_strength_of_a_head_is_its_mean_weight(scheme, groups):
    heads = plan(scheme, groups, True, 3)
    model = build(scheme, groups, heads, 3)
    for head in heads:
        if head.pattern not in ("copying", "retrieval", "trace"):
            tokens, edges, rows = example(head, scheme)
            weights = weights_of(model, tokens)[head.layer, head.head]
            share = (weights * edges).sum(-1)[rows].mean()
            assert float(share) == pytest.approx(head.strength, abs=0.01), head


@kinds
def test_the_answers_that_a_retrieval_head_knows(scheme, groups):
    """The largest weight of a question is on its answer for as many as were planted; unknown ones have a query of 0."""
    for layer in range(LAYERS):
        head = Planted("retrieval", layer, SIZES[scheme][1] - 1, 0.4)
        model = build(scheme, groups, [head], 5)
        tokens, answers = needle_tokens(torch.Generator().manual_seed(5))
        queries, places = answers.unbind(1)
        weights = weights_of(model, tokens)[layer, head.head, queries]
        right = weights[torch.arange(len(queries)), places] > 0.9
        assert set(map(bool, right[(weights.argmax(-1) == places)])) == {True}
        assert 4 <= int(right.sum()) <= 20  # 12 of 30 axes are known, each asked for 0, 1 or 2 times


@kinds
def test_the_seed_is_all_there_is(scheme, groups):
    heads = plan(scheme, groups, True, 1)
    first, again, other = (build(scheme, groups, heads, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_program_that_tries_many():
    command = [sys.executable, Path(__file__).parent / "planted.py", "--first", "2000", "--seeds", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("2 models: 0 wrong\n")
    assert "learned, 6 groups  induction" in done.stdout


def test_what_is_wrong_is_said():
    heads = plan("rotary", 4, True, 0)
    model = build("rotary", 4, heads, 0)
    gone, *rest = heads
    (line,) = wrong(all_scores(model, "rotary", 0), rest)
    assert line.startswith(f"previous at ({gone.layer}, {gone.head}): invented")
    with torch.no_grad():
        model.model.layers[gone.layer].self_attn.q_proj.weight.unflatten(0, (-1, HEAD_DIM))[gone.head] = 0
    line, *_ = wrong(all_scores(model, "rotary", 0), heads)
    assert line.startswith(f"previous at ({gone.layer}, {gone.head}): not found")


def test_heads_are_planted_anywhere():
    """Over the seeds, every head of a rotary model has been every pattern; only copying heads share a group."""
    places, shared = {pattern: set() for pattern in IMPLIED}, 0
    for seed in range(200):
        heads = plan("rotary", 4, True, seed)
        assert len({head[1:3] for head in heads}) == len(heads) == 7
        copying = next((head.layer, head.head // 2) for head in heads if head.pattern == "copying")
        groups = [(head.layer, head.head // 2) for head in heads if head.pattern != "copying"]
        assert len(set(groups)) == 6
        shared += copying in groups
        for head in heads:
            places[head.pattern].add((head.layer, head.head))
    assert 50 < shared < 150
    assert {pattern: len(drawn) for pattern, drawn in places.items()} == {
        "previous": 16, "sink": 16, "duplicate": 16, "induction": 8, "copying": 16, "retrieval": 16, "trace": 0,
    }  # fmt: skip


@kinds
def test_a_lens_opens_them(scheme, groups):
    """And finds the same as without it."""
    heads = plan(scheme, groups, True, 7)
    model = build(scheme, groups, heads, 7)
    tokens = random_tokens(torch.Generator().manual_seed(7))
    expected = scores_of(model, text_sample(tokens))[0]
    reading = regard.Lens((model, tokenizer())).read(text_of(tokens))
    sample = sample_of(reading)
    assert sample.special.tolist() == [True] + [False] * (len(tokens) - 1)
    for layer in range(LAYERS):
        scores = measure(layer_of(reading, layer), sample)
        for name in ("previous", "first", "sink"):
            torch.testing.assert_close(scores[name], expected[name][layer], atol=1e-5, rtol=0)


@kinds
def test_eager_attention_computes_the_same(scheme, groups):
    heads = plan(scheme, groups, True, 2)
    model, tokens = build(scheme, groups, heads, 2), random_tokens(torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = model(tokens[None]).logits
        model.set_attn_implementation("eager")
        torch.testing.assert_close(ours, model(tokens[None]).logits, atol=1e-4, rtol=1e-4)


# What they predict


def losses(model, tokens):
    """Nats a word, of those that come for the first time and of those that come again."""
    with torch.no_grad():
        predicted = model(tokens[None]).logits[0, :-1].log_softmax(-1)
    loss = -predicted.gather(1, tokens[1:, None])[:, 0]
    return loss[:PERIOD].mean(), loss[PERIOD + 1 :].mean()


def switched_off(model, heads):
    """The model, whose heads give 0 from now on."""
    with regard.hf.record() as recorded, torch.no_grad():
        model(torch.tensor([[0, 2]]))
    for layer, head in heads:
        output_by_head(recorded[layer].output, recorded[layer].attention.weights.shape[1])[head].zero_()
    return model


@kinds
def test_copying_needs_both_heads(scheme, groups):
    """Without the induction head, or the head that writes what it reads, nothing says what comes next again."""
    for seed in range(5):
        heads = plan(scheme, groups, True, seed)
        tokens = repeated_tokens(PERIOD, torch.Generator().manual_seed(seed))
        new, again = losses(build(scheme, groups, heads, seed), tokens)
        assert again < new - 1
        planted = {(layer, head) for _, layer, head, _ in heads}
        others = [(1, head) for head in range(SIZES[scheme][1]) if (1, head) not in planted]
        feeder = next(head for head in heads if head.layer == 0 and head.pattern in ("previous", "trace"))
        induction = next(head for head in heads if head.pattern == "induction")
        for place, needed in ((feeder[1:3], True), (induction[1:3], True), *((place, False) for place in others[:2])):
            change = losses(switched_off(build(scheme, groups, heads, seed), [place]), tokens)[1] - again
            assert change >= 1 if needed else abs(change) <= 0.1, (seed, place, change)


def test_two_heads_complete_a_pattern():
    beta = 10.0
    reading = two_heads("one two three four one two three four", beta)
    rows = torch.arange(1, 9)
    expected = torch.exp(torch.tensor(beta)) / (torch.exp(torch.tensor(beta)) + rows)
    torch.testing.assert_close(reading.previous.diagonal(-1), expected)
    assert (reading.induction.diagonal(-3)[2:] > 0.999).all()  # the word after the previous occurrence
    names, likeliest = sorted(set(reading.words)), reading.probabilities.max(-1)
    assert [names[n] for n in likeliest.indices[5:8]] == reading.words[6:9]
    assert (likeliest.values[5:8] > 0.999).all()
    assert (likeliest.values[2:5] < 0.9).all()  # no word has come before
