"""Losses on attentions: whatever is asked of the weights is differentiable, as the dense matrix is, in O(N) memory."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.nn.functional import mse_loss

import regard
from regard.backends import gradient as gradient_module
from regard.weights import autograd, reductions
from support.oracles import OPTION_SETS


def one_hot(groups):
    return (groups[:, None] == torch.arange(int(groups.max()) + 1)).double()


def pooled(dense, rows, columns, reduce):
    """Cell by cell, as `Weights.pool` says."""
    of_row, of_column = (
        [n * size // count for n in range(count + 1)]
        for count, size in zip((rows, columns), dense.shape[-2:], strict=True)
    )
    cells = [
        [
            reduce(dense[..., of_row[r] : of_row[r + 1], of_column[c] : of_column[c + 1]], (-2, -1))
            for c in range(columns)
        ]
        for r in range(rows)
    ]
    return torch.stack([torch.stack(row, -1) for row in cells], -2)


def looks(queries, keys, heads):
    """What can be asked of weights, and the same of the dense matrix: {name: (of weights, of dense)}."""
    query_groups, key_groups = torch.arange(queries) * 2 // queries, torch.arange(keys) % 3 - 1
    sums = one_hot(key_groups)
    means = one_hot(query_groups) / one_hot(query_groups).sum(0).clamp(min=1)
    apart = (torch.arange(queries)[:, None] - torch.arange(keys)).abs()
    x, y = torch.randn(heads, keys, 3), torch.randn(queries, 4)
    rows, columns = [queries - 1, 0, 0], [0, keys - 1, 0]
    cells, k = (min(2, queries), min(3, keys)), min(3, keys)
    return {
        "dense": (lambda w: w.dense(), lambda d: d),
        "rows": (lambda w: w[:, -1, rows], lambda d: d[:, -1, rows]),
        "columns": (lambda w: w[..., columns], lambda d: d[..., columns]),
        "tile": (lambda w: w[[0, 0], None, :, 1:, ::2], lambda d: d[[0, 0], None, :, 1:, ::2]),
        "mask": (lambda w: w[w > 0.2], lambda d: d[d > 0.2]),
        "entropy": (lambda w: w.entropy(), lambda d: torch.special.entr(d).sum(-1)),
        "distance": (lambda w: w.distance(), lambda d: (d * apart).sum(-1)),
        "max": (lambda w: w.max().values, lambda d: d.amax(-1)),
        "topk": (lambda w: w.topk(k).values, lambda d: d.topk(k).values),
        "received": (lambda w: w.received(), lambda d: d.sum(-2)),
        "grouped": (
            lambda w: w.grouped(query_groups, key_groups),
            lambda d: torch.einsum("bhqk,qr,kc->bhrc", d, means, sums),
        ),
        "pool": (lambda w: w.pool(*cells), lambda d: pooled(d, *cells, torch.mean)),
        "pool sum": (lambda w: w.pool(*cells, "sum"), lambda d: pooled(d, *cells, torch.sum)),
        "pool max": (lambda w: w.pool(*cells, "max"), lambda d: pooled(d, *cells, torch.amax)),
        "applied": (lambda w: w @ x, lambda d: d @ x.double()),
        "transposed": (lambda w: w.T @ y, lambda d: d.mT @ y.double()),
        "from the left": (lambda w: y.mT @ w, lambda d: y.double().mT @ d),
        "arithmetic": (lambda w: (2 * w - 1) ** 2, lambda d: (2 * d - 1) ** 2),
        "distilled": (lambda w: mse_loss(w, torch.zeros(w.shape, dtype=w.dtype)), lambda d: d.square().mean()),
    }  # fmt: skip


def pull(result):
    """A loss that weighs each number differently; what is −inf takes no part."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(result.shape, generator=generator, dtype=torch.float64)
    return (result.double().masked_fill(result == -torch.inf, 0) * weights).sum()


def gradients(loss, tensors):
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    return torch.autograd.grad(loss(**leaves), list(leaves.values()), materialize_grads=True)


