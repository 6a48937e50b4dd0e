"""A token at a time: the cache that grows in place, and the native step of Llamas, against transformers' modules."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from transformers import DynamicCache, LlamaConfig, LlamaModel
from transformers.cache_utils import DynamicLayer

import regard
import regard.hf
from regard.attention import replaced_in_models
from regard.backends import cpu
from regard.models.growing import GrowingLayer, grow_in_place
from regard.models.llama import LlamaStep
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


@pytest.mark.parametrize("isa", cpu.instruction_sets())
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_the_modules(shape, isa, monkeypatch):
    monkeypatch.setenv("REGARD_ISA", isa)
    model = llama(shape)
    ids = torch.randint(101, (1, 90), generator=torch.Generator().manual_seed(1))
    step = LlamaStep(model)
    with torch.inference_mode():
        cache = begun(model, ids[:, :5])
        for n in range(6, 91):  # past the room of 64 tokens
            token = ids[:, n - 1 : n]
            assert step.serves(token, cache)
            state = step(token, cache)
            if n in (6, 7, 30, 90):
                assert (state - last(model, ids[:, :n])).abs().max() < 2e-5
        expected = model(input_ids=ids, use_cache=True).past_key_values
    for layer, other in zip(cache.layers, expected.layers, strict=True):
        assert layer.keys.shape == other.keys.shape
        assert layer.get_seq_length() == 90
        assert torch.allclose(layer.keys, other.keys, atol=2e-5)
        assert torch.allclose(layer.values, other.values, atol=2e-5)


def test_the_bits_do_not_depend_on_the_number_of_threads():
    model, ids, states = llama("wide"), torch.randint(101, (1, 300)), []
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                cache = begun(model, ids[:, :-1])
                for layer in cache.layers:  # the prompt is PyTorch's, and its digits may differ
                    layer.keys.copy_(layer.keys.round(decimals=3)), layer.values.copy_(layer.values.round(decimals=3))
                states.append(LlamaStep(model)(ids[:, -1:], cache))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def _bias(model):
    model.layers[1].mlp.up_proj.bias = torch.nn.Parameter(torch.ones(model.layers[1].mlp.up_proj.out_features))


def _other_module(model):
    model.layers[1].mlp = torch.nn.Identity()


def _hook(model):
    model.layers[0].register_forward_hook(lambda module, inputs, output: output + 1)


def _pre_hook(model):
    model.layers[0].mlp.register_forward_pre_hook(lambda module, inputs: None)


def _own_forward(model):
    model.layers[0].mlp.forward = lambda x: x


def _half(model):
    model.layers[1].mlp.up_proj.bfloat16()


def _strided(model):
    weight = model.layers[0].self_attn.k_proj.weight
    weight.data = weight.data.T.contiguous().T


CHANGES = [_bias, _other_module, _hook, _pre_hook, _own_forward, _half, _strided]


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_was_changed_is_left_to_its_modules(change):
    model, ids = llama(), torch.tensor([[3, 1, 4]])
    step = LlamaStep(model)
    with torch.inference_mode():
        cache = begun(model, ids)
        assert step.serves(ids[:, :1], cache)
        change(model)
        assert not step.serves(ids[:, :1], cache)


def test_other_calls_are_left_to_the_modules():
    model, ids = llama(), torch.tensor([[3, 1, 4]])
    step = LlamaStep(model)
    with torch.inference_mode():
        cache, plain = begun(model, ids), model(input_ids=ids, use_cache=True).past_key_values
        assert step.serves(ids[:, :1], cache)
        assert not step.serves(ids, cache)  # several tokens
        assert not step.serves(ids[:, :1], None)
        assert not step.serves(ids[:, :1], plain)
        with torch.autocast("cpu", torch.bfloat16):
            assert not step.serves(ids[:, :1], cache)
        with replaced_in_models(regard.attention):
            assert not step.serves(ids[:, :1], cache)
        with regard.hf.record():
            assert not step.serves(ids[:, :1], cache)
    assert not step.serves(ids[:, :1], cache)  # a gradient
    for other in (transformers.Qwen3Model(transformers.Qwen3Config(**SMALL)), llama().bfloat16()):
        with torch.inference_mode():
            assert not LlamaStep(other).serves(ids[:, :1], begun(other.eval(), ids))


SMALL = {
    "vocab_size": 101, "hidden_size": 16, "intermediate_size": 13, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip


def test_changed_and_exchanged_weights_count():
    model, ids = llama(), torch.tensor([[3, 1, 4, 1]])
    step = LlamaStep(model)
    with torch.inference_mode():
        step.serves(ids[:, :1], begun(model, ids[:, :-1]))  # tried before the change
    with torch.no_grad():
        model.layers[0].mlp.up_proj.weight.mul_(2)
        model.layers[1].self_attn.q_proj.weight = torch.nn.Parameter(-model.layers[1].self_attn.q_proj.weight)
        model.layers[1].input_layernorm.weight.data = torch.rand(48)
    with torch.inference_mode():
        cache = begun(model, ids[:, :-1])
        assert step.serves(ids[:, -1:], cache)
        assert (step(ids[:, -1:], cache) - last(model, ids)).abs().max() < 2e-5


def test_modules_that_compute_otherwise_are_noticed(monkeypatch):
    """As in a release of transformers that changes a class and keeps its name."""
    model, ids = llama(), torch.tensor([[3, 1, 4]])
    forward = type(model.layers[0].mlp).forward
    monkeypatch.setattr(type(model.layers[0].mlp), "forward", lambda self, x: 1.01 * forward(self, x))
    with torch.inference_mode():
        assert not LlamaStep(model).serves(ids[:, :1], begun(model, ids))


def test_a_lens_writes_by_it(monkeypatch):
    calls, token = [], cpu.token
    monkeypatch.setattr(cpu, "token", lambda *args: calls.append(1) or token(*args))
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.float32)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    lens = regard.Lens((model, tokenizer))
    fast = [token.id for token in lens.generate("Time flies like", max_tokens=20)]
    assert len(calls) == 20  # one of them the trial
    handle = model.model.layers[0].register_forward_hook(lambda *_: None)
    assert [token.id for token in lens.generate("Time flies like", max_tokens=20)] == fast
    assert len(calls) == 20
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
    model = llama()
    weights = [model.layers[0].get_submodule(name).weight for name in regard.models.llama.NAMES]
    keys = torch.zeros(1, 2, 4, 8)
    good = [*weights, keys, keys.clone()]
    state, angles = torch.zeros(48), torch.zeros(8)
    with torch.no_grad():
        cpu.token([good], state, angles, angles, 1.0, 1e-5)
        for place, wrong in (
            (0, torch.ones(47)),
            (1, weights[1].double()),
            (4, weights[4].T),
            (9, keys[0]),
            (10, keys[:, :, :3]),
        ):
            tensors = [*good[:place], wrong, *good[place + 1 :]]
            with pytest.raises((TypeError, ValueError), match=r"expected|incompatible"):
                cpu.token([tensors], state, angles, angles, 1.0, 1e-5)
        with pytest.raises(ValueError, match="eleven tensors"):
            cpu.token([good[:-1]], state, angles, angles, 1.0, 1e-5)
