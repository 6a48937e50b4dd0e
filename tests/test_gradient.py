"""Gradients of query, key, value, bias and sinks, through output and lse, against autograd through the reference."""

from itertools import combinations

import pytest
import torch

import regard
from regard.backends import cpu, gradient
from regard.backends import torch as torch_backend


def gradients(run, tensors, through, seed=1):
    """Of some function of output and lse that weighs each of their numbers differently."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    output, lse = run(*leaves)
    torch.manual_seed(seed)
    total = 0.0
    if "output" in through:
        total = total + (output * torch.randn(output.shape, dtype=torch.float64)).sum()
    if "lse" in through:
        total = total + (lse.masked_fill(lse == -torch.inf, 0) * torch.randn(lse.shape, dtype=torch.float64)).sum()
    return torch.autograd.grad(total, leaves, materialize_grads=True)


def check(kit, query, key, value, *, through=("output", "lse"), tolerance=None, **more):
    """Assert the gradients of the three, and of bias and sinks where they are given."""
    learned = [name for name in ("bias", "sinks") if name in more]
    tensors = [query, key, value, *(more[name] for name in learned)]

    def ours(query, key, value, *others):
        attended = regard.attention(query, key, value, **more | dict(zip(learned, others, strict=True)))
        return attended.output, attended.lse

    def reference(query, key, value, *others):
        return kit.oracle(query, key, value, **more | dict(zip(learned, others, strict=True)))[:2]

    expected = gradients(reference, [tensor.double() for tensor in tensors], through)
    for name, actual, other in zip(
        ["query", "key", "value", *learned], gradients(ours, tensors, through), expected, strict=True
    ):
        assert actual.dtype == dict(zip(["query", "key", "value", *learned], tensors, strict=True))[name].dtype
        kit.agree(actual, other, tolerance)


@pytest.mark.parametrize("causal", ["", "causal"])
@pytest.mark.parametrize("window", ["", "left", "window"])
@pytest.mark.parametrize("mask", ["", "padding", "full mask", "rule", "segment pair"])
def test_options_crossed(kit, causal, window, mask):
    query, key, value = kit.inputs(dtype=torch.float64)
    for count in range(4):
        for more in combinations(["bias", "softcap", "sinks"], count):
            names = [name for name in (causal, window, mask, *more) if name]
            check(kit, query, key, value, **kit.options(names, query, key), tolerance=1e-11)


@pytest.mark.parametrize("through", [["output"], ["lse"], ["output", "lse"]], ids="+".join)
@pytest.mark.parametrize("name", ["", "causal", "lengths", "key bias", "softcap", "sinks", "scale", "window"])
def test_float32(kit, name, through):
    query, key, value = kit.inputs()
    more = kit.options([name] if name else [], query, key)
    check(kit, query, key, value, **more, through=through, tolerance=1e-4)  # sums of a hundred products


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_the_operators_own_backward(kit, monkeypatch, causal, bias):
    calls = []
    aten = torch_backend._FLASH_BACKWARD
    monkeypatch.setattr(torch_backend, "_FLASH_BACKWARD", lambda *a, **k: calls.append(1) or aten(*a, **k))
    constant = torch.randn(11, 11) if bias else None

    def ours(query, key, value):
        attended = regard.attention(query, key, value, causal=causal, bias=constant, backend="torch")
        return attended.output, attended.lse

    def reference(query, key, value):
        return kit.oracle(query, key, value, causal=causal, bias=constant)[:2]

    rows = torch.randn(2, 3, 11, 7)
    for query, key, value in (
        (rows, rows + 1, rows - 1),
        (rows.transpose(1, 2).contiguous().transpose(1, 2), rows.mT.contiguous().mT, rows[:1].expand(2, 3, 11, 7)),
    ):
        expected = gradients(reference, [t.double() for t in (query, key, value)], ["output"])
        for actual, other in zip(gradients(ours, (query, key, value), ["output"]), expected, strict=True):
            kit.agree(actual, other, 1e-4)
    assert len(calls) == 2


def test_a_gradient_that_is_one_number_expanded(kit):
    for causal in (False, True):
        leaves = [torch.randn(2, 3, 11, 7).requires_grad_() for _ in range(3)]
        ours = torch.autograd.grad(regard.attention(*leaves, causal=causal).output.sum(), leaves)
        expected = torch.autograd.grad(kit.oracle(*leaves, causal=causal)[0].sum(), leaves)
        for actual, other in zip(ours, expected, strict=True):
            kit.agree(actual, other)


@pytest.mark.parametrize("shape", [(1, 2, 1, 300, 7, 3, 5), (1, 2, 2, 1, 1, 1, 1), (2, 3, 3, 5, 0, 2, 2),
                                   (1, 2, 2, 5, 11, 3, 3), (1, 2, 2, 11, 5, 3, 3)], ids=str)  # fmt: skip
def test_shapes(kit, shape):
    query, key, value = kit.inputs(*shape, dtype=torch.float64)
    for names in ([], ["causal"], ["window", "sinks"], ["key bias", "softcap"]):
        check(kit, query, key, value, **kit.options(names, query, key))
        check(kit, query, key, value, **kit.options(names, query, key), through=["output"])


@pytest.mark.parametrize("leading", [(), (3,)], ids=["2d", "3d"])
def test_fewer_dimensions(kit, leading):
    query, key, value = (torch.randn(*leading, *size, dtype=torch.float64) for size in ((5, 3), (7, 3), (7, 2)))
    check(kit, query, key, value, causal=True)


def test_gradcheck():
    shapes = [(1, 2, 3, 2), (1, 1, 5, 2), (1, 1, 5, 3), (3, 5), (2,)]
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def run(query, key, value, bias, sinks):
        attended = regard.attention(query, key, value, bias=bias, sinks=sinks, causal=True, softcap=0.9)
        return attended.output, attended.lse

    assert torch.autograd.gradcheck(run, leaves)


def test_blocks_add_up(kit, monkeypatch):
    """The gradient is gathered from blocks of rows, heads and sequences; here each has few."""
    monkeypatch.setattr(gradient, "BLOCK", 64)
    query, key, value = kit.inputs(queries=131, dtype=torch.float64)
    check(kit, query, key, value, **kit.options(["left", "bias", "sinks"], query, key), tolerance=1e-11)


def test_rows_that_see_nothing_pull_at_nothing():
    query, key, value = (torch.randn(2, 3, 5, 7, requires_grad=True) for _ in range(3))
    bias = torch.full((5, 5), -torch.inf, requires_grad=True)
    for hide in ({"lengths": [0, 0]}, {"mask": torch.zeros(5, 5).bool()}, {"bias": bias}):
        attended = regard.attention(query, key, value, **hide)
        leaves = [query, key, value, *([bias] if "bias" in hide else [])]
        for actual in torch.autograd.grad(attended.output.sum() + attended.lse.sum(), leaves):
            assert not actual.any()


@pytest.mark.parametrize("more", [{}, {"softcap": 2.0}, {"window": (5, 0)}], ids=str)
def test_what_is_not_finite_stays_where_it_is_seen(kit, more):
    option = {"lengths": [9, 11]} | more
    query, key, value = kit.inputs(queries=11)
    clean = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    key[0, :, 9:], value[0, :, 9:] = torch.nan, torch.inf  # padding, that nobody sees
    evil = [tensor.requires_grad_() for tensor in (query, key, value)]
    expected = torch.autograd.grad(regard.attention(*clean, **option).output.sum(), clean)
    for actual, other in zip(
        torch.autograd.grad(regard.attention(*evil, **option).output.sum(), evil), expected, strict=True
    ):
        kit.agree(actual, other)


def test_a_nan_reaches_the_gradient_of_those_who_see_it(kit):
    query, key, value = (torch.randn(1, 1, 7, 5).requires_grad_() for _ in range(3))
    with torch.no_grad():
        key[0, 0, 4] = torch.nan
    output = regard.attention(query, key, value, causal=True).output  # rows 4, 5 and 6 see it
    grad_query, _, _ = torch.autograd.grad(output[:, :, :4].sum() + output[:, :, 4:].sum(), (query, key, value))
    assert grad_query[0, 0, :4].isfinite().all()
    assert grad_query[0, 0, 4:].isnan().all()


def test_a_nan_reaches_no_key_that_those_who_see_it_do_not(kit):
    query, key, value = (torch.randn(1, 1, 11, 5).requires_grad_() for _ in range(3))
    with torch.no_grad():
        value[0, 0, 4] = torch.nan  # seen by queries 4 and 5, which see keys 3 to 5
    output = regard.attention(query, key, value, window=(1, 0)).output
    grad_query, grad_key, _ = torch.autograd.grad(output.sum(), (query, key, value))
    assert grad_query.isnan().any(-1)[0, 0].nonzero().flatten().tolist() == [4, 5]
    assert grad_key.isnan().any(-1)[0, 0].nonzero().flatten().tolist() == [3, 4, 5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("names", [[], ["causal"], ["window"], ["sinks"]], ids=str)
def test_half_precision_is_no_worse_than_plain_pytorch(kit, names, dtype):
    tensors = kit.inputs(groups=6, queries=61, keys=61, value_dim=7, dtype=dtype)
    more = kit.options(names, *tensors[:2])

    def through(run, tensors):
        return gradients(lambda *leaves: (run(*leaves), None), tensors, ["output"])

    expected = through(lambda *leaves: kit.oracle(*leaves, **more)[0], [tensor.double() for tensor in tensors])
    plain = through(lambda *leaves: kit.plain(*leaves, **more), tensors)
    for actual, other, exact in zip(
        through(lambda *leaves: regard.attention(*leaves, **more).output, tensors), plain, expected, strict=True
    ):
        kit.no_worse(actual, other, exact)


def test_collecting_changes_no_gradient(kit):
    query, key, value = kit.inputs(dtype=torch.float64)

    def collecting(*leaves):
        attended = regard.attention(*leaves, collect=("entropy", "topk:3"))
        return attended.output, attended.lse

    ours = gradients(collecting, (query, key, value), ["output", "lse"])
    expected = gradients(lambda *leaves: kit.oracle(*leaves)[:2], (query, key, value), ["output", "lse"])
    for actual, other in zip(ours, expected, strict=True):
        kit.agree(actual, other)


# Second derivatives and forward mode


IMPORT_WARNING = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # of torch's own formulas
DERIVED = [[], ["causal"], ["softcap"], ["bias", "lengths"], ["sinks", "causal"], ["key bias", "softcap", "sinks"],
           ["rule"], ["hiding bias"], ["full mask", "sinks"], ["window", "segment pair"]]  # fmt: skip


def differentiable(kit, names, backend, dtype=torch.float64):
    """attention() as a function of leaves, whose lse of a row that sees nothing is 0; and the leaves."""
    query, key, value = kit.inputs(1, 4, 2, 3, 5, 2, 3, dtype)
    more = kit.options(names, query, key)
    learned = [name for name in ("bias", "sinks") if name in more and "hiding bias" not in names]
    leaves = [t.detach().to(dtype).requires_grad_() for t in (query, key, value, *(more[name] for name in learned))]

    def run(query, key, value, *others):
        arguments = more | dict(zip(learned, others, strict=True))
        attended = regard.attention(query, key, value, backend=backend, **arguments)
        return attended.output, attended.lse.where(attended.lse > -torch.inf, 0)

    return run, leaves


@IMPORT_WARNING
@pytest.mark.parametrize("names", DERIVED, ids="-".join)
def test_every_derivative_by_finite_differences(kit, names):
    """First, second, forward, and forward of the gradient."""
    run, leaves = differentiable(kit, names, "torch")
    assert torch.autograd.gradcheck(run, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, leaves, check_fwd_over_rev=True, check_rev_over_rev=True)


def derivatives(run, leaves, directions):
    """The gradient of a function of output and lse, its derivative in a direction, and theirs forward."""
    directions = tuple(way.to(leaf.dtype) for way, leaf in zip(directions, leaves, strict=True))
    output, lse = run(*leaves)
    loss = (output.double() * torch.linspace(-1, 1, 3)).square().sum() + (lse * torch.linspace(1, 2, 3)).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    along = sum((actual.double() * way).sum() for actual, way in zip(first, directions, strict=True))
    second = torch.autograd.grad(along, leaves, materialize_grads=True)
    forward = torch.func.jvp(run, tuple(leaf.detach() for leaf in leaves), directions)[1]
    return [derivative.detach() for derivative in (*first, *second, *forward)]


@IMPORT_WARNING
@pytest.mark.parametrize("names", [names for names in DERIVED if names != ["rule"]], ids="-".join)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_second_and_forward_derivatives_in_lower_precision(kit, backend, dtype, names):
    if backend == "cpu" and cpu._missing:
        pytest.skip(cpu._missing)
    run, leaves = differentiable(kit, names, backend, dtype)
    torch.manual_seed(0)
    exact, _ = differentiable(kit, names, "reference", dtype)
    torch.manual_seed(0)
    run, leaves = differentiable(kit, names, backend, dtype)
    directions = [torch.randn(leaf.shape).to(dtype) for leaf in leaves]
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    tolerance = 2e-5 if dtype == torch.float32 else 0.05  # bfloat16 rounds the output, and each result, to 1/256
    for actual, other in zip(
        derivatives(run, leaves, directions), derivatives(exact, doubles, directions), strict=True
    ):
        kit.agree(actual, other, tolerance * max(1, float(other.abs().max())))


@IMPORT_WARNING
def test_forward_mode_with_dual_numbers(kit, backend):
    query, key, value = kit.inputs()
    tangent = torch.randn_like(query)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(query, tangent)
        attended = regard.attention(dual, key, value, causal=True, backend=backend)
        ours = torch.autograd.forward_ad.unpack_dual(attended.output).tangent
    (expected,) = torch.func.jvp(lambda q: kit.oracle(q, key, value, causal=True)[0], (query,), (tangent,))[1:]
    kit.agree(ours, expected)


@IMPORT_WARNING
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_derivatives_that_are_not_there_are_refused(backend):
    query = torch.randn(1, 1, 3, 2, requires_grad=True)
    output = regard.attention(query, query, query, backend=backend).output

    def thrice():
        (first,) = torch.autograd.grad(output.square().sum(), query, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), query, create_graph=True)
        torch.autograd.grad(second.square().sum(), query)

    with pytest.raises(RuntimeError, match="attention: there is no third derivative"):  # and not a graph that lacks it
        thrice()

    def forward_twice():
        torch.func.jacfwd(torch.func.jacfwd(lambda q: regard.attention(q, q, q, backend=backend).output.sum()))(query)

    with pytest.raises(RuntimeError, match="attention: there is no forward derivative of a forward derivative"):
        forward_twice()


def by_hand(query, key, value):
    hidden = torch.ones(query.shape[-2], key.shape[-2]).bool().tril().logical_not()
    scores = query @ key.mT * query.shape[-1] ** -0.5
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value


@IMPORT_WARNING
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_torch_func(kit, dtype):
    """grad, vmap, hessian and gradients per sample, on the backend of each type."""
    tensors = [torch.randn(2, 1, 5, 3, dtype=dtype) for _ in range(3)]

    def loss(attend):
        return lambda query, key, value: attend(query, key, value).square().sum()

    def ours(query, key, value):
        return regard.attention(query, key, value, causal=True).output

    for transform in (
        lambda attend: torch.func.grad(loss(attend), (0, 1, 2)),
        lambda attend: torch.func.vmap(attend),
        lambda attend: torch.func.vmap(torch.func.grad(loss(attend), (0, 1, 2))),
        lambda attend: lambda query, key, value: torch.func.vmap(attend, (0, None, None))(query, key[0], value[0]),
        lambda attend: torch.func.hessian(loss(attend), (0, 1, 2)),
        lambda attend: torch.func.jacfwd(attend),
        lambda attend: torch.func.jacrev(attend),
    ):
        results = [torch.utils._pytree.tree_leaves(transform(attend)(*tensors)) for attend in (ours, by_hand)]
        for actual, other in zip(*results, strict=True):
            kit.agree(actual, other, 1e-4 if dtype == torch.float32 else 1e-11)


def test_a_corrupted_gradient_is_found_out(kit, monkeypatch):
    backward = gradient.backward
    monkeypatch.setattr(gradient, "backward", lambda *a: (backward(*a)[0] + 1e-3, *backward(*a)[1:]))
    with pytest.raises(AssertionError, match="not close"):
        check(kit, *kit.inputs(dtype=torch.float64))
