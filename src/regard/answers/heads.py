"""Which heads matter: a weight for each, learned once for a model, with which attention predicts knockouts.

    knockout of passage p for a sentence ≈ Σ_lh θ_lh mass_lh(p)       θ ≥ 0, in nats for each token's attention

Raw sums of attention mislead, since many heads look at a passage for other reasons than to copy from it. AT2
(Cohen-Wang et al. 2025, https://arxiv.org/abs/2504.13752) learns the weights of heads from ablations; regard's are not
negative, so that the attention over the heads that matter is a mean, and are learned as `learning.py` says.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard._internal.files import atomic_write, read_json

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens import Lens


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """The weights of a model's heads.

    Attributes:
        model: the name of the model.
        weights: (layers,heads), not negative.
        learned: whether they were learned; otherwise every head counts alike, and a score is no number of nats.
        documents: from how many.
    """

    model: str
    weights: Float[Tensor, "layers heads"] = field(repr=False)
    learned: bool = True
    documents: int = 0

    def scores(self, mass: Float[Tensor, "layers heads ..."]) -> Float[Tensor, "..."]:
        """Σ_lh θ_lh mass_lh: the knockouts that masses predict."""
        return torch.einsum("lh,lh...->...", self.weights.double(), mass.double())

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers for JSON."""
        weights = [[round(weight, 4) for weight in layer] for layer in self.weights.tolist()]
        return {"model": self.model, "documents": self.documents, "weights": weights}

    def save(self, path: str | Path) -> None:
        """Save them as JSON. Raises OSError where that cannot be written."""
        atomic_write(path, lambda file: file.write(json.dumps(self.to_dict()).encode()))


def head_weights(lens: Lens) -> HeadWeights:
    """The weights of a model's heads: those learned by this user, those that regard brings along, or the same for all.

    Raises ValueError for a file that is damaged or of a model with other heads.
    """
    shipped = resources.files("regard.answers") / "heads" / f"{lens.name}.json"
    stored = stored_at(lens)
    if stored.exists():
        return _loaded(read_json(stored), stored)
    if "/" not in lens.name and shipped.is_file():
        return _loaded(json.loads(shipped.read_text("utf-8")), shipped)
    return HeadWeights(lens.name, torch.empty(0, 0), learned=False)


def stored_at(lens: Lens) -> Path:
    """Where the weights learned for a model are kept: in the user's cache, by its name and fingerprint."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regard" / "heads"
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in lens.name)
    return cache / f"{name}-{lens.fingerprint.rpartition(':')[2][:16]}.json"


def _loaded(content: dict[str, Any], path: Any) -> HeadWeights:
    try:
        weights = torch.tensor(content["weights"], dtype=torch.float32)
        result = HeadWeights(str(content["model"]), weights, documents=int(content["documents"]))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is damaged: it holds no weights of heads.") from None
    if weights.ndim != 2 or not bool((weights >= 0).all()) or not bool(weights.isfinite().all()):
        raise ValueError(f"{path} is damaged: expected a number, 0 or more, for each layer and head.")
    return result
