"""Every way to look into the matrix that is never stored, against the matrix, stored."""

import copy
import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch

import regard
from regard.backends import cpu, streaming
from regard.scores import Scores
from regard.weights import Weights, reductions
from regard.weights import map as weights_module

OPTIONS = {
    "plain": [],
    "causal": ["causal"],
    "window": ["window", "lengths"],
    "masked": ["full mask", "bias"],
    "packed": ["segment pair", "causal"],
    "sinks": ["sinks", "softcap", "lengths"],
}


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS)
def both(kit, request):
    """Weights, and the same from the reference, dense in float64."""
    query, key, value = kit.inputs()
    more = kit.options(request.param, query, key)
    return regard.attention(query, key, value, **more).weights, kit.oracle(query, key, value, **more)[2]


@pytest.fixture
def plain(kit):
    return regard.attention(*kit.inputs()).weights


def sorted_dense(dense, k):
    """The k largest by a stable sort: ties to the lower index."""
    result = dense.sort(dim=-1, descending=True, stable=True)
    return result.values[..., :k], result.indices[..., :k]


# Parts


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        (0, 3, 4),
        (1, -6, -5, -11),
        (0, slice(1, 3)),
        (..., 7),
        (..., slice(1, 3), slice(4, 9)),
        (slice(None), slice(None, None, 2), slice(4, None), slice(1, 10, 4)),
        (slice(5, 2), 0),
        (..., slice(-3, None)),
        (0, ..., 2),
        (0, 1, ..., 2, 3),
        ...,
        (),
        [1, 0],
        (0, [4, 4, -1]),
        (..., [1, 4], slice(None)),
        (..., [10, 0, 3]),
        (0, 1, []),
        (..., [True, False, True, False, True], slice(None)),
        (0, 0, torch.tensor([4, 0])),
        (..., torch.tensor([1, 2, 3], dtype=torch.int32)),
        (..., torch.arange(11) % 3 == 0),
        (torch.tensor(1), 2),
        (0, 1, np.int64(3)),
        (0, 1, np.array([3, 0])),
        (0, 1, range(2)),
        None,
        (None, 0, None, ..., 3, None),
        (..., [1, 4], None),
        True,
        (0, False),
        torch.zeros(2, 6, dtype=torch.long),
        ([0, 1], [0, 1]),
        ([1, 0], slice(None), [4, 0]),
        (0, ..., [[1, 2], [3, 4]]),
        torch.arange(12).view(2, 6) % 5 == 0,
        (torch.tensor(True), 1),
        np.arange(12).reshape(2, 6) % 5 == 0,
    ],
    ids=str,
)
def test_a_part_is_that_part_of_the_matrix(kit, both, index):
    weights, dense = both
    kit.agree(weights[index], dense[index])


@pytest.mark.parametrize("leading", [(), (3,)])
def test_parts_of_fewer_dimensions(kit, leading):
    x = torch.randn(*leading, 5, 7)
    weights = regard.attention(x, x, x, causal=True).weights
    dense = weights.dense()
    for index in (0, -1, (..., 2), (..., slice(1, 3), [0, 4]), ...):
        kit.agree(weights[index], dense[index])


@pytest.mark.parametrize(
    ("index", "match"),
    [
        (2, "cannot take 2 from the 2 of dimension -4"),
        ((0, -7), "cannot take -7 from the 6 of dimension -3"),
        ((0, 1, [0, 5]), r"cannot take \[0, 5\] from the 5 of dimension -2"),
        ((..., torch.tensor([11])), "dimension -1"),
        ((..., [True, False]), "dimension -1"),
        ((..., 1.5), "dimension -1"),
        ((..., torch.tensor([1.5])), "dimension -1"),
        ((..., "word"), "dimension -1"),
        ((..., slice(None, None, -1)), "dimension -1"),
        ((0, 1, 2, 3, 4), r"Weights\(2, 6, 5, 11\): expected at most 4 indices and one `...`. Got 5"),
        ((..., 1, ...), "expected at most 4 indices"),
        ((0, None, 1, 2, 3, 4), "expected at most 4 indices"),
    ],
    ids=str,
)
def test_a_bad_index_says_what_is_wrong(plain, index, match):
    with pytest.raises(IndexError, match=match):
        plain[index]


