"""The native kernel's maps: every reduction against dense lines in float64, in every instruction set."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regard
from regard.backends import cpu
from regard.backends.factors import Factor
from regard.mask import Block
from regard.weights import reductions

if cpu._missing:
    pytest.skip(f"the kernel is not installed: {cpu._missing}", allow_module_level=True)

SETS = cpu._kernel.kernels()
OPTIONS = [
    "", "causal", "window", "lengths", "segment pair", "full mask", "key mask", "bias", "hiding bias", "scale",
    "softcap", "sinks",
]  # fmt: skip
KINDS = ["row", "column", "products", "of groups", "wide", "several", "combined", "combined, times"]
HALF = [torch.bfloat16, torch.float16]


@pytest.fixture(params=SETS)
def isa(request, monkeypatch):
    """Each instruction set of this machine in turn."""
    monkeypatch.setenv("REGARD_ISA", request.param)
    return request.param


# A map by name, and the same in float64


def vectors(*shape):
    return torch.randn(shape)


def rule(kind, batch, heads, groups, queries, keys):
    """The factors and the Gram matrices of a map, in every shape that broadcasts."""
    made = {
        "row": lambda: [Factor(vectors(batch, heads, queries, 1), None, "abs")],
        "column": lambda: [Factor(None, vectors(1, groups, keys, 1))],
        "products": lambda: [Factor(vectors(batch, heads, queries, 17), vectors(batch, heads, keys, 17), "relu")],
        "of groups": lambda: [Factor(vectors(1, 1, queries, 16), vectors(batch, groups, keys, 16))],
        "wide": lambda: [Factor(vectors(batch, 1, queries, 300), vectors(1, 1, keys, 300), "abs")],
        "several": lambda: [
            Factor(vectors(1, heads, queries, 5), vectors(batch, groups, keys, 5)),
            Factor(None, vectors(batch, 1, keys, 1), "relu"),
            Factor(vectors(batch, 1, queries, 1), None),
        ],
        "combined": list,
        "combined, times": lambda: [Factor(vectors(1, 1, queries, 9), vectors(batch, 1, keys, 9))],
    }
    gram = None
    if kind.startswith("combined"):
        per_head = vectors(batch, keys, heads, 7).double()
        gram = (per_head @ per_head.mT).float()
    return tuple(made[kind]()), gram


def dense(weights, factors, gram):
    """M_ij = w_ij · Π φ(a_i·b_j), or ‖Σ_h w^h_ij f^h_j‖ · Π φ(a_i·b_j), in float64."""
    heads, numbers = weights.shape[1], weights
    if gram is not None:
        numbers = torch.einsum("bhij,bgij,bjhg->bij", weights, weights, gram.double()).clamp(min=0).sqrt()[:, None]
    for factor in factors:
        a, b = (None if x is None else x.double() for x in (factor.query, factor.key))
        b = b if b is None or b.shape[1] in (1, heads) else b.repeat_interleave(heads // b.shape[1], 1)
        product = a if b is None else b.mT if a is None else a @ b.mT
        product = {"relu": torch.relu, "abs": torch.abs, None: lambda x: x}[factor.activation](product)
        numbers = numbers * product
    return numbers


def made(kit, kind, names, sizes, dtype=torch.float32):
    """A map by the kernel, and the same in float64."""
    batch, heads, groups, queries, keys, dim = sizes
    query, key, value = kit.inputs(batch, heads, groups, queries, keys, dim, 3, dtype)
    options = kit.options(names, query, key)
    weights = regard.attention(query, key, value, backend="cpu", **options).weights
    assert reductions.serving(weights._matrix) is cpu
    factors, gram = rule(kind, batch, heads, groups, queries, keys)
    exact = dense(kit.oracle(query, key, value, **options)[2], factors, gram)
    return weights._matrix._replace(factors=factors, gram=gram), exact


def agree(actual, expected, tolerance=1e-5):
    """Within a part of the largest number."""
    assert actual.shape == expected.shape
    assert not actual.isnan().any()
    if expected.numel():
        assert float((actual.double() - expected).abs().max()) <= tolerance * max(float(expected.abs().max()), 1e-30)


def reduced(matrix, exact):
    """Every reduction by the kernel, and what it must be."""
    batch, heads, queries, keys = exact.shape
    x, y, few = vectors(batch, heads, keys, 19), vectors(1, heads, queries, 8), vectors(batch, 1, queries, 2)
    rows, columns = torch.arange(queries) * 5 // queries - 1, torch.randint(-1, 5, (keys,))
    cells = (rows[:, None] == torch.arange(5)).double(), (columns[:, None] == torch.arange(6)).double()
    there = (cells[0].T[:, None, :, None] * cells[1].T[None, :, None]).bool()  # 5, 6, queries, keys
    inside = exact[:, :, None, None].masked_fill(~there, -torch.inf).amax((-1, -2))
    yield cpu.dense(matrix), exact
    at = Block(slice(batch - 1, batch), slice(0, matrix.scores.shape[1]), slice(1, queries), slice(keys // 3, keys))
    yield cpu.tile(matrix, at), exact[-1:, :, 1:, keys // 3 :]
    yield cpu.grouped(matrix, rows, columns, (5, 6), "sum"), cells[0].T @ exact @ cells[1]
    yield cpu.grouped(matrix, rows, columns, (5, 6), "max"), inside.masked_fill(~there.any(-1).any(-1), 0)
    yield cpu.apply(matrix, x), exact @ x.double()
    yield cpu.apply_transposed(matrix, y), exact.mT @ y.double()
    yield cpu.apply_transposed(matrix, few), exact.mT @ few.double()
    for magnitude in (False, True):
        ranked = exact.abs() if magnitude else exact
        values, at = cpu.largest(matrix, min(keys, 9), magnitude)
        yield values.abs() if magnitude else values, ranked.sort(-1, descending=True).values[..., :9]
        yield values, exact.gather(-1, at)


def check(matrix, exact):
    for actual, expected in reduced(matrix, exact):
        agree(actual, expected)


# Every reduction


SIZES = [(2, 6, 3, 67, 131, 16), (1, 4, 2, 2, 401, 32), (1, 2, 2, 101, 13, 65), (1, 1, 1, 388, 270, 64)]


@pytest.mark.parametrize("kind", ["several", "combined, times"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option(kit, isa, option, kind):
    check(*made(kit, kind, [option] if option else [], (2, 6, 3, 29, 71, 16)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_kind(kit, isa, sizes, kind):
    check(*made(kit, kind, ["causal"], sizes))


@pytest.mark.parametrize("kind", ["of groups", "combined"])
def test_the_bits_do_not_depend_on_the_number_of_threads(kit, isa, kind):
    matrix, exact = made(kit, kind, ["causal"], (2, 6, 3, 67, 131, 16))
    results = []
    for threads in (1, 2):
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        results.append([actual for actual, _ in reduced(matrix, exact)])
    torch.set_num_threads(1)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("kind", ["several", "combined"])
def test_half_precision(kit, isa, kind, dtype):
    check(*made(kit, kind, ["causal"], (1, 4, 2, 29, 131, 64), dtype))


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(OPTIONS[1:]), max_size=4, unique=True),
    st.sampled_from(KINDS),
    st.tuples(*(st.integers(1, limit) for limit in (2, 3, 2, 70, 150, 40))),
)
def test_options_crossed(kit, names, kind, sizes):
    batch, groups, repeat, *more = sizes
    torch.manual_seed(sum(sizes))
    options = [name for name in names if not name.startswith("segment") or "lengths" not in names]
    check(*made(kit, kind, options, (batch, groups * repeat, groups, *more)))


# The largest numbers


@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize("kind", ["products", "of groups", "several", "combined"])
def test_the_largest_are_those_of_the_dense_map(kit, isa, kind, magnitude):
    """In order and to the last bit, where most numbers are 0, and where fewer keys are seen than asked for."""
    for names, k in (["window"], 64), (["full mask", "causal"], 20), ([], 1):
        matrix, _ = made(kit, kind, names, (2, 6, 3, 67, 131, 16))
        numbers = cpu.dense(matrix)
        keys = (numbers.abs() if magnitude else numbers).sort(dim=-1, descending=True, stable=True).indices[..., :k]
        values, indices = cpu.largest(matrix, k, magnitude)
        assert torch.equal(indices, keys)
        assert torch.equal(values, numbers.gather(-1, keys))


def test_more_than_the_kernel_lists_are_streamed(kit):
    matrix, exact = made(kit, "of groups", ["causal"], (1, 2, 2, 70, 131, 16))
    values, _ = cpu.largest(matrix, 65, False)
    agree(values, exact.sort(-1, descending=True).values[..., :65])


# What is not finite


@pytest.mark.parametrize("side", ["query", "key"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_reaches_its_row_or_column_alone(kit, isa, number, side):
    matrix = made(kit, "products", ["causal"], (1, 2, 2, 67, 131, 16))[0]
    plain = replace(matrix.factors[0], activation=None)
    changed = getattr(plain, side).clone()
    changed[..., 30, 3] = number
    expected = cpu.dense(matrix._replace(factors=(plain,)))
    reached = torch.zeros_like(expected, dtype=torch.bool)
    (reached[:, :, 30] if side == "query" else reached[..., 30]).fill_(True)
    reached &= cpu.dense(matrix._replace(factors=())) > 0
    matrix = matrix._replace(factors=(replace(plain, **{side: changed}),))
    numbers = cpu.dense(matrix)
    assert not numbers[reached].isfinite().any()
    assert torch.equal(numbers[~reached], expected[~reached])
    by_row, together = torch.arange(67), torch.zeros(131, dtype=torch.long)
    same = {"rtol": 0, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(cpu.grouped(matrix, by_row, together, (67, 1), "max")[..., 0], numbers.amax(-1), **same)
    expected = numbers.sort(-1, descending=True).values[..., :5]
    torch.testing.assert_close(cpu.largest(matrix, 5, False)[0], expected, **same)


def test_vectors_that_are_not_finite_reach_what_takes_anything_of_them(kit, isa):
    matrix = made(kit, "products", ["causal"], (1, 2, 2, 67, 131, 16))[0]
    numbers = cpu.dense(matrix)
    x, y = vectors(1, 2, 131, 5), vectors(1, 2, 67, 5)
    x[:, :, 90, 2], y[:, :, 40, 2] = torch.nan, torch.inf
    taken = numbers[..., 90] != 0
    result = cpu.apply(matrix, x)
    assert torch.equal(result[..., 2].isnan(), taken)
    assert result[..., [0, 1, 3, 4]].isfinite().all()
    result = cpu.apply_transposed(matrix, y)
    assert torch.equal(result[..., 2].isfinite(), numbers[:, :, 40] == 0)


def test_a_gram_matrix_that_is_not_finite_reaches_its_key(kit, isa):
    matrix = made(kit, "combined", ["causal"], (1, 4, 2, 67, 131, 16))[0]
    gram = matrix.gram.clone()
    gram[:, 90] = torch.nan
    numbers, expected = cpu.dense(matrix._replace(gram=gram)), cpu.dense(matrix)
    assert torch.equal(numbers[..., 90].isnan(), expected[..., 90] > 0)
    assert torch.equal(numbers.nan_to_num()[..., :90], expected[..., :90])


def test_the_root_of_what_cancels(kit, isa):
    """Σ_h w^h f^h of vectors that cancel: their squares are rounded, and √ε of their lengths is left at most."""
    query, key, value = kit.inputs(1, 2, 1, 40, 70, 16)
    query = query[:, :1].expand(-1, 2, -1, -1)
    matrix = regard.attention(query, key, value, backend="cpu").weights._matrix
    per_head = vectors(1, 70, 1, 7) * torch.tensor([1.0, -1.0])[:, None]
    numbers = cpu.dense(matrix._replace(gram=per_head @ per_head.mT))
    lengths = cpu.dense(matrix._replace(factors=(Factor(None, per_head[:, None, :, 0].norm(dim=-1, keepdim=True)),)))
    assert (numbers <= 2e-3 * lengths.sum(1, keepdim=True)).all()


# Statistics of rows


@pytest.mark.parametrize("option", OPTIONS)
def test_statistics_of_a_run_of_rows(kit, isa, option):
    query, key, value = kit.inputs(queries=67, keys=131, dim=16)
    options = kit.options([option] if option else [], query, key)
    matrix = regard.attention(query, key, value, backend="cpu", **options).weights._matrix
    weights = kit.oracle(query, key, value, **options)[2]
    rows = slice(13, 41)
    scores = matrix.scores.tile(Block(slice(0, 2), slice(0, 6), slice(0, 67), slice(0, 131)))
    ahead = (torch.arange(67)[:, None] - torch.arange(131)).abs()
    statistics = cpu.statistics(matrix, ["entropy", "distance", "max_score", "topk:3"], rows)
    kit.agree(statistics["entropy"][0], torch.special.entr(weights).sum(-1)[:, :, rows], 2e-5)
    kit.agree(statistics["distance"][0], (weights * ahead).sum(-1)[:, :, rows], 1e-3)
    kit.agree(statistics["max_score"][0], scores.amax(-1)[:, :, rows], 2e-5)
    kit.agree(statistics["topk:3"][0], weights.sort(-1, descending=True).values[:, :, rows, :3], 1e-5)


def test_the_largest_score_of_a_row_that_sees_nothing_or_nan(isa):
    query, key = torch.ones(1, 1, 3, 8), torch.ones(1, 1, 4, 8)
    query[0, 0, 1, 2] = torch.nan
    mask = torch.tensor([[True], [True], [False]]).expand(3, 4)
    sinks = torch.tensor([50.0])
    matrix = regard.attention(query, key, key, mask=mask, sinks=sinks, backend="cpu").weights._matrix
    statistics = cpu.statistics(matrix, ["max_score"])["max_score"][0][0, 0]
    assert statistics[0] == pytest.approx(8**0.5)
    assert statistics[1].isnan()
    assert statistics[2] == -torch.inf


# What the binding refuses


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("lse: expected float64", {"lse": torch.zeros(2, 6, 5)}),
        (r"lse: expected shape \(2, 6, 5\)", {"lse": torch.zeros(2, 6, 4, dtype=torch.float64)}),
        ("gram: expected four dimensions", {"gram": torch.zeros(2, 11, 36)}),
        (r"gram: expected shape \(2, 1, 11, 36\)", {"gram": torch.zeros(2, 1, 11, 35)}),
        ("gram: expected a second dimension of 1", {"gram": torch.zeros(2, 6, 11, 36)}),
        ("gram: expected float32", {"gram": torch.zeros(2, 1, 11, 36, dtype=torch.float64)}),
        ("factors: expected float32", {"query": torch.zeros(2, 6, 5, 1, dtype=torch.float16)}),
        ("factors: expected a width of 1", {"query": torch.zeros(2, 6, 5, 3)}),
        ("factors: expected one a head, or one for all", {"query": torch.zeros(2, 3, 5, 1)}),
        ("factors: expected one a head or group", {"key": torch.zeros(2, 2, 11, 1)}),
        ("factors: expected four dimensions, the first", {"key": torch.zeros(3, 1, 11, 1)}),
        (r"factors: expected shape \(2, 6, 5, 4\)",
         {"query": torch.zeros(2, 6, 5, 3), "key": torch.zeros(2, 6, 11, 4)}),
        ("factors: expected a last dimension without gaps",
         {"query": torch.zeros(2, 6, 5, 6)[..., ::2], "key": torch.zeros(2, 6, 11, 3)}),
    ],
)  # fmt: skip
def test_the_binding_checks_a_map(kit, match, changes):
    query, key, _ = kit.inputs(dim=8)
    scores = cpu._kernel.Scores(query, key, scale=1.0)
    factor = {name: tensor for name, tensor in changes.items() if name in ("query", "key")}
    factors = [cpu._kernel.Factor(**factor)] if factor else []
    lse = changes.get("lse", torch.zeros(2, 6, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match=rf"^regard\._kernel: {match}"):
        cpu._kernel.Map(scores, lse=lse, factors=factors, gram=changes.get("gram"))


def test_the_binding_checks_a_factor():
    with pytest.raises(ValueError, match="activation: expected relu, abs or the empty string"):
        cpu._kernel.Factor(torch.zeros(1, 1, 5, 1), activation="gelu")
    with pytest.raises(ValueError, match="query, key: expected one of them, or both"):
        cpu._kernel.Factor()


def test_a_map_keeps_its_tensors(kit):
    """The memory that the kernel reads stays, though Python has forgotten the tensors."""
    matrix, _ = made(kit, "several", [], (1, 2, 1, 40, 70, 16))
    kept = cpu._map(matrix._replace(factors=tuple(replace(f) for f in matrix.factors)))
    expected = cpu.dense(matrix)
    del matrix
    noise = [torch.full((40, 70), 9.0) for _ in range(50)]
    numbers = torch.empty(1, 2, 40, 70)
    cpu._kernel.tile(kept, first_row=0, first_column=0, numbers=numbers, isa=SETS[0], threads=1)
    assert torch.equal(numbers, expected)
    del noise
