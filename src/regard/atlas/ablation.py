"""Ablations: a text is read again with some heads switched off, in several ways side by side.

    zero    o_i^h = 0
    mean    o_i^h = (1/N) Σ_i o_i^h, the mean over the text
    edges   s_ij^h = −inf where (i, j) is an edge of a pattern: the other weights of the row grow to a sum of one

Michel et al. 2019, https://arxiv.org/abs/1905.10650; the mean by Wang et al. 2022, https://arxiv.org/abs/2211.00593.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn

from regard.attention import replaced_in_models
from regard.attribution.again import TOKENS_AT_ONCE, attention_without

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from regard._typing import MaskMod
    from regard.models.model import Model, Pass

Ablation = Literal["zero", "mean", "edges"]


class Experiment(NamedTuple):
    """Which heads are switched off, and how. Without heads, the model is as it is.

    Attributes:
        heads: (layer, head) of each.
        ablation: what becomes of them.
    """

    heads: Sequence[tuple[int, int]]
    ablation: Ablation = "zero"


def heads_of(passed: Pass) -> dict[int, int]:
    """By layer, how many heads its attention has; only layers that have attention, in their order."""
    attentions = enumerate(passed.attentions)
    return {layer: attention.weights.shape[-3] for layer, attention in attentions if attention is not None}


def read_without(
    model: Model,
    ids: Int[Tensor, "N"],
    experiments: Sequence[Experiment],
    heads: Mapping[int, int],
    edges: MaskMod | None = None,
) -> Iterator[tuple[int, Float[Tensor, "N dim"]]]:
    """The final states of a text for each experiment, with the experiment's number, in any order.

    Copies of the text are read side by side, each with heads of its own switched off, as many at once as have
    `TOKENS_AT_ONCE` tokens; the layers before the first of these heads, for which all are alike, read it once. Edges
    are cut by a rule: no N × N tensor is made. A query that may look at nothing any more takes nothing home: 0.

    Args:
        model: a model of a lens; a decoder that has read a source (`Model.after`), or its cross-attentions
            (`Model.cross`).
        ids: the tokens of the text.
        experiments: what is switched off.
        heads: how many heads the layers have, by `heads_of`.
        edges: (batch, head, query, key) → whether that is an edge, for the experiments that cut them.

    Raises:
        IndexError: there is no such layer or head. ValueError: edges are to be cut, and there are none.

    >>> import torch, regard
    >>> lens, ids = regard.Lens(), torch.tensor([101, 2051, 10029, 102])
    >>> heads = heads_of(lens.model.forward(ids[None], None, None))
    >>> heads[0], list(heads)
    (12, [0, 1, 2, 3, 4, 5])
    >>> finals = dict(read_without(lens.model, ids, [Experiment([]), Experiment([(0, 3)])], heads))
    >>> finals[0].shape, torch.equal(finals[0], finals[1])
    (torch.Size([4, 384]), False)
    """
    for experiment in experiments:
        _check(model, experiment, heads, edges)
    at_once = max(1, TOKENS_AT_ONCE // max(1, len(ids)))
    for cuts in (False, True):  # rules are slower than the kernel: they keep among themselves
        numbers = [n for n, experiment in enumerate(experiments) if (experiment.ablation == "edges") == cuts]
        for start in range(0, len(numbers), at_once):
            batch = numbers[start : start + at_once]
            passed = _read(model, ids, [experiments[n] for n in batch], heads, edges)
            yield from zip(batch, passed.final[:, -len(ids) :], strict=True)  # after a tuned prompt, if there is one


def _read(
    model: Model,
    ids: Int[Tensor, "N"],
    experiments: Sequence[Experiment],
    heads: Mapping[int, int],
    edges: MaskMod | None,
) -> Pass:
    """A forward pass over a copy of the text for each experiment: copies from the first layer on that differs."""
    off = {ablation: _off(experiments, heads, ablation) for ablation in ("zero", "mean", "edges")}
    hidden = {layer: _without(edges, chosen) for layer, chosen in off["edges"].items() if edges is not None}
    first, copies = min((layer for layers in off.values() for layer in layers), default=0), len(experiments)

    def read(ids: Tensor) -> Pass:
        compute = attention_without(heads, hidden=hidden, zero=off["zero"], mean=off["mean"])
        with torch.inference_mode(), replaced_in_models(compute, hides_keys=bool(hidden)):
            return model.forward(ids, None, None)

    if first > 0 and len(model.blocks) == model.layers:
        try:
            with _copied(model.blocks[first], copies):
                passed = read(ids[None])
            if len(passed.final) == copies:
                return passed
        except Exception:  # of every kind, where a model hands its layers more than the states that are copied
            pass
    return read(ids.expand(copies, -1))


@contextmanager
def _copied(block: nn.Module, copies: int) -> Iterator[None]:
    """Within this context, in this thread, a layer gets so many copies of the single sequence that enters it."""
    thread = threading.get_ident()

    def copy(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if threading.get_ident() != thread:
            return None
        if arguments:
            return (arguments[0].expand(copies, -1, -1), *arguments[1:]), keywords
        return arguments, keywords | {"hidden_states": keywords["hidden_states"].expand(copies, -1, -1)}

    handle = block.register_forward_pre_hook(copy, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _off(experiments: Sequence[Experiment], heads: Mapping[int, int], ablation: str) -> dict[int, Bool[Tensor, "B H"]]:
    """By layer, for each experiment the heads to which it does this; only layers with such heads."""
    off: dict[int, Tensor] = {}
    for n, experiment in enumerate(experiments):
        for layer, head in experiment.heads if experiment.ablation == ablation else ():
            off.setdefault(layer, torch.zeros(len(experiments), heads[layer], dtype=torch.bool))[n, head] = True
    return off


def _without(edges: MaskMod, off: Bool[Tensor, "B H"]) -> MaskMod:
    """Who may look at whom when edges are cut in these heads."""

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ~(edges(batch, head, query, key) & off.to(key.device)[batch, head])

    return rule


def _check(model: Model, experiment: Experiment, heads: Mapping[int, int], edges: MaskMod | None) -> None:
    if experiment.ablation == "edges" and edges is None:
        raise ValueError("read_without: edges: expected a rule, which says what an ablation of edges cuts. Got None.")
    for layer, head in experiment.heads:
        if layer not in heads:
            known = ", ".join(map(str, heads))
            raise IndexError(f"There is no attention in layer {layer} of {model.name}: it is in the layers {known}.")
        if not 0 <= head < heads[layer]:
            raise IndexError(
                f"There is no head {head} in layer {layer}: {model.name} has heads 0 to {heads[layer] - 1} there."
            )
