"""What attention() must give: the float64 reference and plain PyTorch; with inputs and options by name to try it on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import regard
from regard.backends import reference
from regard.backends.protocol import TOLERANCES


def agree(actual, expected, tolerance=None):
    """Assert the same shape, nan and ±inf in the same places, and all else within the tolerance of its type."""
    tolerance = TOLERANCES[actual.dtype] if tolerance is None else tolerance
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0, equal_nan=True)


def no_worse(actual, plain, expected):
    """Assert that the error is at most twice that of plain PyTorch in the same precision."""
    assert actual.dtype == plain.dtype
    error, plain_error = ((result.double() - expected).abs().max() for result in (actual, plain))
    assert error <= 2 * plain_error, f"error {error:.2g}, plain PyTorch's {plain_error:.2g}"


def inputs(batch=2, heads=6, groups=3, queries=5, keys=11, dim=7, value_dim=13, dtype=torch.float32):
    """Query, key and value of sizes that are prime and unequal, so that no two axes can be confused."""
    return (
        torch.randn(batch, heads, queries, dim, dtype=dtype),
        torch.randn(batch, groups, keys, dim, dtype=dtype),
        torch.randn(batch, groups, keys, value_dim, dtype=dtype),
    )


OPTIONS = [
    "causal", "left", "right", "window", "lengths", "segments", "segment pair", "padding", "full mask", "key mask",
    "query mask", "rule", "bias", "key bias", "hiding bias", "scale", "softcap", "sinks",
]  # fmt: skip


OPTION_SETS = {
    "plain": [],
    "causal": ["causal"],
    "window": ["window", "lengths"],
    "masked": ["full mask", "bias"],
    "packed": ["segment pair", "key bias"],
    "sinks": ["sinks", "softcap", "lengths", "bias"],
    "rule": ["rule", "scale"],
}


def option(name, query, key):
    """One option of attention() by name, made to fit: {argument: value}."""
    (batch, heads, queries, _), keys = query.shape, key.shape[2]

    def random_mask(*shape):
        return {"mask": torch.rand(shape) < 0.6}

    def boundaries(total, *inner):
        return torch.tensor([0, *sorted(int(share * total) for share in inner), total], dtype=torch.int32)

    made = {
        "causal": lambda: {"causal": True},
        "left": lambda: {"window": (2, None)},
        "right": lambda: {"window": (None, 1)},
        "window": lambda: {"window": (3, 1)},
        "lengths": lambda: {"lengths": torch.randint(0, keys + 1, (batch,))},
        "segments": lambda: {"segments": boundaries(queries, 0.3, 0.3, 0.8)},  # the second is empty
        "segment pair": lambda: {"segments": (boundaries(queries, 0.4, 0.4), boundaries(keys, 0.0, 0.6))},
        "padding": lambda: random_mask(batch, 1, 1, keys),
        "full mask": lambda: random_mask(batch, heads, queries, keys),
        "key mask": lambda: random_mask(keys),
        "query mask": lambda: random_mask(heads, queries, 1),
        "rule": lambda: {"mask": lambda b, h, q, k: (q + 2 * k + b + h) % 3 != 0},
        "bias": lambda: {"bias": torch.randn(heads, queries, keys, dtype=query.dtype)},
        "key bias": lambda: {"bias": torch.randn(batch, 1, 1, keys, dtype=query.dtype)},
        "hiding bias": lambda: {"bias": torch.where(torch.rand(queries, keys) < 0.4, -torch.inf, 0.5)},
        "scale": lambda: {"scale": -1.8 / query.shape[-1] ** 0.5},  # further apart than by default, and turned round
        "softcap": lambda: {"softcap": 0.8},
        "sinks": lambda: {"sinks": torch.randn(heads, dtype=query.dtype)},
    }  # fmt: skip
    return made[name]()


def options(names, query, key):
    """Several options by name, as keyword arguments."""
    return {argument: value for name in names for argument, value in option(name, query, key).items()}


def plain(query, key, value, *, bias=None, scale=None, softcap=None, sinks=None, **masking):
    """The same by torch.nn.functional.scaled_dot_product_attention, in the precision of the inputs; output alone."""
    (batch, heads, queries, _), keys = query.shape, key.shape[2]
    given = masking.get("lengths"), masking.get("segments")
    masking["lengths"] = given[0] if given[0] is None else torch.as_tensor(given[0])
    masking["segments"] = given[1] if given[1] is None or isinstance(given[1], tuple) else (given[1], given[1])
    masking["window"] = masking.get("window") or (None, None)
    zeros = query.new_zeros(batch, heads, queries, 1), query.new_zeros(batch, heads, keys, 1)
    visible = reference.attention(*zeros, zeros[1], **masking)[2] > 0  # of equal scores, only the hidden weigh nothing
    added = query.new_zeros(visible.shape).masked_fill_(~visible, -torch.inf)
    added = added if bias is None else added + bias.to(query.dtype)
    assert softcap is None, "scaled_dot_product_attention has no softcap"
    if sinks is not None:  # one more key that everybody sees, with a score of its own and a value of nothing
        added = torch.cat([added, sinks[:, None, None].expand(batch, heads, queries, 1)], -1)
        key, value = F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1))
    return F.scaled_dot_product_attention(query, key, value, added, scale=scale, enable_gqa=True)


def oracle(query, key, value, *, lengths=None, segments=None, window=None, **more):
    """Output, lse and weights of the float64 reference, from the arguments of attention()."""
    lengths = lengths if lengths is None else torch.as_tensor(lengths)
    segments = segments if segments is None or isinstance(segments, tuple) else (segments, segments)
    leading = query.shape[:-2]
    four = [tensor[(None,) * (4 - tensor.ndim)] for tensor in (query, key, value)]
    found = reference.attention(*four, lengths=lengths, segments=segments, window=window or (None, None), **more)
    return tuple(tensor.reshape(*leading, *tensor.shape[2:]) for tensor in found)


def forced(backend, query, key, value, **more):
    """The backend's name or, where it says that it cannot serve, None: then the first that can is looked at."""
    if backend == "cpu" and (query.dtype == torch.float64 or callable(more.get("mask"))):
        with pytest.raises(ValueError, match="'cpu' cannot serve"):
            regard.attention(query, key, value, backend=backend, **more)
        return None
    return backend


def check(query, key, value, *, backend=None, collect=(), tolerance=None, **more):
    """Assert that attention() agrees with the reference: output, lse and weights. Returns what it gave.

    A backend that cannot serve must say so; the first that can is checked in its place.
    """
    backend = forced(backend, query, key, value, **more)
    found = regard.attention(query, key, value, backend=backend, collect=collect, **more)
    output, lse, weights = oracle(query, key, value, **more)
    agree(found.output, output, tolerance)
    agree(found.lse, lse, tolerance)
    agree(found.weights.dense(), weights, tolerance)
    return found


def spearman(one, other):
    return float(torch.corrcoef(torch.stack([ranks(one), ranks(other)]))[0, 1])


def ranks(numbers):
    """From the least on; those that are equal share the mean of their ranks."""
    _, groups, counts = numbers.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts - 1) / 2)[groups]
