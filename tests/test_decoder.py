"""Trained decoders against transformers' eager attention, whose figures benchmarks/decoder.py prints."""

from __future__ import annotations

import torch

import regard
from regard.hf import cache
from support.data import STORIES, required
from support.eviction import dense_h2o, dense_kept, dense_kvzip, dense_snapkv, dense_tova
from support.headed import eager_decoder

WEIGHTS, LOGITS, PREDICTIONS = 2e-5, 1e-3, 1e-4
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high. Lily's mom said, \"Lily, let's go to the park.\" "
    "Lily was sad and didn't know what to do. She said, \"I want to play with your ball, but I can't find it.\""
)


def far(first, second):
    return float((first.double() - second.double()).abs().max())


@torch.no_grad()
def read_as_eager_does(lens, eager, text):
    """Weights, logits, the last layer's predictions, the perplexity."""
    reading = lens.read(text)
    output = eager(reading.ids[None], output_attentions=True)
    for attention, dense in zip(reading.attention, output.attentions, strict=True):
        assert far(attention.weights.dense(), dense[0]) <= WEIGHTS
    assert far(reading.logits, output.logits[0]) <= LOGITS
    shares = output.logits[0].softmax(-1)
    for layer in (None, -1):
        predictions = reading.predictions(3, layer=layer)
        assert far(predictions.probabilities, shares.gather(1, predictions.ids)) <= PREDICTIONS
    loss = torch.nn.functional.cross_entropy(output.logits[0, :-1].double(), reading.ids[1:])
    assert abs(predictions.perplexity - float(loss.exp())) <= PREDICTIONS
    return reading, output.attentions


@torch.no_grad()
def written_as_eager_does(lens, eager, text, tokens):
    """The same greedy reply, whose reading has every row of every head of every step."""
    reading = lens.generate(text, max_tokens=tokens).finish()
    start = reading.reply.token
    ids = reading.ids[None, :start]
    wrote = eager.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0,
        output_attentions=True, return_dict_in_generate=True,
    )  # fmt: skip
    theirs = wrote.sequences[0].tolist()
    assert reading.ids.tolist() == theirs[: len(theirs) - (theirs[-1] in lens.model.head.end_ids)]
    assert len(reading.ids) > start + tokens // 2
    for layer, attention in enumerate(reading.attention):
        weights = attention.weights.dense()
        for step, attentions in enumerate(wrote.attentions[: len(reading.ids) - start]):
            rows, end = attentions[layer][0], start + step
            assert far(weights[:, end - rows.shape[1] : end, :end], rows) <= WEIGHTS
    return reading


def evicted_as_by_eager(reading, attentions, tokens, budget):
    """The keys of every method, layer and group; those whose numbers differ from the last that stays by 1e-5 aside."""
    for attention, dense in zip(reading.attention, attentions, strict=True):
        weights, dense = attention.weights, dense.double()
        groups, cached = weights.scores.key.shape[1], dense[:, :, :tokens, :tokens]
        pairs = [
            (cache.h2o(weights, 8, tokens), dense_h2o(cached, groups, 8)),
            (cache.snapkv(weights, 8, 5, "mean", tokens), dense_snapkv(cached, groups, 8, 5, "mean")),
            (cache.snapkv(weights, 8, 7, "max", tokens), dense_snapkv(cached, groups, 8, 7, "max")),
            (cache.tova(weights, tokens), dense_tova(cached, groups)),
            (cache.kvzip(weights, tokens), dense_kvzip(dense, groups, tokens)),
        ]
        for ours, theirs in pairs:
            edge = theirs.sort(-1, descending=True).values[..., budget - 1, None]
            certain = (theirs - edge).abs() > 1e-5 * edge
            assert bool(certain.float().mean() > 0.9)
            kept, expected = cache.kept(ours, budget), dense_kept(theirs[0], budget)
            assert torch.equal(kept & certain[0], expected & certain[0])
            evicted = torch.nn.functional.pad(~kept, (0, dense.shape[3] - tokens))
            loss = (dense[0] * evicted.repeat_interleave(dense.shape[1] // groups, 0)[:, None]).sum(-1)
            assert far(cache.lost(weights, kept), loss) <= WEIGHTS


def test_the_trained_decoder_of_stories():
    lens = regard.Lens(required(STORIES))
    eager = eager_decoder(lens)
    reading, attentions = read_as_eager_does(lens, eager, STORY)
    tokens = len(reading.ids)
    assert tokens > 120
    evicted_as_by_eager(reading, attentions, tokens - 20, tokens // 4)
    written_as_eager_does(lens, eager, STORY[:120], 60)


def test_the_embedded_decoder(smollm2):
    eager = eager_decoder(smollm2)
    read_as_eager_does(smollm2, eager, STORY)
    reading = written_as_eager_does(smollm2, eager, "The capital of France is", 24)
    assert reading.reply.text.startswith(" Paris.")
