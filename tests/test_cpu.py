"""The native kernel: every instruction set that this machine has, every layout, every way in."""

import random
import resource
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

import regard
from regard.backends import availability, cpu, plain, problem, streaming
from regard.backends.protocol import Matrix
from regard.weights import reductions

if cpu._missing:
    pytest.skip(f"the kernel is not installed: {cpu._missing}", allow_module_level=True)

_kernel = cpu._kernel
SETS = _kernel.kernels()
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TOLERANCES = cpu.CAPABILITIES.tolerances
OPTIONS = [
    "", "causal", "left", "right", "window", "lengths", "segment pair", "padding", "full mask", "key mask",
    "query mask", "bias", "key bias", "hiding bias", "scale", "softcap", "sinks",
]  # fmt: skip


@pytest.fixture(params=SETS)
def isa(request, monkeypatch):
    """Each instruction set of this machine in turn."""
    monkeypatch.setenv("REGARD_ISA", request.param)
    return request.param


# The numbers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_in_every_instruction_set(kit, isa, option, dtype):
    for queries, keys, dim, value_dim in ((5, 11, 7, 13), (67, 131, 64, 64), (2, 401, 32, 48), (401, 13, 65, 16)):
        query, key, value = kit.inputs(queries=queries, keys=keys, dim=dim, value_dim=value_dim, dtype=dtype)
        more = kit.options([option] if option else [], query, key)
        result = regard.attention(query, key, value, backend="cpu", collect=("entropy", "topk:3"), **more)
        output, lse, weights = kit.oracle(query, key, value, **more)
        kit.agree(result.output, output, TOLERANCES[dtype])
        kit.agree(result.lse, lse, 1e-5)
        kit.agree(result.weights.dense(), weights, 1e-5)
        kit.agree(result.weights.entropy(), torch.special.entr(weights).sum(-1), 2e-5)
        kit.agree(result.weights.topk(3).values, weights.sort(dim=-1, descending=True).values[..., :3], 1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("queries", "dim"), [(1, 8), (1, 20), (7, 100), (13, 24), (32, 12), (32, 64)])
def test_few_queries_on_many_keys(kit, isa, queries, dim, dtype):
    """Keys and values are read where they lie, to their last number and no further, also where one is not finite."""
    query, key, value = kit.inputs(queries=queries, keys=523, dim=dim, value_dim=dim, dtype=dtype)
    output, lse, weights = kit.oracle(query, key, value)
    result = regard.attention(query, key, value, backend="cpu")
    kit.agree(result.output, output, TOLERANCES[dtype])
    kit.agree(result.lse, lse, 1e-5)
    kit.agree(result.weights.dense(), weights, 1e-5)
    value[:, :, 300] = torch.nan
    lengths = [300] * len(query)
    seen = regard.attention(query, key, value, backend="cpu", lengths=lengths).output
    kit.agree(seen, kit.oracle(query, key[:, :, :300], value[:, :, :300])[0], TOLERANCES[dtype])
    assert regard.attention(query, key, value, backend="cpu").output.isnan().all()