def test_large_parts_by_blocks_and_by_lse(kit, monkeypatch):
    query, key, value = kit.inputs(queries=31, keys=37)
    for more in ({}, {"window": (9, 2)}, {"sinks": torch.randn(6)}, {"lengths": [0, 20]}):
        dense = kit.oracle(query, key, value, **more)[2]
        weights = regard.attention(query, key, value, **more).weights
        for block in (1, 100, 10_000):
            monkeypatch.setattr(reductions, "BLOCK", block)
            for index in (
                ...,
                (..., slice(3, 29), slice(5, 8)),
                (..., 4),
                (0, 1, [0, 2, 30]),
                (..., [1, 4], slice(7, 20)),
            ):
                kit.agree(weights[index], dense[index])


def test_a_narrow_part_of_many_rows_costs_no_whole_rows(plain, monkeypatch):
    column = plain.dense()[..., 4]
    monkeypatch.setattr(reductions, "BLOCK", 10)
    monkeypatch.setattr(streaming, "softmax", None)
    torch.testing.assert_close(plain[..., 4], column)


def test_iterating_goes_by_sequence(kit, plain):
    assert len(plain) == 2
    kit.agree(torch.stack(list(plain)), plain.dense().double())


def test_a_part_larger_than_the_limit_is_refused(monkeypatch, plain):
    monkeypatch.setattr(weights_module, "DENSE_LIMIT", 1000)
    assert plain[0, 0].shape == (5, 11)
    with pytest.raises(
        ValueError, match=r"Weights\(2, 6, 5, 11\): \(6, 5, 11\) weights take .* Ask for a smaller part"
    ):
        plain[0]


def test_the_limit_is_that_of_all_that_is_asked_for():
    x = torch.randn(16, 5000, 1)
    weights = regard.attention(x, x, x).weights
    for ask, shape, advice in (
        (lambda: weights.pool(5000, 5000), "16, 5000, 5000", "Ask for fewer cells"),
        (lambda: weights.topk(5000), "16, 5000, 5000", "Ask for fewer"),
        (lambda: weights.grouped(), "16, 5000, 5000", "Make fewer groups"),
        (lambda: weights @ torch.ones(1, 1).expand(5000, 5000), "16, 5000, 5000", "fewer vectors at a time"),
        (lambda: weights.T @ torch.ones(1, 1).expand(5000, 5000), "16, 5000, 5000", "fewer vectors at a time"),
        (lambda: weights[:, :, :4999], "16, 5000, 4999", "Ask for a smaller part"),
    ):
        with pytest.raises(ValueError, match=rf"Weights\(16, 5000, 5000\): \({shape}\) weights take .*{advice}"):
            ask()


def test_a_part_costs_what_it_names(monkeypatch):
    """Whole rows are computed only where they are asked for, or where the lse is too large to be exact."""
    x = torch.randn(1, 2, 300, 8)
    columns = []

    def watched(scores, at, tile=Scores.tile):
        columns.append(at.columns.stop - at.columns.start if isinstance(at.columns, slice) else len(at.columns))
        return tile(scores, at)

    for scale in (1.0, 1e3):
        weights = regard.attention(x, x, x, scale=scale, backend="torch").weights
        dense = weights.dense()
        monkeypatch.setattr(Scores, "tile", watched)
        for index, count in (
            ((..., 0), 1),
            ((..., [3, 200]), 2),
            ((..., slice(5, 9), slice(7, 12)), 5),
            ((0, 1, 2), 300),
        ):
            columns.clear()
            torch.testing.assert_close(weights[index], dense[index], atol=1e-5, rtol=0)
            assert set(columns) == {count if scale == 1 else 300}
        monkeypatch.undo()


def test_dense(kit, both):
    weights, dense = both
    kit.agree(weights.dense(), dense)


