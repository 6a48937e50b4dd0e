"""One word in several texts: how far the context moves its vector, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard._internal.deprecated import warn
from regard.lens.reading import Reading
from regard.lens.units import Word

if TYPE_CHECKING:
    from jaxtyping import Float

    from regard.lens.display import Picture

SAME = 1e-6  # vectors whose cosine is this close to 1 are the same but for rounding


@dataclass(frozen=True, eq=False)
class Comparison:
    """A word in n texts.

    Attributes:
        word: its text in the first of them.
        readings, words: the texts, and the word in each.
        similarity: (L+1,n,n), the cosines of its vectors before the first layer and after each.
        clusters: the two groups, as places in `readings`, into which its vectors after the last layer fall; the second
            is empty where all are the same.

    >>> import regard
    >>> lens = regard.Lens()
    >>> comparison = lens.compare(["Time flies like an arrow", "Fruit flies like a banana"], word="flies")
    >>> comparison.similarity[-1, 0, 1] < comparison.similarity[0, 0, 1]       # the context moves them apart
    tensor(True)
    """

    word: str
    readings: Sequence[Reading] = field(repr=False)
    words: Sequence[Word] = field(repr=False)
    similarity: Float[Tensor, "L+1 n n"] = field(repr=False)
    clusters: tuple[list[int], list[int]]

    def distances(self, first: int, second: int) -> Float[Tensor, "L+1"]:
        """By layer, the cosine distance, 1 − cosine, of the word in two of the texts.

        >>> import regard
        >>> flies = regard.Lens().compare(["Time flies like an arrow", "Fruit flies like a banana"], word="flies")
        >>> [round(distance, 2) for distance in flies.distances(0, 1).tolist()]
        [0.0, 0.08, 0.1, 0.13, 0.19, 0.19, 0.37]
        """
        return (1 - self.similarity[:, first, second]).clamp(min=0)

    def cluster_similarity(self) -> tuple[Float[Tensor, "L+1"], Float[Tensor, "L+1"], Float[Tensor, "L+1"]]:
        """By layer, the mean similarity within the first cluster, within the second, and across; nan for one text.

        >>> import regard
        >>> lens = regard.Lens()
        >>> texts = ["The bird flies away", "Time flies like an arrow", "Swat the flies", "Fruit flies like a banana"]
        >>> comparison = lens.compare(texts, word="flies")
        >>> within, also_within, across = comparison.cluster_similarity()
        >>> comparison.clusters, across[-1] < also_within[-1]
        (([0, 1], [2, 3]), tensor(True))
        """
        first, second = self.clusters
        across = self.similarity[:, first][:, :, second].mean((1, 2))

        def within(group: list[int]) -> Tensor:
            pairs = [(i, j) for i in group for j in group if i < j]
            return torch.stack([self.similarity[:, i, j] for i, j in pairs], 1).mean(1) if pairs else across * torch.nan

        return within(first), within(second), across

    def parting(self) -> tuple[Tensor, Tensor, Tensor]:
        """The old name of `cluster_similarity`."""
        warn("Comparison.parting is now called cluster_similarity.")
        return self.cluster_similarity()

    def plane(self) -> Float[Tensor, "L+1 n 2"]:
        """The vectors of each layer in two dimensions, those in which they differ most.

        The first two principal components of each layer, divided by the root mean square of the distances from the
        mean, and rotated or mirrored to fit the layer before (orthogonal Procrustes, Schönemann 1966,
        https://doi.org/10.1007/BF02289451), so that a word can be followed from layer to layer.

        >>> import regard
        >>> lens = regard.Lens()
        >>> lens.compare(["Time flies like an arrow", "Fruit flies like a banana"], word="flies").plane().shape
        torch.Size([7, 2, 2])
        """
        planes: list[Tensor] = []
        for vectors in torch.stack([word.vectors for word in self.words], 1).double():  # (n, dim)
            centred = vectors - vectors.mean(0)
            left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
            plane = torch.nn.functional.pad((left * singular)[:, :2], (0, max(0, 2 - len(singular))))
            plane = plane / centred.square().sum(1).mean().sqrt().clamp(min=1e-12)
            if planes:
                u, _, v = torch.linalg.svd(plane.mT @ planes[-1])
                plane = plane @ u @ v
            planes.append(plane)
        return torch.stack(planes)

    def _repr_png_(self) -> Picture | None:
        """What a notebook shows: a picture of the cosines."""
        from regard.lens.display import still_of_comparison

        return still_of_comparison(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists for JSON.

        >>> import regard
        >>> lens = regard.Lens()
        >>> comparison = lens.compare(["Time flies like an arrow", "Fruit flies like a banana"], word="flies")
        >>> comparison.to_dict()["clusters"]
        [[0], [1]]
        """
        return {
            "word": self.word,
            "model": self.readings[0].model,
            "texts": [reading.text for reading in self.readings],
            "similarity": self.similarity.tolist(),
            "clusters": list(self.clusters),
            "causal": self.readings[0].causal,
            "notes": [reading.note for reading in self.readings],
        }


def comparison(word: str, readings: Sequence[Reading], words: Sequence[Word]) -> Comparison:
    """Compare the vectors of a word in each reading. Raises ValueError for vectors that are not finite."""
    vectors = torch.stack([occurrence.vectors for occurrence in words], 1).double()  # (L+1, n, dim)
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    similarity = unit @ unit.mT
    if not similarity.isfinite().all():
        raise ValueError(f"compare: the model's vectors of {word!r} hold NaN or infinity; they cannot be compared.")
    same = bool(similarity[-1].min() > 1 - SAME)  # as in identical texts: there are no clusters
    clusters = (list(range(len(words))), []) if same else two_clusters(similarity[-1])
    return Comparison(word, readings, words, similarity, clusters)


def two_clusters(similarity: Float[Tensor, "n n"]) -> tuple[list[int], list[int]]:
    """The two groups with the least similarity across, as a share of each group's total: the normalised cut.

    The best cut of the texts in the order of the second eigenvector of the normalised Laplacian. Shi & Malik 2000,
    https://doi.org/10.1109/34.868688.

    >>> two_clusters(torch.tensor([[1.0, 0.2, 0.9], [0.2, 1.0, 0.3], [0.9, 0.3, 1.0]]))
    ([0, 2], [1])
    """
    weights = similarity.clamp(min=0).fill_diagonal_(0)
    degrees = weights.sum(0)
    inverse_root = degrees.clamp(min=1e-12).rsqrt()
    order = (
        inverse_root * torch.linalg.eigh(inverse_root[:, None] * weights * inverse_root).eigenvectors[:, -2]
    ).argsort()
    cuts = [(order[:cut], order[cut:]) for cut in range(1, len(order))]
    costs = [weights[a][:, b].sum() * (1 / degrees[a].sum() + 1 / degrees[b].sum()) for a, b in cuts]
    best = cuts[int(torch.stack(costs).nan_to_num(0).argmin())]
    first, second = sorted(sorted(group.tolist()) for group in best)
    return first, second
