"""attention() against the float64 reference, against PyTorch's own, and against bad input."""

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import regard
from regard import backends
from regard.backends import cpu, streaming
from regard.backends import torch as torch_backend
from regard.mask import Mask
from regard.scores import Scores
from support.oracles import OPTIONS

HALF = [torch.bfloat16, torch.float16]
FULL = [torch.float32, torch.float64]

# Of every row at most one, and "": not given.
WINDOWS = ["", "left", "right", "window"]
MASKS = ["", "padding", "full mask", "query mask", "rule"]
SEGMENTS = ["", "segment pair", "segments"]
ALL = OPTIONS


def chosen(*names):
    return [name for name in names if name]


# The numbers


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", ["", "causal"])
def test_all_options_crossed(kit, backend, causal, window, mask, segments):
    query, key, value = kit.inputs(queries=11) if segments == "segments" else kit.inputs()
    who = chosen(causal, window, mask, segments)
    for count in range(4):
        for more in combinations(["lengths", "bias", "softcap", "sinks"], count):
            kit.check(query, key, value, backend=backend, **kit.options([*who, *more], query, key))


SHAPES = [  # batch, heads, groups, queries, keys, dim, value_dim
    (2, 6, 3, 5, 11, 7, 13),
    (3, 5, 5, 13, 7, 11, 2),  # more queries than keys: the first of them see nothing if causal
    (2, 7, 1, 3, 5, 13, 13),  # one group for all heads
    (1, 3, 3, 300, 7, 5, 5),  # more rows than a block has
    (1, 2, 2, 7, 700, 5, 3),  # more keys than the flash kernel takes at a time
    (1, 1, 1, 1, 1, 1, 1),
    (2, 3, 3, 1, 13, 5, 7),
    (2, 3, 3, 13, 1, 5, 7),
    (0, 3, 3, 5, 7, 11, 2),
    (2, 0, 0, 5, 7, 11, 2),
    (2, 0, 3, 5, 7, 11, 2),
    (2, 3, 3, 0, 7, 11, 2),
    (2, 3, 3, 5, 0, 11, 2),
    (2, 3, 3, 0, 0, 11, 2),
    (2, 3, 3, 5, 7, 11, 0),
]


@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=["B{}-H{}-G{}-Q{}-K{}-D{}-E{}".format(*shape) for shape in SHAPES])
def test_every_shape_with_every_option(kit, backend, shape, dtype):
    query, key, value = kit.inputs(*shape, dtype=dtype)
    kit.check(query, key, value, backend=backend)
    for name in ALL:
        for with_causal in ([], ["causal"]):
            if name == "segments" and query.shape[2] != key.shape[2]:
                continue  # the same boundaries for both
            kit.check(query, key, value, backend=backend, **kit.options([name, *with_causal], query, key))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", ["", *ALL])
def test_half_precision_is_no_worse_than_plain_pytorch(kit, backend, name, dtype):
    size = 67 if name == "segments" else 61
    query, key, value = kit.inputs(queries=size, keys=67, dtype=dtype)
    more = kit.options(chosen(name), query, key)
    outcome = regard.attention(query, key, value, backend=kit.forced(backend, query, key, value, **more), **more)
    output, lse, weights = kit.oracle(query, key, value, **more)
    kit.agree(outcome.lse, lse)  # float32 whatever the input
    kit.agree(outcome.weights.dense(), weights)
    if name == "softcap":  # of which PyTorch has no attention
        logits = 0.8 * torch.tanh(query @ key.repeat_interleave(2, 1).mT * 7**-0.5 / 0.8)
        plain = logits.softmax(-1) @ value.repeat_interleave(2, 1)
    else:
        plain = kit.plain(query, key, value, **more)
    sees = lse > -torch.inf  # plain PyTorch gives nan to those who see nothing
    kit.no_worse(outcome.output[sees], plain[sees], output[sees])
    assert not outcome.output[~sees].any()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_merged_from_past_and_present(kit, dtype):
    query, key, value = kit.inputs(queries=53, keys=131, dtype=dtype)
    outcome = regard.attention(query, key, value, causal=True)
    kit.no_worse(
        outcome.output, kit.plain(query, key, value, causal=True), kit.oracle(query, key, value, causal=True)[0]
    )