def test_dense_refuses_past_its_limit():
    x = torch.randn(30_000, 2)
    weights = regard.attention(x, x, x).weights
    with pytest.raises(
        ValueError, match=r"\(30000, 30000\) weights take 3.4 GiB, more than the limit of 1.0 GiB"
    ) as error:
        weights.dense()
    assert "dense(limit=…)" in str(error.value)
    small = regard.attention(x[:5], x[:5], x[:5]).weights
    with pytest.raises(ValueError, match="limit"):
        small.dense(limit=99)
    assert small.dense(limit=100).shape == (5, 5)


# Rows


def test_entropy(kit, both):
    weights, dense = both
    kit.agree(weights.entropy(), torch.special.entr(dense).sum(-1))


@pytest.mark.parametrize("sink", [None, -9.0, 9.0])
@pytest.mark.parametrize("gap", [3, 10, 14, 17, 20, 40, 80])
def test_entropy_where_one_weight_is_nearly_one(gap, sink):
    """To the digits that float32 has, however small: ln w of a weight that rounds to 1 has none."""
    key = torch.tensor([0.0, -gap, -gap - 1, -gap - 2]).view(1, 1, 4, 1)
    sinks = None if sink is None else torch.tensor([sink])
    logits = key.double().flatten() if sink is None else torch.cat([key.double().flatten(), sinks.double()])
    largest, others = logits.sort(descending=True).values.split([1, len(logits) - 1])
    logs = logits[:4] - largest - (others - largest).exp().sum().log1p()
    expected = -(logs.exp() * logs).sum()
    # The kernel's own lse is in float64; with one in float32 the blocks of PyTorch are asked.
    weights = regard.attention(torch.ones(1, 1, 1, 1), key, key, sinks=sinks, backend="torch").weights
    torch.testing.assert_close(weights.entropy().double()[0, 0, 0], expected, rtol=2e-6, atol=1e-30)


def test_entropy_at_its_ends():
    same = torch.ones(1, 1, 7, 3)
    entropy = regard.attention(same, same, same, causal=True).weights.entropy()[0, 0]
    torch.testing.assert_close(entropy, torch.arange(1, 8).log())
    assert math.copysign(1, entropy[0]) == 1  # 0, and not −0


def test_max(kit, both):
    weights, dense = both
    result = weights.max()
    kit.agree(result.values, dense.amax(-1))
    kit.agree(dense.gather(-1, result.indices[..., None])[..., 0], dense.amax(-1))
    assert torch.equal(result.indices, weights.dense().argmax(-1))


def test_distance(kit, both):
    weights, dense = both
    apart = (torch.arange(5)[:, None] - torch.arange(11)).abs()
    kit.agree(weights.distance(), (dense * apart).sum(-1), 1e-4)  # up to 10 positions


@pytest.mark.parametrize("k", [1, 2, 7, 11])
def test_topk(kit, both, k):
    weights, dense = both
    result = weights.topk(k)
    values, indices = sorted_dense(weights.dense(), k)
    assert torch.equal(result.values, values)
    assert torch.equal(result.indices, indices)
    kit.agree(result.values, sorted_dense(dense, k)[0])


@pytest.mark.parametrize("k", [1, 2, 3, 5, 16, 61])
@pytest.mark.parametrize("levels", [1, 2, 5, 40])
@pytest.mark.parametrize("names", [[], ["causal"], ["window"], ["lengths"], ["full mask"]], ids=str)
def test_topk_breaks_ties_to_the_lower_index(kit, names, levels, k):
    query, key, value = torch.ones(2, 6, 67, 1), torch.randint(levels, (2, 3, 61, 1)).float(), torch.zeros(2, 3, 61, 1)
    weights = regard.attention(query, key, value, **kit.options(names, query, key)).weights
    values, indices = sorted_dense(weights.dense(), k)
    result = weights.topk(k)
    assert torch.equal(result.values, values)
    assert torch.equal(result.indices, indices)


