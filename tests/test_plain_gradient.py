"""The gradient of a plain call: one call of the kernel, on every instruction set, short sequences above all."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regard
from regard.backends import cpu, operator

if cpu._missing:
    pytest.skip(f"the kernel is not installed: {cpu._missing}", allow_module_level=True)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=cpu._kernel.kernels())
def isa(request, monkeypatch):
    """Each instruction set of this machine in turn."""
    monkeypatch.setenv("REGARD_ISA", request.param)
    return request.param


@pytest.fixture
def only_plain(monkeypatch):
    """No operator may be called."""

    def refuse(*_):
        raise AssertionError("the general way was gone")

    monkeypatch.setattr(operator, "run", refuse)
    monkeypatch.setattr(operator, "backward", refuse)


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def gradients(run, leaves, grads):
    """The gradients of the leaves through output and lse; a row that sees nothing has no lse to differentiate."""
    output, lse = run(*leaves)
    through = ((output, grads[0]), (lse.masked_fill(lse == -torch.inf, 0), grads[1]))
    results, cotangents = zip(*(pair for pair in through if pair[1] is not None), strict=True)
    return torch.autograd.grad(results, leaves, [g.to(r.dtype) for g, r in zip(cotangents, results, strict=True)])


def plainly(**options):
    """As a function of query, key, value and, where there is one, the bias."""

    def run(query, key, value, bias=None):
        attended = regard.attention(query, key, value, bias=bias, **options)
        return attended.output, attended.lse

    return run


def exactly(kit, **options):
    def run(query, key, value, bias=None):
        return kit.oracle(query, key, value, bias=bias, **options)[:2]

    return run


def problem(draw):
    """Tensors and options of a plain call: sizes on both sides of the borders of vectors, tiles and blocks."""
    size = st.sampled_from([1, 2, 5, 6, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65])
    groups, repeat = draw(st.sampled_from([(1, 1), (2, 1), (1, 3)]))
    batch, queries, keys = draw(st.sampled_from([1, 2, 3])), draw(size), draw(st.one_of(size, st.just(270)))
    dim, value_dim = draw(st.sampled_from([1, 7, 8, 16, 32, 33, 64])), draw(st.sampled_from([3, 16, 32]))
    torch.manual_seed(draw(st.integers(0, 99)))
    shapes = ((groups * repeat, queries, dim), (groups, keys, dim), (groups, keys, value_dim))
    tensors = [
        torch.randn(batch, n, h, d).transpose(1, 2) if draw(st.booleans()) else torch.randn(batch, h, n, d)
        for h, n, d in shapes
    ]
    options = {"causal": draw(st.booleans())}
    if draw(st.booleans()):
        options["lengths"] = torch.randint(0, keys + 1, (batch,))
    if draw(st.booleans()):
        options["mask"] = torch.rand(draw(st.sampled_from([(keys,), (queries, keys), (batch, 1, 1, keys)]))) > 0.4
    if draw(st.booleans()):
        tensors.append(torch.randn(draw(st.sampled_from([(keys,), (groups * repeat, queries, 1), (queries, keys)]))))
    grads = torch.randn(batch, groups * repeat, queries, value_dim), torch.randn(batch, groups * repeat, queries)
    return tensors, options, grads


def test_against_float64_in_every_instruction_set(kit, isa, only_plain):
    @settings(max_examples=40)
    @given(st.data())
    def check(data):
        tensors, options, grads = problem(data.draw)
        if data.draw(st.booleans()):
            grads = (grads[0], None)
        leaves = [tensor.requires_grad_() for tensor in tensors]
        doubled = [tensor.detach().double().requires_grad_() for tensor in tensors]
        ours = gradients(plainly(**options), leaves, grads)
        for actual, expected, leaf in zip(
            ours, gradients(exactly(kit, **options), doubled, grads), leaves, strict=True
        ):
            kit.agree(actual, expected, 1e-4)
            assert actual.stride() == leaf.stride() or 1 in leaf.shape
        for dtype in DTYPES[1:]:  # the results are rounded once; what comes in is exact
            halves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
            doubled = [tensor.detach().double().requires_grad_() for tensor in halves]
            expected = gradients(exactly(kit, **options), doubled, [g if g is None else g.to(dtype) for g in grads])
            for actual, other in zip(gradients(plainly(**options), halves, grads), expected, strict=True):
                assert actual.dtype == dtype
                scale = 1 + float(other.abs().max())
                assert (
                    float((actual.double() - other).abs().max()) <= (0.05 if dtype == torch.bfloat16 else 0.01) * scale
                )

    check()


@pytest.mark.parametrize(
    "shape", [(1, 16, 16, 64), (12, 32, 32, 32), (4, 8, 8, 16), (3, 65, 65, 64), (3, 16, 250, 40)], ids=str
)
def test_the_bits_are_the_same_alone_and_in_a_batch_and_for_any_number_of_threads(isa, only_plain, shape):
    heads, queries, keys, dim = shape
    inputs = [torch.randn(67, heads, n, dim) for n in (queries, keys, keys)]
    lengths = torch.randint(1, keys + 1, (67,))
    grads = torch.randn(67, heads, queries, dim), torch.randn(67, heads, queries)

    def of(run, count):
        with threads(count):
            leaves = [tensor[run].clone().requires_grad_() for tensor in inputs]
            return gradients(plainly(lengths=lengths[run]), leaves, [grad[run] for grad in grads])

    all_together = of(slice(None), 1)
    for others, run in ((of(slice(None), 2), slice(None)), (of(slice(5, 6), 1), slice(5, 6))):
        for one, other in zip(all_together, others, strict=True):
            assert torch.equal(one[run], other)


@pytest.mark.parametrize("evil", [torch.nan, torch.inf, -torch.inf])
def test_what_nobody_sees_may_be_anything(isa, only_plain, evil):
    lengths = torch.tensor([9, 5, 0])
    inputs = [torch.randn(3, 2, 16, 32) for _ in range(3)]
    grads = torch.randn(3, 2, 16, 32), torch.randn(3, 2, 16)
    expected = gradients(plainly(lengths=lengths), [tensor.clone().requires_grad_() for tensor in inputs], grads)
    for n, length in enumerate(lengths):
        for tensor in inputs[1:]:
            tensor[n, :, length:] = evil
    actual = gradients(plainly(lengths=lengths), [tensor.requires_grad_() for tensor in inputs], grads)
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_value_that_is_not_finite_reaches_those_who_see_it(isa, only_plain):
    query, key, value = (torch.randn(1, 1, 16, 16) for _ in range(3))
    value[0, 0, 9] = torch.inf
    leaves = [tensor.requires_grad_() for tensor in (query, key, value)]
    grad_query, _, grad_value = gradients(plainly(causal=True), leaves, (torch.randn(1, 1, 16, 16), None))
    assert grad_query[0, 0, :9].isfinite().all()
    assert grad_query[0, 0, 9:].isnan().all()
    assert grad_value.isfinite().all()


@pytest.mark.parametrize("through", ["output", "lse"])
def test_one_number_expanded_and_half_of_the_results(kit, only_plain, through):
    for options in ({}, {"causal": True, "lengths": torch.tensor([11, 4])}, {"mask": torch.rand(2, 1, 11, 11) > 0.3}):
        leaves = [torch.randn(2, 3, 11, 7).requires_grad_() for _ in range(3)]
        attended = regard.attention(*leaves, **options)
        output, lse = kit.oracle(*(leaf.double() for leaf in leaves), **options)[:2]
        seen = lse > -torch.inf
        ours = attended.output.sum() if through == "output" else attended.lse[seen].sum()
        theirs = output.sum() if through == "output" else lse[seen].sum()
        grads = torch.autograd.grad(ours, leaves, materialize_grads=True)
        for actual, other in zip(grads, torch.autograd.grad(theirs, leaves, materialize_grads=True), strict=True):
            kit.agree(actual, other, 1e-5)


def test_second_derivatives_with_a_mask_lengths_and_a_bias(kit):
    torch.manual_seed(3)
    options = {"causal": True, "lengths": torch.tensor([5, 4]), "mask": torch.rand(6, 5) > 0.2}
    leaves = [torch.randn(2, 2, n, 4) for n in (6, 5, 5)]
    leaves.append(torch.randn(6, 5))

    def twice(run, tensors):
        tensors = [tensor.clone().requires_grad_() for tensor in tensors]
        first = torch.autograd.grad(run(*tensors)[0].square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(grad.square().sum() for grad in first), tensors)

    expected = twice(exactly(kit, **options), [tensor.double() for tensor in leaves])
    for actual, other in zip(twice(plainly(**options), leaves), expected, strict=True):
        kit.agree(actual, other, 1e-3)


def test_an_lse_that_says_no_weights_goes_the_general_way(kit):
    bias = torch.full((5, 5), -1e30)
    leaves = [torch.randn(1, 2, 5, 8).requires_grad_() for _ in range(3)]
    grads = torch.randn(1, 2, 5, 8), None
    ours = gradients(lambda *three: plainly()(*three, bias), leaves, grads)
    expected = gradients(lambda *three: exactly(kit)(*(t.double() for t in three), bias.double()), leaves, grads)
    for actual, other in zip(ours, expected, strict=True):
        kit.agree(actual, other, 1e-5)


def test_the_lse_is_differentiable_after_it_was_looked_at():
    leaf = torch.randn(1, 2, 5, 8, requires_grad=True)
    attended = regard.attention(leaf, leaf, leaf)
    with torch.no_grad():
        assert not attended.lse.requires_grad
    assert attended.lse is attended.lse
    assert attended.lse.dtype == torch.float32
    (grad,) = torch.autograd.grad(attended.lse.sum(), leaf)
    assert grad.any()


def test_a_change_in_place_before_the_gradient_is_noticed():
    x = torch.randn(1, 2, 5, 8)
    for name, tensor in (
        ("mask", torch.ones(5, 5, dtype=torch.bool)),
        ("lengths", torch.tensor([4])),
        ("bias", torch.ones(5, 5)),
    ):
        output = regard.attention(x.clone().requires_grad_(), x, x, **{name: tensor}).output
        tensor.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()
