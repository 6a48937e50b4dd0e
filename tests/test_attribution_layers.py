"""What surrounds the attention of a layer: found in every family, and summing to what the model itself computes."""

import copy
import gc
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_modules

import regard
import regard.hf
from regard.attribution.layers import layer_of, layers_of
from regard.models.model import Pass
from regard.models.projections import find_surroundings
from regard.models.residual import norm_of, output_by_head
from support import models
from support.readings import made
from support.transformers_models import DECODERS, ENCODERS, SEQ2SEQ, Family, batch, make, seq2seq_inputs

FAMILIES = {**ENCODERS, **DECODERS, **SEQ2SEQ}
NEXT_NORM = {  # the module that the sum of the first layer's self-attention enters, in the model's own code
    "bert": lambda model: model.encoder.layer[0].attention.output.LayerNorm,
    "roberta": lambda model: model.encoder.layer[0].attention.output.LayerNorm,
    "distilbert": lambda model: model.transformer.layer[0].sa_layer_norm,
    "modernbert": lambda model: model.layers[0].mlp_norm,
    "gpt2": lambda model: model.h[0].ln_2,
    "llama": lambda model: model.layers[0].post_attention_layernorm,
    "mistral": lambda model: model.layers[0].post_attention_layernorm,
    "qwen3": lambda model: model.layers[0].post_attention_layernorm,
    "gemma2": lambda model: model.layers[0].pre_feedforward_layernorm,
    "gpt-oss": lambda model: model.layers[0].post_attention_layernorm,
    "llama4-chunked": lambda model: model.layers[0].post_attention_layernorm,
    "t5": lambda model: model.encoder.block[0].layer[1].layer_norm,
    "bart": lambda model: model.encoder.layers[0].self_attn_layer_norm,
    "whisper": lambda model: model.encoder.layers[0].final_layer_norm,
}
POST_NORM = {"bert", "roberta", "distilbert", "bart"}


def recorded(name, padding="right"):
    """What record() collects from a family, and what entered the norm after its first attention."""
    family = FAMILIES[name]
    model = make(family, attn_implementation="regard")
    inputs = seq2seq_inputs(family, padding)[0] if name in SEQ2SEQ else batch(padding)
    entered = []
    hook = NEXT_NORM[name](model).register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    with regard.hf.record() as attentions, torch.no_grad():
        model(**inputs)
    hook.remove()
    return model, attentions, entered[0]


def summed(at):
    """Σ_j Σ_h w^h_ij f^h_j + b_O + x, with a vector for each key and head; in Gemma, through its inner norm."""
    vectors = at.values.double() @ at.output_weight.double()  # (…,H,K,dim)
    total = (at.weights.dense().double() @ vectors).sum(-3)
    total = total if at.output_bias is None else total + at.output_bias
    return at.x + (total if at.inner_norm is None else at.inner_norm(total.float()).detach())


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=tolerance * float(expected.abs().max()))


# The sum


@pytest.mark.parametrize("name", NEXT_NORM)
def test_what_the_heads_take_sums_to_what_enters_the_next_norm(name) -> None:
    _, attentions, entered = recorded(name)
    at = layer_of(attentions, 0)
    rows = at.weights.dense().sum(-1).sum(-2) > 0  # a query that may look at nothing gets eager's mean of the values
    close(summed(at)[rows], entered[rows])


@pytest.mark.parametrize("name", [name for name in models.MODELS if name not in ("mamba", "resnet")])
def test_of_a_reading_too(name) -> None:
    lens = regard.Lens(models.tiny(name))
    reading = lens.read("the cat sat on the mat")
    for number, at in enumerate(layers_of(reading)):
        entered, shape = [], at.x[None].shape

        def keep(_, inputs, output, entered=entered, shape=shape):
            entered.extend(tensor[0] for tensor in (inputs[0], output) if getattr(tensor, "shape", None) == shape)

        leaves = [module for module in lens.model.blocks[number].modules() if not list(module.children())]
        hooks = [module.register_forward_hook(keep) for module in leaves]
        lens.read("the cat sat on the mat")
        for hook in hooks:
            hook.remove()
        if name == "neox":  # attention and feed-forward network are added to the same x
            entered = [reading.hidden[number + 1] - tensor for tensor in entered]
        expected = summed(at)
        gap = min(float((tensor - expected).abs().max()) for tensor in entered)
        assert gap <= 1e-5 * float(expected.abs().max())


def test_of_the_embedded_model() -> None:
    reading = regard.Lens().read("Time flies like an arrow")
    for number, at in enumerate(layers_of(reading)):
        layer = reading.lens.model.blocks[number]
        normed = layer.attention_norm(summed(at).float())
        close(layer._fed_forward(normed[None])[0], reading.hidden[number + 1], 1e-4)
        assert list(at.after) == [layer.attention_norm, layer.feed_forward_norm]


