"""A token at a time: the cache that grows in place, and the native step of Llamas, against transformers' modules."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import transformers
from torch.nn import functional as F  # noqa: N812
from transformers import DynamicCache, GPT2Config, GPT2Model, LlamaConfig, LlamaModel
from transformers.cache_utils import DynamicLayer

import regard
import regard.hf
from regard.attention import replaced_in_models
from regard.backends import cpu
from regard.hf.growing import GrowingLayer, grow_in_place
from regard.hf.inference import Inference
from support.headed import headed

if not cpu.available():
    pytest.skip("the kernel is not installed", allow_module_level=True)

SHAPES = {  # dim, heads, groups, head_dim, hidden
    "grouped": (48, 6, 2, 8, 100),
    "wide": (576, 9, 3, 64, 1536),
    "odd": (39, 3, 1, 10, 51),
}


def llama(shape: str = "grouped", layers: int = 2) -> LlamaModel:
    dim, heads, groups, head_dim, hidden = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=101, hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, head_dim=head_dim, initializer_range=dim**-0.5, attn_implementation="regard",
    )  # fmt: skip
    model = LlamaModel(config).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model


def begun(model: LlamaModel, ids: torch.Tensor) -> DynamicCache:
    """The cache after some tokens, with room for more."""
    cache = model(input_ids=ids, use_cache=True).past_key_values
    grow_in_place(cache)
    return cache


def last(model: LlamaModel, ids: torch.Tensor) -> torch.Tensor:
    """The final state of the last token by transformers' modules, in float64 with eager attention."""
    model = copy.deepcopy(model).double()
    model.set_attn_implementation("eager")
    return model(input_ids=ids, use_cache=False).last_hidden_state[0, -1:]


def gpt2(dim: int = 48, heads: int = 3, layers: int = 2) -> GPT2Model:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=101, n_positions=200, n_embd=dim, n_layer=layers, n_head=heads, initializer_range=dim**-0.5,
        attn_implementation="regard",
    )  # fmt: skip
    model = GPT2Model(config).eval()
    for name, weight in model.named_parameters():
        if "ln" in name or "bias" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model


MODELS = {
    **{f"llama-{shape}": functools.partial(llama, shape) for shape in SHAPES},
    "gpt2": gpt2,
    "gpt2-wide": functools.partial(gpt2, 320, 5),
    "gpt2-odd": functools.partial(gpt2, 39, 3),
}


@contextmanager
def counted(monkeypatch) -> Iterator[list[int]]:
    """The number of tokens of each pass that is computed without modules."""
    calls, compute = [], Inference.__call__

    def call(self, ids, *others):
        calls.append(ids.shape[1])
        return compute(self, ids, *others)

    with monkeypatch.context() as patch:
        patch.setattr(Inference, "__call__", call)
        yield calls


@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize("name", MODELS)
def test_prompts_and_steps_are_those_of_the_modules(name, isa, monkeypatch):
    monkeypatch.setenv("REGARD_ISA", isa)
    monkeypatch.setattr("regard.hf.product.LEAST_TILED_ROWS", 1)  # in tiles where there are some
    model = MODELS[name]()
    eager = copy.deepcopy(model).double()
    eager.set_attn_implementation("eager")
    ids = torch.randint(101, (1, 90), generator=torch.Generator().manual_seed(1))
    expected = eager(input_ids=ids, output_attentions=True)
    with torch.inference_mode(), counted(monkeypatch) as calls:
        out = model(ids[:, :5], output_attentions=True)
        states, weights, cache = [out.last_hidden_state], [out.attentions], out.past_key_values
        out = model(ids[:, 5:8], past_key_values=cache, attention_mask=torch.ones(1, 8))
        states.append(out.last_hidden_state)
        for n in range(9, 91):  # past the room of 64 tokens
            positions = torch.tensor([[n - 1]]) if n % 2 else None
            out = model(ids[:, n - 1 : n], past_key_values=cache, position_ids=positions, output_attentions=True)
            assert out.past_key_values is cache
            states.append(out.last_hidden_state)
            weights.append(out.attentions)
    assert [count for count in calls if count > 1] == [4, 3, 5, 3]  # the first two are the trial
    assert len(calls) == 4 + 1 + 82
    assert (torch.cat(states, 1) - expected.last_hidden_state).abs().max() < 2e-5
    for layer, dense in enumerate(expected.attentions):
        rows = [*weights[0][layer].dense()[0].unbind(1), *(step[layer].dense()[0, :, 0] for step in weights[1:])]
        for n, row in zip([*range(5), *range(8, 90)], rows, strict=True):
            assert (row - dense[0, :, n, : n + 1 if n >= 5 else 5]).abs().max() < 2e-6
    for layer, other in zip(cache.layers, expected.past_key_values.layers, strict=True):
        assert layer.get_seq_length() == 90
        assert torch.allclose(layer.keys, other.keys.float(), atol=2e-5)
        assert torch.allclose(layer.values, other.values.float(), atol=2e-5)