@pytest.mark.parametrize("k", [1, 2, 8, 63, 64, 65, 199, 200])
def test_scores_that_round_to_the_same_weight_are_ties(kit, backend, k):
    """Scores near 0 are finer than the weights that they make."""
    query, key = torch.randn(1, 1, 61, 8) * 1e-6, torch.randn(1, 1, 200, 8)
    for name in (f"topk:{k}", "entropy"):  # collected, and asked for later
        weights = regard.attention(query, key, key, collect=(name,), backend=backend).weights
        values, indices = sorted_dense(weights.dense(), k)
        result = weights.topk(k)
        if backend == "reference":  # whose weights are rounded from float64
            kit.agree(result.values, values.double())
            continue
        assert torch.equal(result.values, values)
        assert torch.equal(result.indices, indices)


def test_weights_of_nothing_are_ties_however_low_their_scores():
    key = torch.tensor([-300.0, -200.0, 0.0, -150.0, -400.0]).view(5, 1)
    result = regard.attention(torch.ones(1, 1), key, key).weights.topk(4)
    assert result.values.tolist() == [[1, 0, 0, 0]]
    assert result.indices.tolist() == [[2, 0, 1, 3]]


@pytest.mark.parametrize("hidden", [False, True])
def test_rows_that_are_nan(kit, backend, hidden):
    """A nan is the largest, as in torch; keys that a row may not see weigh 0 all the same."""
    query, key, value = kit.inputs(queries=11)
    key[:, :, 4] = torch.nan  # seen by the last rows alone
    more = {"mask": torch.arange(11) != 2} if hidden else {}
    result = regard.attention(
        query, key, value, causal=True, collect=("entropy", "max", "topk:3"), backend=backend, **more
    )
    later = regard.attention(query, key, value, causal=True, **more).weights
    dense = later.dense()
    assert dense.isnan().any(-1)[0, 0].tolist() == [False] * 4 + [True] * 7
    for weights in (result.weights, later):
        for k in (1, 3, 11):
            values, indices = sorted_dense(dense, k)
            top = weights.topk(k)
            kit.agree(top.values, values.double())
            assert torch.equal(top.indices, indices)
        assert torch.equal(weights.max().indices, dense.argmax(-1))
        assert torch.equal(weights.max().values.isnan(), dense.isnan().any(-1))
        assert torch.equal(weights.entropy().isnan(), dense.isnan().any(-1))
        assert torch.equal(weights.distance().isnan(), dense.isnan().any(-1))


def test_topk_where_fewer_are_seen():
    same = torch.ones(1, 1, 4, 3)
    result = regard.attention(same, same, same, window=(0, 0)).weights.topk(3)
    assert result.indices[0, 0].tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 0, 1]]
    assert result.values[0, 0].tolist() == [[1, 0, 0]] * 4


@pytest.mark.parametrize("k", [0, 12, -1, 2.5, "many"])
def test_topk_of_too_many(plain, k):
    with pytest.raises(ValueError, match="topk"):
        plain.topk(k)


def test_sink(kit):
    query, key, value = kit.inputs()
    sinks = torch.randn(6)
    result = regard.attention(query, key, value, sinks=sinks, lengths=[0, 7])
    dense = kit.oracle(query, key, value, sinks=sinks, lengths=[0, 7])[2]
    kit.agree(result.weights.sink(), 1 - dense.sum(-1))
    assert torch.equal(result.weights.sinks, sinks)
    assert (result.weights.sink()[0] == 1).all()  # all else is unseen
    assert not regard.attention(query, key, value).weights.sink().any()


# Rows and columns together


def test_received(kit, both):
    weights, dense = both
    kit.agree(weights.received(), dense.sum(-2))