@pytest.mark.parametrize("dtype", [*FULL, *HALF], ids=str)
@pytest.mark.parametrize("bias_dtype", [*FULL, *HALF], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_what_atens_operator_is_trusted_with(kit, dtype, bias_dtype, causal):
    """Every type of tensors with every type of bias, at sizes around its blocks, forward and backward."""
    tolerances = torch_backend.CAPABILITIES.tolerances
    for keys in (1, 15, 16, 17, 33, 513):
        tensors = [t.requires_grad_() for t in kit.inputs(1, 2, 2, keys, keys, 8, 8, dtype)]
        for bias in (torch.randn(keys, keys).to(bias_dtype), torch.randn(1, 1, 1, keys).to(bias_dtype)):
            outcome = regard.attention(*tensors, bias=bias, causal=causal, backend="torch")
            leaves = [tensor.detach().double().requires_grad_() for tensor in tensors]
            output, lse, _ = kit.oracle(*leaves, bias=bias, causal=causal)
            kit.agree(outcome.output, output, tolerances[dtype])
            kit.agree(outcome.lse, lse, tolerances[outcome.lse.dtype])
            grads = torch.autograd.grad(outcome.output.sum(), tensors)
            for actual, other in zip(grads, torch.autograd.grad(output.sum(), leaves), strict=True):
                kit.agree(actual, other, 20 * tolerances[dtype] * max(1, float(other.abs().max())))


def test_half_precision_does_not_overflow_in_the_scores(kit):
    large = torch.full((1, 1, 5, 64), 300.0, dtype=torch.float16)  # 300 · 300 is past the largest float16
    for more in ({}, {"window": (2, 0)}):
        outcome = regard.attention(large, large, large, **more)
        assert torch.equal(outcome.output, large)
        assert outcome.lse.isfinite().all()


@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("name", [name for name in ALL if name != "softcap"])
def test_the_peer_agrees(kit, backend, name, dtype):
    query, key, value = kit.inputs(queries=11 if name == "segments" else 5, dtype=dtype)
    more = kit.options([name], query, key)
    outcome = regard.attention(query, key, value, backend=kit.forced(backend, query, key, value, **more), **more)
    sees = outcome.lse > -torch.inf
    kit.agree(outcome.output[sees], kit.plain(query, key, value, **more)[sees])


def test_the_peer_without_options(kit, backend):
    query, key, value = (torch.randn(2, 3, 7, 5) for _ in range(3))
    kit.agree(
        regard.attention(query, key, value, backend=backend).output, F.scaled_dot_product_attention(query, key, value)
    )
    kit.agree(
        regard.attention(query, key, value, causal=True, backend=backend).output,
        F.scaled_dot_product_attention(query, key, value, is_causal=True),
    )


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=["2d", "3d", "4d"])
def test_as_many_dimensions_as_came_in(kit, backend, leading):
    query, key, value = torch.randn(*leading, 5, 7), torch.randn(*leading, 11, 7), torch.randn(*leading, 11, 13)
    outcome = kit.check(query, key, value, backend=backend, causal=True, collect=("entropy", "max", "topk:2"))
    assert outcome.output.shape == (*leading, 5, 13)
    assert outcome.lse.shape == outcome.weights.entropy().shape == outcome.weights.max().values.shape == (*leading, 5)
    assert outcome.weights.shape == (*leading, 5, 11)
    assert outcome.weights.topk(2).indices.shape == (*leading, 5, 2)
    assert outcome.value is value


@pytest.mark.parametrize("batch", [(2, 2), (1, 3), (2, 1, 3)], ids=str)
def test_several_batch_dimensions(kit, backend, batch):
    """As scaled_dot_product_attention: all before the heads are batch, in lengths, mask and bias too."""
    total, heads = math.prod(batch), 6
    query, key, value = kit.inputs(total)
    lengths, mask = torch.randint(0, 12, (total,)), torch.rand(total, 1, 5, 11) < 0.7
    bias, sinks = torch.randn(total, heads, 1, 11), torch.randn(heads)
    flat = regard.attention(query, key, value, lengths=lengths, mask=mask, bias=bias, sinks=sinks, backend=backend)
    many = [tensor.unflatten(0, batch) for tensor in (query, key, value, lengths, mask, bias)]
    outcome = regard.attention(*many[:3], lengths=many[3], mask=many[4], bias=many[5], sinks=sinks, backend=backend)
    kit.agree(outcome.output, flat.output.unflatten(0, batch), 0)
    kit.agree(outcome.lse, flat.lse.unflatten(0, batch), 0)
    assert outcome.value is many[2]
    kit.agree(regard.attention(*many[:3]).output, F.scaled_dot_product_attention(*many[:3], enable_gqa=True))
    first = (slice(0, 1),) * (len(batch) - 1)  # a mask for some of the batch dimensions is one for all
    shared = regard.attention(*many[:3], mask=many[4][first], backend=backend).output
    stacked = many[4][first].expand(*batch, 1, 5, 11).flatten(0, -4)
    kit.agree(shared.flatten(0, -4), regard.attention(query, key, value, mask=stacked, backend=backend).output, 0)


def test_several_batch_dimensions_have_gradients(kit):
    tensors = [t.unflatten(0, (2, 2)).requires_grad_() for t in kit.inputs(4, heads=3)]
    ours = torch.autograd.grad(regard.attention(*tensors, causal=True).output.square().sum(), tensors)
    flat = [tensor.detach().flatten(0, 1).requires_grad_() for tensor in tensors]
    expected = torch.autograd.grad(regard.attention(*flat, causal=True).output.square().sum(), flat)
    for actual, other in zip(ours, expected, strict=True):
        kit.agree(actual, other.unflatten(0, (2, 2)), 0)


@pytest.mark.parametrize("alone", ["query", "key", "value", "key and value"])
def test_a_batch_of_one_is_repeated(kit, backend, alone):
    tensors = dict(zip(("query", "key", "value"), kit.inputs(3, heads=3), strict=True))
    for name in alone.split(" and "):
        tensors[name] = tensors[name][:1].requires_grad_()
    full = [tensor.detach().expand(3, -1, -1, -1) for tensor in tensors.values()]
    outcome = regard.attention(*tensors.values(), lengths=[11, 4, 7], backend=backend)
    expected = regard.attention(*full, lengths=[11, 4, 7], backend=backend)
    kit.agree(outcome.output, expected.output, 0)
    kit.agree(outcome.weights.dense(), expected.weights.dense(), 0)
    kit.agree(regard.attention(*tensors.values()).output, F.scaled_dot_product_attention(*tensors.values()))
    leaf = tensors[alone.split(" and ")[0]]
    (ours,) = torch.autograd.grad(outcome.output.square().sum(), leaf)
    leaves = [tensor.clone().requires_grad_() for tensor in full]
    grads = torch.autograd.grad(kit.oracle(*leaves, lengths=[11, 4, 7])[0].square().sum(), leaves)
    kit.agree(ours, dict(zip(tensors, grads, strict=True))[alone.split(" and ")[0]].sum(0, keepdim=True), 1e-4)


