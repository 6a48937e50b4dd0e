"""Weights pass for a tensor of their shape: each result is that of the dense matrix, or an error that says dense()."""

import copy
import math
import operator
import pickle

import numpy as np
import pytest
import torch

import regard
from regard.mask import Mask
from regard.scores import Scores
from regard.weights import Weights
from regard.weights import map as weights_module


@pytest.fixture
def plain(kit):
    return regard.attention(*kit.inputs()).weights


@pytest.fixture
def large():
    """Of 40 GiB, if it were stored."""
    x = torch.randn(100_000, 1)
    return Weights(Scores(x[None, None], x[None, None], Mask(100_000, 100_000), 1.0), x.T[None])


def equal(ours, theirs):
    """Assert the same type and the same numbers, in tuples too."""
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for actual, other in zip(ours, theirs, strict=True):
            equal(actual, other)
    elif isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0, equal_nan=True)
    else:
        assert ours == theirs


# Operators

BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "eq", "ne", "lt", "le", "gt", "ge"]


@pytest.mark.parametrize("other", [2, 0.25, torch.full((5, 11), 0.3), None], ids=["int", "float", "tensor", "itself"])
@pytest.mark.parametrize("name", BINARY)
def test_operators(plain, name, other):
    apply, dense = getattr(operator, name), plain.dense()
    if other is None:
        equal(apply(plain, plain), apply(dense, dense))
        equal(apply(plain, dense), apply(dense, dense))
    else:
        equal(apply(plain, other), apply(dense, other))
        equal(apply(other, plain), apply(other, dense))


@pytest.mark.parametrize("name", ["abs", "neg", "pos"])
def test_operators_of_one(plain, name):
    equal(getattr(operator, name)(plain), getattr(operator, name)(plain.dense()))


@pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift", "invert"])
def test_operators_of_bits_say_what_torch_says(plain, name):
    apply = getattr(operator, name)
    operands = (plain,) if name == "invert" else (plain, 1)
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        apply(*(plain.dense() if thing is plain else thing for thing in operands))
    with pytest.raises(type(theirs.value), match=r".*"):
        apply(*operands)


@pytest.mark.parametrize(
    "product",
    [
        lambda w: w @ torch.ones(11, 2),
        lambda w: w @ torch.ones(11),
        lambda w: torch.ones(3, 5) @ w,
        lambda w: torch.ones(5) @ w,
        lambda w: torch.ones(2, 6, 3, 5) @ w,
        lambda w: w @ torch.ones(4, 1, 1, 11, 2),
        lambda w: w @ w.mT,
        lambda w: w.mT @ w,
        lambda w: torch.ones(3, 11) @ w.mT,
        lambda w: torch.matmul(w, torch.ones(11, 2)),
        lambda w: torch.matmul(torch.ones(3, 5), w),
        lambda w: w.matmul(torch.ones(11, 2)),
    ],
)
def test_products(plain, product):
    equal(product(plain), product(plain.dense()))


def test_a_product_from_the_left_needs_no_matrix(large):
    assert (torch.ones(2, 100_000)[:, :7] @ large[..., :7, :3]).shape == (1, 1, 2, 3)
    with pytest.raises(ValueError, match="dense"):
        torch.matmul(torch.ones(2, 100_000), large)


def test_products_with_what_does_not_fit(plain):
    for bad in (torch.ones(3, 4), torch.ones(3), torch.ones(7, 1, 3, 5)):
        with pytest.raises(ValueError, match=r"Weights\(2, 6, 5, 11\)\.T @ y: "):
            bad @ plain


def test_equality_is_by_number_and_identity_by_hash(plain):
    assert (plain == plain.dense()).all()
    assert not (plain != plain.dense()).any()
    assert (plain == 0).shape == (2, 6, 5, 11)
    assert (plain == None, plain != None) == (False, True)  # noqa: E711
    assert {plain: 1}[plain] == 1
    assert plain in [plain]
    assert float(plain[0, 0, 0, 0]) in plain
    assert 2.0 not in plain