@pytest.mark.parametrize("queries", [None, [0, 0, 1, 1, 1], [2, 0, 2, -1, 0], [-1] * 5], ids=str)
@pytest.mark.parametrize(
    "keys", [None, [0, 1, 1, 1, 2, 2, 3, 4, 4, 4, 4], [3, -1, 0, 0, 3, 1, -1, 1, 0, 6, 3], [-1] * 11], ids=str
)
def test_grouped(kit, both, queries, keys):
    weights, dense = both
    rows = torch.tensor(queries if queries else range(5))
    columns = torch.tensor(keys if keys else range(11))
    one_hot = [(groups[:, None] == torch.arange(int(groups.max()) + 1)).double() for groups in (rows, columns)]
    mean = one_hot[0] / one_hot[0].sum(0).clamp(min=1)  # a group of nobody gets 0
    expected = torch.einsum("bhqk,qr,kc->bhrc", dense, mean, one_hot[1])
    given = [groups if groups is None else torch.tensor(groups) for groups in (queries, keys)]
    kit.agree(weights.grouped(queries=given[0], keys=given[1]), expected)


def test_grouped_sums_a_long_row_to_one():
    x = torch.randn(3001, 2) / 10
    weights = regard.attention(x, x, x).weights
    everything = torch.zeros(3001, dtype=torch.long)
    torch.testing.assert_close(weights.grouped(keys=everything), torch.ones(3001, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(weights.grouped(everything, everything), torch.ones(1, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [[0] * 6, [[0] * 5], [0.0] * 5, [True] * 5], ids=str)
def test_grouped_wants_a_group_a_position(plain, bad):
    with pytest.raises(ValueError, match=r"Weights\(2, 6, 5, 11\).grouped: queries: .* 5 integers. Got \("):
        plain.grouped(queries=torch.tensor(bad))


@pytest.mark.parametrize("name", ["queries", "keys"])
def test_grouped_below_none(plain, name):
    size = {"queries": 5, "keys": 11}[name]
    with pytest.raises(ValueError, match=rf"grouped: {name}: expected groups from 0 on, or −1 for none. Got -5"):
        plain.grouped(**{name: [-5] * size})
    assert plain.grouped(**{name: [-1] * size}).numel() == 0


def test_numbers_of_numpy_are_numbers(kit, plain):
    dense = plain.dense().double()
    kit.agree(plain.grouped(np.zeros(5, np.int32), np.arange(11, dtype=np.uint8)), dense.mean(-2, keepdim=True))
    kit.agree(plain.pool(np.int64(1), np.int32(11), "sum"), dense.sum(-2, keepdim=True))
    assert torch.equal(plain.topk(np.int64(3)).values, plain.topk(3).values)
    assert torch.equal(plain.topk(torch.tensor(3)).values, plain.topk(3).values)


def test_grouped_into_too_many(plain):
    with pytest.raises(ValueError, match="Make fewer groups"):
        plain.grouped(queries=torch.full((5,), 10**9))


@pytest.mark.parametrize("reduce", ["mean", "max", "sum"])
@pytest.mark.parametrize("cells", [(1, 1), (5, 11), (2, 3), (4, 7), (3, 11)], ids=str)
def test_pool(kit, both, cells, reduce):
    weights, dense = both
    of_row, of_column = (
        [n * size // count for n in range(count + 1)] for count, size in zip(cells, (5, 11), strict=True)
    )
    expected = torch.empty(2, 6, *cells, dtype=torch.float64)
    for row, column in product(range(cells[0]), range(cells[1])):
        cell = dense[:, :, of_row[row] : of_row[row + 1], of_column[column] : of_column[column + 1]]
        expected[:, :, row, column] = {"mean": torch.mean, "max": torch.amax, "sum": torch.sum}[reduce](cell, (-2, -1))
    kit.agree(weights.pool(*cells, reduce), expected)
    if reduce == "mean":
        kit.agree(weights.pool(*cells), expected)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 3), "rows: expected 1 to 5, as many as there are positions. Got 0"),
        ((6, 3), "rows: expected 1 to 5"),
        ((2, 12), "cols: expected 1 to 11"),
        ((2.5, 3), "rows: expected 1 to 5, .* Got 2.5"),
        ((2, 3, "median"), "reduce: expected 'mean', 'max' or 'sum'"),
    ],
)
def test_pool_of_bad_sizes(plain, arguments, match):
    with pytest.raises(ValueError, match=r"Weights\(2, 6, 5, 11\).pool\(.*: " + match):
        plain.pool(*arguments)


