"""w_ij ‖v_j W_O^h‖: each weight times the length of what there is to take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regard.attribution.layers import layer_of
from regard.models.residual import norms_after

if TYPE_CHECKING:
    from regard.attribution.layers import Source
    from regard.weights import Map


def value_weighted(source: Source, layer: int) -> Map:
    """How much each head takes from each token: a map (…,H,N,N), lazy like the weights.

        M^h_ij = ‖w^h_ij f^h_j‖ = w^h_ij ‖v_j W_O^h‖

    A token may draw much weight and give next to nothing: a sink, whose value is short. Kobayashi et al. 2020,
    https://arxiv.org/abs/2004.10102, equation 4. Costs what the weights cost: the lengths, one a head and token, are
    computed by way of an E × E matrix.

    Args:
        source: a reading, or the list that `regard.hf.record()` collected.
        layer: the layer of the reading, or the place in that list.

    Raises: ValueError, with the layer and the module, where the output projection W_O cannot be found.

    >>> import regard
    >>> from regard import attribution
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> reading.attention[5].weights[:, 2, 0].mean()     # of the weight of "flies", [CLS] draws
    tensor(0.4144)
    >>> taken = attribution.value_weighted(reading, layer=5)
    >>> taken
    Map(shape=(12, 7, 7), dtype=torch.float32, device=cpu)
    >>> flies = taken[:, 2].sum(0)
    >>> flies[0] / flies.sum()                           # and of what the heads take
    tensor(0.0459)
    """
    at = layer_of(source, layer)
    lengths = norms_after(at.attention.value, at.output_weight)
    return at.weights.times(key=lengths[..., None])
