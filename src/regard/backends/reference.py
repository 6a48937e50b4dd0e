"""Attention written down once, dense and in float64: the oracle of every test. Not for speed."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._typing import MaskMod
from regard.backends.protocol import Capabilities, Results
from regard.scores import Scores

CAPABILITIES = Capabilities()
backward = None  # autograd differentiates `forward`, forwards and backwards, as often as wanted


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool | str = False,
    window: tuple[int | None, int | None] = (None, None),
    lengths: Tensor | None = None,
    segments: tuple[Tensor, Tensor] | None = None,
    mask: Tensor | MaskMod | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B,H,Q,E), lse (B,H,Q) and weights (B,H,Q,K) of query (B,H,Q,D), key (B,G,K,D) and value (B,G,K,E).

    s = bias + softcap(scale · q·k)      w = softmax(s)      output = Σ_j w_ij v_j      lse = log Σ_j exp(s_ij)
    """
    query, key, value = (tensor.double() for tensor in (query, key, value))
    (batch, heads, queries, dim), (groups, keys) = query.shape, key.shape[1:3]
    key, value = (tensor.repeat_interleave(heads // max(groups, 1), dim=1) for tensor in (key, value))
    scores = query @ key.mT * (dim**-0.5 if scale is None else scale)  # (B, H, Q, K)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.double()

    i, j = torch.arange(queries, device=query.device)[:, None], torch.arange(keys, device=query.device)
    whole = torch.tensor([[0, queries], [0, keys]], device=i.device)
    query_ends, key_ends = (bounds.to(i.device) for bounds in (whole if segments is None else segments))
    segment_i = (i >= query_ends[1:]).sum(-1, keepdim=True).clamp(max=len(query_ends) - 2)
    segment_j = (j[:, None] >= key_ends[1:]).sum(-1)
    ahead = (j - key_ends[segment_i + 1]) - (i - query_ends[segment_i + 1])
    if (
        causal == "lengths" and lengths is not None
    ):  # the last query stands at the last key within the length, and not at the last of all
        ahead = ahead + keys - lengths[:, None, None, None]
    visible = (segment_i == segment_j).expand(batch, heads, queries, keys)
    if causal:
        visible = visible & (ahead <= 0)
    if window[0] is not None:
        visible = visible & (ahead >= -window[0])
    if window[1] is not None:
        visible = visible & (ahead <= window[1])
    if lengths is not None:
        visible = visible & (j < lengths[:, None, None, None])
    if mask is not None:
        b, h = (torch.arange(n, device=i.device) for n in (batch, heads))
        visible = visible & (mask if isinstance(mask, Tensor) else mask(b[:, None, None, None], h[:, None, None], i, j))

    scores = logits = scores.masked_fill(~visible, -torch.inf)
    if sinks is not None:  # a sink is one more key that everybody sees, and that has no value
        logits = torch.cat([scores, sinks.double()[None, :, None, None].expand(batch, heads, queries, 1)], -1)
    hidden, nothing = scores == -torch.inf, (logits == -torch.inf).all(-1, keepdim=True)
    logits = logits.masked_fill(nothing, 0)  # a row that sees nothing has no softmax, and no gradient
    # Counted from the largest, and not weights = exp(scores − lse): beside a score of 1e17 an lse has no digits left.
    largest = logits.detach().amax(-1, keepdim=True) if logits.shape[-1] else torch.zeros_like(logits.sum(-1, True))
    largest = largest.masked_fill(~largest.isfinite(), 0)
    lse = ((logits - largest).logsumexp(-1) + largest[..., 0]).masked_fill(nothing[..., 0], -torch.inf)
    weights = logits.softmax(-1)[..., :keys].masked_fill(hidden, 0)
    if value.isfinite().all():
        return weights @ value, lse, weights
    products = (weights[..., None] * value[:, :, None]).masked_fill(hidden[..., None], 0)  # 0 · nan, unseen, is 0
    return products.sum(-2), lse, weights


def reasons(scores: Scores, value: Tensor) -> list[str]:
    """Why this backend cannot serve: it always can, in N × N memory."""
    return CAPABILITIES.reasons(scores, value)


def forward(scores: Scores, value: Tensor, sinks: Tensor | None, entropy: bool, top: int) -> Results:
    """Output, lse, and the entropy and the `top` largest weights with their keys, where they are asked for."""
    mask = scores.mask
    causal = "lengths" if mask.to_lengths else mask.causal
    output, lse, weights = attention(
        scores.query, scores.key, value, causal=causal, window=mask.window, lengths=mask.lengths,
        segments=mask.segments, mask=mask.given, bias=scores.bias, scale=scores.scale, softcap=scores.softcap,
        sinks=sinks,
    )  # fmt: skip
    weights = weights.detach().to(scores.dtype)
    entropies = torch.special.entr(weights).sum(-1) if entropy else weights.new_empty(0)
    ordered = weights.sort(dim=-1, descending=True, stable=True) if top else (weights, weights.long())
    values, keys = (tensor[..., :top] for tensor in ordered)
    return output.to(value.dtype), lse.to(scores.dtype), entropies, values, keys