@pytest.mark.parametrize("pre_norm", [False, True])
def test_of_an_encoder_of_ones_own(pre_norm) -> None:
    torch.manual_seed(2)
    encoder = regard.nn.Encoder(
        regard.nn.Embeddings(60, 12, positions=40), 2, dim=12, heads=3, d_ff=17, pre_norm=pre_norm
    )

    def forward(ids, lengths):
        hidden, attentions = encoder.eval()(ids, lengths)
        return Pass(hidden, attentions, hidden[-1])

    for layer, around in zip(encoder.layers, find_surroundings(forward, encoder.layers, [1, 2, 3, 4]), strict=True):
        assert around.output is layer.attention.output
        assert around.residual
        assert around.norms == (() if pre_norm else (layer.attention_norm, layer.feed_forward_norm))


# The modules


@pytest.mark.parametrize("name", NEXT_NORM)
def test_post_norms_are_told_from_pre_norms(name) -> None:
    model, attentions, _ = recorded(name)
    first = attentions[0]
    if name in POST_NORM:
        assert first.norms[0] is NEXT_NORM[name](model)
        assert len(first.norms) == 2
        assert all(type(norm) is nn.LayerNorm for norm in first.norms)
    else:
        assert first.norms == ()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_output_projection_of_every_family(name) -> None:
    family = FAMILIES[name]
    model = make(family, attn_implementation="regard")
    inputs = seq2seq_inputs(family, "none")[0] if name in SEQ2SEQ else batch()
    with regard.hf.record() as attentions, torch.no_grad():
        model(**inputs)
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    known = {"dense", "out_lin", "Wo", "c_proj", "o_proj", "o", "out_proj"}
    assert {names[entry.output] for entry in attentions} <= known
    assert len({entry.output for entry in attentions}) == len(attentions)


PARALLEL = {
    "GPTNeoX": {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 17},
    "Phi": {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 17},
    "Cohere": {**DECODERS["llama"].options},
}


@pytest.mark.parametrize("kind", PARALLEL)
def test_attention_and_feed_forward_network_in_parallel(kind) -> None:
    options = {"vocab_size": 41, **PARALLEL[kind]}
    model = make(Family(f"{kind}Model", f"{kind}Config", options), attn_implementation="regard")
    with regard.hf.record() as attentions, torch.no_grad():
        hidden = model(**batch(), output_hidden_states=True).hidden_states
    for entry, state in zip(attentions, hidden, strict=False):
        assert entry.x is not None
        close(entry.x, state)
        assert entry.norms == ()


def test_opt_flattens_the_sum() -> None:
    options = {"vocab_size": 41, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 17}
    family = Family("OPTModel", "OPTConfig", {**options, "word_embed_proj_dim": 12})
    model = make(family, attn_implementation="regard")
    with regard.hf.record() as attentions, torch.no_grad():
        hidden = model(**batch(), output_hidden_states=True).hidden_states
    for entry, state in zip(attentions, hidden, strict=False):
        close(entry.x, state)


def test_cross_attention_between_post_norms() -> None:
    model, attentions, _ = recorded("bart")
    own, crossed = attentions[2:4]
    layer = model.decoder.layers[0]
    assert (own.output, crossed.output) == (layer.self_attn.out_proj, layer.encoder_attn.out_proj)
    assert own.norms == (layer.self_attn_layer_norm,)
    assert crossed.norms == (layer.encoder_attn_layer_norm, layer.final_layer_norm)
    at = layer_of(attentions, 2)
    close(layer.self_attn_layer_norm(summed(at).float()).detach(), crossed.x)


def test_shared_layers() -> None:
    options = {"vocab_size": 41, "embedding_size": 9, "hidden_size": 15, "num_attention_heads": 3}
    family = Family("AlbertModel", "AlbertConfig", {**options, "num_hidden_layers": 3, "intermediate_size": 17})
    model = make(family, attn_implementation="regard")
    with regard.hf.record() as attentions, torch.no_grad():
        model(**batch())
    assert len(attentions) == 3
    for entry in attentions:
        at = layer_of([entry], 0)
        assert at.x.shape == (3, 11, 15)
        assert len(at.norms) == 2
    assert attentions[0].x is not attentions[1].x
    assert attentions[0].output is attentions[1].output


# Norms as linear maps