def test_a_number_where_there_is_one(plain):
    single = regard.attention(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2)).weights
    assert float(single) == 1
    assert int(single) == 1
    assert complex(single) == 1
    assert bool(single)
    for convert, error in ((bool, RuntimeError), (float, ValueError), (int, ValueError), (operator.index, TypeError)):
        with pytest.raises(error, match=r"Weights\(2, 6, 5, 11\): expected a single number.*dense\(\)"):
            convert(plain)
    with pytest.raises(TypeError, match="format"):
        format(plain, ".3f")
    assert f"{plain}" == repr(plain)


# Methods, functions


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.max(dim=-1),
        lambda w: w.max(-1, keepdim=True),
        lambda w: w.max(3),
        lambda w: w.max(1),
        lambda w: w.max(torch.tensor(0.2)),
        lambda w: w.topk(3, dim=-1),
        lambda w: w.topk(2, 0),
        lambda w: w.topk(2, largest=False),
        lambda w: w.argmax(-1),
        lambda w: w.sum(0),
        lambda w: w.sort(dim=-1, stable=True),
        lambda w: w[None],
        lambda w: w[w > 0.1],
        lambda w: w[torch.ones(2, 6, dtype=torch.bool)],
        lambda w: w.mT[0, 1],
        lambda w: w.mT + 1,
        lambda w: w.squeeze(0).flatten(),
        lambda w: list(w),
        lambda w: reversed(w),
        lambda w: w.masked_fill(w > 0.1, 0),
        lambda w: w.tolist(),
        lambda w: (w.size(), w.size(-1), w.dim(), w.ndim, w.numel(), len(w), w.shape, w.mT.shape),
        lambda w: (w.element_size(), w.itemsize, w.nbytes, w.stride(), w.is_contiguous(), w.layout),
        lambda w: (w.is_floating_point(), w.is_complex(), w.is_cuda, w.is_cpu, w.get_device(), w.type()),
        lambda w: (w.requires_grad, w.is_leaf, w.grad_fn, w.device, w.dtype),
        lambda w: (w.new_zeros(2, 3), w.new_tensor([1.0])),
        lambda w: torch.max(w),
        lambda w: torch.topk(w, 2),
        lambda w: torch.where(w > 0.1, w, 0.0),
        lambda w: torch.stack([w, w]),
        lambda w: torch.cat((w, w), dim=1),
        lambda w: torch.einsum("bhqk->bkq", w),
        lambda w: torch.nn.functional.softmax(w, -1),
        lambda w: (torch.numel(w), torch.is_floating_point(w)),
        lambda w: torch.zeros_like(w),
        lambda w: torch.as_tensor(w),
        lambda w: torch.nn.functional.mse_loss(w, torch.zeros(2, 6, 5, 11)),
        lambda w: w.long(),
        lambda w: torch.zeros(2, 6, 5, 11).add_(w),
    ],
)
def test_methods_and_functions(plain, call):
    equal(call(plain), call(plain.dense()))


def test_arrays(plain):
    dense = plain.dense().numpy()
    assert np.array_equal(np.asarray(plain), dense)
    assert np.asarray(plain, dtype=np.float64).dtype == np.float64
    assert np.array_equal(np.from_dlpack(plain), dense)
    assert np.array_equal(np.exp(plain), np.exp(dense))
    with pytest.raises(ValueError, match="no array yet"):
        np.array(plain, copy=False)


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w + 1,
        lambda w: w == 0,
        lambda w: w[w > 0.1],
        lambda w: w[[0, 0], [0, 0], [1, 2]],
        lambda w: w.sum(0),
        lambda w: w.topk(3, dim=0),
        lambda w: torch.relu(w),
        lambda w: np.asarray(w),
        lambda w: w.mT[0],
        lambda w: 0.5 in w,
        lambda w: w.pool(50_000, 50_000),
        lambda w: w.topk(50_000),
        lambda w: w.grouped(),
        lambda w: w @ torch.empty(1, device="meta").expand(100_000, 100_000),
        lambda w: w[:, :, :50_000],
    ],
)
def test_what_is_too_large_is_refused_with_its_size(large, call):
    with pytest.raises(ValueError, match=r"weights take [\d.,]+ GiB, more than the limit of 1.0 GiB"):
        call(large)


