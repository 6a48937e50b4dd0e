"""Value-weighted maps, norms, mixing and rollout against their published equations, dense and in float64."""

import sys

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

import regard
import regard.hf
from regard import attribution
from regard.attribution.norms import gram
from support import models
from support.readings import made
from support.transformers_models import DECODERS, ENCODERS, SEQ2SEQ, batch, make, seq2seq_inputs

TEXT = "the cat sat on the mat"
NAMES = ["bert", "gpt2", "llama", "t5", "roberta", "qwen3", "gemma2", "gpt-oss"]
POST_NORM = {"bert", "roberta"}


def close(actual, expected):
    """Equal to 1e-5 of the largest number."""
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


class Dense:
    """A layer written out in float64, from the parameters by their names: weights (…,H,N,N), vectors f (…,H,N,dim)."""

    def __init__(self, attention, output, norms, x, inner=None):
        state = {name: value.double() for name, value in output.state_dict().items()}
        matrix = state["weight"] if isinstance(output, transformers.pytorch_utils.Conv1D) else state["weight"].T
        self.weights = attention.weights.dense().double()
        heads = self.weights.shape[-3]
        value = attention.value.double().repeat_interleave(heads // attention.value.shape[-3], -3)
        self.vectors = torch.einsum("...hje,hed->...hjd", value, matrix.unflatten(0, (heads, -1)))
        self.summed = torch.einsum("...hij,...hjd->...ijd", self.weights, self.vectors)  # a vector for each pair
        self.gains = [norm.weight.detach().double() for norm in norms]
        self.x, self.added = x.double(), self.summed
        if inner is not None:  # Gemma's RMSNorm of what is added, with σ that of the sum over keys
            sigma = (self.summed.sum(-2).square().mean(-1) + inner.eps).sqrt()
            self.added = self.summed * (1 + inner.weight.detach().double()) / sigma[..., None, None]

    def with_residual(self, norms):
        """L(Σ_h w^h_ij f^h_j + [i = j] x_i), but for the factor of the row."""
        vectors = self.added + torch.diag_embed(self.x.mT).movedim(-3, -1)
        for gain in self.gains[:norms]:
            vectors = gain * (vectors - vectors.mean(-1, keepdim=True))
        return vectors


def modules(name, model):
    """For each layer, in the model's own names: the output projection, the norms after the sum, that before it."""
    if name in POST_NORM:
        layers = model.encoder.layer
        return [
            (at.attention.output.dense, [at.attention.output.LayerNorm, at.output.LayerNorm], None) for at in layers
        ]
    if name == "gpt2":
        return [(block.attn.c_proj, [], None) for block in model.h]
    if name == "t5":
        return [(block.layer[0].SelfAttention.o, [], None) for block in model.encoder.block]
    inner = name == "gemma2"
    return [(at.self_attn.o_proj, [], at.post_attention_layernorm if inner else None) for at in model.layers]


def read(name):
    """A reading, and its layers written out."""
    model, tokenizer = models.tiny(name)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "sinks" not in parameter_name:
                parameter.normal_(1, 0.5)  # gains and biases that matter
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    around = zip(reading.attention, modules(name, model), reading.hidden, strict=False)
    return reading, [Dense(attention, output, norms, x, inner) for attention, (output, norms, inner), x in around]


def collected(name):
    """The same of record(), of sequences of unequal lengths."""
    family = {**ENCODERS, **DECODERS, **SEQ2SEQ}[name]
    model = make(family, attn_implementation="regard")
    inputs = seq2seq_inputs(family, "right")[0] if name in SEQ2SEQ else batch("right")
    with regard.hf.record() as attentions, torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True)
    states = hidden.encoder_hidden_states if name in SEQ2SEQ else hidden.hidden_states
    around = list(zip(attentions, modules(name, model), states, strict=False))
    layers = [Dense(entry.attention, output, norms, x, inner) for entry, (output, norms, inner), x in around]
    return attentions[: len(layers)], layers


@pytest.fixture(params=[*NAMES, *(f"record {name}" for name in NAMES)])
def case(request):
    name = request.param.removeprefix("record ")
    return (name, *(read if name == request.param else collected)(name))


def test_value_weighted(case) -> None:
    """Kobayashi et al. 2020, equation 4: ‖w^h_ij f^h(x_j)‖."""
    _, source, layers = case
    for number, dense in enumerate(layers):
        expected = dense.weights * dense.vectors.norm(dim=-1)[..., None, :]
        close(attribution.value_weighted(source, number).dense(), expected)


def test_norms(case) -> None:
    """Kobayashi et al. 2020, equation 7: ‖Σ_h w^h_ij f^h(x_j)‖."""
    _, source, layers = case
    for number, dense in enumerate(layers):
        close(attribution.norms(source, number).dense(), dense.summed.norm(dim=-1))