class Gemma(nn.Module):
    """The norm of Gemma: the gain is 1 + weight."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


class Unusual(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return self.weight * x / x.abs().sum(-1, keepdim=True)


NORMS = {
    "LayerNorm": lambda dim: nn.LayerNorm(dim),
    "without parameters": lambda dim: nn.LayerNorm(dim, elementwise_affine=False),
    "RMSNorm": lambda dim: nn.RMSNorm(dim, eps=1e-6),
    "Gemma": Gemma,
}


@pytest.mark.parametrize("dim", [2, 15, 768])
@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_is_linear_in_the_summands_of_its_input(kind, dim) -> None:
    module = NORMS[kind](dim)
    for parameter in module.requires_grad_(False).parameters():
        parameter.normal_()
    summands = 3 * torch.randn(5, dim)
    norm = norm_of(module, dim)
    whole = module(summands.sum(0)) - module(torch.zeros(dim))
    parts = norm(summands).sum(0)
    factor = (whole @ parts) / (parts @ parts)  # 1/σ
    close(factor * parts, whole, 1e-4)
    assert norm.centred == (kind in ("LayerNorm", "without parameters"))


def test_other_norms_are_not_claimed() -> None:
    assert norm_of(Unusual(7), 7) is None
    assert norm_of(nn.LayerNorm(7), 5) is None


# What cannot be found


def test_without_a_lens() -> None:
    with pytest.raises(ValueError, match=r"layer 1 of made up: no module was seen that joins .*lost its lens"):
        _ = layer_of(made(), 1).output_weight
    with pytest.raises(ValueError, match="layer 1 of made up: which residual stream"):
        _ = layer_of(made(), 1).x


class Wrapped(nn.Module):
    """As adapters wrap a linear module: its own matrix is not all that it computes."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    @property
    def weight(self):
        return self.inner.weight

    def forward(self, x):
        return 2 * self.inner(x)


def test_a_wrapped_output_projection_is_refused() -> None:
    model = make(DECODERS["llama"], attn_implementation="regard")
    for layer in model.layers:
        layer.self_attn.o_proj = Wrapped(layer.self_attn.o_proj)
    with regard.hf.record() as attentions, torch.no_grad():
        model(**batch())
    assert attentions[1].output is model.layers[1].self_attn.o_proj
    with pytest.raises(ValueError, match=r"attention 1, of a LlamaAttention: .* is a Wrapped, and not .*merge"):
        _ = layer_of(attentions, 1).output_weight


def test_of_a_reading_it_is_refused_too() -> None:
    model, tokenizer = models.tiny("llama")
    for layer in model.layers:
        layer.self_attn.o_proj = Wrapped(layer.self_attn.o_proj)
    reading = regard.Lens((model, tokenizer)).read("the cat sat")
    with pytest.raises(ValueError, match=r"layer 1 of .* is a Wrapped, and not"):
        _ = layer_of(reading, 1).output_weight


def test_a_model_that_computes_between_attention_and_output() -> None:
    model = make(DECODERS["llama"], attn_implementation="regard")
    for layer in model.layers:
        layer.self_attn.o_proj = nn.Sequential(nn.Tanh(), layer.self_attn.o_proj)
    with regard.hf.record() as attentions, torch.no_grad():
        model(**batch())
    with pytest.raises(ValueError, match="attention 0, of a LlamaAttention: no module was seen that joins the heads"):
        _ = layer_of(attentions, 0).output_weight


def test_the_inner_norm_of_gemma() -> None:
    model, attentions, _ = recorded("gemma2")
    assert [entry.inner_norm for entry in attentions] == [layer.post_attention_layernorm for layer in model.layers]
    reading = regard.Lens(tiny := models.tiny("gemma2")).read("the cat sat")
    inner = [layer.inner_norm for layer in layers_of(reading)]
    assert inner == [layer.post_attention_layernorm for layer in tiny[0].layers]


def test_a_scaled_sum_is_not_claimed() -> None:
    options = {**DECODERS["llama"].options, "residual_multiplier": 0.5}
    model = make(Family("GraniteModel", "GraniteConfig", options), attn_implementation="regard")
    with regard.hf.record() as attentions, torch.no_grad():
        model(**batch())
    assert layer_of(attentions, 0).output_weight.shape == (6, 4, 24)
    with pytest.raises(ValueError, match="attention 0, of a GraniteAttention: which residual stream"):
        _ = layer_of(attentions, 0).x


def test_an_unusual_norm_is_refused() -> None:
    model = make(ENCODERS["bert"], attn_implementation="regard")
    for layer in model.encoder.layer:
        layer.attention.output.LayerNorm = UnusualNorm(15)
    with regard.hf.record() as attentions, torch.no_grad():
        model(**batch())
    with pytest.raises(ValueError, match="the norm after the attention, a UnusualNorm, is neither a LayerNorm nor"):
        _ = layer_of(attentions, 0).norms


class UnusualNorm(Unusual):
    pass


@pytest.mark.parametrize("source", [None, "text", [1, 2], {}, torch.zeros(3)])
def test_other_sources(source) -> None:
    with pytest.raises(TypeError, match=r"source: expected a reading, or the list that regard.hf.record\(\) collected"):
        layer_of(source, 0)