@given(st.data())
def test_few_keys_in_every_instruction_set(kit, data):
    """One pass over them, the rows as lanes: as many as fill a vector or not, of one head group or of several."""
    groups, repeat = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    batch, queries, keys = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 70)), data.draw(st.integers(1, 90))
    queries, keys = data.draw(st.sampled_from([(queries, keys), (keys, keys), (queries % 9 + 1, keys % 9 + 1)]))
    dim, value_dim = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    dtype, isa = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(SETS))
    torch.manual_seed(data.draw(st.integers(0, 9)))
    query = torch.randn(batch, queries, groups * repeat, dim).to(dtype).transpose(1, 2)
    key, value = (
        torch.randn(batch, groups, keys, n + 3).to(dtype)[..., 2:-1] for n in (dim, value_dim)
    )  # neither aligned nor without gaps
    lengths, causal = torch.randint(0, keys + 1, (batch,)), data.draw(st.booleans())
    more = {"causal": causal} | data.draw(st.sampled_from([{}, {"lengths": lengths}, {"window": (3, 2)}]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGARD_ISA", isa)
        output, lse, weights = kit.oracle(query, key, value, **more)
        result = regard.attention(query, key, value, **more)
        kit.agree(result.output, output, TOLERANCES[dtype])
        kit.agree(result.lse, lse, 1e-5)
        evil, j = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf])), data.draw(st.integers(0, keys - 1))
        (value if data.draw(st.booleans()) else key)[batch // 2, groups // 2, j, 0] = evil
        hostile = regard.attention(query, key, value, **more)
    sees = torch.zeros(batch, groups * repeat, queries, dtype=torch.bool)
    heads = slice(groups // 2 * repeat, (groups // 2 + 1) * repeat)
    sees[batch // 2, heads] = weights[batch // 2, heads, :, j] > 0
    kit.agree(hostile.output[~sees], output[~sees], TOLERANCES[dtype])
    if key.isfinite().all():
        assert not hostile.output[sees][:, 0].isfinite().any()
        kit.agree(hostile.output[sees][:, 1:], output[sees][:, 1:], TOLERANCES[dtype])
    elif evil != evil:
        assert hostile.output[sees].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("option", ["", "causal", "window", "lengths"])
def test_few_keys_get_the_bits_of_many(kit, isa, dtype, option):
    """Where statistics are asked for, the same rows go the way of many keys."""
    if isa == "amx":
        pytest.skip("it multiplies many keys in the tile registers, and sums up in another order")
    for batch, heads, groups, queries, keys, dim in (
        (40, 3, 3, 1, 1, 8), (3, 4, 4, 3, 3, 20), (2, 6, 2, 16, 16, 64), (2, 2, 2, 70, 33, 17), (1, 2, 1, 90, 90, 32)
    ):  # fmt: skip
        tensors = kit.inputs(batch, heads, groups, queries, keys, dim, dim + 1, dtype)
        more = kit.options([option] if option else [], *tensors[:2])
        few = regard.attention(*tensors, **more)
        many = regard.attention(*tensors, **more, collect=("entropy",))
        assert torch.equal(few.output, many.output)
        assert torch.equal(few.weights._lse, many.weights._lse)


@pytest.mark.parametrize("option", ["", "causal", "segment pair", "bias", "sinks"])
def test_every_reduction_in_every_instruction_set(kit, isa, option):
    query, key, value = kit.inputs(queries=67, keys=131, dim=16, value_dim=16)
    more = kit.options([option] if option else [], query, key)
    result = regard.attention(query, key, value, backend="cpu", **more).weights
    assert reductions.serving(result._matrix) is cpu
    weights = kit.oracle(query, key, value, **more)[2]
    ahead = (torch.arange(67)[:, None] - torch.arange(131)).abs()
    x, y = torch.randn(2, 3, 131, 600), torch.randn(2, 6, 67, 5)
    groups = torch.randint(-1, 7, (131,))
    members = torch.nn.functional.one_hot(groups + 1, 8)[:, 1:].double()
    kit.agree(result.received(), weights.sum(-2), 2e-5)
    kit.agree(result.grouped(keys=groups), weights @ members, 1e-5)
    kit.agree(result.pool(5, 7, "max")[..., 0, 0], weights[..., : 67 // 5, : 131 // 7].amax((-1, -2)), 1e-5)
    kit.agree(result.distance(), (weights * ahead).sum(-1), 1e-3)
    kit.agree(result @ x, weights @ x.double().repeat_interleave(2, 1), 5e-5)
    kit.agree(result.T @ y, weights.mT @ y.double(), 5e-5)


@pytest.mark.parametrize("option", ["", "causal", "window", "full mask", "bias", "key bias", "softcap", "sinks"])
def test_the_gradient_in_every_instruction_set(kit, isa, option):
    tensors = kit.inputs(queries=101, keys=263, dim=17, value_dim=32)
    more = kit.options([option] if option else [], *tensors[:2])
    for name in ("bias", "sinks"):
        if name in more:
            more[name].requires_grad_()
    grads = []
    for dtype, backend in ((torch.float32, "cpu"), (torch.float64, "reference")):
        leaves = [t.to(dtype).requires_grad_() for t in tensors]
        extra = [more[name] for name in ("bias", "sinks") if name in more]
        result = regard.attention(*leaves, backend=backend, **more)
        seen = result.lse > -torch.inf
        loss = (result.output * torch.linspace(-1, 1, 32)).sum() + result.lse[seen].sum()
        grads.append(torch.autograd.grad(loss, leaves + extra))
    for actual, other in zip(*grads, strict=True):
        kit.agree(actual, other, 1e-4 * max(1, float(other.abs().max())))


def inputs_of(kind, dtype, keys):
    shape = 1, 2, keys, 64
    query, key, value = (torch.randn(shape) for _ in range(3))
    if kind == "large":  # scores to ±100
        query, key = (F.normalize(t, dim=-1) * 800**0.5 for t in (query, key))
    if kind == "constant":
        query, key = torch.full(shape, 0.5), torch.full(shape, 0.25)
    if kind == "one-hot":
        query, key = (8.0 * F.one_hot(torch.randint(64, shape[:3]), 64) for _ in range(2))
    return query[:, :, -257:].to(dtype), key.to(dtype), value.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["random", "large", "constant", "one-hot"])
@pytest.mark.parametrize("keys", [64, 257, 2048])
@pytest.mark.parametrize("causal", [False, True])
def test_no_less_accurate_than_pytorch(kit, isa, kind, dtype, causal, keys):
    """Against float64: float32 within 1.5 times the error of PyTorch's own, half precision within 1.1 times."""
    query, key, value = inputs_of(kind, dtype, keys)
    exact = kit.oracle(query, key, value, causal=causal)[0]
    ahead = torch.arange(keys) - torch.arange(query.shape[2])[:, None] + query.shape[2] - keys
    plain = F.scaled_dot_product_attention(query, key, value, (ahead <= 0) if causal else None)
    result = regard.attention(query, key, value, causal=causal, backend="cpu").output
    error, peer = ((actual.double() - exact).abs().square().mean().sqrt() for actual in (result, plain))
    least = exact.abs().max() * torch.finfo(dtype).eps / 8  # below the last digit nobody is more exact than another
    times = 1.5 if dtype == torch.float32 else 1.1
    if isa == "portable":
        times *= 1.5  # it rounds products and sums apart
    assert error <= times * max(peer, least), f"{error:.2g}, PyTorch's {peer:.2g}"


@pytest.mark.parametrize("queries", [1, 67, 257])
@pytest.mark.parametrize("sentinel", [torch.finfo(torch.float32).min, -1e30, -1e20, -1e12, -1e10, -1e9])
def test_a_finite_minus_infinity_hides(kit, isa, sentinel, queries):
    """What models add to scores to hide keys; where it hides all of them, the softmax is that of equal scores."""
    query, key, value = torch.randn(queries, 4), torch.randn(257, 4), torch.randn(257, 3)
    bias = torch.zeros(257)
    bias[:256] = sentinel
    result = regard.attention(query, key, value, bias=bias, backend="cpu", collect=("entropy", "max"))
    kit.agree(result.output, value[256].expand(queries, -1), 1e-6)
    kit.agree(result.weights.dense()[:, 256], torch.ones(queries), 1e-6)
    assert not result.weights.entropy().any()
    everywhere = torch.full((queries, 257), sentinel)
    result = regard.attention(query, key, value, bias=everywhere, backend="cpu", collect=("entropy", "max"))
    alike = torch.full((queries, 257), 1 / 257)
    kit.agree(result.output, value.mean(0).expand(queries, -1), 1e-6)
    kit.agree(result.lse, everywhere[:, 0], abs(sentinel) * 2**-23)
    kit.agree(result.weights.dense(), alike, 1e-8)
    kit.agree(result.weights.entropy(), torch.full((queries,), 257.0).log(), 1e-5)
    kit.agree(result.weights.max().values, alike[:, 0], 1e-8)
    kit.agree(result.weights.received(), alike.sum(0), 1e-5)


def test_a_window_as_a_finite_bias(kit, isa):
    """Whole blocks of keys are hidden before the first that is seen."""
    query, key, value = kit.inputs(1, 2, 1, queries=600, keys=600, dim=16)
    ahead = torch.arange(600) - torch.arange(600)[:, None]
    bias = torch.where((ahead <= 0) & (ahead > -128), 0, torch.finfo(torch.float32).min)
    kit.agree(
        regard.attention(query, key, value, bias=bias, backend="cpu").output,
        kit.oracle(query, key, value, causal=True, window=(127, None))[0],
    )


def test_a_bias_that_falls_with_the_distance(kit, isa):
    """As in ALiBi: most weights are less than the smallest normal number, and some are no normal numbers."""
    query, key, value = kit.inputs(1, 2, 1, queries=300, keys=300, dim=16)
    distance = (torch.arange(300) - torch.arange(300)[:, None]).abs()
    bias = -torch.tensor([0.5, 20.0])[:, None, None] * distance
    result = regard.attention(query, key, value, bias=bias, backend="cpu", collect=("entropy", "topk:8"))
    output, lse, weights = kit.oracle(query, key, value, bias=bias)
    kit.agree(result.output, output, 1e-6)
    kit.agree(result.lse, lse, 1e-5)
    kit.agree(result.weights.dense(), weights, 1e-6)
    kit.agree(result.weights.entropy(), torch.special.entr(weights).sum(-1), 1e-5)
    kit.agree(result.weights.topk(8).values, weights.sort(dim=-1, descending=True).values[..., :8], 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_modifiers_that_do_not_lie_side_by_side(kit, isa, dtype):
    """Bias and mask by key, by query or turned, together with a softcap and a window, where keys fill no vector."""
    query, key, value = kit.inputs(2, 2, 1, queries=75, keys=333, dim=8)
    turned, by_query, by_key = torch.randn(333, 75).T, torch.randn(2, 1, 75, 1), torch.randn(2, 1, 1, 333)
    for bias in (turned, by_query, by_key[..., ::1], torch.randn(75, 666)[:, ::2]):
        for visible in (torch.rand(333, 75).T < 0.8, torch.rand(2, 1, 75, 1) < 0.8, torch.rand(75, 333) < 0.8):
            more = {"bias": bias.to(dtype), "mask": visible, "softcap": 3.0, "window": (200, 200)}
            result = regard.attention(query, key, value, backend="cpu", collect=("max",), **more)
            output, lse, weights = kit.oracle(query, key, value, **more | {"bias": more["bias"].float()})
            kit.agree(result.output, output, 1e-5)
            kit.agree(result.lse, lse, 1e-5)
            kit.agree(result.weights.max().values, weights.max(-1).values, 1e-5)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("k", [1, 8, 17])
def test_the_largest_of_hostile_rows(isa, k, dtype):
    """Rising, falling, equal, repeated scores, zeros of both signs, hidden keys, and almost everything at one key."""
    n, few = 700, torch.randint(0, 4, (700,)).float()
    one = torch.zeros(n).index_fill(0, torch.tensor([431]), 30.0)
    zeros = torch.zeros(n).copysign(torch.randn(n))
    rows = torch.stack((torch.arange(n) / 64, -torch.arange(n) / 64, torch.ones(n), few, zeros, one, torch.randn(n)))
    hidden = torch.rand(len(rows), n) < 0.5
    hidden[0], hidden[1, 5:] = False, True
    key = rows.to(dtype)[:, :, None]
    query = torch.ones(len(rows), 1, 1, dtype=dtype)
    for mask in (None, ~hidden[:, None]):
        result = regard.attention(
            query, key, key, scale=1.0, mask=mask, backend="cpu", collect=(f"topk:{k}", "entropy")
        )
        scores = key[..., 0].double()
        scores = scores if mask is None else scores.masked_fill(hidden, -torch.inf)
        weights = torch.softmax(scores, -1)
        values, keys = result.weights.topk(k)
        expected = weights.sort(dim=-1, descending=True, stable=True)
        torch.testing.assert_close(values[:, 0].double(), expected.values[:, :k], rtol=1e-5, atol=1e-30)
        assert torch.equal(keys[:, 0], scores.sort(dim=-1, descending=True, stable=True).indices[:, :k])
        entropy = torch.special.entr(weights).sum(-1)
        torch.testing.assert_close(result.weights.entropy()[:, 0].double(), entropy, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize(("dtype", "number"), [(torch.float32, 1e5), (torch.float16, 6e4), (torch.bfloat16, 1e5)])
def test_large_equal_scores_give_the_mean(kit, isa, dtype, number):
    alike, value = torch.full((3, 67, 64), number, dtype=dtype), torch.randn(3, 67, 64).to(dtype)
    result = regard.attention(alike, alike, value, backend="cpu")
    kit.agree(result.output, value.double().mean(1, keepdim=True).expand(-1, 67, -1), TOLERANCES[dtype])
    score = 8 * float(alike[0, 0, 0]) ** 2
    kit.agree(result.lse, torch.full((3, 67), score), score * 1e-6)


def test_the_entropy_of_a_row_that_looks_almost_at_one_key(kit, isa):
    """To six digits, however little is left for the others."""
    gaps = torch.tensor([3.0, 7.0, 10.0, 17.0, 25.0])
    key = torch.cat((torch.zeros(5, 1), -gaps[:, None].expand(-1, 300)), 1)[..., None]
    result = regard.attention(torch.ones(5, 1, 1), key, key, scale=1.0, backend="cpu", collect=("entropy",))
    expected = torch.special.entr(torch.softmax(key.double()[..., 0], -1)).sum(-1)
    torch.testing.assert_close(result.weights.entropy()[:, 0].double(), expected, rtol=3e-6, atol=0)


@given(st.data())
def test_the_whole_space_of_options(kit, data):
    groups, repeat = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    batch, queries, keys = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 70)), data.draw(st.integers(0, 150))
    dim, value_dim = data.draw(st.integers(1, 70)), data.draw(st.integers(0, 70))
    tensors = kit.inputs(batch, groups * repeat, groups, queries, keys, dim, value_dim)
    drawn = data.draw(st.lists(st.sampled_from(OPTIONS[1:]), max_size=4, unique=True))
    names = [n for i, n in enumerate(drawn) if not any(clash(n, other) for other in drawn[:i])]
    torch.manual_seed(data.draw(st.integers(0, 9)))
    kit.check(*tensors, backend="cpu", **kit.options(names, *tensors[:2]))


def clash(actual, other):
    """Whether two options are the same argument of attention()."""
    same = ({"left", "right", "window"}, {"bias", "key bias", "hiding bias"})
    same += ({"padding", "full mask", "key mask", "query mask"},)
    return any({actual, other} <= names for names in same)


# Layouts


def test_strided_inputs_are_read_where_they_lie(kit, isa, monkeypatch):
    def fail(*_):
        raise AssertionError("copied")

    packed = torch.randn(2, 37, 3, 4, 16)  # (batch, positions, query|key|value, heads, dim)
    projections = [packed[:, :, n].transpose(1, 2) for n in range(3)]
    expanded = [torch.randn(1, 4, 37, 16).expand(2, -1, -1, -1) for _ in range(3)]
    offset = [torch.randn(2 * 4 * 37 * 16 + 1)[1:].view(2, 4, 37, 16) for _ in range(3)]
    for tensors in (projections, expanded, offset, [t[..., 3:14] for t in projections]):
        assert all(t.stride(-1) == 1 for t in tensors)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "contiguous", fail)
            result = regard.attention(*tensors, backend="cpu")
        kit.agree(result.output, kit.oracle(*tensors)[0])
        assert result.output.transpose(1, 2).is_contiguous()  # heads side by side, as models want them


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_unaligned_halves(kit, isa, dtype):
    for size, heads in ((1, 2), (37, 2), (1, 6)):
        base = [torch.randn(2 * heads * n * 64 + 1).to(dtype)[1:].view(2, heads, n, 64) for n in (size, 300, 300)]
        odd = [torch.randn(2, heads, n, 65).to(dtype)[..., 1:] for n in (size, 300, 300)]
        for tensors in (base, odd):
            kit.agree(regard.attention(*tensors, backend="cpu").output, kit.oracle(*tensors)[0], TOLERANCES[dtype])


def test_columns_side_by_side_in_memory(kit, isa):
    tensors = [torch.randn(2, 3, 16, 29).mT for _ in range(3)]
    kit.agree(regard.attention(*tensors, backend="cpu").output, kit.oracle(*tensors)[0])


# A plain call: straight to the kernel, past what other calls need


@pytest.fixture
def direct(monkeypatch):
    """What came straight from the kernel."""
    results, attend = [], plain.attend

    def watched(*arguments):
        result = attend(*arguments)
        if result is not None:
            results.append(result)
        return result

    monkeypatch.setattr(plain, "attend", watched)
    return results


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 4, 4, 8, 8, 16), (2, 6, 2, 1, 300, 64), (2, 6, 3, 130, 200, 40), (1, 2, 1, 9, 5, 3)]
)
def test_a_plain_call_gives_the_bits_of_the_general_one(kit, isa, direct, shape, causal, dtype):
    batch, heads, groups, queries, keys, dim = shape
    query = torch.randn(batch, queries, heads, dim).to(dtype).transpose(1, 2)
    key, value = torch.randn(batch, groups, keys, dim).to(dtype), torch.randn(batch, groups, keys, dim + 2).to(dtype)
    for scale in (None, -0.3):
        plain = regard.attention(query, key, value, causal=causal, scale=scale, window=(None, None))
        general = regard.attention(query, key, value, causal=causal, scale=scale, backend="cpu")
        assert torch.equal(plain.output, general.output)
        assert torch.equal(plain.lse, general.lse)
        assert torch.equal(plain.weights.dense(), general.weights.dense())
        assert plain.weights.backend == "cpu"
        assert plain.weights.shape == (batch, heads, queries, keys)
        kit.agree(plain.output, kit.oracle(query, key, value, causal=causal, scale=scale)[0], TOLERANCES[dtype])
    assert len(direct) == 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_masks_and_gradients_go_straight_to_the_kernel_too(direct, causal, dtype):
    query = torch.randn(2, 6, 9, 16).to(dtype)
    key, value = torch.randn(2, 3, 11, 16).to(dtype), torch.randn(2, 3, 11, 5).to(dtype)
    tensors = {
        "lengths": torch.tensor([11, 0]),
        "mask": torch.rand(9, 11) > 0.4,
        "bias": torch.randn(2, 1, 1, 11),
    }
    for options in ({name: tensor} for name, tensor in tensors.items()):
        plain = regard.attention(query, key, value, causal=causal, **options)
        general = regard.attention(query, key, value, causal=causal, backend="cpu", **options)
        for ours, theirs in zip((plain.output, plain.lse), (general.output, general.lse), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(plain.weights.dense(), general.weights.dense())
        assert torch.equal(plain.weights[1, 4, 3:5], general.weights[1, 4, 3:5])
        next(iter(options.values())).zero_()
        with pytest.raises(RuntimeError, match="changed in place"):
            plain.weights.dense()
    assert len(direct) == 3
    leaves = [tensor.requires_grad_() for tensor in (query, key, value)]
    grad, of_lse = torch.randn(2, 6, 9, 5).to(dtype), torch.randn(2, 6, 9)
    grads = []
    for backend in (None, "cpu"):
        attended = regard.attention(*leaves, causal=causal, backend=backend)
        grads.append(torch.autograd.grad((attended.output, attended.lse), leaves, (grad, of_lse)))
    for ours, theirs, leaf in zip(*grads, leaves, strict=True):
        assert ours.dtype == dtype
        assert ours.shape == leaf.shape
        assert torch.equal(ours, theirs)
    assert len(direct) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": torch.tensor([6])}, "lengths: expected 0 to 5, the number of keys"),
        ({"lengths": torch.tensor([1, 1])}, "lengths: expected one number a sequence"),
        ({"mask": torch.ones(5, 4, dtype=torch.bool)}, "mask: expected a shape that broadcasts"),
        ({"mask": torch.ones(5, 5)}, "mask: expected bool"),
        ({"bias": torch.ones(3, 1, 1)}, "bias: expected a shape that broadcasts"),
    ],
)
def test_wrong_options_are_left_to_the_general_way(direct, options, message):
    x = torch.randn(1, 2, 5, 8)
    with pytest.raises((TypeError, ValueError), match=message):
        regard.attention(x, x, x, **options)
    assert not direct


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": (40, None)}, {"lengths": [300, 0]}], ids=str)
def test_a_rule_is_given_to_the_kernel_in_parts(kit, monkeypatch, options):
    query, key, value = torch.randn(2, 4, 300, 8), torch.randn(2, 2, 300, 8), torch.randn(2, 2, 300, 5)
    index = (
        size.reshape(-1, *(1,) * n) for n, size in zip((3, 2, 1, 0), map(torch.arange, (2, 4, 300, 300)), strict=True)
    )
    rules = (
        lambda batch, head, query, key: (query - key) % 3 != 1,
        lambda batch, head, query, key: (query + key + head) % 3 != 1,
        lambda batch, head, query, key: (query + key + batch) % 3 != 1,
        lambda batch, head, query, key: batch + head > 1,
        lambda batch, head, query, key: key > 17,
    )
    index = tuple(index)
    monkeypatch.setattr(cpu, "NUMBERS_AT_ONCE", 1 << 15)
    for rule in rules:
        by_rule = regard.attention(query, key, value, mask=rule, **options)
        by_mask = regard.attention(query, key, value, mask=rule(*index).expand(2, 4, 300, 300), **options)
        kit.agree(by_rule.output, by_mask.output, 1e-6)
        kit.agree(by_rule.lse, by_mask.lse, 1e-5)
        assert by_rule.weights.backend == "torch"