# Applied to other vectors


@pytest.mark.parametrize("shape", [(), (1,), (3,), (6,), (1, 1), (2, 1), (1, 3), (1, 6), (2, 3), (2, 6)], ids=str)
def test_applied_per_head_per_group_or_shared(kit, both, shape):
    weights, dense = both
    for size, apply, matrix in ((11, weights.__matmul__, dense), (5, weights.T.__matmul__, dense.mT)):
        x = torch.randn(*shape, size, 4)
        spread = x.repeat_interleave(2, dim=-3) if shape[-1:] == (3,) else x  # two query heads a group
        kit.agree(apply(x), matrix @ spread.double())


def test_applied_to_the_values_gives_the_output(kit):
    query, key, value = kit.inputs()
    result = regard.attention(query, key, value, causal=True)
    kit.agree(result.weights @ value, result.output.double())


def test_applied_by_others_types_and_devices(kit, plain):
    dense = plain.dense().double()
    kit.agree(plain @ torch.arange(22).view(11, 2), dense @ torch.arange(22.0).double().view(11, 2), 1e-4)
    kit.agree(plain @ torch.ones(11, 2).half(), torch.ones(2, 6, 5, 2))
    kit.agree(plain.mT @ torch.ones(5, 2).double(), dense.sum(-2)[..., None].expand(2, 6, 11, 2))
    assert plain.T.shape == plain.mT.shape == (2, 6, 11, 5)


@pytest.mark.parametrize("shape", [(), (3,), (6,), (2, 3)], ids=str)
def test_applied_with_a_gradient_that_keeps_no_matrix(kit, both, shape):
    weights, dense = both
    for size, apply, matrix in ((11, weights.__matmul__, dense), (5, weights.T.__matmul__, dense.mT)):
        x = torch.randn(*shape, size, 4, requires_grad=True)
        spread = x.repeat_interleave(2, dim=-3) if shape[-1:] == (3,) else x
        pull = torch.randn(2, 6, 16 - size, 4)
        (result,) = torch.autograd.grad(apply(x), x, pull)
        (expected,) = torch.autograd.grad(matrix @ spread.double(), x, pull.double())
        kit.agree(result, expected.double(), 5e-5)  # sums over heads and sequences


def test_applied_under_autocast_stays_exact(plain):
    x, y = torch.randn(11, 3), torch.randn(5, 3)
    outside = plain @ x, plain.T @ y
    with torch.autocast("cpu", torch.bfloat16):
        inside = plain @ x, plain.T @ y
    assert torch.equal(inside[0], outside[0])
    assert torch.equal(inside[1], outside[1])


def test_applied_to_what_is_not_finite(kit):
    query, key, value = kit.inputs(queries=11)
    weights = regard.attention(query, key, value, window=(1, 0)).weights
    x = torch.zeros(11, 2)
    x[4] = torch.nan
    assert (weights @ x).isnan()[0, 0, :, 0].nonzero().flatten().tolist() == [4, 5]
    assert (weights.T @ x).isnan()[0, 0, :, 0].nonzero().flatten().tolist() == [3, 4]


@pytest.mark.parametrize(
    "bad", [torch.zeros(10), torch.zeros(5, 2), torch.zeros(2, 11, 3), torch.zeros(3, 1, 11, 2), [1.0]]
)
def test_applied_to_what_does_not_fit(plain, bad):
    with pytest.raises(ValueError, match=r"Weights\(2, 6, 5, 11\) @ x: expected .*11, F.* Got "):
        plain @ bad


# Collected in the same pass


def test_collected_is_what_is_computed_later(kit, backend):
    query, key, value = kit.inputs(queries=300)
    for names in ([], ["causal", "lengths"], ["window", "sinks"]):
        more = kit.options(names, query, key)
        later = regard.attention(query, key, value, **more)
        collected = regard.attention(query, key, value, collect=("entropy", "max", "topk:3"), backend=backend, **more)
        kit.agree(collected.output, later.output)
        kit.agree(collected.lse, later.lse)
        assert collected.weights.entropy().dtype == torch.float32
        kit.agree(collected.weights.entropy(), later.weights.entropy())
        for actual, other in (
            (collected.weights.max(), later.weights.max()),
            (collected.weights.topk(3), later.weights.topk(3)),
        ):
            kit.agree(actual.values, other.values)
            assert torch.equal(actual.indices, other.indices)