def test_layers_that_do_not_exist() -> None:
    reading = regard.Lens().read("Time flies")
    with pytest.raises(IndexError, match="There is no layer 6: all-MiniLM-L6-v2 has layers 0 to 5"):
        layer_of(reading, 6)
    with pytest.raises(IndexError, match=r"There is no attention 0: record\(\) collected none"):
        layer_of([], 0)
    _, attentions, _ = recorded("bert")
    with pytest.raises(IndexError, match=r"There is no attention 2: record\(\) collected 0 to 1"):
        layer_of(attentions, 2)
    assert layer_of(attentions, -1).attention is attentions[1].attention


def test_weights_without_floating_point() -> None:
    module = nn.Linear(6, 4)
    module.weight = nn.Parameter(module.weight.mul(10).to(torch.int8), requires_grad=False)
    assert output_by_head(module, 2) is None
    assert output_by_head(nn.LayerNorm(6), 2) is None
    assert output_by_head(None, 2) is None


# record()


def test_recorded_is_a_pair() -> None:
    _, attentions, _ = recorded("llama")
    entry = attentions[0]
    module, attention = entry
    assert (module, attention) == (entry.module, entry.attention) == tuple(entry)
    assert len(entry) == 2
    again = pickle.loads(pickle.dumps(copy.copy(entry)))
    assert isinstance(again, regard.hf.Recorded)
    assert again.x.equal(entry.x)
    bare = regard.hf.Recorded(module, attention)
    assert (bare.output, bare.x, bare.norms) == (None, None, ())


def hooks():
    return len(torch_modules._global_forward_pre_hooks) + len(torch_modules._global_forward_hooks)


def test_the_hooks_go_when_the_block_ends() -> None:
    before = hooks()
    with regard.hf.record():
        assert hooks() == before + 2
    assert hooks() == before
    with pytest.raises(TypeError), regard.hf.record():
        nn.Linear(2, 3)("no tensor")
    assert hooks() == before


def test_other_threads_are_not_watched() -> None:
    """Another model runs from beginning to end in another thread, in the middle of a layer."""
    model, other = (make(ENCODERS["bert"], attn_implementation="regard") for _ in range(2))

    def run_the_other(*_):
        thread = threading.Thread(target=lambda: other(**batch()))
        thread.start()
        thread.join()

    for layer in model.encoder.layer:
        for module in (layer.attention.self.query, layer.attention.output.dense, layer.intermediate.dense):
            module.register_forward_pre_hook(run_the_other)
    with regard.hf.record() as attentions, torch.no_grad():
        model(**batch())
    assert len(attentions) == 2
    for entry, layer in zip(attentions, model.encoder.layer, strict=True):
        assert entry.output is layer.attention.output.dense
        assert entry.norms == (layer.attention.output.LayerNorm, layer.output.LayerNorm)
        assert entry.x is not None


def test_nothing_but_the_residual_stream_is_kept() -> None:
    """Of all that passes the hooks, a layer keeps x alone."""
    _, attentions, _ = recorded("llama")
    gc.collect()
    known = {id(entry.x) for entry in attentions}
    assert len(known) == 2
    entry = attentions[0]
    assert set(vars(entry)) == {"output", "x", "norms"}
    assert len({entry.x.data_ptr() for entry in attentions}) == 2


def test_a_compiled_model_is_recorded_and_its_surroundings_are_not_seen() -> None:
    model = make(ENCODERS["bert"], attn_implementation="regard")
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        for seen, run in ((False, compiled), (True, model), (False, compiled)):
            with regard.hf.record() as attentions:
                run(**batch())
            assert [entry.output is not None for entry in attentions] == [seen, seen]


def test_while_it_trains() -> None:
    """With a graph, and gradient checkpointing, which computes each layer again in the backward pass."""
    model = make(DECODERS["llama"], attn_implementation="regard").train()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    with regard.hf.record() as attentions:
        model(**batch()).last_hidden_state.sum().backward()
    assert len(attentions) == 2
    assert [entry.output for entry in attentions] == [layer.self_attn.o_proj for layer in model.layers]
    assert all(entry.x is not None for entry in attentions)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_in_other_precisions(name, dtype) -> None:
    family = FAMILIES[name]
    model = make(family, attn_implementation="regard").to(dtype)
    inputs = seq2seq_inputs(family, "none")[0] if name in SEQ2SEQ else batch()
    with regard.hf.record() as attentions, torch.no_grad():
        model(**inputs)
    assert all(entry.x is not None and entry.x.dtype == dtype for entry in attentions)
    assert {len(entry.norms) for entry in attentions} == {2 if name in POST_NORM else 0}