@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("names", [[], ["window"], ["left", "full mask"], ["softcap", "sinks", "bias"]], ids="-".join)
def test_causal_aligned_to_lengths(kit, backend, dtype, names):
    """A cache with room: the queries are the last before each length, and see what a cache cut there would show."""
    query, key, value = kit.inputs(3, queries=4, dtype=dtype)
    more = kit.options(names, query, key)
    lengths = torch.tensor([4, 7, 11])
    outcome = kit.check(query, key, value, causal="lengths", lengths=lengths, backend=backend, **more)
    for n, length in enumerate(lengths.tolist()):
        cut = dict(more)
        for name in ("mask", "bias"):
            if name in cut:
                cut[name] = cut[name].expand(3, 6, 4, 11)[n : n + 1, :, :, :length]
        alone = [query[n : n + 1], key[n : n + 1, :, :length], value[n : n + 1, :, :length]]
        kit.agree(outcome.output[n : n + 1], kit.oracle(*alone, causal=True, **cut)[0])
    kit.check(query, key, value, causal="lengths", lengths=[0, 2, 3], backend=backend)  # more queries than keys
    kit.check(query[:, :, :1], key, value, causal="lengths", lengths=lengths, backend=backend)


# What the options mean, drawn


@pytest.mark.parametrize(
    ("option", "drawn"),
    [
        ({"causal": True}, "111000 111100 111110 111111"),
        ({"window": (1, 0)}, "011000 001100 000110 000011"),
        ({"window": (0, None)}, "001111 000111 000011 000001"),
        ({"window": (None, 1)}, "111100 111110 111111 111111"),
        ({"lengths": [4]}, "111100 111100 111100 111100"),
        ({"lengths": [4], "causal": True}, "111000 111100 111100 111100"),
        ({"lengths": [5], "causal": "lengths"}, "110000 111000 111100 111110"),
        ({"lengths": [5], "causal": "lengths", "window": (1, 0)}, "110000 011000 001100 000110"),
        ({"lengths": [2], "causal": "lengths"}, "000000 000000 100000 110000"),
        ({"segments": ([0, 1, 4], [0, 4, 6])}, "111100 000011 000011 000011"),
        ({"segments": ([0, 1, 4], [0, 4, 6]), "causal": True}, "111100 000000 000010 000011"),
        ({"segments": ([0, 2, 2, 4], [0, 3, 5, 6]), "window": (0, 0)}, "010000 001000 000000 000001"),
        ({"mask": torch.tensor([True, False, True, False, True, False])}, "101010 101010 101010 101010"),
        ({"mask": lambda b, h, q, k: q == k}, "100000 010000 001000 000100"),
    ],
)  # fmt: skip
def test_who_sees_whom(option, drawn):
    equal = torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 6, 2), torch.zeros(1, 1, 6, 2)
    weights = regard.attention(*equal, **option).weights.dense()[0, 0]
    assert " ".join("".join(str(int(seen)) for seen in row) for row in weights > 0) == drawn


def test_a_window_past_the_ends_is_no_window(kit):
    query, key, value = kit.inputs()
    whole = regard.attention(query, key, value)
    for side in (10, 1 << 40, 2**63 - 1, 10**30):
        kit.agree(regard.attention(query, key, value, window=(side, side)).output, whole.output, 0)
    kit.check(query, key, value, window=(9, 3))  # and one key less hides one


def test_a_rule_is_asked_in_parts(kit):
    asked = []

    def rule(batch, head, query, key):
        asked.append(len(query) * len(key))
        return query >= key

    query = torch.randn(1, 1, 2000, 4)
    regard.attention(query, query, query, mask=rule)
    assert max(asked) < 2000 * 2000


# How the numbers lie in memory


def test_memory_in_any_order(kit, backend):
    projected = torch.randn(2, 11, 3, 7).transpose(1, 2)  # (B, K, H·D) as a model projects it
    columns = torch.randn(2, 3, 7, 11).mT  # the last stride is not 1
    shared = torch.randn(1, 3, 11, 7).expand(2, 3, 11, 7)  # one sequence for the whole batch
    strided = torch.randn(2, 3, 22, 14)[:, :, ::2, ::2]
    for actual in (projected, columns, shared, strided):
        for other in (projected, columns, shared, strided):
            for more in ({}, {"causal": True}, {"window": (3, 0)}, {"lengths": [11, 4]}):
                kit.check(actual, other, actual, backend=backend, **more)
                kit.check(other, other, actual, backend=backend, **more)


def test_bias_in_any_order(kit, backend):
    query, key, value = kit.inputs()
    for bias in (
        torch.randn(6, 11, 5).mT,
        torch.randn(6, 10, 22)[:, ::2, ::2],
        torch.randn(5, 1).expand(5, 11),
        torch.randn(11).expand(2, 6, 5, 11),
        torch.randn(5, 11).double(),
    ):
        kit.check(query, key, value, backend=backend, bias=bias, causal=True)


def test_mask_in_any_order(kit, backend):
    query, key, value = kit.inputs()
    for mask in ((torch.rand(11, 2) < 0.5).T[:, None, None], (torch.rand(11, 5) < 0.5).T, torch.rand(2, 6, 1, 1) < 0.5):
        kit.check(query, key, value, backend=backend, mask=mask)


def test_bounds_of_any_integer_type(kit):
    query, key, value = kit.inputs(queries=11)
    for dtype in (torch.uint8, torch.int8, torch.int32, torch.int64):
        bounds = torch.tensor([0, 4, 11], dtype=dtype)
        kit.check(query, key, value, segments=bounds, lengths=torch.tensor([7, 9], dtype=dtype))
        kit.check(query, key, value, segments=(bounds, bounds))


def test_a_mask_is_kept_as_given(kit):
    query, key, value = kit.inputs()
    mask = torch.rand(2, 1, 1, 11) < 0.5
    assert regard.attention(query, key, value, mask=mask).weights.scores.mask.given.data_ptr() == mask.data_ptr()


def test_threads_change_nothing(kit):
    query, key, value = kit.inputs(queries=301, keys=701, dim=32, value_dim=32)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for more in ({}, {"causal": True}, {"window": (100, 0)}):
            kit.check(query, key, value, **more)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", FULL, ids=str)