def test_what_is_not_plain_goes_the_general_way(direct):
    x = torch.randn(1, 2, 5, 8)
    leaf = x.clone().requires_grad_()
    for query, key, value in ((x[0], x[0], x[0]), (x.mT, x.mT, x.mT), (x, x[:, :, :0], x[:, :, :0]), (x.double(),) * 3):
        regard.attention(query, key, value)
    negative = torch.complex(x, x).conj().imag
    assert negative.is_neg()
    regard.attention(negative, x, x)
    for options in (
        {"collect": ["max"]},
        {"window": (1, None)},
        {"softcap": 5.0},
        {"lengths": [4]},
        {"backend": "torch"},
    ):
        regard.attention(x, x, x, **options)
    with torch.autocast("cpu", torch.bfloat16):
        assert regard.attention(x, x, x).output.dtype == torch.bfloat16
    torch.func.vmap(lambda x: regard.attention(x, x, x).output)(x[None])
    assert not direct
    regard.attention(leaf.detach(), x, x)
    with torch.no_grad():
        regard.attention(leaf, x, x)
    assert len(direct) == 2


@pytest.mark.parametrize(
    ("key", "value", "options", "message"),
    [
        ((1, 2, 5, 7), (1, 2, 5, 8), {}, r"key: expected dim = 8, as the query. Got 7"),
        ((1, 2, 5, 8), (1, 2, 4, 8), {}, r"value: expected keys = 5, as the key. Got 4"),
        ((1, 3, 5, 8), (1, 3, 5, 8), {}, r"key: expected a number of heads that divides the query's 2. Got 3"),
        ((3, 2, 5, 8), (1, 2, 5, 8), {}, None),
        ((1, 2, 5, 8), (1, 2, 5, 8), {"scale": float("nan")}, r"scale: expected a finite number. Got nan"),
        ((1, 2, 5, 8), (1, 2, 5, 8), {"scale": 1e39}, r"scale: expected a number that torch.float32 holds"),
        ((1, 2, 5, 8), (1, 2, 5, 8), {"window": ()}, r"window: expected \(left, right\)"),
        ((1, 2, 5, 8), (1, 2, 5, 8), {"causal": "length"}, r"causal: expected True, False or"),
        ((1, 2, 5, 8), (1, 2, 5, 8), {"collect": ""}, r"collect: expected several names"),
    ],
)
def test_a_plain_call_hides_no_mistake(key, value, options, message):
    call = lambda: regard.attention(torch.ones(1, 2, 6, 8), torch.ones(key), torch.ones(value), **options)  # noqa: E731
    if message is None:
        assert call().output.shape == (3, 2, 6, 8)
        return
    with pytest.raises((TypeError, ValueError), match=rf"attention\(query \(1, 2, 6, 8\).*{message}"):
        call()


