"""Maps of weights, M_ij = w_ij · φ(a_i·b_j), against the dense matrix in float64."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import regard
from regard import Map
from support.oracles import OPTION_SETS
from test_properties import made, problems

B, H, G, Q, K, F = 2, 6, 3, 5, 11, 4
PHI = {None: lambda x: x, "relu": torch.relu, "abs": torch.abs}


def vectors(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype)


# What makes a map: its tensors, given the sizes and type; how regard makes it, and its dense definition.
KINDS = {
    "column": (
        lambda s, d: {"b": vectors(s.batch, s.heads, s.keys, 1, dtype=d).abs()},
        lambda w, b: w.times(key=b),
        lambda w, b: w * b.mT,
    ),
    "row": (
        lambda s, d: {"a": vectors(s.queries, dtype=d)},
        lambda w, a: w.times(query=a),
        lambda w, a: w * a[:, None],
    ),
    "product": (
        lambda s, d: {
            "a": vectors(s.batch, s.heads, s.queries, F, dtype=d),
            "b": vectors(s.groups, s.keys, F, dtype=d),
        },
        lambda w, a, b: w.times(query=a, key=b),
        lambda w, a, b: w * (a @ b.repeat_interleave(w.shape[1] // b.shape[0], 0).mT),
    ),
    "relu": (
        lambda s, d: {"a": vectors(s.queries, F, dtype=d), "b": vectors(s.batch, s.groups, s.keys, F, dtype=d)},
        lambda w, a, b: w.times(query=a, key=b, activation="relu"),
        lambda w, a, b: w * (a @ b.repeat_interleave(w.shape[1] // b.shape[1], 1).mT).relu(),
    ),
    "abs": (
        lambda s, d: {"a": vectors(s.heads, s.queries, 1, dtype=d), "b": vectors(s.batch, 1, s.keys, 1, dtype=d)},
        lambda w, a, b: w.times(query=a, key=b, activation="abs"),
        lambda w, a, b: w * (a @ b.mT).abs(),
    ),
    "of a map": (
        lambda s, d: {
            "a": vectors(s.heads, s.queries, F, dtype=d),
            "b": vectors(s.keys, F, dtype=d),
            "c": vectors(s.heads, s.keys, 1, dtype=d),
        },
        lambda w, a, b, c: w.times(query=a, key=b, activation="relu").times(key=c).times(query=a, key=b),
        lambda w, a, b, c: w * (a @ b.mT).relu() * c.mT * (a @ b.mT),
    ),
    "combined": (
        lambda s, d: {"f": vectors(s.batch, s.heads, s.keys, F, dtype=d)},
        lambda w, f: w.combined(torch.einsum("bhkf,bgkf->bkhg", f, f)),
        lambda w, f: torch.einsum("bhqk,bhkf->bqkf", w, f).norm(dim=-1),
    ),
    "combined, times": (
        lambda s, d: {"f": vectors(s.heads, s.keys, F, dtype=d), "a": vectors(s.queries, 1, dtype=d)},
        lambda w, f, a: w.combined(torch.einsum("hkf,gkf->khg", f, f)).times(query=a),
        lambda w, f, a: torch.einsum("bhqk,hkf->bqkf", w, f).norm(dim=-1) * a,
    ),
}


class Sizes:
    def __init__(self, query, key):
        (self.batch, self.heads, self.queries, _), (_, self.groups, self.keys, _) = query.shape, key.shape


def both(kit, kind, query, key, value, more, backend=None):
    """The map, and the dense matrix in float64."""
    tensors, ours, dense = KINDS[kind]
    tensors = tensors(Sizes(query, key), query.dtype)
    backend = kit.forced(backend, query, key, value, **more)
    attention = regard.attention(query, key, value, backend=backend, **more)
    weights = kit.oracle(query, key, value, **more)[2]
    return ours(attention.weights, **tensors), dense(weights, **{n: t.double() for n, t in tensors.items()})


def close(actual, expected, largest, tolerance):
    """Within a share of the largest number of the matrix; sums are of many such numbers, whose errors add up."""
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs().max().item() if actual.numel() else 0
    assert error <= tolerance * max(largest, expected.abs().max().item() if expected.numel() else 0), error


def check_reductions(matrix, dense, tolerance):
    largest = dense.abs().max().item() if dense.numel() else 0
    rows, columns = dense.shape[-2:]
    leading = dense.shape[:-2]

    def same(actual, expected):
        close(actual, expected, largest, tolerance)

    same(matrix.dense(), dense)
    same(matrix[...], dense)
    same(matrix[..., rows // 2, :], dense[..., rows // 2, :])
    same(matrix[0, ..., 1:, columns // 3 :], dense[0, ..., 1:, columns // 3 :])
    same(matrix[..., [0, rows - 1], ::2], dense[..., [0, rows - 1], ::2])
    same(matrix.sum(), dense.sum(-1))
    same(matrix.max().values, dense.amax(-1))
    for magnitude in (False, True):
        k = min(3, columns)
        top = matrix.topk(k, magnitude=magnitude)
        ranked = (dense.abs() if magnitude else dense).sort(dim=-1, descending=True, stable=True).indices[..., :k]
        expected = dense.gather(-1, ranked)
        same(top.values.abs() if magnitude else top.values, expected.abs() if magnitude else expected)
        same(dense.gather(-1, top.indices), top.values.double())
    for queries in (slice(None), slice(1, rows), slice(0, rows, 2)):
        chosen = dense[..., queries, :]
        same(matrix.received(queries=queries), chosen.sum(-2))
        if chosen.shape[-2]:
            same(matrix.received("mean", queries), chosen.mean(-2))
            same(matrix.received("max", queries), chosen.amax(-2))
    of_rows, of_columns = torch.arange(rows) // 2, torch.arange(columns) % 3 - 1
    means = torch.nn.functional.one_hot(of_rows).double()
    sums = torch.nn.functional.one_hot(of_columns + 1).double()[:, 1:]
    expected = torch.einsum("...qk,qr,kc->...rc", dense, means / means.sum(0), sums)
    same(matrix.grouped(of_rows, of_columns), expected)
    for cells in ((1, 1), (rows, 1), (min(2, rows), min(3, columns))):
        for reduce in ("mean", "sum", "max"):
            same(matrix.pool(*cells, reduce), pooled(dense, *cells, reduce))
    x, y = torch.randn(columns, 2), torch.randn(rows, 2)
    same(matrix @ x, dense @ x.double())
    same(matrix.T @ y, dense.mT @ y.double())
    same(matrix @ torch.ones(columns), dense.sum(-1))
    for offset in (0, 2, -1, columns - rows, -rows, columns, columns + 9):
        within = min(max(offset, -rows), columns)
        same(matrix.diagonal(offset), dense.diagonal(within, -2, -1))
    assert matrix.shape == dense.shape == (*leading, rows, columns)


def pooled(dense, rows, cols, reduce):
    function = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[reduce]

    def bands(size, cells):
        return [slice(n * size // cells, (n + 1) * size // cells) for n in range(cells)]

    of_rows, of_columns = bands(dense.shape[-2], rows), bands(dense.shape[-1], cols)
    lines = [torch.stack([function(dense[..., r, c], (-2, -1)) for c in of_columns], -1) for r in of_rows]
    return torch.stack(lines, -2)


@pytest.mark.parametrize(
    ("backend", "dtype"), [("cpu", torch.float32), ("torch", torch.float32), ("torch", torch.float64)], ids=str
)
@pytest.mark.parametrize("names", OPTION_SETS.values(), ids=OPTION_SETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_reduction_of_every_map(kit, backend, kind, names, dtype):
    query, key, value = kit.inputs(B, H, G, Q, K, dtype=dtype)
    matrix, dense = both(kit, kind, query, key, value, kit.options(names, query, key), backend)
    # The root of a sum that almost vanishes keeps half of its digits, as a length does whose parts cancel.
    check_reductions(matrix, dense, 1e-5 if dtype == torch.float32 else 1e-11)


@given(problems(dtype=torch.float32), st.sampled_from(sorted(KINDS)))
def test_any_options(kit, problem, kind):
    query, key, value, more = made(kit, problem)
    check_reductions(*both(kit, kind, query, key, value, more), 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_512_tokens(kit, kind, backend):
    query, key, value = kit.inputs(1, 4, 2, 512, 512, dim=64)
    matrix, dense = both(kit, kind, query, key, value, {"causal": True}, backend)
    check_reductions(matrix, dense, 1e-5)


# The gradient


LOOKS = {
    "dense": (lambda m: m.dense(), lambda d: d),
    "row": (lambda m: m[..., 1, :], lambda d: d[..., 1, :]),
    "tile": (lambda m: m[..., 1:4, 2:7], lambda d: d[..., 1:4, 2:7]),
    "rows": (lambda m: m[..., [0, 3, 4, 3], 2:7], lambda d: d[..., [0, 3, 4, 3], 2:7]),
    "sum": (lambda m: m.sum(), lambda d: d.sum(-1)),
    "max": (lambda m: m.max().values, lambda d: d.amax(-1)),
    "received": (lambda m: m.received(queries=slice(1, 4)), lambda d: d[..., 1:4, :].sum(-2)),
    "pool": (lambda m: m.pool(2, 3), lambda d: pooled(d, 2, 3, "mean")),
    "pool max": (lambda m: m.pool(2, 3, "max"), lambda d: pooled(d, 2, 3, "max")),
    "applied": (
        lambda m: m @ torch.linspace(-1, 1, K)[:, None],
        lambda d: d @ torch.linspace(-1, 1, K)[:, None].double(),
    ),
    "transposed": (lambda m: m.T @ torch.ones(Q, 1), lambda d: d.sum(-2)[..., None]),
    "diagonal": (lambda m: m.diagonal(3), lambda d: d.diagonal(3, -2, -1)),
    "another": (lambda m: m.diagonal(-2), lambda d: d.diagonal(-2, -2, -1)),
}


def pull(result):
    """A loss that weighs each number differently."""
    generator = torch.Generator().manual_seed(1)
    return (result.double() * torch.randn(result.shape, generator=generator, dtype=torch.float64)).sum()


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("names", [["causal", "bias"], ["sinks", "softcap", "lengths"]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kit, kind, names, look):
    query, key, value = kit.inputs(B, H, G, Q, K, dtype=torch.float64)
    more = kit.options(names, query, key)
    made_of, ours, dense = KINDS[kind]
    learned = {name: more.pop(name) for name in ("bias", "sinks") if name in more}
    tensors = {"query": query, "key": key, **learned, **made_of(Sizes(query, key), torch.float64)}

    def loss(compute):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
        theta = {name: leaves.pop(name) for name in ("query", "key", *learned)}
        options = {name: theta[name] for name in learned}
        result = compute(theta["query"], theta["key"], {**more, **options}, leaves)
        return torch.autograd.grad(pull(result), [*theta.values(), *leaves.values()], materialize_grads=True)

    actual = loss(lambda q, k, o, made: LOOKS[look][0](ours(regard.attention(q, k, value, **o).weights, **made)))
    expected = loss(lambda q, k, o, made: LOOKS[look][1](dense(kit.oracle(q, k, value, **o)[2], **made)))
    for grad, other in zip(actual, expected, strict=True):
        kit.agree(grad, other.nan_to_num(0), 1e-9)  # the length of nothing has no direction


def test_a_gradient_by_the_vectors(kit):
    query, key, value = kit.inputs(dtype=torch.float64)
    matrix = regard.attention(query, key, value).weights.times(key=torch.rand(11, 1, dtype=torch.float64))
    x = torch.randn(3, 11, 2, dtype=torch.float64, requires_grad=True)  # for each group
    pull(matrix @ x).backward()
    again = x.detach().clone().requires_grad_()
    pull(matrix.dense() @ again.repeat_interleave(2, 0)).backward()
    kit.agree(x.grad, again.grad)


# What a map is


def test_copies_and_parts(kit):
    query, key, value = kit.inputs()
    b = torch.rand(2, 6, 11, 1)
    matrix = regard.attention(query, key, value).weights.times(key=b)
    dense = matrix.dense()
    for other in (copy.copy(matrix), copy.deepcopy(matrix), matrix.clone(), pickle.loads(pickle.dumps(matrix))):
        assert type(other) is Map
        assert other.backend == matrix.backend
        torch.testing.assert_close(other.dense(), dense)
    torch.testing.assert_close(matrix.of_sequence(1).dense(), dense[1])
    torch.testing.assert_close(matrix.compact().dense(), dense)
    torch.testing.assert_close(matrix.double().dense(), dense.double())
    torch.testing.assert_close(matrix + 1, dense + 1)
    torch.testing.assert_close(matrix.T.dense(), dense.mT)
    torch.testing.assert_close(matrix.diagonal(1, -1, -2), dense.diagonal(1, -1, -2))
    torch.testing.assert_close(matrix.sum(0), dense.sum(0))
    b.mul_(2)
    with pytest.raises(RuntimeError, match="a factor was changed in place"):
        matrix.dense()


def test_heads_combined_without_a_batch(kit):
    query, key, value = (tensor[0] for tensor in kit.inputs())
    f = torch.randn(6, 11, 4)
    weights = regard.attention(query, key, value).weights
    matrix = weights.combined(torch.einsum("hkf,gkf->khg", f, f))
    expected = torch.einsum("hqk,hkf->qkf", weights.dense(), f).norm(dim=-1)
    assert matrix.shape == (5, 11)
    kit.agree(matrix.dense(), expected, 1e-5)
    kit.agree(matrix[2], expected[2], 1e-5)
    kit.agree(matrix @ torch.ones(11, 2), expected.sum(-1)[:, None].expand(5, 2), 1e-5)
    kit.agree(matrix.topk(2).values, expected.topk(2).values, 1e-5)


def test_what_is_not_finite_stays_where_it_is(kit, backend):
    query, key, value = kit.inputs(queries=11)
    b = torch.ones(11, 1)
    b[4] = torch.nan
    matrix = regard.attention(query, key, value, window=(1, 0), backend=backend).weights.times(key=b)
    assert matrix.dense().isnan()[0, 0].nonzero().tolist() == [[4, 4], [5, 4]]
    assert matrix.sum().isnan()[0, 0].nonzero().flatten().tolist() == [4, 5]
    assert matrix.received().isnan()[0, 0].nonzero().flatten().tolist() == [4]
    b[4] = torch.inf
    matrix = regard.attention(query, key, value, window=(1, 0), backend=backend).weights.times(key=b)
    assert matrix.dense().isinf()[0, 0].nonzero().tolist() == [[4, 4], [5, 4]]
    assert not matrix.dense().isnan().any()


def test_negative_numbers_and_hidden_keys(kit, backend):
    """Keys that a query does not see are 0, which is more than a negative number."""
    query, key, value = kit.inputs(queries=5, keys=5)
    matrix = regard.attention(query, key, value, causal=True, backend=backend).weights.times(key=-torch.ones(5, 1))
    assert matrix.max().values[0, 0].tolist() == [0, 0, 0, 0, pytest.approx(float(matrix.dense()[0, 0, 4].max()))]
    assert matrix.max().indices[0, 0, :4].tolist() == [1, 2, 3, 4]
    assert matrix.topk(1, magnitude=True).values[0, 0, 0, 0] == -1
    kit.agree(matrix.pool(1, 5, "max"), matrix.dense().double().amax(-2, keepdim=True), 1e-6)
    assert (matrix.received("max")[..., 0] < 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"times: expected query=, key= or both"),
        ({"key": torch.ones(10, 1)}, r"times: key: expected \(…, 11, F\), .* Got \(10, 1\)"),
        ({"key": torch.ones(11, 2)}, r"times: key: alone, expected the width 1\. Got 2"),
        ({"query": torch.ones(5, 3)}, r"times: query: alone, expected the width 1\. Got 3"),
        ({"query": torch.ones(3, 5, 1)}, r"times: query: expected \(…, 5, F\), vectors for each head or for all"),
        ({"query": torch.ones(5, 3), "key": torch.ones(11, 2)}, r"the same width\. Got 3 and 2"),
        ({"key": torch.ones(4, 11, 1)}, r"key: expected .* each group"),
        ({"key": torch.ones(5, 2, 6, 11, 1)}, r"key: expected"),
        ({"key": torch.ones(11, 0)}, r"key: expected"),
        ({"key": torch.ones(11, 1), "activation": "tanh"}, r"activation: expected 'relu', 'abs' or None\. Got 'tanh'"),
        ({"key": torch.ones(11, 1, device="meta")}, r"key: expected it on cpu\. Got meta"),
    ],
)
def test_a_factor_that_does_not_fit(kit, arguments, message):
    weights = regard.attention(*kit.inputs()).weights
    with pytest.raises(ValueError, match=message):
        weights.times(**arguments)


def test_what_is_no_factor(kit):
    weights = regard.attention(*kit.inputs()).weights
    with pytest.raises(TypeError, match=r"times: key: expected a tensor of real numbers\. Got list"):
        weights.times(key=[1.0] * 11)
    with pytest.raises(ValueError, match=r"combined: gram: expected \(…, 11, 6, 6\).* Got \(11, 6, 5\)"):
        weights.combined(torch.ones(11, 6, 5))
    with pytest.raises(ValueError, match=r"received: reduce: expected 'mean', 'max' or 'sum'\. Got 'median'"):
        weights.received("median")
    with pytest.raises(TypeError, match=r"received: queries: expected a slice\. Got int"):
        weights.received(queries=3)
    with pytest.raises(ValueError, match=r"entropy: queries: expected a slice with a step of 1"):
        weights.entropy(slice(None, None, -1))


# Statistics of weights


@pytest.mark.parametrize("queries", [slice(None), slice(1, 4), slice(0, 5, 2), slice(3, 3), slice(-2, None)], ids=str)
@pytest.mark.parametrize("names", OPTION_SETS.values(), ids=OPTION_SETS)
def test_statistics_of_some_queries(kit, backend, names, queries):
    query, key, value = kit.inputs()
    more = kit.options(names, query, key)
    weights = regard.attention(
        query, key, value, backend=kit.forced(backend, query, key, value, **more), **more
    ).weights
    dense = kit.oracle(query, key, value, **more)[2]
    distance = (torch.arange(5)[:, None] - torch.arange(11)).abs()
    kit.agree(weights.entropy(queries), torch.special.entr(dense).sum(-1)[:, :, queries], 2e-5)
    kit.agree(weights.distance(queries), (dense * distance).sum(-1)[:, :, queries], 1e-4)
    sinks = more.pop("sinks", None)
    _, lse, alone = kit.oracle(query, key, value, **more)
    expected = alone.amax(-1).log() + lse
    kit.agree(weights.max_score(queries), expected[:, :, queries], 1e-5)
    collected = regard.attention(query, key, value, sinks=sinks, collect=("max_score",), **more).weights
    kit.agree(collected.max_score(queries), expected[:, :, queries], 1e-5)
    kit.agree(collected.entropy(queries), weights.entropy(queries).double(), 1e-5)


def test_the_largest_score_beside_a_sink_that_takes_everything(kit, backend):
    query, key, value = kit.inputs()
    sinks = torch.full((6,), 500.0)
    weights = regard.attention(query, key, value, sinks=sinks, collect=("max_score",), backend=backend).weights
    kit.agree(weights.max_score(), (query @ key.repeat_interleave(2, 1).mT / 7**0.5).amax(-1).double(), 1e-5)


def test_the_gradient_of_the_largest_score(kit):
    query, key, value = kit.inputs(dtype=torch.float64)
    for queries in (slice(None), slice(1, 4)):
        ours = query.clone().requires_grad_()
        weights = regard.attention(ours, key, value, sinks=torch.full((6,), 9.0), causal=True).weights
        pull(weights.max_score(queries)).backward()
        by_hand = query.clone().requires_grad_()
        scores = by_hand @ key.repeat_interleave(2, 1).mT / 7**0.5
        hidden = torch.ones(5, 11, dtype=torch.bool).triu(7)
        pull(scores.masked_fill(hidden, -torch.inf).amax(-1)[:, :, queries]).backward()
        kit.agree(ours.grad, by_hand.grad)
