"""Which heads matter: a weight for each, learned once for a model, with which attention predicts knockouts.

    knockout of passage p for a sentence ≈ Σ_lh θ_lh mass_lh(p) + β logits(p)       θ, β ≥ 0

Raw sums of attention mislead, since many heads look at a passage for other reasons than to copy from it. AT2
(Cohen-Wang et al. 2025, https://arxiv.org/abs/2504.13752) learns the weights of heads from ablations. Here they are not
negative, so that the attention over the heads that matter is a mean; direct logit attribution is one more predictor;
and what is predicted to be less than the predictions' own noise scores 0, as most passages do for ContextCite, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard._internal.cache import cache_folder
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
        weights: θ (layers,heads), not negative, in nats for each token whose attention went to the passage.
        logits: β, not negative, in nats for each of a logit.
        floor: a smaller prediction, in nats, is noise: it scores 0, unless it is the best.
        learned: whether they were learned; otherwise every head counts alike, and a score is no number of nats.
        documents: from how many.

    >>> import torch
    >>> from regard.answers import HeadWeights
    >>> heads = HeadWeights("a model", torch.tensor([[0.0, 2.0]]), floor=0.5)        # one layer, two heads
    >>> heads.weights.shape
    torch.Size([1, 2])
    """

    model: str
    weights: Float[Tensor, "layers heads"] = field(repr=False)
    logits: float = 0.0
    floor: float = 0.0
    learned: bool = True
    documents: int = 0

    def weighted(self, mass: Float[Tensor, "layers heads ..."]) -> Float[Tensor, "..."]:
        """Σ_lh θ_lh mass_lh.

        >>> import torch
        >>> from regard.answers import HeadWeights
        >>> heads = HeadWeights("a model", torch.tensor([[0.0, 2.0]]))
        >>> heads.weighted(torch.tensor([[[0.9, 0.1], [0.3, 0.5]]]))  # the mass that two passages get from each head
        tensor([0.6000, 1.0000], dtype=torch.float64)
        """
        return torch.einsum("lh,lh...->...", self.weights.double(), mass.double())

    def predicted(
        self, mass: Float[Tensor, "layers heads ..."], logits: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."]:
        """The knockouts that masses and direct logits predict, in nats, also those below the floor.

        >>> import torch
        >>> from regard.answers import HeadWeights
        >>> heads = HeadWeights("a model", torch.tensor([[0.0, 2.0]]), logits=0.1)
        >>> heads.predicted(torch.tensor([[[0.9, 0.1], [0.3, 0.5]]]), torch.tensor([4.0, 0.0]))
        tensor([1.0000, 1.0000], dtype=torch.float64)
        """
        weighted = self.weighted(mass)
        return weighted if logits is None else weighted + self.logits * logits.double()

    def scores(self, predicted: Float[Tensor, "... passages"]) -> Float[Tensor, "... passages"]:
        """Predictions, and 0 for those below the floor; the best remains as it is.

        >>> import torch
        >>> from regard.answers import HeadWeights
        >>> heads = HeadWeights("a model", torch.tensor([[0.0, 2.0]]), floor=0.8)
        >>> heads.scores(torch.tensor([0.6, 1.0]))
        tensor([0., 1.])
        """
        best = predicted == predicted.amax(-1, keepdim=True)
        return predicted.where(best | (predicted >= self.floor), 0.0)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers for JSON.

        >>> import torch
        >>> from regard.answers import HeadWeights
        >>> HeadWeights("a model", torch.tensor([[0.0, 2.0]])).to_dict()["weights"]
        [[0.0, 2.0]]
        """
        weights = [[round(weight, 4) for weight in layer] for layer in self.weights.tolist()]
        numbers = {"logits": round(self.logits, 4), "floor": round(self.floor, 4)}
        return {"model": self.model, "documents": self.documents, **numbers, "weights": weights}

    def save(self, path: str | Path) -> None:
        """Save them as JSON. Raises OSError where that cannot be written.

        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from regard.answers import HeadWeights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     HeadWeights("a model", torch.tensor([[0.0, 2.0]])).save(Path(folder, "heads.json"))
        ...     Path(folder, "heads.json").exists()
        True
        """
        atomic_write(path, lambda file: file.write(json.dumps(self.to_dict()).encode()))


def head_weights(lens: Lens) -> HeadWeights:
    """The weights of a model's heads: those learned by this user, those that regard brings along, or the same for all.

    Raises ValueError for a file that is damaged or of a model with other heads.

    >>> import regard
    >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    >>> from regard.models import embedded_folder
    >>> from regard import answers
    >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
    >>> answers.head_weights(lens).learned                        # nothing is known: every head counts alike
    False
    """
    # A fingerprint reads all of a model's weights: it is asked for only where something is stored under the name.
    if any(cache_folder("heads").glob(f"{_file_name(lens)}-*.json")) and (stored := stored_at(lens)).exists():
        return _loaded(read_json(stored), stored)
    return shipped(lens.name) or HeadWeights(lens.name, torch.empty(0, 0), learned=False)


def shipped(name: str) -> HeadWeights | None:
    """The weights that regard brings along for a model of this name; None for all others."""
    file = resources.files("regard.answers") / "heads" / f"{name}.json"
    return _loaded(json.loads(file.read_text("utf-8")), file) if "/" not in name and file.is_file() else None


def stored_at(lens: Lens) -> Path:
    """Where the weights learned for a model are kept: in the user's cache, by its name and fingerprint."""
    return cache_folder("heads") / f"{_file_name(lens)}-{lens.fingerprint.rpartition(':')[2][:16]}.json"


def _file_name(lens: Lens) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in lens.name)


def _loaded(content: dict[str, Any], path: Any) -> HeadWeights:
    try:
        weights = torch.tensor(content["weights"], dtype=torch.float32)
        logits, floor = float(content["logits"]), float(content["floor"])
        result = HeadWeights(str(content["model"]), weights, logits, floor, documents=int(content["documents"]))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is damaged: it holds no weights of heads.") from None
    if weights.ndim != 2 or not bool((weights >= 0).all()) or not bool(weights.isfinite().all()):
        raise ValueError(f"{path} is damaged: expected a number, 0 or more, for each layer and head.")
    return result
