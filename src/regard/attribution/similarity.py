"""Why two texts are alike: the cosine of their vectors, divided among pairs of words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.attribution.again import model_of, output_of_reading

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens import Reading
    from regard.models import Model
    from regard.models.pooling import Step

_SHARES = ("mean", "mean_sqrt_len", "weightedmean")  # poolings that are weighted sums of the tokens' vectors


def similarity(reading_a: Reading, reading_b: Reading) -> Float[Tensor, "units_a units_b"]:
    """The part that each pair of words has in the cosine of two sentence vectors (units of a, units of b):

        cos(a, b) = Σ_ij (p_i f(x_i) · p_j f(y_j)) / (‖a‖ ‖b‖)     with     a = Σ_i p_i f(x_i)

    x_i are the final states of the tokens of a text, p_i their shares in its pooling, 1/N for a mean, and f the linear
    modules of the model's folder. The tokens of a word are added up, so the matrix sums to the cosine. Rows and columns
    are `units`, special tokens among them, for these are part of the mean.

    Cost: of a matrix product of the tokens' vectors.

    Args:
        reading_a, reading_b: by the same model.

    Returns: float64.

    Raises ValueError where the model does not pool by a mean, a weighted mean, or a mean by the root of the length, or
    where a module after that is not linear; the message names it.

    >>> import regard
    >>> from regard.attribution import similarity
    >>> lens = regard.Lens()
    >>> a, b = lens.read("A cat sat."), lens.read("A kitten rested.")
    >>> pairs = similarity(a, b)
    >>> pairs.shape, round(float(pairs.sum()), 2)
    (torch.Size([6, 6]), 0.59)
    """
    model = model_of(reading_a, "similarity")
    if model_of(reading_b, "similarity") is not model:
        raise ValueError(
            f"similarity: reading_b: expected a reading by the same model as reading_a, {reading_a.model}. "
            f"Got one by {reading_b.model}."
        )
    first, second = (_parts(model, reading) for reading in (reading_a, reading_b))
    lengths = first.sum(0).norm() * second.sum(0).norm()
    pairs = first @ second.T / lengths.clamp(min=1e-300)
    return reading_b.by_unit(reading_a.by_unit(pairs.T).T)


def _parts(model: Model, reading: Reading) -> Float[Tensor, "N dim"]:
    """What each token adds to the sentence's vector, in float64, but for one positive factor for all."""
    pooling = model.pooling
    if reason := pooling.unsupported or pooling.unspecified:
        raise ValueError(f"similarity: {model.name}: how it makes sentence vectors is not known: {reason}.")
    if len(pooling.modes) != 1 or pooling.modes[0] not in _SHARES:
        raise ValueError(
            f"similarity: {model.name} pools by {'+'.join(pooling.modes)}, which is no sum over tokens; served are "
            f"{', '.join(_SHARES)}."
        )
    with torch.inference_mode():
        states = output_of_reading(reading, "similarity").final
        for step in pooling.token_steps:
            states = step(states)
        count = len(states)
        shares = torch.ones(count) if pooling.modes[0] != "weightedmean" else torch.arange(1.0, count + 1)
        shares = (shares / (count**0.5 if pooling.modes[0] == "mean_sqrt_len" else shares.sum())).to(states)
        parts = (shares[:, None] * states).double()
        for step in pooling.sentence_steps:
            parts = _through(model, step, parts, shares)
    return parts[:, : pooling.truncate_dim]


def _through(model: Model, step: Step, parts: Float[Tensor, "N dim"], shares: Float[Tensor, "N"]) -> Tensor:
    """The parts after a module that follows the pooling: a factor for all, or a linear map with a bias.

    Raises ValueError where it is neither, so that what it makes of a sum is no sum.
    """
    whole = parts.sum(0)
    made = step(whole.float()[None])[0].double()
    limit = 1e-5 * made.norm()
    if made.shape == whole.shape:
        factor = made @ whole / (whole @ whole).clamp(min=1e-300)
        if factor > 0 and (factor * whole - made).norm() <= limit:
            return factor * parts
    constant = step(torch.zeros_like(whole).float()[None])[0].double()
    mapped = step(parts.float()).double() - constant + (shares / shares.sum()).double()[:, None] * constant
    if (mapped.sum(0) - made).norm() > limit:
        raise ValueError(
            f"similarity: {model.name}: a Dense module with an activation follows its pooling; what it makes of a sum "
            "over tokens is no sum, so that the similarity cannot be divided among words."
        )
    return mapped