@pytest.mark.parametrize("name", ["llama-wide", "gpt2-wide"])
def test_the_bits_do_not_depend_on_the_number_of_threads(name):
    model, ids, states = MODELS[name](), torch.randint(101, (1, 150)), []
    inference = Inference(model, type(model).forward.__wrapped__)
    with torch.inference_mode():
        prompt = model(ids[:, :-1]).past_key_values
        for threads in (1, 2, 3):
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                states.append(inference(ids[:, -1:], copy.deepcopy(prompt), None, False).last_hidden_state)
            finally:
                torch.set_num_threads(before)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", ["llama-grouped", "gpt2"])
def test_several_texts_at_once_and_padding(name, monkeypatch):
    model = MODELS[name]()
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    ids, padded = torch.randint(101, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    padded[1, :4] = 0
    with torch.inference_mode(), counted(monkeypatch) as calls:
        for mask in (torch.ones(3, 9), padded):
            given, expected = model(ids, attention_mask=mask), eager(ids, attention_mask=mask)
            assert (given.last_hidden_state - expected.last_hidden_state).abs().max() < 2e-5
            more = model(ids[:, :1], past_key_values=given.past_key_values, attention_mask=F.pad(mask, (0, 1), value=1))
            their = eager(
                ids[:, :1], past_key_values=expected.past_key_values, attention_mask=F.pad(mask, (0, 1), value=1)
            )
            assert (more.last_hidden_state - their.last_hidden_state).abs().max() < 2e-5
    assert calls == [4, 3, 1, 9, 1]  # the trial, and the texts without padding


@pytest.mark.parametrize("name", ["llama-grouped", "gpt2"])
def test_what_is_recorded_is_what_the_modules_give(name):
    model, ids = MODELS[name](), torch.randint(101, (2, 9))
    with torch.no_grad(), regard.hf.record() as fast:
        model(ids)
    model.register_forward_pre_hook(lambda *_: None)
    with torch.no_grad(), regard.hf.record() as slow:
        model(ids)
    for ours, theirs in zip(fast, slow, strict=True):
        assert (ours.module, ours.output, ours.norms) == (theirs.module, theirs.output, theirs.norms)
        assert torch.allclose(ours.x, theirs.x, atol=1e-5)
        assert torch.allclose(ours.attention.output, theirs.attention.output, atol=1e-5)
        assert torch.allclose(ours.attention.weights.dense(), theirs.attention.weights.dense(), atol=1e-6)


def _first(model):
    return model.layers[0] if hasattr(model, "layers") else model.h[0]


def _other_module(model):
    _first(model).mlp = torch.nn.Identity()


def _hook(model):
    _first(model).register_forward_hook(lambda module, inputs, output: output + 1)


def _pre_hook(model):
    _first(model).mlp.register_forward_pre_hook(lambda module, inputs: None)


def _own_forward(model):
    _first(model).mlp.forward = lambda x: x


def _half(model):
    _first(model).mlp.bfloat16()


def _strided(model):
    weight = next(weight for weight in _first(model).mlp.parameters() if weight.ndim == 2)
    weight.data = weight.data.T.contiguous().T


def _training(model):
    model.train()


def _scaling(model):
    attention = _first(model).attn if hasattr(model, "h") else _first(model).self_attn
    attention.scaling *= 2


CHANGES = [_other_module, _hook, _pre_hook, _own_forward, _half, _strided, _training, _scaling]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["llama-grouped", "gpt2"])
def test_a_model_that_was_changed_is_left_to_its_modules(name, change):
    model, ids = MODELS[name](), torch.tensor([[3, 1, 4]])
    inference = Inference(model, type(model).forward.__wrapped__)
    with torch.inference_mode():
        assert inference.serves(ids, None)
        change(model)
        assert not inference.serves(ids, None)