def test_collected_is_not_computed_again(kit, backend, monkeypatch):
    result = regard.attention(*kit.inputs(), collect=("entropy", "max", "topk:5"), backend=backend)

    def fail(*_):
        raise AssertionError("computed again")

    for module in (cpu, streaming):
        monkeypatch.setattr(module, "statistics", fail)
    result.weights.entropy()
    result.weights.max()
    assert result.weights.topk(2).values.shape == (2, 6, 5, 2)  # the first of the five
    assert result.weights.topk(5).values.shape == (2, 6, 5, 5)
    with pytest.raises(AssertionError, match="computed again"):
        result.weights.topk(6)
    with pytest.raises(AssertionError, match="computed again"):
        result.weights.distance()


def test_statistics_collected_later_take_one_pass_together(kit, backend, monkeypatch):
    inputs, names = kit.inputs(queries=300), ("entropy", "distance", "max_score")
    apart, together = (regard.attention(*inputs, causal=True, backend=backend).weights for _ in range(2))
    passes = []
    for module in (cpu, streaming):
        compute = module.statistics
        monkeypatch.setattr(module, "statistics", lambda *given, by=compute: passes.append(given[1]) or by(*given))
    together.collect(*names, "entropy")
    assert passes == [list(names)]
    together.collect(*names)
    for name in names:
        kit.agree(getattr(together, name)(slice(17, 290)), getattr(apart, name)()[..., 17:290])
    assert len(passes) == 1 + len(names)
    with pytest.raises(ValueError, match=r"collect: expected names among .*'distance'.* Got 'variance'"):
        together.collect("variance")


def test_a_statistic_changed_in_place_stays_right(plain):
    entropy = plain.entropy()
    before = entropy.clone()
    entropy /= math.log(11)
    assert torch.equal(plain.entropy(), before)
    plain.max().values.zero_()
    assert plain.max().values.all()


# Changes in place


@pytest.mark.parametrize("changed", ["query", "key", "bias", "sinks", "mask", "lengths", "segments", "lse"])
def test_a_change_in_place_is_noticed(kit, changed):
    query, key, value = kit.inputs(queries=11)
    more = {
        "bias": torch.randn(11, 11),
        "sinks": torch.randn(6),
        "mask": torch.rand(11, 11) < 0.5,
        "lengths": torch.tensor([3, 4]),
        "segments": torch.tensor([0, 4, 11]),
    }
    result = regard.attention(query, key, value, backend="torch", **more)  # whose lse is not a copy
    result.weights.dense()
    tensors = {"query": query, "key": key, "lse": result.lse} | more
    tensors[changed].copy_(tensors[changed].clone())
    for look in (result.weights.dense, result.weights.received, lambda: result.weights[0], result.weights.entropy):
        with pytest.raises(RuntimeError, match=r"Weights\(2, 6, 11, 11\): .* changed in place"):
            look()


def test_the_value_may_change(kit):
    query, key, value = kit.inputs()
    weights = regard.attention(query, key, value).weights
    value.zero_()
    assert weights.dense().any()


