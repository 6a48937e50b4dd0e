"""What must hold of any attention, whatever the numbers: laws, tried on drawn sizes and options."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import regard
from regard.backends.torch import merge

SIZES = st.sampled_from([1, 2, 3, 5, 7, 11, 13])
HIDING = ["causal", "left", "right", "window", "lengths", "segment pair", "padding", "full mask", "query mask", "rule"]
OTHERS = ["bias", "key bias", "hiding bias", "scale", "softcap", "sinks"]


@st.composite
def problems(draw, names=(*HIDING, *OTHERS), dtype=torch.float64):
    """Names of options, sizes and a seed; the numbers are made from them."""
    groups = draw(st.sampled_from([1, 2, 3]))
    sizes = {
        "batch": draw(st.sampled_from([1, 2])),
        "heads": groups * draw(st.sampled_from([1, 2, 3])),
        "groups": groups,
        **{name: draw(SIZES) for name in ("queries", "keys", "dim", "value_dim")},
    }
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=5)) if names else []
    return chosen, sizes, draw(st.integers(0, 2**31)), dtype


def made(kit, problem):
    chosen, sizes, seed, dtype = problem
    torch.manual_seed(seed)
    query, key, value = kit.inputs(**sizes, dtype=dtype)
    return query, key, value, kit.options(chosen, query, key)


@given(problems())
def test_any_options_agree_with_the_reference(kit, problem):
    query, key, value, more = made(kit, problem)
    kit.check(query, key, value, **more)


@given(problems(dtype=torch.float32))
def test_any_look_agrees_with_the_dense_matrix(kit, problem):
    query, key, value, more = made(kit, problem)
    weights = regard.attention(query, key, value, **more).weights
    dense = kit.oracle(query, key, value, **more)[2]
    kit.agree(weights[...], dense)
    kit.agree(weights.entropy(), torch.special.entr(dense).sum(-1))
    kit.agree(weights.received(), dense.sum(-2))
    kit.agree(weights.topk(1).values[..., 0], dense.amax(-1))
    kit.agree(weights.pool(1, 1, "max")[..., 0, 0], dense.amax((-2, -1)))
    kit.agree(weights.T @ torch.ones(query.shape[2], 1), dense.sum(-2)[..., None])
    kit.agree(weights.sink() + dense.sum(-1).float(), (weights.lse > -torch.inf).double())


@given(problems(names=["key bias", "padding", "full mask", "bias", "scale", "softcap", "sinks"]))
def test_the_order_of_keys_changes_nothing(kit, problem):
    query, key, value, more = made(kit, problem)
    order = torch.randperm(key.shape[2])
    moved = {name: more[name][..., order] for name in ("mask", "bias") if name in more}
    result = regard.attention(query, key, value, **more)
    other = regard.attention(query, key[:, :, order], value[:, :, order], **more | moved)
    kit.agree(other.output, result.output)
    kit.agree(other.lse, result.lse)
    kit.agree(other.weights.dense(), result.weights.dense()[..., order])
    kit.agree(other.weights.entropy(), result.weights.entropy())


@given(problems(names=["lengths", "padding", "full mask", "bias", "scale", "softcap", "sinks"]))
def test_the_order_of_queries_is_the_order_of_rows(kit, problem):
    query, key, value, more = made(kit, problem)
    order = torch.randperm(query.shape[2])

    def moved(tensor):
        return tensor[..., order, :] if tensor.shape[-2] > 1 else tensor

    result = regard.attention(query, key, value, **more)
    other = regard.attention(
        query[:, :, order], key, value, **more | {name: moved(more[name]) for name in ("mask", "bias") if name in more}
    )
    kit.agree(other.output, result.output[:, :, order])
    kit.agree(other.lse, result.lse[..., order])
    kit.agree(other.weights.dense(), result.weights.dense()[:, :, order])
    kit.agree(other.weights.received(), result.weights.received())


@given(problems(names=[*HIDING, "softcap", "scale"]), st.floats(-50, 50))
def test_a_constant_added_to_a_row_changes_no_weight(kit, problem, constant):
    query, key, value, more = made(kit, problem)
    column = torch.randn(query.shape[2], 1, dtype=query.dtype) + constant  # one number a query, the same for every key
    result = regard.attention(query, key, value, **more)
    other = regard.attention(query, key, value, **more, bias=column)
    kit.agree(other.weights.dense(), result.weights.dense())
    kit.agree(other.output, result.output)
    kit.agree(other.lse, result.lse + column[:, 0])


@given(problems(names=["padding", "full mask", "bias", "scale", "softcap"]), st.floats(0, 1))
def test_parts_of_the_keys_merge_by_their_lse(kit, problem, share):
    query, key, value, more = made(kit, problem)
    cut = int(share * key.shape[2])

    def over(section):
        cut_options = {name: more[name][..., section] for name in ("mask", "bias") if name in more}
        result = regard.attention(query, key[:, :, section], value[:, :, section], **more | cut_options)
        return result.output, result.lse

    output, lse = merge(over(slice(0, cut)), over(slice(cut, None)))
    whole = regard.attention(query, key, value, **more)
    kit.agree(output, whole.output)
    kit.agree(lse, whole.lse)


@given(problems())
def test_sequences_heads_and_options_do_not_meddle(kit, problem):
    """What the first sequence gets does not depend on the second."""
    query, key, value, more = made(kit, problem)
    result = regard.attention(query, key, value, **more)
    first = {
        name: option[:1] if isinstance(option, torch.Tensor) and (name == "lengths" or option.ndim == 4) else option
        for name, option in more.items()
    }
    alone = regard.attention(query[:1], key[:1], value[:1], **first)
    kit.agree(alone.output, result.output[:1])
    kit.agree(alone.weights.dense(), result.weights.dense()[:1])


@given(problems(names=OTHERS))
def test_packed_is_one_after_the_other(kit, problem):
    query, key, value, more = made(kit, problem)
    more.pop("bias", None)
    queries, keys = query.shape[2], key.shape[2]
    bounds = torch.tensor([0, queries // 2, queries]), torch.tensor([0, keys // 3, keys])
    packed = regard.attention(query, key, value, segments=bounds, causal=True, **more)
    for n in range(2):
        rows, columns = (slice(*bound[n : n + 2].tolist()) for bound in bounds)
        alone = regard.attention(query[:, :, rows], key[:, :, columns], value[:, :, columns], causal=True, **more)
        kit.agree(packed.output[:, :, rows], alone.output)
        kit.agree(packed.weights[:, :, rows, columns], alone.weights.dense())


def test_a_law_can_fail(kit):
    """Causal attention does depend on the order of its keys."""
    query, key, value = kit.inputs(queries=7, keys=7)
    order = torch.randperm(7)
    actual = regard.attention(query, key, value, causal=True).output
    other = regard.attention(query, key[:, :, order], value[:, :, order], causal=True).output
    with pytest.raises(AssertionError, match="not close"):
        kit.agree(other, actual)
