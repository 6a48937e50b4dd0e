"""What a model loses with heads switched off: the tokens that it no longer predicts, or how far its states move.

| the model | its loss |
|---|---|
| a causal language model | −log p of each token that a sample is about, after the tokens before it |
| a masked language model | the same of 15 % of them, which are masked |
| the decoder of an encoder-decoder | the same of the target's tokens, after the source; also where heads of the encoder are off |
| a model that predicts no tokens | 1 − cosine of its final states' mean, with the heads and without |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from regard.atlas.ablation import heads_of
from regard.lens.layers import sees_ahead
from regard.lens.predictions import BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from regard.attribution.heads.sample import Sample
    from regard.lens import Lens
    from regard.models.head import Head
    from regard.models.model import Model

MASKED = 0.15  # of the tokens that count, as in training (Devlin et al. 2019)
Unit = Literal["nats", "1 − cosine"]


@dataclass(frozen=True, eq=False)
class Passage:
    """A text as a model reads it, and what is known of it.

    Attributes:
        ids: (N,), its tokens. For heads of an encoder those of the source, for a decoder's those of the target.
        sample: the same as scores of heads see it.
        source: for the heads of a decoder, or of cross-attention: the tokens of the source.
        target: for the heads of an encoder: the tokens of the target whose loss is measured.
    """

    ids: Int[Tensor, "N"] = field(repr=False)
    sample: Sample
    source: Int[Tensor, "S"] | None = field(default=None, repr=False)
    target: Int[Tensor, "T"] | None = field(default=None, repr=False)

    def only(self, places: Bool[Tensor, "N"]) -> Passage:
        """The same of some of its tokens alone, where queries and keys are the same tokens."""
        sample, of = self.sample, self.sample.direction_of
        kept = {name: getattr(sample, name)[places] for name in ("rows", "ids", "key_ids", "special", "punctuation")}
        kept["direction_of"] = None if of is None else of[places]
        return replace(self, ids=self.ids[places], sample=replace(sample, **kept))


class Measured(NamedTuple):
    """A passage, ready to be read with heads switched off.

    Attributes:
        passage: the passage.
        model: the model whose heads are switched off.
        ids: (N,), what it reads: the passage's tokens, some of them masked for a masked language model.
        heads: by layer, how many heads it has.
        unit: what a loss is: "nats" a token, or "1 − cosine".
        of: final states of `model` (N,dim) → (n,), a loss for each token that counts; a single one of states.
        before: (n,), that of the model as it is.
    """

    passage: Passage
    model: Model
    ids: Int[Tensor, "N"]
    heads: Mapping[int, int]
    unit: Unit
    of: Callable[[Tensor], Tensor]
    before: Float[Tensor, "n"]


@torch.inference_mode()
def measured(lens: Lens, part: str, passage: Passage, seed: int = 0) -> Measured | None:
    """How the loss of a passage is measured; None where it has no token that could be predicted.

    Args:
        lens: the lens.
        part: whose heads are switched off, as in `Atlas.scores`: "" where there is but one attention; else "encoder",
            "decoder" or "cross".
        passage: what is read.
        seed: of the tokens that are masked.

    Raises ValueError where the part is one of a decoder and the passage has no source.

    >>> import torch, regard
    >>> from regard.attribution.heads.sample import sample_of
    >>> lens = regard.Lens()                                      # an encoder that predicts nothing
    >>> reading = lens.read("Time flies like an arrow.")
    >>> loss = measured(lens, "", Passage(reading.ids, sample_of(reading)))
    >>> loss.unit, round(float(loss.before), 6), loss.of(reading.hidden[2]) > 0
    ('1 − cosine', 0.0, tensor([True]))
    """
    model, target = _model_of(lens, part, passage), passage.target
    passed = model.forward(passage.ids[None], None, None)
    final = passed.final[0, -len(passage.ids) :]
    if part == "encoder" and target is not None:
        return _after_encoder(lens, passage, target, heads_of(passed), final)
    causal = part in ("decoder", "cross") or not any(map(sees_ahead, filter(None, passed.attentions)))
    loss = _loss(model, passage.ids, _that_count(passage.sample), causal, final, seed)
    if not torch.equal(loss.ids, passage.ids):
        final = model.forward(loss.ids[None], None, None).final[0, -len(loss.ids) :]
    before = loss.of(final)
    if not len(before):
        return None
    return Measured(passage, model, loss.ids, heads_of(passed), loss.unit, loss.of, before)


def _model_of(lens: Lens, part: str, passage: Passage) -> Model:
    """The model whose heads are switched off."""
    if part not in ("decoder", "cross"):
        return lens.model
    if lens.model.after is None or passage.source is None:
        raise ValueError(f"prove: the {part} of {lens.name}: expected an encoder-decoder, and passages with a source.")
    decoder = lens.model.after(lens.model.forward(passage.source[None], None, None).final[0])
    if part == "decoder":
        return decoder
    assert decoder.cross is not None
    return decoder.cross


def _after_encoder(
    lens: Lens, passage: Passage, target: Int[Tensor, "T"], heads: Mapping[int, int], final: Float[Tensor, "N dim"]
) -> Measured | None:
    """The loss of the target's tokens, by the states of its source."""
    after = lens.model.after
    assert after is not None
    decoder = after(final)
    counted = torch.arange(len(target)) >= len(decoder.prefix_ids)
    loss = _loss(decoder, target, counted, True, decoder.forward(target[None], None, None).final[0], 0)

    @torch.inference_mode()
    def of(states: Tensor) -> Tensor:
        return loss.of(after(states).forward(target[None], None, None).final[0])

    before = of(final)
    return Measured(passage, lens.model, passage.ids, heads, loss.unit, of, before) if len(before) else None