def test_under_vmap(kit):
    """Each sequence by itself, whatever is asked; what is applied may be the only thing that has many."""
    query, key, value = kit.inputs()
    weights = regard.attention(query, key, value, causal=True).weights
    for look in (
        Weights.dense,
        Weights.entropy,
        Weights.received,
        Weights.distance,
        Weights.sink,
        lambda w: w.topk(3).indices,
        lambda w: w.pool(2, 2, "max"),
        lambda w: w.grouped(torch.tensor([0, 0, 1, 1, -1])),
        lambda w: w[..., [1, 2], :],
        lambda w: w.lse,
        lambda w: w * 2,
    ):
        mapped = torch.vmap(lambda *tensors, look=look: look(regard.attention(*tensors, causal=True).weights))
        torch.testing.assert_close(mapped(query, key, value), look(weights))
    x = torch.randn(3, 11, 2)
    torch.testing.assert_close(torch.vmap(lambda x: weights @ x)(x), torch.stack([weights @ actual for actual in x]))
    masks = torch.rand(4, 5, 11) < 0.7
    mapped = torch.vmap(lambda mask: regard.attention(query, key, value, mask=mask).weights.received())(masks)
    expected = [regard.attention(query, key, value, mask=mask).weights.received() for mask in masks]
    torch.testing.assert_close(mapped, torch.stack(expected))


def test_inference_mode(kit):
    query, key, value = kit.inputs()
    with torch.inference_mode():
        inside = regard.attention(*(t.clone() for t in (query, key, value)), collect=("entropy",)).weights
        entropy = inside.entropy()
        dense = inside.dense()
    weights = regard.attention(query.requires_grad_(), key, value).weights
    with torch.inference_mode():
        kit.agree(weights.dense(), dense.double())
        again = regard.attention(query, key, value, causal=True)
        assert not again.output.requires_grad
    kit.agree(inside.dense(), dense.double())  # and outside of it
    kit.agree(inside.entropy(), entropy.double())
    for look in (inside.received, inside.distance, lambda: inside.pool(2, 3), lambda: inside @ torch.ones(11, 2)):
        assert look().isfinite().all()
    kit.agree(copy.deepcopy(inside).dense(), dense.double())


# Memory


def test_looking_takes_memory_of_the_length_and_not_of_its_square():
    """At 16,384 tokens one head's matrix is 1 GiB in float32."""
    program = """
import resource, torch, regard
torch.set_num_threads(1)
x = torch.randn(64, 8)
def look(x):
    x = x.detach().requires_grad_()
    a = regard.attention(x, x, x, causal=True, collect=("entropy",))
    a.output.sum().backward()
    w, x = a.weights, x.detach()
    groups = torch.arange(len(x)) // 8
    (w @ x.clone().requires_grad_()).sum().backward()
    return (w.topk(4), w.max(), w.distance(), w.received(), w.pool(64, 64), w.pool(64, 64, "max"), w.sink(), w.T @ x,
            w.grouped(groups // 8, groups // 8), w[-1], w[5:9, 100:], w[:, 3], regard.attention(x, x, x, window=(9, 0)))
look(x)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
look(torch.randn(16384, 8))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300, f"{done.stdout} MiB"


def test_blocks_cover_the_matrix_once():
    for shape in ((3, 4, 2, 300, 17), (1, 1, 1, 5, 70_000), (50, 12, 12, 7, 11), (2, 6, 1, 1000, 1000)):
        batch, heads, groups, queries, keys = shape
        for options in ({}, {"causal": True}, {"window": (5, 3)}):
            rule = regard.mask.make_mask((batch, heads, queries, keys), torch.device("cpu"), **options)
            scores = Scores(torch.empty(batch, heads, queries, 1), torch.empty(batch, groups, keys, 1), rule, 1.0)
            for numbers in (1, 1000, 1 << 21):
                seen = torch.zeros(batch, heads, queries, dtype=torch.int)
                for at in scores.blocks(numbers):
                    seen[at.batch, at.heads, at.rows] += 1
                    size = torch.empty(batch, heads, queries, keys, device="meta")[at].numel()
                    least = scores.n_rep * (at.columns.stop - at.columns.start)  # a row of each head of a group
                    assert size <= max(2 * numbers, least)
                    assert (at.heads.stop - at.heads.start) % scores.n_rep == 0
                assert (seen == 1).all()


def test_a_narrow_window_has_few_large_blocks():
    rule = regard.mask.make_mask((1, 12, 32_768, 32_768), torch.device("cpu"), causal=True, window=(128, 0))
    x = torch.empty(1, 12, 32_768, 1)
    assert sum(1 for _ in Scores(x, x, rule, 1.0).blocks()) < 200