def test_what_is_free(large):
    assert large.size() == (1, 1, 100_000, 100_000)
    assert large.size(-1) == large.shape[-1] == 100_000
    assert large.dim() == large.ndim == 4
    assert large.numel() == torch.numel(large) == 10**10
    assert large.nbytes == 4 * 10**10
    assert hasattr(large, "sum")  # asking is free
    assert not hasattr(large, "no_such_thing")
    assert repr(large) == "Weights(shape=(1, 1, 100000, 100000), dtype=torch.float32, device=cpu)"
    assert large.contiguous() is large.cpu() is large.float() is large


# In place


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.mul_(2),
        lambda w: w.zero_(),
        lambda w: w.masked_fill_(w > 0.1, 0),
        lambda w: w.requires_grad_(),
        lambda w: w.retain_grad(),
        lambda w: w.register_hook(print),
        lambda w: w.data_ptr(),
        lambda w: w.mT.mul_(2),
        lambda w: operator.setitem(w, 0, 1.0),
        lambda w: operator.delitem(w, 0),
        lambda w: operator.iadd(w, 1),
        lambda w: operator.isub(w, 1),
        lambda w: operator.imul(w, 2),
        lambda w: operator.itruediv(w, 2),
        lambda w: operator.ipow(w, 2),
        lambda w: operator.imod(w, 2),
        lambda w: operator.ifloordiv(w, 2),
        lambda w: operator.iand(w, 2),
        lambda w: torch.add(torch.ones(2, 6, 5, 11), 1, out=w),
        lambda w: torch.relu_(w),
        lambda w: torch.nn.functional.relu(w, inplace=True),
        lambda w: torch.nn.init.zeros_(w),
        lambda w: torch._foreach_add_([w], 1.0),
    ],
)
def test_a_change_in_place_is_refused(plain, call):
    before = plain.dense()
    with pytest.raises(TypeError, match=r"(Weights|Transposed)\(2, 6, .*needs a stored tensor.* Take dense\(\)"):
        call(plain)
    assert torch.equal(plain.dense(), before)


def test_attributes_of_a_stored_tensor(plain):
    for name in ("grad", "retains_grad"):
        with pytest.raises(AttributeError, match=rf"\.{name} needs a stored tensor.* Take dense\(\)"):
            getattr(plain, name)
    for name in ("grad", "data", "requires_grad", "shape"):
        with pytest.raises(AttributeError, match=rf"setting \.{name} needs a stored tensor"):
            setattr(plain, name, None)
    assert getattr(plain, "grad", None) is None


# Elsewhere, and of another type


def send_to_device(thing, device):
    """As accelerate's hooks move what goes in and out of a module."""
    if isinstance(thing, torch.Tensor) or hasattr(thing, "to"):
        try:
            return thing.to(device, non_blocking=False)
        except TypeError:
            return thing.to(device)
    return type(thing)(send_to_device(item, device) for item in thing)


def test_moved_it_is_still_not_stored(large):
    (moved,) = send_to_device((large,), torch.device("meta"))
    assert isinstance(moved, Weights)
    assert moved.device.type == "meta"
    assert moved.shape == large.shape
    assert large.to("cpu") is large
    assert isinstance(large.to("cpu", copy=True), Weights)


def test_moved_with_all_that_it_needs(kit):
    query, key, value = kit.inputs()
    more = kit.options(["full mask", "lengths", "bias", "sinks", "softcap"], query, key)
    weights = regard.attention(query, key, value, collect=("entropy",), **more).weights
    moved = weights.to("meta")
    tensors = [moved.scores.query, moved.scores.key, moved.scores.bias, moved.scores.mask.given, moved.sinks]
    tensors += [moved.scores.mask.lengths, moved._lse, *moved._collected["entropy"]]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    copied = weights.to("cpu", copy=True)
    assert copied.scores.query is not weights.scores.query
    for look in (Weights.dense, Weights.entropy, Weights.received, Weights.sink, lambda w: w.lse, lambda w: w[0, 1]):
        assert torch.equal(look(copied), look(weights))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_of_another_type(plain, dtype):
    converted = plain.to(dtype)
    assert isinstance(converted, Weights)
    assert converted.dtype == dtype
    for look in (
        Weights.dense,
        Weights.entropy,
        Weights.distance,
        Weights.received,
        Weights.sink,
        lambda w: w.lse,
        lambda w: w[0, 1, 2],
        lambda w: w[..., 3],
        lambda w: w.topk(3).values,
        lambda w: w.pool(2, 3),
        lambda w: w.grouped(),
        lambda w: w @ torch.ones(11, 2),
    ):
        assert torch.equal(look(converted), look(plain).to(dtype))
    assert converted.max().indices.dtype == torch.long
    again = converted.to(torch.float32)  # the type is that of the results: nothing was rounded on the way
    assert torch.equal(again.dense(), plain.dense())