class _Loss(NamedTuple):
    unit: Unit
    ids: Tensor
    of: Callable[[Tensor], Tensor]


def _loss(
    model: Model,
    ids: Int[Tensor, "N"],
    counted: Bool[Tensor, "N"],
    causal: bool,
    reference: Float[Tensor, "N dim"],
    seed: int,
) -> _Loss:
    """The loss that a model has."""
    head, mask = model.head, _mask_token(model)
    if head is not None and head.kind == "next token" and causal:
        following = counted.nonzero()[:, 0]
        following = following[following > 0]
        before = following - 1
        return _Loss("nats", ids, lambda final: surprise(head, final[before], ids[before], ids[following]))
    if head is not None and head.kind == "masked token" and mask is not None:
        hidden = _chosen(counted, seed)
        changed = ids.clone()
        changed[hidden] = mask
        return _Loss("nats", changed, lambda final: surprise(head, final[hidden], changed[hidden], ids[hidden]))
    present = reference.cpu().double().mean(0)

    def distance(final: Tensor) -> Tensor:
        mean = final.cpu().double().mean(0)
        same = torch.equal(mean, present)  # whose cosine is 1 but for rounding
        return mean.new_zeros(1) if same else 1 - cosine_similarity(mean, present, dim=0)[None]

    return _Loss("1 − cosine", ids, distance)


@torch.inference_mode()
def surprise(
    head: Head, final: Float[Tensor, "n dim"], ids: Int[Tensor, "n"], expected: Int[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """−log p of the tokens that are expected, in nats; no more than `BLOCK` logits are held at once."""
    if not len(final):
        return torch.zeros(0)
    block = max(1, BLOCK // head(final[:1], ids[:1]).shape[1])
    losses = []
    for states, here, wanted in zip(*(tensor.split(block) for tensor in (final, ids, expected)), strict=True):
        logits = head(states, here)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses.append(cross_entropy(logits, wanted.to(logits.device), reduction="none"))
    return torch.cat(losses).cpu().double()


def _that_count(sample: Sample) -> Bool[Tensor, "N"]:
    """The tokens that a sample is about: the answer of a needle; of others, the tokens of its rows."""
    if sample.answer is None:
        return sample.rows
    counted = torch.zeros_like(sample.rows)
    counted[sample.answer[:, 0] + 1] = True
    return counted


def _chosen(counted: Bool[Tensor, "N"], seed: int) -> Int[Tensor, "n"]:
    """The places that are masked: 15 % of those that count, at least one, by chance."""
    places = counted.nonzero()[:, 0]
    number = min(len(places), max(1, round(MASKED * len(places))))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    return places[order[:number]].sort().values


def _mask_token(model: Model) -> int | None:
    """The token that stands for one that is to be predicted; None where there is none."""
    ids = (model.tokenizer.token_to_id(name) for name in ("[MASK]", "<mask>"))
    return next((id for id in ids if id is not None), None)