def check(kit, look, query, key, *, tolerance=None, **more):
    """Assert the gradients of a loss on a look at the weights, against autograd through the float64 reference."""
    learned = {name: more.pop(name) for name in ("bias", "sinks") if name in more}
    tensors = {"query": query, "key": key} | learned
    ours, expected = look

    def loss(query, key, **others):
        return pull(ours(regard.attention(query, key, key, **more, **others).weights))

    def reference(query, key, **others):
        return pull(expected(kit.oracle(query, key, key, **more, **others)[2]))

    for name, actual, other in zip(
        tensors,
        gradients(loss, tensors),
        gradients(reference, {n: t.double() for n, t in tensors.items()}),
        strict=True,
    ):
        assert actual.dtype == tensors[name].dtype
        kit.agree(actual, other, tolerance)


LOOKS = list(looks(5, 11, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("names", OPTION_SETS.values(), ids=OPTION_SETS)
@pytest.mark.parametrize("look", LOOKS)
def test_a_loss_on_what_is_asked_for(kit, look, names, dtype):
    query, key, _ = kit.inputs(dtype=dtype)
    check(kit, looks(5, 11, 6)[look], query, key, **kit.options(names, query, key))


@pytest.mark.parametrize("names", [["sinks"], ["sinks", "lengths", "bias", "causal"]], ids=str)
def test_a_loss_on_the_sink(kit, names):
    query, key, _ = kit.inputs()
    look = (lambda w: w.sink(), lambda d: 1 - d.sum(-1))
    check(kit, look, query, key, **kit.options(names, query, key))


@pytest.mark.parametrize("names", [[], ["causal", "softcap", "bias"], ["sinks", "lengths"]], ids=str)
def test_a_loss_on_the_lse(kit, names):
    query, key, _ = kit.inputs(dtype=torch.float64)
    more = kit.options(names, query, key)
    tensors = {"query": query, "key": key} | {name: more.pop(name) for name in ("bias", "sinks") if name in more}
    ours = gradients(lambda query, key, **t: pull(regard.attention(query, key, key, **more, **t).weights.lse), tensors)
    expected = gradients(lambda query, key, **t: pull(kit.oracle(query, key, key, **more, **t)[1]), tensors)
    for actual, other in zip(ours, expected, strict=True):
        kit.agree(actual, other)


SIZES = st.sampled_from([1, 2, 3, 5, 7, 11])
NAMES = ["causal", "left", "window", "lengths", "segment pair", "padding", "full mask", "rule", "bias", "key bias",
         "scale", "softcap", "sinks"]  # fmt: skip


@given(
    look=st.sampled_from(LOOKS),
    names=st.lists(st.sampled_from(NAMES), unique=True, max_size=5),
    groups=st.sampled_from([1, 2, 3]),
    repeat=st.sampled_from([1, 2]),
    queries=SIZES,
    keys=SIZES,
    seed=st.integers(0, 2**31),
)
def test_any_look_under_any_options(kit, look, names, groups, repeat, queries, keys, seed):
    torch.manual_seed(seed)
    query, key, _ = kit.inputs(2, groups * repeat, groups, queries, keys, 5, dtype=torch.float64)
    more = kit.options(names, query, key)
    check(kit, looks(queries, keys, groups * repeat)[look], query, key, **more, tolerance=1e-11)


@pytest.mark.parametrize("look", LOOKS)
def test_blocks_add_up(kit, look, monkeypatch):
    """The gradient is gathered from blocks of rows, heads and sequences; here each has few."""
    monkeypatch.setattr(gradient_module, "BLOCK", 64)
    monkeypatch.setattr(reductions, "BLOCK", 40)
    query, key, _ = kit.inputs(queries=131, dtype=torch.float64)
    check(
        kit, looks(131, 11, 6)[look], query, key, **kit.options(["left", "bias", "sinks"], query, key), tolerance=1e-10
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(kit, dtype):
    """The gradient is as near to the exact one as half precision can say."""
    query, key, _ = kit.inputs(dtype=dtype)
    for look in ("entropy", "received", "tile", "applied"):
        check(kit, looks(5, 11, 6)[look], query, key, causal=True, tolerance=0.03)


@pytest.mark.parametrize("leading", [(), (3,)], ids=["2d", "3d"])
def test_fewer_dimensions(kit, leading):
    query, key = torch.randn(*leading, 5, 3, dtype=torch.float64), torch.randn(*leading, 7, 3, dtype=torch.float64)
    for look in (
        (lambda w: w[..., 1, 2:4], lambda d: d[..., 1, 2:4]),
        (lambda w: w.entropy(), lambda d: torch.special.entr(d).sum(-1)),
        (lambda w: w @ torch.ones(7, 2), lambda d: d @ torch.ones(7, 2).double()),
    ):
        check(kit, look, query, key, causal=True)


def test_equal_weights_share_the_pull_of_their_cell(kit):
    query, key = torch.zeros(1, 1, 3, 2, dtype=torch.float64), torch.zeros(1, 1, 5, 2, dtype=torch.float64)
    bias = torch.tensor([0.0, 1, 1, 0, 1], dtype=torch.float64)
    look = (lambda w: w.pool(1, 2, "max"), lambda d: pooled(d, 1, 2, torch.amax))
    check(kit, look, query, key, bias=bias)


def test_vectors_and_weights_at_once(kit):
    """w @ x is differentiable in both; one matrix for all heads gathers from all."""
    query, key, _ = kit.inputs(dtype=torch.float64)
    for shape in ((), (3,), (6,), (2, 1)):
        tensors = {"query": query, "key": key, "x": torch.randn(*shape, 11, 4, dtype=torch.float64)}

        def spread(x, shape=shape):
            return x.repeat_interleave(2, dim=-3) if shape == (3,) else x

        ours = gradients(lambda query, key, x: pull(regard.attention(query, key, key).weights @ x), tensors)
        expected = gradients(lambda query, key, x: pull(kit.oracle(query, key, key)[2] @ spread(x)), tensors)
        for actual, other in zip(ours, expected, strict=True):
            kit.agree(actual, other)


def test_gradcheck():
    query, key = (torch.randn(1, 2, size, 2, dtype=torch.float64, requires_grad=True) for size in (3, 5))
    bias, sinks = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((3, 5), (2,)))

    def run(query, key, bias, sinks):
        w = regard.attention(query, key, key, bias=bias, sinks=sinks, causal=True, softcap=0.9).weights
        return w.entropy(), w.received(), w[0, 1, 2], w.lse, w.sink(), w.pool(2, 2), w.topk(2).values

    assert torch.autograd.gradcheck(run, (query, key, bias, sinks))


# What is collected, and who computes it


def test_collected_statistics_have_gradients_too(kit, backend):
    query, key, value = kit.inputs()
    for look in ("entropy", "max", "topk"):
        ours, expected = looks(5, 11, 6)[look]

        def loss(query, key, ours=ours):
            outcome = regard.attention(query, key, value, collect=("entropy", "max", "topk:3"), backend=backend)
            return pull(ours(outcome.weights))

        tensors = {"query": query, "key": key}
        doubled = {name: tensor.double() for name, tensor in tensors.items()}
        reference = gradients(lambda query, key, e=expected: pull(e(kit.oracle(query, key, value)[2])), doubled)
        for actual, other in zip(gradients(loss, tensors), reference, strict=True):
            kit.agree(actual, other)


def test_a_statistic_asked_for_twice_has_its_gradient_twice(kit):
    query, key, value = kit.inputs()
    query.requires_grad_()
    weights = regard.attention(query, key, value).weights
    with torch.no_grad():
        weights.entropy(), weights.topk(2)  # kept, and still differentiable
    (first,) = torch.autograd.grad(weights.entropy().sum() + weights.topk(2).values.sum(), query)
    (again,) = torch.autograd.grad(weights.entropy().sum() + weights.topk(2).values.sum(), query)
    assert first.any()
    assert torch.equal(first, again)


def test_beside_a_loss_on_the_output(kit):
    """A task's loss and one on the attentions, in one backward pass."""
    query, key, value = kit.inputs(dtype=torch.float64)
    target = torch.rand(2, 6, 5, 11, dtype=torch.float64)

    def loss(output, weights):
        return output.square().sum() + mse_loss(weights, target, reduction="sum")

    def ours(query, key, value):
        outcome = regard.attention(query, key, value, causal=True)
        return loss(outcome.output, outcome.weights)

    def reference(query, key, value):
        output, _, dense = kit.oracle(query, key, value, causal=True)
        return loss(output, dense)

    tensors = {"query": query, "key": key, "value": value}
    for actual, other in zip(gradients(ours, tensors), gradients(reference, tensors), strict=True):
        kit.agree(actual, other)


def test_through_a_layer(kit):
    """The weights' gradient goes on to what made the query."""
    x, layer = torch.randn(5, 3), torch.nn.Linear(3, 3)
    w = regard.attention(layer(x), layer(x), x).weights
    w.entropy().sum().backward()
    ours = layer.weight.grad.clone()
    layer.zero_grad()
    torch.special.entr(kit.oracle(layer(x), layer(x), x)[2]).sum().backward()
    kit.agree(ours, layer.weight.grad.double())


@pytest.mark.parametrize("name", ["Bert", "Llama"])
def test_a_loss_on_the_attentions_of_a_model(name):
    """Distillation as it is written for eager: the same gradient of every parameter."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("regard.hf")
    config = getattr(transformers, f"{name}Config")(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = getattr(transformers, f"{name}Model")(config).train()
    ids, visible = torch.randint(50, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    visible[1, 5:] = 0  # padding, whose own rows are left out of the loss
    gradients = {}
    for implementation in ("eager", "regard"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        out = model(ids, attention_mask=visible, output_attentions=True)
        attended = [mse_loss(weights[:, :, :5], torch.zeros(2, 4, 5, 7)) for weights in out.attentions]
        (100 * sum(attended) + out.last_hidden_state[:, :5].square().mean()).backward()
        gradients[implementation] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(gradients["regard"], gradients["eager"], atol=5e-6, rtol=0)


# Where there is no gradient


def test_without_grad_nothing_is_recorded(kit):
    query, key, value = (tensor.requires_grad_() for tensor in kit.inputs())
    with torch.no_grad():
        constant = regard.attention(query, key, value, collect=("entropy",)).weights
    weights = regard.attention(query, key, value).weights
    assert weights.requires_grad
    assert not constant.requires_grad
    assert not weights.detach().requires_grad
    for look, (ours, _) in looks(5, 11, 6).items():
        assert not ours(constant).requires_grad, look
        assert not ours(weights.detach()).requires_grad, look
        assert ours(weights).requires_grad, look
        with torch.no_grad():
            assert not ours(weights).requires_grad, look


def test_what_has_no_gradient_is_had_all_the_same(kit):
    query, key, value = (tensor.requires_grad_() for tensor in kit.inputs())
    weights = regard.attention(query, key, value).weights
    dense = weights.detach().dense()
    assert np.array_equal(np.asarray(weights), dense.numpy())
    assert torch.equal(weights > 0.1, dense > 0.1)
    assert torch.equal(weights.topk(2).indices, dense.topk(2).indices)
    assert repr(weights) == "Weights(shape=(2, 6, 5, 11), dtype=torch.float32, device=cpu)"
    assert not weights.topk(2).indices.requires_grad


def test_a_deep_copy_would_lose_the_gradient(kit):
    query, key, value = (tensor.requires_grad_() for tensor in kit.inputs())
    weights = regard.attention(query, key, value).weights
    with pytest.raises(RuntimeError, match=r"deep copy would lose the gradient .* Copy detach\(\)"):
        copy.deepcopy(weights)
    assert copy.copy(weights).entropy().requires_grad
    assert weights.clone().entropy().requires_grad
    assert not pickle.loads(pickle.dumps(weights)).requires_grad


def test_inference_mode_and_a_loss_on_what_it_is_applied_to(kit):
    with torch.inference_mode():
        weights = regard.attention(*kit.inputs()).weights
    x = torch.randn(11, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad((weights @ x).sum(), x)
    kit.agree(gradient, weights.received().sum((0, 1))[:, None].expand(11, 3), 1e-4)


def test_rows_that_see_nothing_pull_at_nothing():
    query, key = torch.randn(2, 3, 5, 7, requires_grad=True), torch.randn(2, 3, 5, 7, requires_grad=True)
    bias = torch.full((5, 5), -torch.inf, requires_grad=True)
    for hide in ({"lengths": [0, 0]}, {"mask": torch.zeros(5, 5).bool()}, {"bias": bias}):
        w = regard.attention(query, key, key, **hide).weights
        loss = w.dense().sum() + w.entropy().sum() + w.max().values.sum() + w.pool(2, 2, "max").sum()
        for gradient in torch.autograd.grad(loss, [query, key, *([bias] if "bias" in hide else [])]):
            assert not gradient.any()


@pytest.mark.parametrize("changed", ["query", "lengths", "mask"])
def test_a_change_before_the_backward_is_noticed(kit, changed):
    query, key, value = kit.inputs()
    more = {"lengths": torch.tensor([3, 4]), "mask": torch.rand(5, 11) < 0.8}
    query.requires_grad_()
    loss = regard.attention(query, key, value, **more).weights.entropy().sum()
    with torch.no_grad():
        ({"query": query} | more)[changed].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# Second derivatives, forward mode, torch.func


def test_no_second_derivative(kit):
    query, key, value = kit.inputs()
    query.requires_grad_()
    weights = regard.attention(query, key, value).weights
    for look in (weights.entropy(), weights[0, 0], weights @ torch.ones(11, 2)):
        (first,) = torch.autograd.grad(look.square().sum(), query, create_graph=True)  # the first is as ever
        assert first.isfinite().all()
        with pytest.raises(RuntimeError, match=r"Weights: .* no second derivative"):
            torch.autograd.grad(first.sum(), query)


def test_a_second_derivative_where_the_weights_are_constants(kit):
    query, key, value = kit.inputs(dtype=torch.float64)
    weights = regard.attention(query, key, value).weights
    x = torch.randn(11, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: (weights @ x).pow(3), x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, inside make_dual
def test_forward_mode_is_refused(kit):
    query, key, value = kit.inputs()
    weights = regard.attention(query, key, value).weights
    with forward_ad.dual_level():
        x = forward_ad.make_dual(torch.ones(11, 2), torch.ones(11, 2))
        with pytest.raises(RuntimeError, match=r"Weights: .* no derivative in forward mode"):
            weights @ x
        scores = regard.scores.Scores(forward_ad.make_dual(query, query), key, regard.mask.Mask(5, 11), 1.0)
        with pytest.raises(RuntimeError, match="no derivative in forward mode"):
            regard.Weights(scores, weights.lse).entropy()


@pytest.mark.parametrize("look", [name for name in LOOKS if name != "mask"])  # whose size depends on the numbers
def test_under_torch_func(kit, look):
    query, key, value = kit.inputs()
    ours, _ = looks(5, 11, 6)[look]
    if look == "applied":  # whose vectors are for all six heads of all sequences

        def ours(w):
            return w @ torch.ones(11, 3)

    def run(query, key, value):
        return ours(regard.attention(query, key, value, causal=True).weights)

    def loss(query, key, value):
        return run(query, key, value).square().sum()

    query.requires_grad_()
    (expected,) = torch.autograd.grad(loss(query, key, value), query)
    query.requires_grad_(False)
    kit.agree(torch.func.grad(loss)(query, key, value), expected)
    if look in ("rows", "tile", "distilled"):  # which index the batch, or take the mean over it
        return
    kit.agree(torch.vmap(run)(query, key, value), run(query, key, value))
    kit.agree(torch.vmap(torch.func.grad(loss))(query, key, value), expected)


def test_what_is_not_finite_pulls_at_those_who_see_it(kit):
    query, key, value = kit.inputs(queries=11)
    key[:, :, 4] = torch.nan  # seen by queries 4 and 5
    query.requires_grad_()
    weights = regard.attention(query, key, value, window=(1, 0)).weights
    (gradient,) = torch.autograd.grad(weights.entropy().sum(), query)
    assert gradient.isnan().any(-1)[0, 0].nonzero().flatten().tolist() == [4, 5]


# Memory, and that a wrong gradient is found out


def test_a_loss_on_long_attentions_takes_memory_of_the_length():
    """At 8,192 tokens one head's matrix is 256 MiB in float32."""
    program = """
import resource, torch, regard
torch.set_num_threads(1)
def step(n):
    x = torch.randn(n, 8, requires_grad=True)
    w = regard.attention(x, x, x, causal=True, collect=("entropy",)).weights
    groups = torch.arange(n) // 64
    (w.entropy().sum() + w.received().square().sum() + w.pool(8, 8, "max").sum() + w.grouped(groups, groups).sum()
     + w.topk(2).values.sum() + w[:, 3].sum() + w[5:9].sum() + (w @ x).sum() + w.lse.sum()).backward()
step(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(8192)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 128, f"{done.stdout} MiB"


def test_a_corrupted_gradient_is_found_out(kit, monkeypatch):
    right = autograd.gradient
    monkeypatch.setattr(autograd, "gradient", lambda *a, **k: (right(*a, **k)[0] + 1e-3, *right(*a, **k)[1:]))
    with pytest.raises(AssertionError, match="not close"):
        check(kit, looks(5, 11, 6)["received"], *kit.inputs()[:2])