def test_a_sign_that_is_still_to_be_turned(kit, backend, dtype):
    """The imaginary part of a conjugate is a view whose numbers lie in memory with the other sign."""

    def turned(tensor):
        view = torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
        assert view.is_neg()
        return view

    query, key, value = kit.inputs(dtype=dtype)
    backend = kit.forced(backend, query, key, value)
    bias, sinks = torch.randn(5, 11, dtype=dtype), torch.randn(6, dtype=dtype)
    for names in (["query"], ["key"], ["value"], ["bias"], ["sinks"], ["query", "key", "value", "bias", "sinks"]):
        tensors = {"query": query, "key": key, "value": value, "bias": bias, "sinks": sinks}
        tensors |= {name: turned(tensors[name]) for name in names}
        outcome = kit.check(**tensors, backend=backend)
        x = torch.randn(2, 3, 11, 2, dtype=dtype)
        kit.agree(outcome.weights @ turned(x), outcome.weights @ x, 0)
        kit.agree(
            outcome.weights.received(), regard.attention(query, key, value, bias=bias, sinks=sinks).weights.received()
        )
    leaves = [tensor.requires_grad_() for tensor in (query, key, value)]
    gradient = torch.randn(2, 6, 5, 13, dtype=dtype)
    output = regard.attention(*leaves, backend=backend).output
    expected = torch.autograd.grad(output, leaves, gradient, retain_graph=True)
    for actual, other in zip(torch.autograd.grad(output, leaves, turned(gradient)), expected, strict=True):
        kit.agree(actual, other, 1e-6)


def test_numpys_numbers_are_numbers(kit, backend):
    numpy = pytest.importorskip("numpy")
    query, key, value = kit.inputs(queries=11)
    plain = {"scale": 0.25, "softcap": 3.0, "window": (3, 1), "lengths": [11, 7], "segments": [0, 4, 11]}
    for name, kinds in {"scale": "float32 float64 float16", "softcap": "float32 int64", "window": "int64 int8"}.items():
        for kind in kinds.split():
            make = getattr(numpy, kind)
            given = tuple(make(side) for side in plain[name]) if name == "window" else make(plain[name])
            outcome = regard.attention(query, key, value, backend=backend, **{name: given})
            kit.agree(
                outcome.output, regard.attention(query, key, value, backend=backend, **{name: plain[name]}).output, 0
            )
    for kind in (numpy.int64, numpy.int32, numpy.uint8):
        for name in ("lengths", "segments"):
            expected = regard.attention(query, key, value, backend=backend, **{name: plain[name]}).output
            for given in (numpy.array(plain[name], kind), [kind(number) for number in plain[name]]):
                outcome = regard.attention(query, key, value, backend=backend, **{name: given})
                kit.agree(outcome.output, expected, 0)
    with pytest.raises(ValueError, match="scale: expected a finite number"):
        regard.attention(query, key, value, scale=numpy.bool_(True))


@pytest.mark.parametrize("dtype", FULL, ids=str)
@pytest.mark.parametrize("softcap", [1e-300, 1e-50, 1e-31, 1e-10, 1e10, 1e31, 1e50, 1e300])
def test_softcaps_of_any_size(kit, backend, softcap, dtype):
    """A huge one caps nothing, a tiny one makes all scores 0; gradients too, of a bias that hides as well."""
    tensors = [tensor.requires_grad_() for tensor in kit.inputs(dtype=dtype)]
    held = backend != "cpu" or (dtype == torch.float32 and 2.0**-100 <= softcap <= 2.0**100)
    for more in ({}, {"bias": torch.where(torch.rand(5, 11) < 0.3, -torch.inf, 0.5)}):
        if not held:
            with pytest.raises(ValueError, match="'cpu' cannot serve"):
                regard.attention(*tensors, softcap=softcap, backend=backend, **more)
        attended = regard.attention(*tensors, softcap=softcap, backend=backend if held else None, **more)
        leaves = [tensor.detach().double().requires_grad_() for tensor in tensors]
        expected = kit.oracle(*leaves, softcap=softcap, **more)
        kit.agree(attended.output, expected[0])
        kit.agree(attended.lse, expected[1])
        grads = torch.autograd.grad(attended.output.sum(), tensors)
        for actual, other in zip(grads, torch.autograd.grad(expected[0].sum(), leaves), strict=True):
            kit.agree(actual, other, 1e-4 if dtype == torch.float32 else None)


# Rows at the edge


LOWEST = torch.finfo(torch.float32).min


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("keys", [5, 16, 257, 600])
@pytest.mark.parametrize("lowest", [LOWEST, LOWEST / 2, -1e30, -1e20])
def test_a_finite_minus_infinity_as_bias(kit, lowest, keys, dtype):
    """It hides as −inf does, and where every key has it, the row is the mean: output, lse, weights and gradients."""
    query, key, value = (t.requires_grad_() for t in kit.inputs(heads=3, keys=keys, value_dim=7, dtype=dtype))
    bias = torch.zeros(5, keys, dtype=dtype)
    bias[0, :-1] = lowest  # sees the last key
    bias[1] = lowest  # all alike
    bias[2, ::2] = lowest
    for more in ({}, {"sinks": torch.randn(3)}, {"window": (keys, 1)}):
        outcome = kit.check(query, key, value, bias=bias, backend="torch", **more)
        if not more:
            kit.agree(outcome.output[:, :, 0], value[:, :, -1])
            kit.agree(outcome.output[:, :, 1], value.mean(2))
            kit.agree(outcome.weights[:, :, 1], torch.full((2, 3, keys), 1 / keys, dtype=torch.float64))
        leaves = [tensor.detach().double().requires_grad_() for tensor in (query, key, value)]
        grads = torch.autograd.grad(outcome.output.sum(), (query, key, value))
        expected = torch.autograd.grad(kit.oracle(*leaves, bias=bias, **more)[0].sum(), leaves)
        for actual, other in zip(grads, expected, strict=True):
            kit.agree(actual, other, 1e-4 if dtype == torch.float32 else 1e-11)