def test_mixing(case) -> None:
    """Kobayashi et al. 2021, section 3: the vectors of all pairs, those of the diagonal apart from the others."""
    name, source, layers = case
    for number, dense in enumerate(layers):
        vectors = dense.with_residual(norms=1 if name in POST_NORM else 0)
        kept = vectors.diagonal(dim1=-3, dim2=-2).mT
        mixed = vectors.sum(-2) - kept
        expected = mixed.norm(dim=-1) / (mixed.norm(dim=-1) + kept.norm(dim=-1))
        close(attribution.mixing(source, number), expected)


@pytest.mark.parametrize("tokens", [[0], [3], [-1], [1, 2, 5]])
def test_rollout(case, tokens) -> None:
    """Abnar and Zuidema 2020: the product of ½ (A + I) over the layers, A the mean of the heads."""
    _, source, layers = case
    product = identity = torch.eye(layers[0].weights.shape[-1], dtype=torch.float64)
    for dense in layers:
        product = (dense.weights.mean(-3) + identity) / 2 @ product
    expected = product[..., tokens, :].mean(-2)
    close(attribution.rollout(source, tokens=tokens).tokens, expected)


@pytest.mark.parametrize("tokens", [[0], [3], [-1], [1, 2, 5]])
def test_rollout_of_norms(case, tokens) -> None:
    """GlobEnc, Modarressi et al. 2022: norms with residual and both layer norms, rows normalised, multiplied."""
    _, source, layers = case
    product = torch.eye(layers[0].weights.shape[-1], dtype=torch.float64)
    for dense in layers:
        norms = dense.with_residual(norms=2).norm(dim=-1)
        product = norms / norms.sum(-1, keepdim=True) @ product
    close(attribution.rollout(source, tokens=tokens, of="norms").tokens, product[..., tokens, :].mean(-2))


@pytest.mark.parametrize("name", ["bert", "llama", "gemma2"])
def test_in_half_precision_arithmetic_is_in_single(name) -> None:
    """Everything from a bfloat16 model's own query, key, value, x and parameters, in float32."""
    model = make({**ENCODERS, **DECODERS}[name], attn_implementation="regard").bfloat16()
    with regard.hf.record() as attentions, torch.no_grad():
        model(**batch())
    layers = [
        Dense(e.attention, *around[:2], e.x, around[2])
        for e, around in zip(attentions, modules(name, model), strict=True)
    ]
    close(
        attribution.value_weighted(attentions, 1).dense(),
        layers[1].weights * layers[1].vectors.norm(dim=-1)[..., None, :],
    )
    close(attribution.norms(attentions, 1).dense(), layers[1].summed.norm(dim=-1))
    if name == "gemma2":  # its inner norm computes σ of what was rounded to bfloat16
        return
    product = torch.eye(11, dtype=torch.float64)
    for dense in layers:
        norms = dense.with_residual(norms=2).norm(dim=-1)
        product = norms / norms.sum(-1, keepdim=True) @ product
    close(attribution.rollout(attentions, tokens=3, of="norms").tokens, product[..., 3, :])


# Of words


def test_relevance_of_a_word() -> None:
    reading = regard.Lens().read("Time flies like an unbelievable arrow.")
    word = reading.word("unbelievable")
    assert len(word.tokens) > 0
    for of in ("weights", "norms"):
        relevance = attribution.rollout(reading, word="unbelievable", of=of)
        assert relevance.tokens.equal(attribution.rollout(reading, tokens=word.tokens, of=of).tokens)
        assert relevance.tokens.equal(attribution.rollout(reading, word=word, of=of).tokens)
        assert relevance.units.shape == (len(reading.units),)
        assert float(relevance.units.sum()) == pytest.approx(1, abs=1e-5)
        for unit in reading.units:
            expected = sum(float(relevance.tokens[token]) for token in unit.tokens)
            assert float(relevance.units[unit.index]) == pytest.approx(expected, abs=1e-6)


def test_what_a_token_that_sees_only_itself_is_made_of() -> None:
    reading = regard.Lens(models.tiny("gpt2")).read(TEXT)
    for of in ("weights", "norms"):
        relevance = attribution.rollout(reading, tokens=0, of=of).tokens
        assert relevance.tolist() == pytest.approx([1, *[0] * (len(relevance) - 1)], abs=1e-6)
    assert float(attribution.mixing(reading, 0)[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "t5"])
def test_padding_that_sees_nothing_and_is_nothing(name) -> None:
    """Left padding: rows without weights, of tokens whose vector is 0, take no part, and the others are as without."""
    family = {**DECODERS, **SEQ2SEQ}[name]
    model = make(family, attn_implementation="regard")
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 0
    inputs = seq2seq_inputs(family, "left")[0] if name in SEQ2SEQ else batch("left")
    with regard.hf.record() as attentions, torch.no_grad():
        model(**inputs)
    for of in ("weights", "norms"):
        relevance = attribution.rollout(attentions[:2], tokens=-1, of=of).tokens
        assert relevance.sum(-1).tolist() == pytest.approx([1] * 3, abs=1e-5)
        assert relevance[2, :9].abs().max() <= 1e-6
    assert attribution.mixing(attentions, 1).isfinite().all()


# The Gram matrix