@pytest.mark.parametrize("name", ["llama-grouped", "gpt2"])
def test_other_calls_are_left_to_the_modules(name, monkeypatch):
    model, ids = MODELS[name](), torch.tensor([[3, 1, 4]])
    with torch.inference_mode(), counted(monkeypatch) as calls:
        cache = model(ids).past_key_values
        trial = len(calls) - 1
        model(ids, output_hidden_states=True)
        model(inputs_embeds=torch.randn(1, 3, 48))
        model(ids, attention_mask=torch.tensor([[0, 1, 1]]))
        assert isinstance(model(ids, return_dict=False), tuple)
        with torch.autocast("cpu", torch.bfloat16):
            model(ids)
        with replaced_in_models(regard.attention):
            model(ids)
        with regard.hf.record() as recorded:
            model(ids[:, :1], past_key_values=cache)
        model.set_attn_implementation("sdpa")
        model(ids)
    assert len(recorded) == 2
    assert len(calls) == trial + 1
    model.set_attn_implementation("regard")
    model(ids).last_hidden_state.sum().backward()
    assert len(calls) == trial + 1
    with torch.inference_mode():
        other = transformers.Qwen3Model(transformers.Qwen3Config(**SMALL, attn_implementation="regard")).eval()
        other(ids)
        assert not Inference(model.bfloat16(), type(model).forward.__wrapped__).serves(ids, None)


SMALL = {
    "vocab_size": 101, "hidden_size": 16, "intermediate_size": 13, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip


def test_changed_and_exchanged_weights_count_in_copies_too():
    model, ids = llama(), torch.tensor([[3, 1, 4, 1]])
    with torch.inference_mode():
        model(ids)  # tried before the change
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight.mul_(2)
        model.layers[1].self_attn.q_proj.weight = torch.nn.Parameter(-model.layers[1].self_attn.q_proj.weight)
        model.layers[1].input_layernorm.weight.data = torch.rand(48)
        model.layers[1].mlp.up_proj.bias = torch.nn.Parameter(torch.ones(model.layers[1].mlp.up_proj.out_features))
    with torch.inference_mode():
        cache = model(ids[:, :-1]).past_key_values
        state = model(ids[:, -1:], past_key_values=cache).last_hidden_state[0]
        assert (state - last(model, ids)).abs().max() < 2e-5


def test_modules_that_compute_otherwise_are_noticed(monkeypatch):
    """As in a release of transformers that changes a class and keeps its name."""
    model, ids = llama(), torch.tensor([[3, 1, 4]])
    forward = type(model.layers[0].mlp).forward
    monkeypatch.setattr(type(model.layers[0].mlp), "forward", lambda self, x: 1.01 * forward(self, x))
    with torch.inference_mode():
        assert not Inference(model, type(model).forward.__wrapped__).serves(ids, None)


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_a_lens_and_generate_write_by_it(kind, monkeypatch):
    model, tokenizer = headed(kind, kind[:5].lower().removesuffix("l"), torch.float32)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    lens = regard.Lens((model, tokenizer))
    with counted(monkeypatch) as calls:
        generation = lens.generate("Time flies like", max_tokens=20)
        fast = [token.id for token in generation]
        assert calls.count(1) >= 19
        ids = torch.tensor([generation._prompt.ids])
        options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
        assert model.generate(ids, **options)[0, ids.shape[1] :].tolist() == fast
        assert calls.count(1) >= 38
        handle = model.base_model.register_forward_pre_hook(lambda *_: None)
        before = len(calls)
        assert [token.id for token in lens.generate("Time flies like", max_tokens=20)] == fast
        assert len(calls) == before
    handle.remove()


# The cache


def test_a_cache_that_grows_in_place():
    tensors = [torch.randn(2, 3, n, 8) for n in (5, 1, 1, 70, 1, 400, 1)]
    oracle = DynamicLayer()
    oracle.update(tensors[0], -tensors[0])
    growing = GrowingLayer.after(oracle)
    handed_out = []
    for tensor in tensors[1:]:
        keys, values = growing.update(tensor, -tensor)
        expected = oracle.update(tensor, -tensor)
        assert torch.equal(keys, expected[0])
        assert torch.equal(values, expected[1])
        handed_out.append((keys, expected[0].clone()))
    for keys, before in handed_out:
        assert torch.equal(keys, before)
    where = growing.keys.data_ptr()
    growing.update(tensors[1], tensors[1])
    assert growing.keys.data_ptr() == where  # nothing is copied
    assert growing.get_seq_length() == growing.keys.shape[2]


def test_a_cache_that_was_cropped_or_reordered_writes_over_nothing():
    cache = begun(llama(), torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]]))
    layer = cache.layers[0]
    with torch.no_grad():
        keys, _ = layer.update(torch.ones(2, 2, 1, 8), torch.ones(2, 2, 1, 8))
        cache.crop(-2)
        assert layer.get_seq_length() == 3
        new, _ = layer.update(torch.zeros(2, 2, 1, 8), torch.zeros(2, 2, 1, 8))
        assert (keys[:, :, 4] == 1).all()
        assert (new[:, :, 3] == 0).all()
        assert torch.equal(new[:, :, :3], keys[:, :, :3])
        cache.reorder_cache(torch.tensor([1, 0]))
        again, _ = layer.update(torch.ones(2, 2, 1, 8), torch.ones(2, 2, 1, 8))
        assert torch.equal(again[0, :, :4], new[1])