def test_a_finite_minus_infinity_of_float64_beside_float32(kit):
    """It is beyond float32, and stays finite: −inf would hide the row."""
    query, key, value = kit.inputs(heads=3)
    bias = torch.zeros(5, 11, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        bias[1] = torch.finfo(torch.float64).min
        bias[2, ::2] = torch.finfo(torch.float64).min
        bias[3] = -torch.inf
    outcome = regard.attention(query, key, value, bias=bias, backend="torch")
    output, _, weights = kit.oracle(query, key, value, bias=bias)
    kit.agree(outcome.output, output)
    kit.agree(outcome.weights.dense(), weights)
    kit.agree(outcome.output[:, :, 1], value.mean(2))
    (gradient,) = torch.autograd.grad(outcome.output.square().sum(), bias)
    exact = bias.detach().requires_grad_()
    kit.agree(
        gradient, torch.autograd.grad(kit.oracle(query, key, value, bias=exact)[0].square().sum(), exact)[0], 1e-4
    )


@pytest.mark.parametrize("dtype", [*FULL, *HALF], ids=str)
@pytest.mark.parametrize("size", [1e5, 6e4, 300.0])
def test_large_equal_scores_give_the_mean(kit, size, dtype):
    if dtype == torch.float16:
        size = min(size, 6e4)
    alike, value = (
        torch.full((1, 2, 67, 64), size, dtype=dtype),
        torch.randn(1, 2, 67, 64, dtype=dtype).requires_grad_(),
    )
    for more in ({}, {"causal": True}, {"window": (3, 0)}):
        outcome = regard.attention(alike, alike, value, backend="torch", **more)
        output, lse, weights = kit.oracle(alike, alike, value.detach(), **more)
        kit.agree(outcome.output, output, 4 * torch.finfo(dtype).eps)
        torch.testing.assert_close(outcome.lse.double(), lse, rtol=1e-6, atol=0)
        kit.agree(outcome.weights.dense(), weights, 2e-6)
        (gradient,) = torch.autograd.grad(outcome.output.sum(), value)
        kit.agree(gradient, weights.sum(-2)[..., None].expand_as(value), 64 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("sinks", [False, True])
def test_rows_sum_to_one_less_the_sink(kit, sinks):
    query, key, value = kit.inputs(1, 2, 2, 64, 16_001, 64, 3)
    for factor in (1, 4, 40):  # the last makes scores of ±200
        more = {"sinks": torch.tensor([3.0, -1.0])} if sinks else {}
        weights = regard.attention(query * factor, key, value, **more).weights
        for matrix in (weights.dense(), weights[..., 7:19, :]):
            rows = slice(7, 19) if matrix.shape[2] == 12 else slice(None)
            kit.agree(matrix.double().sum(-1), 1 - weights.sink()[..., rows].double(), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scores_in_segments_with_more_keys_than_queries(kit, backend, dtype):
    query, key = torch.full((1, 1, 30, 4), 2.0**17, dtype=dtype), torch.full((1, 1, 20, 4), 2.0**17, dtype=dtype)
    value = torch.randn(1, 1, 20, 3, dtype=dtype)
    bounds = torch.tensor([0, 2, 30]), torch.tensor([0, 9, 20])
    backend = kit.forced(backend, query, key, value)
    outcome = regard.attention(query, key, value, causal=True, segments=bounds, scale=1.0, backend=backend)
    expected = kit.oracle(query, key, value, causal=True, segments=bounds, scale=1.0)[0]
    kit.agree(outcome.output, expected, 16 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sink_beside_large_scores_costs_no_digits(kit, backend, dtype):
    """The sums are exact, and so is the share of the sink, however few digits are left to an lse of 700."""
    query, key, value = (torch.ones(1, 1, n, 4, dtype=dtype) for n in (3, 7, 7))
    options = {"scale": 175.0, "sinks": torch.tensor([701.0], dtype=dtype)}
    backend = kit.forced(backend, query, key, value)
    dense = regard.attention(query, key, value, backend=backend, **options).weights.dense()
    expected = kit.oracle(query.double(), key.double(), value.double(), **options)[2]
    torch.testing.assert_close(dense.double(), expected, rtol=16 * torch.finfo(dtype).eps, atol=0)


def test_large_scores(kit, backend):
    query, key, value = kit.inputs(1, 2, 2, 64, 997, 16, 3)
    scale = 100 / float((query @ key.mT).abs().max())  # scores of ±100
    outcome = regard.attention(query, key, value, scale=scale, backend=backend)
    output, lse, weights = kit.oracle(query, key, value, scale=scale)
    kit.agree(outcome.lse / 100, lse / 100)
    for matrix in (outcome.weights.dense(), outcome.weights[...]):
        kit.agree(matrix, weights, 5e-5)  # of scores that float32 has to within 1e-5
    kit.agree(outcome.weights[..., 3:9, 100:300], weights[..., 3:9, 100:300], 5e-5)
    kit.agree(outcome.output, output, 1e-4)


@pytest.mark.parametrize(
    "hide",
    [
        {"lengths": [0, 3]},
        {"lengths": [0, 3], "window": (0, 0)},
        {"mask": torch.zeros(5, 11, dtype=torch.bool)},
        {"mask": torch.zeros(1, 11, dtype=torch.bool)},
        {"bias": torch.full((5, 11), -torch.inf)},
    ],
    ids=lambda hide: "-".join(hide),
)
def test_queries_that_see_nothing(kit, backend, hide):
    query, key, value = kit.inputs()
    for collect in ((), ("entropy", "max", "topk:3")):
        outcome = regard.attention(query, key, value, backend=backend, collect=collect, **hide)
        actual = outcome.lse[0]
        assert (actual == -torch.inf).all()
        assert not outcome.output[0].any()
        assert not outcome.weights[0].any()
        assert not outcome.weights[..., 2:4][0].any()
        assert not outcome.weights.entropy()[0].any()
        assert not outcome.weights.sink()[0].any()
        assert not outcome.weights.max().values[0].any()
        assert outcome.weights.topk(3).indices[0].unique().tolist() == [0, 1, 2]


def test_more_queries_than_keys_and_causal(kit, backend):
    query, key, value = kit.inputs(queries=13, keys=11)
    outcome = kit.check(query, key, value, backend=backend, causal=True)
    assert not outcome.output[:, :, :2].any()  # bottom-right: the last query sees all, the first two none


@pytest.mark.parametrize("sink", [-torch.inf, -1e4, 1e4])
def test_sinks_of_any_size(kit, backend, sink):
    query, key, value = kit.inputs()
    for hide in ({"lengths": [0, 11]}, {"lengths": [0, 11], "window": (4, None)}):
        outcome = kit.check(query, key, value, backend=backend, sinks=torch.full((6,), sink), **hide)
        expected = torch.full((2, 6, 5), 1.0 if sink > 0 else 0.0)
        expected[0] = 0.0 if sink == -torch.inf else 1.0  # it takes all where nothing else is seen
        kit.agree(outcome.weights.sink(), expected)


def test_autocast_casts_as_pytorch_does(kit):
    """As scaled_dot_product_attention: all but float64 become autocast's type, mixed or not. Weights stay float32."""
    query, key, value = kit.inputs(heads=3)
    half = [tensor.bfloat16() for tensor in (query, key, value)]
    with torch.autocast("cpu", torch.bfloat16):
        for tensors in ((query, key, value), (query, half[1], half[2]), (query.half(), key, half[2]), half):
            for more in ({}, {"window": (3, None)}, {"sinks": torch.randn(3)}, {"bias": torch.randn(5, 11)}):
                outcome = regard.attention(*tensors, **more)
                assert outcome.output.dtype == F.scaled_dot_product_attention(*tensors).dtype == torch.bfloat16
                assert outcome.lse.dtype == outcome.weights.dtype == torch.float32
                rounded = [tensor.bfloat16() for tensor in tensors]
                kit.agree(outcome.weights.dense(), kit.oracle(*rounded, **more)[2])
        double = [tensor.double() for tensor in (query, key, value)]
        kit.check(*double, window=(3, None))
        assert regard.attention(*double).output.dtype == F.scaled_dot_product_attention(*double).dtype
        with pytest.raises(TypeError, match=r"key: expected torch.float64 .* Got torch.bfloat16"):
            regard.attention(double[0], half[1], half[2])
    with pytest.raises(TypeError, match=r"key: expected torch.float32 .* Got torch.bfloat16"):
        regard.attention(query, half[1], half[2])


# What is not finite reaches those who see it, and nobody else


@pytest.mark.parametrize("evil", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["query", "key", "value"])
@pytest.mark.parametrize("option", ["", "causal", "window", "lengths", "segment pair", "key mask", "full mask", "rule"])
def test_not_finite(kit, backend, option, where, evil):
    query, key, value = kit.inputs(queries=7, keys=7)
    more = kit.options(chosen(option), query, key)
    backend = kit.forced(backend, query, key, value, **more)
    clean = regard.attention(query, key, value, **more)
    sees = clean.weights.dense() > 0
    tensors = {"query": query, "key": key, "value": value}
    tensors[where][:, 0, 4] = evil
    touched = torch.zeros(2, 6, 7, dtype=torch.bool)
    if where == "query":
        touched[:, 0, 4] = sees[:, 0, 4].any(-1)
    else:
        touched[:, :2] = sees[:, :2, :, 4]  # two query heads share a group
    for sinks in (None, torch.full((6,), -30.0)):
        outcome = regard.attention(query, key, value, sinks=sinks, backend=backend, **more)
        kit.agree(outcome.output[~touched], clean.output[~touched])
        if where == "value":
            assert not outcome.output[touched].isfinite().any()
            assert outcome.weights.dense().isfinite().all()
        elif math.isnan(evil):
            assert outcome.output[touched].isnan().all()
            assert outcome.lse[touched].isnan().all()
            dense = outcome.weights.dense()
            assert torch.equal(dense.isnan(), sees & touched[..., None])
            kit.agree(outcome.weights[..., 2:5], dense[..., 2:5])
        assert not outcome.lse[~touched].isnan().any()


def test_not_finite_on_both_paths(kit):
    """The cases above take both: PyTorch's flash attention and the streamed blocks."""
    query, key, value = kit.inputs(queries=7, keys=7)

    def flash(**rules):
        return torch_backend.flash_serves(Scores(query, key, Mask(7, 7, **rules), scale=1.0), value)

    assert flash()
    assert flash(causal=True)
    assert flash(lengths=torch.tensor([3, 4]))
    assert flash(given=torch.ones(1, 1, 1, 7, dtype=torch.bool))
    assert not flash(window=(1, None))
    assert not flash(given=torch.ones(1, 1, 7, 7, dtype=torch.bool))


# Bad input


def rejected(kit, match, error=ValueError, *, change=None, **more):
    tensors = dict(zip(("query", "key", "value"), kit.inputs(), strict=True)) | (change or {})
    with pytest.raises(error, match=match) as caught:
        regard.attention(tensors["query"], tensors["key"], tensors["value"], **more)
    message = str(caught.value)
    assert message.startswith("attention(query "), message
    for tensor in tensors.values():  # what was called, with what shapes
        if isinstance(tensor, torch.Tensor):
            assert f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" in message


@pytest.mark.parametrize(
    ("name", "bad", "error", "match"),
    [
        ("query", [1.0], TypeError, "query: expected a torch.Tensor. Got list"),
        ("query", torch.zeros(5), ValueError, r"query: expected \(positions, dim\).* Got 1"),
        ("query", torch.zeros(1, 2, 6, 5, 7), ValueError, "key: expected .* as many dimensions as the query. Got 4"),
        ("query", torch.zeros(2, 6, 5, 7).int(), TypeError, "query: expected float32, .* Got torch.int32"),
        ("query", torch.zeros(2, 6, 5, 7, dtype=torch.complex64), TypeError, "query: .* Got torch.complex64"),
        ("query", torch.zeros(2, 6, 5, 0), ValueError, "query: expected a dim of 1 at least"),
        (
            "query",
            torch.zeros(2, 7, 5, 7),
            ValueError,
            "key: expected a number of heads that divides the query's 7. Got 3",
        ),
        ("key", torch.zeros(3, 11, 7), ValueError, "key: expected .* as many dimensions as the query. Got 3"),
        ("key", torch.zeros(2, 3, 11, 7).double(), TypeError, "key: expected torch.float32 on cpu.* Got torch.float64"),
        ("key", torch.zeros(2, 3, 11, 7, device="meta"), ValueError, "key: .* Got one on the meta device"),
        ("key", torch.zeros(3, 3, 11, 7), ValueError, "key: expected batch = 2, as the query. Got 3"),
        ("key", torch.zeros(2, 3, 11, 5), ValueError, "key: expected dim = 7, as the query. Got 5"),
        ("key", torch.zeros(2, 0, 11, 7), ValueError, "value: expected heads = 0, as the key. Got 3"),
        ("value", torch.zeros(2, 3, 11, 7).half(), TypeError, "value: expected torch.float32 .* Got torch.float16"),
        ("value", torch.zeros(3, 3, 11, 7), ValueError, "value: expected batch = 2, as the key. Got 3"),
        ("value", torch.zeros(2, 6, 11, 7), ValueError, "value: expected heads = 3, as the key. Got 6"),
        ("value", torch.zeros(2, 3, 5, 7), ValueError, "value: expected keys = 11, as the key. Got 5"),
    ],
)
def test_bad_tensors(kit, name, bad, error, match):
    rejected(kit, match, error, change={name: bad})


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_sparse_and_nested_tensors(kit):
    sparse, parts = torch.zeros(2, 6, 5, 7).to_sparse(), [torch.zeros(6, 3, 7), torch.zeros(6, 5, 7)]
    nested = [torch.nested.nested_tensor(parts, layout=layout) for layout in (torch.strided, torch.jagged)]
    with pytest.raises(
        TypeError, match=r"query: expected a dense tensor. Got torch.sparse_coo; to_dense\(\) makes one"
    ):
        regard.attention(sparse, *kit.inputs()[1:])
    for tensor in nested:
        with pytest.raises(TypeError, match=r"query: expected a dense tensor\. Got a nested tensor"):
            regard.attention(tensor, tensor, tensor)


@pytest.mark.parametrize(
    ("argument", "bad", "error", "match"),
    [
        ("window", (-1, 0), ValueError, r"window: expected \(left, right\), .* Got \(-1, 0\)"),
        ("window", (True, 0), ValueError, r"window: .* Got \(True, 0\)"),
        ("window", (1.5, None), ValueError, r"window: .* Got \(1.5, None\)"),
        ("window", (1, 2, 3), ValueError, r"window: .* Got \(1, 2, 3\)"),
        ("window", 4, ValueError, "window: .* Got 4"),
        ("lengths", [3], ValueError, r"lengths: expected one number a sequence, \(2,\). Got \(1,\)"),
        ("lengths", [[3, 4]], ValueError, r"lengths: .* Got \(1, 2\)"),
        ("lengths", [3, 12], ValueError, r"lengths: expected 0 to 11, .* Got \[3, 12\]"),
        ("lengths", [-1, 4], ValueError, r"lengths: expected 0 to 11, .* Got \[-1, 4\]"),
        ("lengths", [3.0, 4.0], TypeError, "lengths: expected integers. Got torch.float32"),
        ("lengths", [True, False], TypeError, "lengths: expected integers. Got torch.bool"),
        ("lengths", [None, 2], TypeError, r"lengths: expected integers. Got \[None, 2\]"),
        ("segments", [0, 11], ValueError, r"segments: .* from 0 to 5, the number of queries. Got \[0, 11\]"),
        ("segments", ([0, 5], [0, 3, 2, 11]), ValueError, r"segments: expected rising .* 11, .* Got \[0, 3, 2, 11\]"),
        ("segments", (torch.tensor([0, 5], dtype=torch.uint8), torch.tensor([0, 9, 2, 11], dtype=torch.uint8)),
         ValueError, "segments: expected rising"),
        ("segments", ([1, 5], [0, 11]), ValueError, r"segments: .* Got \[1, 5\]"),
        ("segments", ([0, 5], [0, 10]), ValueError, r"segments: .* the number of keys. Got \[0, 10\]"),
        ("segments", ([0, 5], [0, 3, 11]), ValueError, "segments: expected as many .* Got 1 and 2"),
        ("segments", ([0.0, 5.0], [0, 11]), TypeError, "segments: expected integers. Got torch.float32"),
        ("segments", ([0], [0]), ValueError, r"segments: .* Got \[0\]"),
        ("mask", torch.zeros(5, 11), TypeError, "mask: expected bool, .* Got torch.float32; to add numbers, use bias="),
        ("mask", torch.ones(11, 5).bool(), ValueError, r"mask: .* \(B,H,Q,K\) = \(2, 6, 5, 11\). Got \(11, 5\)"),
        ("mask", torch.ones(1, 2, 6, 5, 11).bool(), ValueError, "mask: expected a shape that broadcasts"),
        ("mask", torch.ones(5, 11, device="meta").bool(), ValueError, "mask: expected it on cpu, .* Got meta"),
        ("mask", "causal", TypeError, "mask: expected a bool tensor or a callable.* Got 'causal'"),
        ("mask", lambda b, h, q, k: True, TypeError, "mask: expected a callable that returns .* Got True"),
        ("mask", lambda b, h, q, k: q - k, TypeError, "mask: expected a callable that returns a bool tensor"),
        ("bias", torch.ones(5, 11).bool(), TypeError, "bias: expected a float tensor. Got torch.bool; .* mask="),
        ("bias", [0.0], TypeError, "bias: expected a float tensor. Got list"),
        ("bias", torch.zeros(6, 11, 5), ValueError, r"bias: .* \(2, 6, 5, 11\). Got \(6, 11, 5\)"),
        ("sinks", torch.zeros(3), ValueError, r"sinks: expected one logit a head, \(6,\), on cpu. Got \(3,\) on cpu"),
        ("sinks", torch.zeros(6).int(), TypeError, "sinks: expected a float tensor. Got torch.int32"),
        ("sinks", [0.0] * 6, TypeError, "sinks: expected a float tensor. Got list"),
        ("scale", math.nan, ValueError, "scale: expected a finite number. Got nan"),
        ("scale", math.inf, ValueError, "scale: expected a finite number. Got inf"),
        ("scale", "1", ValueError, "scale: expected a finite number. Got '1'"),
        ("scale", True, ValueError, "scale: expected a finite number. Got True"),
        ("softcap", 0, ValueError, "softcap: expected a number > 0. Got 0"),
        ("softcap", -2.0, ValueError, "softcap: expected a number > 0. Got -2.0"),
        ("softcap", math.nan, ValueError, "softcap: expected a finite number. Got nan"),
        ("causal", "left", ValueError, 'causal: expected True, False or "lengths". Got \'left\''),
        ("causal", "lengths", ValueError, 'causal: "lengths" needs lengths='),
        ("sinks", torch.full((6,), math.inf), ValueError, "sinks: expected numbers below infinity, .* Got inf"),
        ("scale", 1e300, ValueError, r"scale: expected a number that torch.float32 holds. Got 1e\+300"),
        ("mask", torch.ones(5, 11).bool().to_sparse(), TypeError, "mask: expected a dense tensor. Got torch.sparse"),
        ("bias", torch.ones(5, 11).to_sparse(), TypeError, r"bias: .* Got torch.sparse_coo; to_dense\(\) makes one"),
        ("sinks", torch.ones(6).to_sparse(), TypeError, "sinks: expected a dense tensor. Got torch.sparse_coo"),
        ("lengths", torch.tensor([3, 4]).to_sparse(), TypeError, "lengths: expected a dense tensor"),
        ("collect", ("everything",), ValueError, '"max_score" or "topk:8". Got \'everything\''),
        ("collect", (8,), ValueError, "collect: .* Got 8"),
        ("collect", "entropy", TypeError, "collect: expected several names, .* Got 'entropy'"),
        ("collect", None, TypeError, "collect: expected several names, .* Got None"),
        ("collect", ("topk:0",), ValueError, "topk: expected k from 1 to 11, the number of keys. Got 0"),
        ("collect", ("topk:12",), ValueError, "topk: expected k from 1 to 11, the number of keys. Got 12"),
        ("collect", ("topk:-1",), ValueError, "collect: .* Got 'topk:-1'"),
        ("backend", "fast", ValueError, "backend: expected one of cpu, torch, reference. Got 'fast'"),
    ],
)  # fmt: skip
def test_bad_options(kit, argument, bad, error, match):
    rejected(kit, match, error, **{argument: bad})


def test_a_forced_backend_that_cannot_serve_says_why(kit, monkeypatch):
    reasons = ["no float32 here", "K = 11 is prime"]
    monkeypatch.setattr(torch_backend, "reasons", lambda scores, value: reasons)
    rejected(kit, "backend: 'torch' cannot serve: no float32 here; K = 11 is prime", backend="torch")
    query, key, value = kit.inputs()
    kit.agree(regard.attention(query, key, value).output, kit.oracle(query, key, value)[0])  # the next one serves
    assert backends.availability()["torch"] == reasons


# The comparator


def off(function):
    """The same function, with its first result off by a thousandth."""

    def corrupted(*arguments, **more):
        first, *others = function(*arguments, **more)
        return (first + 1e-3, *others)

    return corrupted


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        (cpu, "forward", {}),
        (streaming, "softmax", {"window": (1, 0)}),
        (torch_backend, "_FLASH", {}),
        (torch_backend, "_FLASH", {"causal": True}),
        (torch_backend, "merge", {"causal": True}),
        (streaming, "with_sinks", {"sinks": torch.zeros(6)}),
    ],
)
def test_a_corrupted_kernel_is_found_out(kit, monkeypatch, module, name, options):
    query, key, value = kit.inputs()
    backend = "cpu" if module is cpu else "torch"
    kit.check(query, key, value, backend=backend, **options)
    monkeypatch.setattr(module, name, off(getattr(module, name)))
    with pytest.raises(AssertionError, match="not close"):
        kit.check(query, key, value, backend=backend, **options)


def test_a_corrupted_precision_is_found_out(kit, monkeypatch):
    query, key, value = kit.inputs(queries=61, keys=67, dtype=torch.float16)
    plain, expected = kit.plain(query, key, value), kit.oracle(query, key, value)[0]
    kit.no_worse(regard.attention(query, key, value, backend="torch").output, plain, expected)
    monkeypatch.setattr(torch_backend, "_FLASH", off(torch_backend._FLASH))
    with pytest.raises(AssertionError, match="plain PyTorch's"):
        kit.no_worse(regard.attention(query, key, value, backend="torch").output, plain, expected)