@given(
    groups=st.integers(1, 3),
    repeat=st.integers(1, 3),
    tokens=st.integers(1, 9),
    dims=st.tuples(st.integers(1, 5), st.integers(1, 17)),
    leading=st.sampled_from([(), (1,), (2,)]),
    block=st.integers(1, 60),
)
def test_gram_in_blocks(groups, repeat, tokens, dims, leading, block) -> None:
    value_dim, dim = dims
    values = torch.randn(*leading, groups, tokens, value_dim)
    by_head = torch.randn(groups * repeat, value_dim, dim)
    vectors = torch.einsum("...hje,hed->...jhd", values.double().repeat_interleave(repeat, -3), by_head.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["regard.attribution.norms"], "BLOCK", block)
        products = gram(values, by_head)
    close(products, torch.einsum("...jhd,...jgd->...jhg", vectors, vectors))


def test_gram_in_half_precision_is_accumulated_in_single() -> None:
    values, by_head = torch.randn(2, 5, 7).bfloat16(), torch.randn(2, 7, 11).bfloat16()
    products = gram(values, by_head)
    assert products.dtype == torch.float32
    close(products, gram(values.double(), by_head.double()))


def test_heads_that_take_opposite_things_cancel() -> None:
    """Two heads with the same weights and opposite output matrices take nothing together."""
    reading, _ = read("bert")
    apart = attribution.value_weighted(reading, 1).dense().sum(0)
    together = attribution.norms(reading, 1).dense()
    assert (together <= apart * (1 + 1e-5)).all()
    assert (together < apart / 2).any()


# By name


def test_map_of() -> None:
    reading = regard.Lens().read("Time flies")
    assert list(attribution.MAPS) == ["weights", "value-weighted", "norms", "gradient", "logits"]
    assert attribution.map_of(reading, "weights", 5) is reading.attention[5].weights
    for name in ("value-weighted", "norms"):
        kind, matrix = attribution.MAPS[name], attribution.map_of(reading, name, 5)
        assert tuple(matrix.shape) == ((12, 4, 4) if kind.by_head else (4, 4))
        assert not kind.needs_target
        assert not kind.signed
        assert (matrix.dense() >= 0).all()


@pytest.mark.parametrize(
    ("name", "layer", "error", "message"),
    [
        ("nonsense", 0, ValueError, "map_of: name: expected one of weights, value-weighted, norms, gradient, logits"),
        ("gradient", 0, ValueError, "map_of: target: 'gradient' explains a target"),
        ("weights", 6, IndexError, "There is no layer 6"),
        ("norms", -7, IndexError, "There is no layer -7"),
    ],
)
def test_maps_that_do_not_exist(name, layer, error, message) -> None:
    with pytest.raises(error, match=message):
        attribution.map_of(regard.Lens().read("Time flies"), name, layer)


# What is refused


@pytest.mark.parametrize("method", [attribution.value_weighted, attribution.norms, attribution.mixing])
def test_without_an_output_projection(method) -> None:
    with pytest.raises(ValueError, match="layer 0 of made up: no module was seen that joins the heads"):
        method(made(), 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "rollout: give tokens= or word="),
        ({"tokens": 0, "word": "Time"}, ValueError, "rollout: give tokens= or word="),
        ({"tokens": []}, ValueError, "rollout: tokens: expected one token or more"),
        ({"tokens": 4}, LookupError, "rollout: tokens: there is no token 4: there are 4, from 0 to 3"),
        ({"tokens": [0, -5]}, LookupError, "rollout: tokens: there is no token -5"),
        ({"word": "arrow"}, LookupError, "arrow"),
        ({"tokens": 0, "of": "values"}, ValueError, "rollout: of: expected 'weights' or 'norms'. Got 'values'"),
    ],
)
def test_rollout_refuses(options, error, message) -> None:
    with pytest.raises(error, match=message):
        attribution.rollout(regard.Lens().read("Time flies"), **options)


def test_cross_attention_is_refused() -> None:
    family = SEQ2SEQ["bart"]
    inputs = seq2seq_inputs(family, "none")[0]
    with regard.hf.record() as attentions, torch.no_grad():
        make(family, attn_implementation="regard")(**inputs)
    with pytest.raises(ValueError, match=r"mixing: attention 3, of a BartAttention has 5 queries and 11 keys"):
        attribution.mixing(attentions, 3)
    with pytest.raises(ValueError, match=r"rollout: attention 2, of a BartAttention has 5 tokens, .* one stack"):
        attribution.rollout(attentions, tokens=0)
    assert attribution.value_weighted(attentions, 3).dense().shape == (3, 5, 5, 11)
    assert attribution.rollout(attentions[:2], tokens=0).tokens.shape == (3, 11)
    with pytest.raises(ValueError, match=r"rollout: word: what record\(\) collected has no words"):
        attribution.rollout(attentions[:2], word="a")
    with pytest.raises(ValueError, match=r"units: what record\(\) collected has no words"):
        _ = attribution.rollout(attentions[:2], tokens=0).units
    with pytest.raises(ValueError, match=r"rollout: source: record\(\) collected no attention"):
        attribution.rollout([], tokens=0)
