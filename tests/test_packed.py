"""Linear layers with what follows them, and the packed encoder: against torch, and to the bit."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import regard.models.linear
from regard.backends import cpu
from regard.models.linear import ACTIVATIONS, Linear
from regard.models.packed import PackedEncoder
from regard.nn import Embeddings, Encoder
from support import models as fixtures

TORCH = {"": lambda x: x, "gelu": F.gelu, "gelu_new": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu}
DIGITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


ISAS = [] if regard.models.linear._kernel is None else cpu.instruction_sets()


@pytest.fixture(params=[*ISAS, "torch"])
def way(request, monkeypatch):
    """By the native kernel for each instruction set that is here, and as where there is none."""
    if request.param == "torch":
        monkeypatch.setattr("regard.models.linear._kernel", None)
    else:
        monkeypatch.setenv("REGARD_ISA", request.param)
    return request.param


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    """Each instruction set that is here: only the kernel promises anything to the bit."""
    monkeypatch.setenv("REGARD_ISA", request.param)


def expected(layers, activation, norm, x, residual):
    y = TORCH[activation](
        torch.cat([F.linear(x.double(), layer.weight.double(), layer.bias.double()) for layer in layers], 1)
    )
    y = y if residual is None else y + residual.double()
    return y if norm is None else F.layer_norm(y, y.shape[1:], norm.weight.double(), norm.bias.double(), norm.eps)


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(0, 8, 8), (1, 7, 5), (13, 32, 100), (205, 66, 128)])
def test_a_layer_is_torchs(way, dtype, activation, rows, inputs, outputs):
    layers = [nn.Linear(inputs, outputs), nn.Linear(inputs, 3)]
    for layer in layers:
        layer.weight.data = layer.weight.data.to(dtype).float()
    norm = nn.LayerNorm(outputs + 3, 1e-5)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = torch.randn(rows, inputs + 2, dtype=dtype)[:, :inputs] * 3
    residual = torch.randn(rows, outputs + 3, dtype=dtype)
    for after, added in ((None, None), (norm, None), (None, residual), (norm, residual)):
        actual = Linear(layers, activation, after, dtype)(x, added)
        assert (actual.dtype, actual.shape) == (dtype, (rows, outputs + 3))
        wanted = expected(layers, activation, after, x, added)
        digits = DIGITS[dtype] * (3 if way == "torch" else 1)  # torch rounds in between
        torch.testing.assert_close(actual.double(), wanted, atol=digits, rtol=digits)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 200), (1792, 64)])  # the latter in two passes, rows moved apart
def test_a_row_does_not_depend_on_the_rows_beside_it(dtype, inputs, outputs):
    plain, norm = nn.Linear(inputs, outputs), nn.LayerNorm(outputs)
    plain.weight.data = plain.weight.data.to(dtype).float()
    layer = Linear([plain], "gelu", norm, dtype)
    x = torch.randn(530, inputs).to(dtype)  # so many that tiles have their weights split beforehand
    together = layer(x)
    wanted = expected([plain], "gelu", norm, x, None)
    torch.testing.assert_close(together.double(), wanted, atol=DIGITS[dtype], rtol=DIGITS[dtype])
    torch.set_num_threads(2)
    try:
        assert torch.equal(layer(x), together)
    finally:
        torch.set_num_threads(1)
    for rows in (slice(0, 1), slice(7, 13), slice(100, 530), slice(3, 99)):
        assert torch.equal(layer(x[rows]), together[rows])


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("scale", ["even", "one input is huge", "all scales"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (18, 33, 40), (530, 100, 70), (37, 1100, 65)])
def test_a_float_layer_is_as_exact_as_a_chain_of_floats(rows, inputs, outputs, scale):
    layer, x = nn.Linear(inputs, outputs), torch.randn(rows, inputs)
    if scale == "one input is huge":
        x[:, inputs // 2] *= 1e6
    elif scale == "all scales":
        x *= torch.exp(6 * torch.randn_like(x))
    x = F.pad(x, (0, 1))[:, :inputs]  # not one after the other in memory
    numbers, weight, bias = x.double(), layer.weight.double(), layer.bias.double()
    exact, size = numbers @ weight.T + bias, numbers.abs() @ weight.abs().T + bias.abs()
    error = (Linear([layer])(x) - exact).abs() / size
    # Digits after the first sixteen that are not multiplied would be ten times as much.
    assert error.pow(2).mean().sqrt() <= (5e-8 if scale == "even" else 1e-6)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("rows", [3, 520])
def test_what_is_not_finite_stays_in_its_row_and_column(rows):
    layer, x = nn.Linear(70, 100, bias=False), torch.rand(rows, 70) + 0.5
    layer.bias = nn.Parameter(torch.zeros(100))
    layer.weight.data = torch.rand(100, 70) + 0.5
    clean = Linear([layer])(x)
    x[1, 3], x[2, 69] = torch.inf, torch.nan
    actual = Linear([layer])(x)
    assert (actual[1] == torch.inf).all()
    assert actual[2].isnan().all()
    untouched = [n for n in range(rows) if n not in (1, 2)]
    assert torch.equal(actual[untouched], clean[untouched])
    x[1], x[2] = -3e38, 1e-42  # beyond the largest float; below the smallest normal one
    layer.weight.data[7, 0], layer.weight.data[90, 5] = -torch.inf, torch.nan
    actual = Linear([layer])(x)
    columns = [n for n in range(100) if n not in (7, 90)]
    assert (actual[1][columns] == -torch.inf).all()
    assert (actual[2][columns].abs() < 1e-36).all()
    assert actual[0, 7] == -torch.inf
    assert actual[:, 90].isnan().all()
    torch.testing.assert_close(actual[0, columns], clean[0, columns])


@pytest.mark.usefixtures("way")
def test_gelu_is_as_exact_as_torchs():
    x = torch.linspace(-12, 12, 200_001)
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight), nn.init.zeros_(layer.bias)
    exact = F.gelu(x.double())
    ours, theirs = ((y - exact).abs() for y in (Linear([layer], "gelu")(x[:, None])[:, 0], F.gelu(x)))
    near = x.abs() <= 4
    assert ours[near].max() <= 1.5 * theirs[near].max()
    assert (ours / x.abs().clamp(min=1)).max() <= 4e-7
    assert Linear([layer], "gelu")(torch.tensor([[0.0], [torch.nan]])).isnan().tolist() == [[False], [True]]


# The encoder


def encoder(positions=40, **sizes):
    sizes = {"layers": 3, "dim": 48, "heads": 6, "d_ff": 64, "activation": "gelu"} | sizes
    made = Encoder(Embeddings(50, sizes["dim"], positions, 2), **sizes).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def some_texts(count=40, longest=40):
    chance = random.Random(0)
    return [[chance.randrange(50) for _ in range(chance.randint(1, longest))] for _ in range(count)]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_hidden_states_are_those_of_the_encoder(way, activation):
    made, texts = encoder(activation=activation), some_texts()
    packed = PackedEncoder(made)
    for n, states in packed.states(texts, [0, 2, 3]):
        hidden = made(torch.tensor([texts[n]]))[0]
        for layer in (0, 2, 3):
            torch.testing.assert_close(states[layer], hidden[layer][0], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_text_does_not_depend_to_the_bit_on_those_beside_it(dtype, threads):
    packed = PackedEncoder(encoder(), dtype)
    texts = some_texts(60)
    together = packed(texts, [3])[3].split([len(ids) for ids in texts])
    torch.set_num_threads(threads)
    try:
        for n in range(60):
            assert torch.equal(packed([texts[n]], [3])[3], together[n])
        again = packed(texts[20:50][::-1], [3])[3].split([len(ids) for ids in texts[20:50][::-1]])
        assert all(torch.equal(a, b) for a, b in zip(again[::-1], together[20:50], strict=True))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_every_family(tmp_path, name):
    folder = fixtures.saved(name, tmp_path)
    made = Encoder.from_pretrained(folder)
    packed, ids = PackedEncoder(made), [1, 5, 0, 7, 2]  # 0 is the padding: RoBERTa does not count it as a place
    states = packed([[2, 3], ids, [4]], [0, 1, 2])
    for layer, hidden in enumerate(made(torch.tensor([ids]))[0]):
        torch.testing.assert_close(states[layer][2:7], hidden[0], atol=1e-5, rtol=1e-5)
