"""Reading a text again, exactly as before: with gradients, or with something of it switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from regard.attention import Attention, attention, replaced_in_models
from regard.mask import both
from regard.models import Model
from regard.models.model import Pass

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from regard._typing import MaskMod
    from regard.lens import Reading

TOKENS_AT_ONCE = 4096  # of copies of a text that are read together


@dataclass(frozen=True, eq=False)
class Output:
    """What a model makes of a text: what a target is a function of.

    Attributes:
        hidden: the L + 1 hidden states (N,dim), before the first layer and after each.
        final: (N,dim), what the model passes on to a head.
        ids: (N,), what it read.
        model: the model.
    """

    hidden: Sequence[Float[Tensor, "N dim"]]
    final: Float[Tensor, "N dim"]
    ids: Int[Tensor, "N"]
    model: Model

    def logits(self, position: int | None = None) -> Float[Tensor, "..."]:
        """The logits of the model's head: of the tokens at a position, or at all (N,vocabulary); of the classes.

        Raises ValueError where the model has no head.
        """
        head = self.model.head
        if head is None:
            raise ValueError(f"{self.model.name} has no head that would make logits of its final states.")
        if position is None or head.kind == "class":
            return head(self.final, self.ids)
        return head(self.final[position, None], self.ids[position, None])[0]


def model_of(reading: Reading, call: str) -> Model:
    """The model that can read a text again. Raises ValueError where the reading no longer has it."""
    if reading.opened is None or reading.ids is None:
        raise ValueError(
            f"{call}: this reading has no lens with which its text could be read again, as one that was pickled; "
            "read the text with a Lens."
        )
    return reading.opened


def check_same_text(reading: Reading, call: str) -> None:
    """Raise ValueError for a reading of cross-attention, whose keys are another text's."""
    if reading.source is not None:
        raise ValueError(
            f"{call}: it takes self-attention, in which the words of one text look at each other, and not the "
            "cross-attention from a target to its source; take reading, or reading.decoder."
        )


def read_again(
    reading: Reading,
    compute: Callable[..., Attention],
    call: str,
    *,
    copies: int = 1,
    hides_keys: bool = False,
) -> Pass:
    """A forward pass over the tokens of a reading, in which `compute` takes the place of `attention`.

    Args:
        reading: whose text is read.
        compute, hides_keys: as in `regard.attention.replaced_in_models`.
        call: what errors name.
        copies: how many times the text is read, side by side in a batch.
    """
    model = model_of(reading, call)
    assert reading.ids is not None
    types = None if reading.types is None else reading.types.expand(copies, -1)
    with replaced_in_models(compute, hides_keys=hides_keys):
        return model.forward(reading.ids.expand(copies, -1), None, types)


def output_of(reading: Reading, passed: Pass, copy: int, call: str) -> Output:
    """What one of the copies of a text gave."""
    model = model_of(reading, call)
    assert reading.ids is not None
    return Output([state[copy] for state in passed.hidden], passed.final[copy], reading.ids, model)


def output_of_reading(reading: Reading, call: str) -> Output:
    """What the reading itself gave. In inference mode only: no gradient flows from its tensors."""
    model = model_of(reading, call)
    assert reading.ids is not None
    final = reading.hidden[-1] if reading.final is None else reading.final
    return Output(list(reading.hidden), final, reading.ids, model)


def attention_without(
    layers: Iterable[int],
    *,
    hidden: Mapping[int, MaskMod] = MappingProxyType({}),
    zero: Mapping[int, Bool[Tensor, "*B H"]] = MappingProxyType({}),
    mean: Mapping[int, Bool[Tensor, "*B H"]] = MappingProxyType({}),
) -> Callable[..., Attention]:
    """Attention, layer by layer, with something of it switched off: for `regard.attention.replaced_in_models`.

    Args:
        layers: the layers that have attention, in the order in which the model computes them.
        hidden: by layer, the rule (batch, head, query, key) → whether the query may still look at the key.
        zero: by layer, the heads (H,), or for each sequence of the batch its heads (B,H), that give 0.
        mean: the same for heads that give the mean of their output over the text, (1/N) Σ_i o_i, at every place.

    >>> import torch
    >>> x, second = torch.randn(1, 2, 5, 8), torch.tensor([False, True])      # two heads
    >>> attended = attention_without([7], zero={7: second})(x, x, x)
    >>> attended.output[0, 0].any(), attended.output[0, 1].any()
    (tensor(True), tensor(False))
    """
    coming = iter(layers)

    def compute(*inputs: Tensor, **options: Any) -> Attention:
        layer = next(coming)
        if layer in hidden:
            options["mask"] = both(options.get("mask"), hidden[layer])
        attended = attention(*inputs, **options)
        output = attended.output
        if layer in mean:
            output = output.where(_kept(mean[layer], output), output.mean(2, keepdim=True))
        if layer in zero:
            output = output.where(_kept(zero[layer], output), 0.0)
        return replace(attended, output=output)

    return compute


def _kept(off: Bool[Tensor, "*B H"], output: Float[Tensor, "B H N E"]) -> Bool[Tensor, "*B H 1 1"]:
    return ~off.to(output.device)[..., None, None]