def test_the_weights_of_a_plain_call_notice_a_change_in_place():
    x = torch.randn(1, 2, 5, 8)
    weights = regard.attention(x, x.clone(), x).weights
    x.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        weights.dense()


# What is not finite


@pytest.mark.parametrize("evil", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (2, 300), (90, 90), (3, 9)])  # many and few
def test_a_value_that_is_not_finite_reaches_those_who_see_it(kit, isa, evil, queries, keys):
    query, key, value = kit.inputs(heads=2, groups=2, queries=queries, keys=keys, dim=32, value_dim=32)
    more = {"lengths": torch.tensor([keys * 2 // 3, keys * 2 // 5])} if queries < keys else {"causal": True}
    if queries == 300:
        more["mask"] = torch.rand(300) < 0.9
    clean = regard.attention(query, key, value, backend="cpu", **more)
    value[:, 1, keys // 2, 3] = evil
    result = regard.attention(query, key, value, backend="cpu", **more)
    sees = clean.weights[:, 1, :, keys // 2] > 0
    assert sees.any()
    assert not sees.all()
    assert not result.output[:, 1, :, 3][sees].isfinite().any()
    kit.agree(result.output[:, 0], clean.output[:, 0])
    kit.agree(result.output[:, 1, :, 3][~sees], clean.output[:, 1, :, 3][~sees])
    kit.agree(result.output[:, 1, :, 4:], clean.output[:, 1, :, 4:])


# The same bits whoever computes


SHAPES = [(1, 1, 1, 1200, 1200, 32), (3, 6, 2, 67, 131, 16), (1, 8, 2, 1, 5000, 64), (2, 4, 4, 300, 40, 24)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_bits_for_any_number_of_threads(kit, isa, shape):
    batch, heads, groups, queries, keys, dim = shape
    query, key, value = (t.requires_grad_() for t in kit.inputs(batch, heads, groups, queries, keys, dim, dim))
    bias = torch.randn(1, 1, queries, keys, requires_grad=True)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            result = regard.attention(
                query, key, value, bias=bias, causal=queries > 1, collect=("entropy",), backend="cpu"
            )
            weights = result.weights
            results.append([result.output, result.lse, weights.entropy(), weights.received(), weights.pool(1, 5)])
            results[-1] += [
                weights.T @ query.detach(),
                *torch.autograd.grad(result.output.square().sum(), (query, key, value, bias)),
            ]
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("more", [{}, {"causal": True}], ids=str)
@pytest.mark.parametrize(
    ("lengths", "heads"), [((7, 130, 8, 300, 64, 61), 2), ((9, 3, 16), 4), ((300, 70, 1, 257, 1500, 19, 90), 1)]
)
def test_a_segment_gets_the_same_bits_wherever_it_lies(isa, dtype, lengths, heads, more):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, heads, sum(lengths), 32).to(dtype)
    key, value = key[:, : (heads + 1) // 2], value[:, : (heads + 1) // 2]
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    output = regard.attention(query, key, value, segments=bounds, **more).output
    for start, stop in bounds.unfold(0, 2, 1).tolist():
        alone = regard.attention(*(tensor[:, :, start:stop] for tensor in (query, key, value)), **more).output
        assert torch.equal(output[:, :, start:stop], alone)


def test_from_several_python_threads_at_once(kit, isa):
    tensors = kit.inputs(queries=211, keys=307, dim=32, value_dim=32)
    expected = regard.attention(*tensors, backend="cpu").output
    result = [None] * 4

    def work(n):
        for _ in range(10):
            result[n] = regard.attention(*tensors, backend="cpu").output

    torch.set_num_threads(2)
    try:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(actual, expected) for actual in result)


def test_in_the_child_of_a_fork():
    program = """
import os, torch, regard
torch.set_num_threads(2)
x = torch.randn(1, 4, 300, 32)
before = regard.attention(x, x, x, backend="cpu").output
child = os.fork()
if child == 0:
    again = regard.attention(x, x, x, backend="cpu").output
    torch.set_num_threads(1)  # torch's own operators would wait for threads that stayed with the parent
    os._exit(0 if torch.equal(again, before) else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_ten_thousand_calls_keep_no_memory():
    random.seed(0)
    after = []
    for n in range(10_000):
        groups, repeat, queries, keys, dim = (random.randint(1, largest_size) for largest_size in (2, 3, 20, 40, 20))
        query = torch.randn(1, groups * repeat, queries, dim)
        key, value = torch.randn(2, 1, groups, keys, dim)
        result = regard.attention(query, key, value, causal=bool(n % 2), collect=("topk:1",), backend="cpu")
        if n % 10 == 0:
            result.weights.received()
        if n in (2_000, 9_999):
            after.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB
    assert after[1] - after[0] < 4096


# The operator, as PyTorch sees it


def arguments(kit, **more):
    """Those of the operator; the last two are whether the entropy is wanted, and how many of the largest weights."""
    query, key, value = (t.requires_grad_() for t in kit.inputs(dim=8, value_dim=8))
    scores = regard.attention(query.detach(), key.detach(), value.detach(), **more).weights.scores
    scores = replace(scores, query=query, key=key)
    return [*problem.flatten("cpu", scores, value, more.get("sinks")), True, 2]


@pytest.mark.parametrize("name", ["", "causal", "full mask", "bias", "sinks", "softcap"])
def test_opcheck(kit, name):
    given = kit.inputs(dim=8, value_dim=8)
    full = arguments(kit, **kit.options([name] if name else [], *given[:2]))
    torch.library.opcheck(torch.ops.regard.attention.default, full)
    problem = [t.detach() if isinstance(t, torch.Tensor) else t for t in full[:-2]]
    output, lse, *_ = torch.ops.regard.attention(*problem, True, 2)
    grads, direction = [torch.randn_like(output), torch.randn_like(lse)], [torch.randn_like(t) for t in problem[:3]]
    direction += [t if t is None else torch.randn_like(t) for t in problem[3:5]]
    for operation, more in (
        (torch.ops.regard.attention_backward, [*grads, output, lse, name == "bias", *problem]),
        (torch.ops.regard.attention_tangent, [*direction, *problem]),
        (torch.ops.regard.attention_second, [*direction, *grads, *problem]),
    ):
        torch.library.opcheck(operation.default, more)


def test_torch_func(kit):
    query, key, value = (torch.randn(2, 3, 5, 4) for _ in range(3))

    def loss(query, key, value):
        return regard.attention(query, key, value, causal=True, backend="cpu").output.square().sum()

    def plain(query, key, value):
        return F.scaled_dot_product_attention(query, key, value, is_causal=True).square().sum()

    for actual, other in zip(
        torch.func.grad(loss, (0, 1, 2))(query, key, value),
        torch.func.grad(plain, (0, 1, 2))(query, key, value),
        strict=True,
    ):
        kit.agree(actual, other)
    stacked = torch.func.vmap(torch.func.grad(loss))(query, key, value)
    kit.agree(stacked, torch.stack([torch.func.grad(loss)(*actual) for actual in zip(query, key, value, strict=True)]))
    small = query[:1, :1, :2]
    jacobian = torch.func.jacrev(lambda q: regard.attention(q, key[:1, :1], value[:1, :1], backend="cpu").output)(small)
    expected = torch.func.jacrev(lambda q: (q @ key[:1, :1].mT / 2).softmax(-1) @ value[:1, :1])(small)
    kit.agree(jacobian, expected)


@pytest.mark.filterwarnings("ignore")  # of torch.compile's own, where a graph breaks
def test_torch_compile(kit):
    query, key, value = (torch.randn(1, 2, 7, 8, requires_grad=True) for _ in range(3))

    def function(query, key, value):
        return regard.attention(query * 2, key, value, causal=True, backend="cpu").output.sum(-1)

    compiled = torch.compile(function, backend="aot_eager")
    kit.agree(compiled(query, key, value), function(query, key, value))
    actual, other = (torch.autograd.grad(f(query, key, value).sum(), query)[0] for f in (compiled, function))
    kit.agree(actual, other)


# Refusals


def test_a_forced_instruction_set_that_is_not_there(kit, monkeypatch):
    monkeypatch.setenv("REGARD_ISA", "mmx")
    assert availability()["cpu"][0].startswith(f"REGARD_ISA: expected one of {', '.join(SETS)}")
    with pytest.raises(ValueError, match=r"REGARD_ISA: expected one of .* Got 'mmx'"):
        regard.attention(*kit.inputs(), backend="cpu")
    with pytest.raises(ValueError, match=r"REGARD_ISA: expected one of .* Got 'mmx'"):
        regard.attention(*kit.inputs())  # and no other backend steps in silently
    kit.check(*kit.inputs(), backend="torch")


def test_an_instruction_set_in_capitals(kit, isa, monkeypatch):
    monkeypatch.setenv("REGARD_ISA", isa.upper())
    assert cpu.instruction_set() == isa
    kit.check(*kit.inputs(), backend="cpu")


def test_dims_that_are_too_large(kit):
    query, key, value = kit.inputs(dim=513)
    with pytest.raises(ValueError, match="'cpu' cannot serve: a dim of 513 is more than 512"):
        regard.attention(query, key, value, backend="cpu")
    kit.check(query, key, value)


def test_more_of_the_largest_than_the_kernel_keeps(kit):
    result = regard.attention(*kit.inputs(keys=101), collect=("topk:3", "topk:80"), backend="cpu").weights
    kit.agree(result.topk(80).values[..., :3], result.topk(3).values, 1e-6)


def kernel_scores(kit, **changes):
    query, key, _ = kit.inputs(dim=8, value_dim=8)
    return _kernel.Scores(**{"query": query, "key": key, "scale": 1.0} | changes)


INTEGERS = torch.zeros(2, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("query: expected four dimensions", {"query": torch.zeros(5, 8)}),
        ("query: expected float32, bfloat16 or float16", {"query": torch.zeros(2, 6, 5, 8, dtype=torch.float64)}),
        (
            "query: expected a dim from 1 to 512",
            {"query": torch.zeros(2, 6, 5, 600), "key": torch.zeros(2, 3, 11, 600)},
        ),
        ("query: expected a last dimension without gaps", {"query": torch.zeros(2, 6, 5, 16)[..., ::2]}),
        ("key: expected the type of the query", {"key": torch.zeros(2, 3, 11, 8, dtype=torch.bfloat16)}),
        ("key: expected heads that divide the query's", {"key": torch.zeros(2, 4, 11, 8)}),
        (r"key: expected shape \(2, 3, 11, 8\)", {"key": torch.zeros(2, 3, 11, 7)}),
        ("start, stop: expected both, or none", {"start": INTEGERS}),
        ("start: expected int64", {"start": INTEGERS.int(), "stop": INTEGERS.int()}),
        (r"stop: expected shape \(2, 5\)", {"start": INTEGERS, "stop": INTEGERS[:1]}),
        ("mask: expected bool", {"mask": torch.zeros(1, 1, 5, 11)}),
        ("mask: expected four dimensions that broadcast", {"mask": torch.ones(1, 1, 5, 10, dtype=torch.bool)}),
        ("bias: expected float32, bfloat16 or float16", {"bias": torch.zeros(1, 1, 5, 11, dtype=torch.int32)}),
        (r"sinks: expected shape \(6\)", {"sinks": torch.zeros(5)}),
        ("softcap: expected 0 for none, or more", {"softcap": -1.0}),
    ],
)
def test_the_binding_checks_scores(kit, match, changes):
    kernel_scores(kit)
    with pytest.raises(ValueError, match=rf"^regard\._kernel: {match}"):
        kernel_scores(kit, **changes)


ROWS = torch.zeros(2, 6, 5)


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("value: expected a dim up to 512", {"value": torch.zeros(2, 3, 11, 600), "output": torch.zeros(2, 6, 5, 600)}),
        ("value: expected the heads of the key or of the query", {"value": torch.zeros(2, 4, 11, 8)}),
        (r"value: expected shape \(2, 3, 11, 8\)", {"value": torch.zeros(2, 3, 10, 8)}),
        ("value, output: expected both, or none", {"output": None}),
        (r"output: expected shape \(2, 6, 5, 8\)", {"output": torch.zeros(2, 6, 5, 7)}),
        ("output: expected the type of the query", {"output": torch.zeros(2, 6, 5, 8, dtype=torch.float16)}),
        ("lse: expected float64", {"lse": ROWS}),
        ("entropy: expected contiguous", {"entropy": torch.zeros(2, 5, 6).mT}),
        ("top_values, top_keys: expected both", {"top_values": torch.zeros(2, 6, 5, 3)}),
        (
            "top_values: expected at most 64",
            {"top_values": torch.zeros(2, 6, 5, 65), "top_keys": torch.zeros(2, 6, 5, 65, dtype=torch.int64)},
        ),
        ("isa: expected one of", {"isa": "mmx"}),
        ("threads: expected 1 or more", {"threads": 0}),
    ],
)
def test_the_binding_checks_what_it_writes(kit, match, changes):
    value, output = torch.zeros(2, 3, 11, 8), torch.zeros(2, 6, 5, 8)
    ready = {"value": value, "output": output, "isa": SETS[0], "threads": 1}
    _kernel.forward(kernel_scores(kit), **ready)
    with pytest.raises(ValueError, match=rf"^regard\._kernel: {match}"):
        _kernel.forward(kernel_scores(kit), **ready | changes)


def test_the_binding_takes_tensors_in_memory_alone(kit):
    with pytest.raises(TypeError):
        _kernel.forward("scores", isa=SETS[0], threads=1)
    for query in (None, [1.0], torch.zeros(2, 6, 5, 8, device="meta"), torch.zeros(2, 6, 5, 8).to_sparse()):
        with pytest.raises(TypeError):
            kernel_scores(kit, query=query)


class WithoutExchangeTable(torch.Tensor):
    """A tensor as releases of PyTorch have it that know no DLPack exchange API."""

    __dlpack_c_exchange_api__ = None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_binding_imports_tensors_of_older_releases(kit, dtype):
    query, key, value = kit.inputs(dim=8, value_dim=8, dtype=dtype)
    outputs = []
    for kind in (torch.Tensor, WithoutExchangeTable):
        scores = _kernel.Scores(query=query.as_subclass(kind), key=key.as_subclass(kind), scale=0.5)
        output = torch.zeros(2, 5, 6, 8, dtype=dtype).transpose(1, 2)
        _kernel.forward(scores, value=value.as_subclass(kind), output=output.as_subclass(kind), isa=SETS[0], threads=1)
        outputs.append(output)
    assert outputs[0].any()
    assert torch.equal(*outputs)
    with pytest.raises(TypeError):
        _kernel.Scores(query=query.to("meta").as_subclass(WithoutExchangeTable), key=key, scale=0.5)


def test_the_binding_says_what_it_takes():
    of_maps = "pool", "tile", "diagonal", "apply", "transposed", "largest"
    for name in ("forward", "backward", *of_maps, "linear"):
        function = getattr(_kernel, name)
        signature, _, text = function.__doc__.partition("\n")
        assert "torch.Tensor" in signature
        assert "isa: str, threads: int" in signature
        assert len(text) > 50


def test_the_scores_keep_their_tensors(kit):
    """The memory that the kernel reads stays, though Python has forgotten the tensors."""
    query, key, value = kit.inputs(dim=8, value_dim=8)
    expected = kit.oracle(query, key, value, scale=1.0)[0]
    scores = _kernel.Scores(query=query.clone(), key=key.clone(), scale=1.0)
    rubbish = [torch.full_like(query, 7.0) for _ in range(20)]
    output = torch.zeros(2, 6, 5, 8)
    _kernel.forward(scores, value=value, output=output, isa=SETS[0], threads=1)
    assert rubbish[0][0, 0, 0, 0] == 7
    kit.agree(output, expected)


def test_streamed_blocks_agree_with_the_kernel(kit, isa):
    """The two that compute reductions, side by side."""
    query, key, value = kit.inputs(queries=67, keys=131)
    scores = regard.attention(query, key, value, causal=True, backend="cpu").weights._matrix
    streamed = Matrix(scores.scores, scores.sinks, scores.lse.float(), streaming)
    cells = torch.arange(67) // 7, torch.arange(131) // 9, (10, 15), "sum"
    for name, more in (("grouped", cells), ("apply", (value,)), ("apply_transposed", (query,)), ("dense", ())):
        actual, other = (
            getattr(module, name)(which, *more) for module, which in ((cpu, scores), (streaming, streamed))
        )
        kit.agree(actual, other)