def test_a_cache_of_inference_mode_goes_on_outside_of_it():
    model, ids = llama(), torch.tensor([[3, 1, 4, 1, 5]])
    with torch.inference_mode():
        cache = begun(model, ids[:, :2])
        model(input_ids=ids[:, 2:3], past_key_values=cache)
    with torch.no_grad():
        model(input_ids=ids[:, 3:4], past_key_values=cache)
        state = model(input_ids=ids[:, 4:], past_key_values=cache).last_hidden_state[0]
        assert (state - last(model, ids)).abs().max() < 2e-5


def test_a_gradient_goes_through_the_cache():
    model, ids = llama(), torch.tensor([[3, 1, 4, 1]])
    grads = []
    for grow in (False, True):
        model.zero_grad()
        cache = model(input_ids=ids[:, :-1], use_cache=True).past_key_values
        if grow:
            grow_in_place(cache)
        model(input_ids=ids[:, -1:], past_key_values=cache).last_hidden_state.square().sum().backward()
        grads.append(model.layers[0].self_attn.k_proj.weight.grad.clone())
    assert torch.equal(*grads)
    assert grads[0].any()


def test_wrong_tensors_are_refused_by_the_kernel():
    weights = Inference(llama(), LlamaModel.forward).layers[0].tensors()
    keys = torch.zeros(1, 2, 4, 8)
    good = [*weights, keys, keys.clone()]
    state, angles = torch.zeros(48), (torch.zeros(8), torch.zeros(8))
    with torch.no_grad():
        cpu.token([good], state, angles, 1.0, 1e-5)
        for place, wrong in (
            (0, torch.ones(47)),
            (2, weights[2].double()),
            (2, None),
            (3, torch.zeros(47)),
            (14, weights[14].T),
            (14, torch.zeros(200, 96)[::2, ::2]),
            (18, keys[0]),
            (19, keys[:, :, :3]),
        ):
            tensors = [*good[:place], wrong, *good[place + 1 :]]
            with pytest.raises((TypeError, ValueError), match=r"expected|incompatible"):
                cpu.token([tensors], state, angles, 1.0, 1e-5)
        with pytest.raises(ValueError, match="twenty tensors"):
            cpu.token([good[:-1]], state, angles, 1.0, 1e-5)
        with pytest.raises(ValueError, match="queries"):
            cpu.token(
                [good], state, angles, 1.0, 1e-5, (torch.zeros(1, 5, 8), torch.zeros(1, 6, dtype=torch.float64), None)
            )
