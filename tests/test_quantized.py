"""Linear layers in whole numbers: against their definition in NumPy, on every instruction set, and to the bit."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import regard
import regard.models.quantized
from regard.backends import cpu
from regard.models.packed import PackedEncoder
from regard.models.quantized import QuantizedLinear, quantized
from support import models as fixtures
from test_packed import TORCH, encoder, some_texts

ISAS = [] if regard.models.quantized._kernel is None else cpu.instruction_sets()
SHAPES = [(0, 8, 8), (1, 1, 1), (2, 3, 5), (13, 65, 100), (37, 128, 64), (205, 391, 131)]


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    """Each instruction set that is here."""
    monkeypatch.setenv("REGARD_ISA", request.param)
    return request.param


def rounded(x):
    """x (rows,inputs) in whole numbers of 0 to 255: q, step, zero."""
    low, high = np.minimum(x.min(1), 0), np.maximum(x.max(1), 0)
    step = np.maximum((high - low) / 255, np.finfo(np.float32).tiny)
    zero = np.rint(-low / step)
    return np.clip(np.rint(x / step[:, None] + zero[:, None]), 0, 255).astype(np.int64), step, zero.astype(np.int64)


def expected(layer, activation, norm, x, residual):
    """The layer by its definition, in int64 and float64."""
    numbers, scales = quantized(layer.weight.detach())
    q, step, zero = rounded(x.double().numpy())
    sums = (q - zero[:, None]) @ numbers.numpy().astype(np.int64).T
    y = torch.from_numpy(sums * step[:, None]) * scales.double() + layer.bias.detach().double()
    y = TORCH[activation](y)
    y = y if residual is None else y + residual.double()
    return y if norm is None else nn.functional.layer_norm(y, y.shape[1:], norm.weight.double(), norm.bias.double())


def on_a_grid(rows, inputs):
    """Rows whose numbers are whole steps from the smallest to the largest, so that nothing has to be rounded."""
    q = torch.randint(0, 256, (rows, inputs))
    q[:, 0], q[:, -1] = 0, 255
    zero, step = torch.randint(0, 256, (rows, 1)), 2.0 ** torch.randint(-9, 3, (rows, 1))
    return (q - zero) * step


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("activation", TORCH)
def test_sums_are_exact(isa, rows, inputs, outputs, activation):
    layer, norm = nn.Linear(inputs, outputs), nn.LayerNorm(outputs)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = torch.zeros(rows, inputs + 3)[:, :inputs]
    x[:] = on_a_grid(rows, inputs)
    residual = torch.randn(rows, outputs)
    for after, added in ((None, None), (None, residual), (norm, residual)):
        actual = QuantizedLinear([layer], activation, after)(x, added)
        assert (actual.dtype, actual.shape) == (torch.float32, (rows, outputs))
        wanted = expected(layer, activation, after, x, added)
        scale = 1 if after else float(wanted.abs().max()) if rows else 1
        torch.testing.assert_close(actual.double(), wanted, atol=1e-5 * max(scale, 1), rtol=1e-5)


def test_the_error_is_that_of_rounding(isa):
    layers = [nn.Linear(100, 30), nn.Linear(100, 21)]
    weight = torch.cat([layer.weight for layer in layers]).detach().double()
    bias = torch.cat([layer.bias for layer in layers]).detach().double()
    x = torch.randn(60, 100)
    x[::3] *= 10 ** torch.linspace(-30, 30, 20)[:, None]
    x[1::3, 17] *= 1e4  # an outlier
    steps = torch.from_numpy(rounded(x.double().numpy())[1])[:, None]
    rounds_x = (steps / 2 + 1e-6 * x.double().abs().amax(1, keepdim=True)) * weight.abs().sum(1)
    rounds_weight = (x.double().abs() + steps).sum(1, keepdim=True) * weight.abs().amax(1) / 254
    error = (QuantizedLinear(layers)(x).double() - (x.double() @ weight.T + bias)).abs()
    assert (error <= 1.001 * (rounds_x + rounds_weight) + 1e-5).all()
    assert error.max() > 0


def test_rows_at_the_edge_of_floats(isa):
    layer = nn.Linear(40, 70)
    exact = QuantizedLinear([layer])
    x = torch.randn(9, 40)
    before = exact(x)
    x[1] = 0
    x[2, 3], x[4, 0], x[5, 39] = torch.inf, torch.nan, -torch.inf
    x[6] *= 1e-42
    x[7] = torch.tensor([3.4e38, -3.4e38]).repeat(20)
    after = exact(x)
    assert after.isnan().all(1).tolist() == [False, False, True, False, True, True, False, False, False]
    assert all(torch.equal(after[row], layer.bias) for row in (1, 6))
    assert all(torch.equal(after[row], before[row]) for row in (0, 3, 8))
    torch.testing.assert_close(after[7], (x[7].double() @ layer.weight.double().T).float(), atol=1e37, rtol=0.02)


def test_weights_of_zeros_and_weights_that_are_not_finite():
    weight = torch.tensor([[0.0, 0.0], [1.0, torch.nan], [-2.0, 1.0], [torch.inf, 1.0]])
    numbers, scales = quantized(weight)
    assert numbers[[0, 2]].tolist() == [[0, 0], [-127, 64]]
    assert scales.isfinite().tolist() == [True, False, True, False]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_does_not_depend_on_the_rows_beside_it(isa, threads):
    layer = QuantizedLinear([nn.Linear(48, 200)], "gelu", nn.LayerNorm(200))
    x = torch.randn(230, 48)
    together = layer(x)
    torch.set_num_threads(threads)
    try:
        for rows in (slice(0, 230), slice(0, 1), slice(7, 13), slice(100, 230), slice(3, 99)):
            assert torch.equal(layer(x[rows]), together[rows])
    finally:
        torch.set_num_threads(1)


def test_instruction_sets_agree(monkeypatch):
    """To the last digit before the norm: sums are exact, and what follows them is one multiplication after another."""
    layer, x = nn.Linear(130, 77), on_a_grid(50, 130)
    results = []
    for name in ISAS:
        monkeypatch.setenv("REGARD_ISA", name)
        results.append(QuantizedLinear([layer])(x))
    for result in results:
        torch.testing.assert_close(result, results[0], atol=0, rtol=1e-6)


def test_a_text_does_not_depend_to_the_bit_on_those_beside_it(isa):
    packed, texts = PackedEncoder(encoder(), torch.int8), some_texts(40)
    together = packed(texts, [0, 3])
    lengths = [len(ids) for ids in texts]
    for n, ids in enumerate(texts):
        alone = packed([ids], [0, 3])
        assert all(torch.equal(alone[layer], together[layer].split(lengths)[n]) for layer in (0, 3))


def test_vectors_of_int8(embedded_lens):
    texts = ["Time flies like an arrow", "Fruit flies like a banana", "word " * 200, "a", "Ein Satz."] * 2
    exact, actual = (embedded_lens.embed(texts, dtype=dtype).vectors for dtype in ("float32", "int8"))
    assert actual.dtype == np.float32
    assert 0.99 < (exact * actual).sum(1).min() < 1 - 1e-6
    np.testing.assert_array_equal(actual[3:4], embedded_lens.embed(texts[3:4], dtype="int8").vectors)


def test_a_corpus_in_int8(run, embedded_lens, tmp_path):
    file, out = tmp_path / "lines.txt", tmp_path / "out.parquet"
    file.write_text("One line.\nAnother line.\n")
    assert run("embed", file, "--out", out, "--dtype", "int8").code == 0
    table = pq.read_table(out)
    assert table.schema.metadata[b"regard.dtype"] == b"int8"
    expected = embedded_lens.embed(["One line.", "Another line."], dtype="int8").vectors
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), expected)


def test_other_models_say_that_they_cannot(tmp_path):
    lens = regard.Lens(fixtures.saved("gpt2", tmp_path))
    with pytest.raises(ValueError, match=r"^embed: dtype: .* is computed in its own type, torch.float32; dtype= is"):
        lens.embed(["1 2"], level="token", dtype="int8")


def test_without_the_kernel(monkeypatch):
    monkeypatch.setattr("regard.models.quantized._kernel", None)
    with pytest.raises(
        ValueError, match=r"^embed: dtype: 'int8' needs regard's native kernel, which is not here\. Use"
    ):
        PackedEncoder(encoder(), torch.int8)
