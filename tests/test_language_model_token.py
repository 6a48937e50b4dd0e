"""One token through a language model by the kernel, and by its modules where somebody watches or has changed them."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from functools import partial

import pytest
import torch
from torch import nn

import regard.nn as ours
from regard.attention import attention, replaced_in_models
from regard.backends import cpu
from regard.models.linear import for_inference
from regard.nn import language_model
from support.language_models import random_model, save


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


@pytest.fixture
def saved(tmp_path):
    return partial(save, tmp_path)


@pytest.mark.skipif(not cpu.available(), reason="the kernel is not installed")
@pytest.mark.parametrize("isa", cpu.instruction_sets() if cpu.available() else [])
@pytest.mark.parametrize("name", ["gpt2", "llama", "tied", "mistral"])
def test_one_token_is_computed_by_the_kernel(saved, name, isa, monkeypatch):
    monkeypatch.setenv("REGARD_ISA", isa)
    model, calls = ours.LanguageModel.from_pretrained(saved(name)), []
    monkeypatch.setattr(cpu, "token", lambda *args, step=cpu.token: calls.append(1) or step(*args))
    ids = torch.randint(41, (1, 9))
    with torch.no_grad():
        past, whole = model.begin(), model(ids)
        model(ids[:, :8], past)
        assert not calls
        last = model(ids[:, 8:], past)
    assert len(calls) == len(model.layers)
    close(last.logits, whole.logits[:, 8:], 1e-4)
    for attended, expected in zip(last.attentions, whole.attentions, strict=True):
        close(attended.output, expected.output[:, :, 8:])
        close(attended.lse, expected.lse[:, :, 8:])
        close(attended.weights.dense(), expected.weights.dense()[:, :, 8:])


WATCHED = {
    "a hook": lambda layer, seen: layer.attention.query.register_forward_hook(lambda *_: seen.append(1)),
    "a hook before": lambda layer, seen: layer.feed_forward.register_forward_pre_hook(lambda *_: seen.append(1)),
    "another forward": lambda layer, seen: setattr(
        layer.attention.output, "forward", lambda x: seen.append(1) or torch.zeros(*x.shape[:-1], 48)
    ),
    "another module": lambda layer, seen: setattr(layer.feed_forward, "fc2", Spy(seen)),
}
CHANGED = {
    "no gain": lambda layer: setattr(layer, "attention_norm", nn.LayerNorm(48, elementwise_affine=False)),
    "no shift": lambda layer: setattr(layer, "attention_norm", nn.LayerNorm(48, bias=False)),
    "no shifts": lambda layer: [
        setattr(layer, name, nn.LayerNorm(48, bias=False)) for name in ("attention_norm", "feed_forward_norm")
    ],
    "shifts that are gone": lambda layer: [
        setattr(layer, name, nn.LayerNorm(48)) or layer.get_submodule(name).register_parameter("bias", None)
        for name in ("attention_norm", "feed_forward_norm")
    ],
    "another epsilon": lambda layer: setattr(layer.attention_norm, "eps", 0.5),
    "epsilons of the type": lambda layer: [
        setattr(norm, "eps", None) for norm in (layer.attention_norm, layer.feed_forward_norm)
    ],
    "weights with gaps": lambda layer: setattr(
        layer.feed_forward.fc1, "weight", nn.Parameter(torch.randn(50, 2 * 48)[:, ::2])
    ),
    "weights the other way round": lambda layer: setattr(
        layer.feed_forward.fc1, "weight", nn.Parameter(torch.randn(48, 50).T)
    ),
    "another activation": lambda layer: setattr(layer, "feed_forward", ours.FeedForward(48, 50, "relu")),
    "a bias": lambda layer: setattr(layer.attention, "key", nn.Linear(48, 16)),
    "other positions": lambda layer: setattr(layer.attention.rotary, "theta", 10.0),
    "no positions": lambda layer: setattr(layer.attention, "rotary", None),
    "kernel layers": lambda layer: for_inference(layer.attention),
}


class Spy(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        self.seen.append(1)
        return torch.zeros(*x.shape[:-1], 48)


@pytest.mark.parametrize("how", WATCHED)
def test_modules_that_are_watched_or_exchanged_are_called(saved, how):
    model, seen, ids = ours.LanguageModel.from_pretrained(saved("llama")), [], torch.randint(41, (1, 5))
    WATCHED[how](model.layers[0], seen)
    with torch.no_grad():
        past = model.begin()
        parts = [model(part, past).logits for part in ids.split(1, 1)]
        assert len(seen) == 5
        close(torch.cat(parts, 1), model(ids).logits, 1e-4)


def test_an_experiment_replaces_the_attention_of_every_token(saved):
    model, ids = ours.LanguageModel.from_pretrained(saved("gpt2")), torch.randint(41, (1, 5))
    calls = []
    with torch.no_grad(), replaced_in_models(lambda *args, **options: calls.append(1) or attention(*args, **options)):
        past = model.begin()
        for part in ids.split(1, 1):
            model(part, past)
    assert len(calls) == 5 * len(model.layers)


def test_it_is_compiled_as_one_graph(saved):
    model, ids = ours.LanguageModel.from_pretrained(saved("llama")), torch.randint(41, (1, 6))
    compiled, expected = torch.compile(model, backend="eager", fullgraph=True), model(ids).logits
    close(compiled(ids).logits, expected)
    with torch.no_grad():
        past = model.begin()
        close(torch.cat([compiled(part, past).logits for part in ids.split((4, 1, 1), 1)], 1), expected)


@pytest.mark.skipif(not cpu.available(), reason="the kernel is not installed")
def test_an_exchanged_module_is_known_again_and_a_model_is_freed(saved, monkeypatch):
    model, ids, calls = ours.LanguageModel.from_pretrained(saved("llama")), torch.randint(41, (1, 2)), []
    monkeypatch.setattr(cpu, "token", lambda *args, step=cpu.token: calls.append(1) or step(*args))
    for count in (1, 2):
        with torch.no_grad():
            past = model.begin()
            for part in ids.split(1, 1):
                model.step(part, past)
        assert len(calls) == count * len(model.layers)
        model.layers[0].attention.value = nn.Linear(48, 16)
    freed = weakref.ref(model.layers[0])
    del model, past
    gc.collect()
    assert freed() is None


@pytest.mark.parametrize("grad", [True, False])
def test_long_texts_and_who_watches_their_layers(saved, monkeypatch, grad):
    monkeypatch.setattr(language_model, "ROWS", 4)
    model, ids, shapes = ours.LanguageModel.from_pretrained(saved("llama")), torch.randint(41, (2, 11)), []
    expected = random_model("llama")(ids).logits
    with torch.set_grad_enabled(grad):
        close(model(ids).logits, expected, 1e-4)
        model.layers[1].feed_forward.register_forward_hook(lambda *given: shapes.append(given[2].shape))
        close(model(ids).logits, expected, 1e-4)
    assert shapes == [(2, 11, 48)]


@pytest.mark.parametrize("how", CHANGED)
def test_what_is_changed_counts(saved, how):
    model, ids = ours.LanguageModel.from_pretrained(saved("llama")), torch.randint(41, (1, 5))
    with torch.no_grad():
        past = model.begin()
        before = torch.cat([model(part, past).logits for part in ids.split(1, 1)], 1)
        CHANGED[how](model.layers[1])
        past = model.begin()
        after = torch.cat([model(part, past).logits for part in ids.split(1, 1)], 1)
        close(after, model(ids).logits, 1e-4)
    assert how in ("kernel layers", "epsilons of the type") or not torch.allclose(after, before, atol=1e-3)


def test_in_float64_and_under_what_watches(saved):
    model, ids = ours.LanguageModel.from_pretrained(saved("llama")), torch.randint(41, (2, 5))
    expected = model(ids).logits
    with torch.no_grad():
        past = model.begin()
        with torch.autocast("cpu", torch.bfloat16):
            parts = [model(part, past).logits for part in ids[:1].split(1, 1)]
        assert parts[-1].dtype == torch.bfloat16
        close(torch.cat(parts, 1).float(), expected[:1], 0.3)
        model = model.double()
        past = model.begin()
        parts = [model(part, past).logits for part in ids[:1].split(1, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids[:1]).logits, atol=1e-12, rtol=0)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(copied(ids).logits, model(ids).logits)