def test_the_ways_to_say_where_and_what(plain):
    assert plain.half().dtype == plain.to(dtype=torch.float16).dtype == plain.type(torch.float16).dtype == torch.float16
    assert plain.double().dtype == plain.type_as(torch.ones(1).double()).dtype == torch.float64
    assert plain.bfloat16().to(plain).dtype == torch.float32
    assert plain.to(torch.device("cpu"), torch.float64).dtype == torch.float64
    assert plain.type("torch.DoubleTensor").dtype == torch.float64
    assert plain.to(torch.long).dtype == torch.long  # a tensor: weights are not whole numbers
    with pytest.raises(TypeError, match="to"):
        plain.to([1])


def test_clone_and_detach(kit):
    query, key, value = kit.inputs()
    weights = regard.attention(query, key, value, causal=True).weights
    dense, clone, constant = weights.dense(), weights.clone(), weights.detach()
    key += 1
    assert torch.equal(clone.dense(), dense)
    for changed in (weights, constant):  # which share the key
        with pytest.raises(RuntimeError, match="changed in place"):
            changed.dense()
    with pytest.raises(RuntimeError, match="changed in place"):
        weights.clone()


def test_copies(kit):
    query, key, value = kit.inputs()
    key += 1  # a copy of it counts its changes from 0
    weights = regard.attention(query, key, value, causal=True, collect=("entropy",)).weights
    for actual in (copy.copy(weights), copy.deepcopy(weights), pickle.loads(pickle.dumps(weights))):
        assert torch.equal(actual.dense(), weights.dense())
        assert torch.equal(actual.entropy(), weights.entropy())
    key += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        copy.deepcopy(weights)


# Leading dimensions


@pytest.mark.parametrize("leading", [(), (4,), (6, 4), (2, 3, 4), (1, 2, 3, 4)], ids=str)
def test_any_number_of_leading_dimensions(kit, leading):
    batch, heads = math.prod(leading[:-1]), leading[-1] if leading else 1
    query, key, value = kit.inputs(batch, heads, max(1, heads // 2), 5, 7)
    inner = regard.attention(query, key, value, causal=True, collect=("entropy",)).weights
    weights = Weights(inner.scores, inner._lse, leading=leading, collected=inner._collected, backend=inner.backend)
    dense = inner.dense().reshape(*leading, 5, 7)
    assert weights.shape == dense.shape
    torch.testing.assert_close(weights.dense(), dense)
    for index in (
        ...,
        (..., 2),
        (..., 1, slice(2, 5)),
        (0,) * len(leading),
        (..., [2, 0], slice(None)),
        (*(slice(None),) * (len(leading) - 1), -1) if leading else (),
        (None, ..., None, slice(1, 3)),
        ([0, 0],),
        ([0, -1], *(slice(None, None, 2),) * (len(leading))),
    ):
        torch.testing.assert_close(weights[index], dense[index])
    torch.testing.assert_close(weights.entropy(), torch.special.entr(dense).sum(-1))
    torch.testing.assert_close(weights.topk(2).values, dense.topk(2).values)
    torch.testing.assert_close(weights.received(), dense.sum(-2))
    torch.testing.assert_close(weights.pool(2, 2, "max").shape, torch.Size([*leading, 2, 2]))
    torch.testing.assert_close(weights.lse, inner.lse.reshape(*leading, 5))
    for x in (torch.randn(7, 3), torch.randn(*leading, 7, 3), torch.randn(*leading[1:], 7, 3)):
        torch.testing.assert_close(weights @ x, dense @ x)
    torch.testing.assert_close(weights.to(torch.float64).clone().detach().dense(), dense.double())
    assert weights_module.Transposed(weights).shape == dense.mT.shape
