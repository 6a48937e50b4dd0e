"""Which weights a target rests on, by its gradient: (w_ij ∂y/∂w_ij)⁺, and what that makes through all layers.

Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability", https://arxiv.org/abs/2103.15679.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from regard.attention import Attention, attention
from regard.attribution.again import check_same_text, output_of, read_again
from regard.attribution.rollout import Relevance

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.target import Target
    from regard.lens import Reading
    from regard.weights import Map


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradient of a target, from one backward pass.

    Attributes:
        outputs: ∂y/∂o (H,N,E) by layer, o the heads' outputs before W_O; None where the target does not depend on them.
        rows: (N,), where the target reads the text: equal shares, with a sum of one, for the tokens whose last states
            it depends on. Those are the token after which the next one is predicted, the tokens of a word, all tokens
            of a mean.
    """

    outputs: Sequence[Float[Tensor, "H N E"] | None]
    rows: Float[Tensor, "N"]


def gradient(reading: Reading, target: Target, layer: int) -> Map:
    """The weights by what they do to a target: a map (H,N,N) of

        (w_ij · ∂y/∂w_ij)⁺     with     ∂y/∂w_ij = (∂y/∂o_i)·v_j

    of which only the positive numbers are kept, as in equation 5 of Chefer et al. 2021 (there before the mean over
    heads). ∂y/∂o_i is the gradient at the output of the head. A backward pass gives it for all layers, and is kept for
    the next of them.

    Cost: a forward and a backward pass for all layers together, in O(N) memory; then that of a map with one factor.

    Args:
        reading: the text.
        target: y.
        layer: counted from 0; from −1 backwards.

    Raises:
        ValueError: the reading cannot be read again, or the target is of another text or depends on nothing in it.
        IndexError: there is no such layer.

    >>> import regard
    >>> from regard.attribution import Target, gradient
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> gradient(reading, Target.sentence(reading), layer=5).shape
    torch.Size([12, 7, 7])
    """
    reading.check(layer)
    grad_output = gradients(reading, target).outputs[layer]
    attended = reading.attention[layer]
    if grad_output is None:
        grad_output = torch.zeros_like(attended.output)
    return attended.weights.times(query=grad_output, key=attended.value, activation="relu")


def relevance(reading: Reading, target: Target) -> Relevance:
    """What each token of the text means for a target, through all layers.

        R ← R + Ā R     with     Ā = mean_h (w^h ⊙ ∂y/∂w^h)⁺

    from the first layer to the last, R the identity at first: equations 5 and 6 of Chefer et al. 2021. Only the rows of
    R at which the target reads the text are wanted, which `Gradients.rows` names; so this goes from the last layer to
    the first, with one vector instead of a matrix: r ← r + Āᵀ r.

    Cost: a forward and a backward pass, and one pass over the matrix a layer; O(N) memory.

    Args:
        reading: the text.
        target: y.

    Returns: `Relevance`, in float64, for what the layers add is often much less than the identity they add it to.

    Raises ValueError as `gradient`.

    >>> import regard
    >>> from regard.attribution import Target, relevance
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> relevance(reading, Target.word(reading, "flies")).units.argmax()
    tensor(2)
    """
    check_same_text(reading, "relevance")
    grads = gradients(reading, target)
    row = grads.rows
    for layer in reversed(reading.attention_layers):
        if grads.outputs[layer] is not None:
            matrix = gradient(reading, target, layer)
            row = row + (matrix.T @ row.to(matrix.dtype)).double().mean(0)
    return Relevance(row, reading)


_kept: weakref.WeakKeyDictionary[Target, tuple[weakref.ref[Reading], Gradients]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def gradients(reading: Reading, target: Target) -> Gradients:
    """The gradient of a target at the output of every head, from one backward pass; kept as long as the target."""
    with _lock:
        reference, kept = _kept.get(target, (None, None))
    if kept is not None and reference is not None and reference() is reading:
        return kept
    computed = _computed(reading, target)
    with _lock:
        _kept[target] = weakref.ref(reading), computed
    return computed


def _computed(reading: Reading, target: Target) -> Gradients:
    target.check(reading)
    outputs: list[Tensor] = []

    def keeping(*inputs: Tensor, **options: Any) -> Attention:
        attended = attention(*inputs, **options)
        output = attended.output
        output = output if output.requires_grad else output.detach().requires_grad_()
        outputs.append(output)
        return replace(attended, output=output)

    with torch.inference_mode(False), torch.enable_grad():
        passed = read_again(reading, keeping, "gradient")
        y = target.value(output_of(reading, passed, 0, "gradient"))
        if not y.requires_grad:
            raise ValueError(f"gradient: {target.name} does not depend on what the model computes.")
        states = [state for state in (passed.final, *reversed(passed.hidden)) if state.requires_grad]
        grads = torch.autograd.grad(y, [*outputs, *states], allow_unused=True)
    by_layer: list[Tensor | None] = [None] * reading.layers
    for layer, grad in zip(reading.attention_layers, grads, strict=False):
        by_layer[layer] = None if grad is None else grad[0]
    return Gradients(by_layer, _rows(grads[len(outputs) :], target))


def _rows(grads: Sequence[Tensor | None], target: Target) -> Tensor:
    """Equal shares for the tokens on which the target depends, by its gradient in the last states that it reads."""
    for grad in grads:
        if grad is not None and grad.any():
            reads = grad[0].abs().amax(-1) > 0
            return reads.double() / reads.sum()
    raise ValueError(f"gradient: {target.name} does not change with what the model computes.")
