"""The proof that heads do what their score says: a loss with them switched off, beside that with random heads off."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import torch

from regard.atlas.ablation import Ablation, Experiment, read_without
from regard.atlas.loss import Measured, Passage, Unit, measured
from regard.atlas.plan import RESTING, Plan, Where, excerpts, plan_of

if TYPE_CHECKING:
    from regard.atlas.atlas import Atlas
    from regard.attribution.heads.sample import Text
    from regard.lens import Lens

HEADS, DRAWS = 5, 5
_TEXTS: dict[Text, str] = {"text": "texts", "repeated": "repeated random tokens", "needle": "answers from a text"}
Verdict = Literal["confirmed", "not confirmed"]
_WITHOUT = {
    "zero": "Without {}",
    "mean": "With the output of {} at its mean",
    "edges": "With the edges of the pattern cut in {}",
}
ENOUGH: dict[Unit, float] = {"nats": 0.05, "1 − cosine": 0.005}  # a smaller change of a loss is none that matters


@dataclass(frozen=True)
class Effect:
    """What an ablation does to a loss.

    Attributes:
        ablation: "zero": the heads give 0; "mean": the mean over the text of what they give; "edges": they may not
            attend where the pattern says, and are otherwise as they were.
        where: the text on which the loss was measured: where the pattern matters, or elsewhere.
        change: the loss with these heads off, less the loss of the model as it is.
        random: the same for as many random heads of the same layers, drawn several times.

    >>> Effect("zero", "matters", change=3.2, random=[0.1, 0.0])
    Effect(ablation='zero', where='matters', change=3.2, random=[0.1, 0.0])
    """

    ablation: Ablation
    where: Where
    change: float
    random: Sequence[float]


@dataclass(frozen=True)
class Proof:
    """What happened when the heads with a score were switched off together.

    Attributes:
        score: the name of the score.
        part: the part of the model, as in `Atlas.scores`.
        heads: (layer, head) of the heads, the largest score first.
        loss: what was measured, with its unit: "nats" a token, or "1 − cosine" where a model predicts nothing.
        matters, elsewhere: what was read, in words; "" where nothing was.
        before: the loss of the model as it is, where the pattern matters and elsewhere; nan where nothing was read.
        effects: what each ablation did.
        note: what a reader should also know, of the random heads or of the model's loss as it is; or "".

    >>> effects = [Effect("zero", "matters", 3.4, [0.3, 0.1]), Effect("mean", "matters", 3.2, [0.1, 0.0])]
    >>> proof = Proof("induction", "", [(5, 1)], "nats", "repeated random tokens", "prose", (1.2, 3.1), effects)
    >>> proof.verdict
    'confirmed'
    >>> proof.sentence.partition("; ")[2]
    'with a random head instead, it rises by at most 0.10: it does what the score says.'
    """

    score: str
    part: str
    heads: Sequence[tuple[int, int]]
    loss: Unit
    matters: str
    elsewhere: str
    before: tuple[float, float]
    effects: Sequence[Effect]
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether what was predicted came true: computed from the numbers alone.

        Of a pattern that matters (`Score.matters`), "confirmed" if

        - by every ablation the loss where it matters rises by 0.05 nats a token at least (by 0.005 of 1 − cosine), and
          by more than elsewhere: the heads matter, and for this;
        - by the ablation that is closest to the pattern, which cuts its edges alone (of a score without edges, the
          mean), it rises by more than with any of the random heads: the pattern matters, and in these heads. For n
          draws, that happens by chance once in n + 1 times.

        Random heads at 0 are shown and do not count: in an early layer they can ruin the model as a whole, which says
        nothing against the heads beside them.

        Of heads that rest (`plan.RESTING`), as a sink is where a head looks that has nothing to do, "confirmed" if the
        loss of texts with these heads at 0, or at their mean, rises by less than that, or by no more than with one of
        the draws of random heads. What happens elsewhere is shown and does not count, since heads that rest on one text
        work on another (Guo et al. 2024, https://arxiv.org/abs/2410.13835); nor does what happens when the edges are
        cut: without its sink, such a head has to look at something else.
        """
        return "not confirmed" if self.failed or not self.effects else "confirmed"

    @property
    def closest(self) -> Effect | None:
        """The effect where the pattern matters of the ablation that is closest to it: of cutting edges, or the mean."""
        return self.of("edges", "matters") or self.of("mean", "matters") or self.of("zero", "matters")

    @property
    def failed(self) -> Effect | None:
        """The first effect that is not as predicted; None where all are."""
        predicted = self._is_harmless if self.score in RESTING else self._is_harmful
        return next((effect for effect in self.effects if not predicted(effect)), None)

    @property
    def sentence(self) -> str:
        """What was found, in one plain sentence with the two numbers: these heads, and the random ones.

        They are of the first ablation that is not as predicted; where all are, of the one that is closest to the
        pattern, and of heads that rest, of the heads at 0.
        """
        effect = self.failed or (self.closest if self.score not in RESTING else None) or self.effects[0]
        count = len(self.heads)
        heads = f"the {count} heads" if count > 1 else "the head"
        result = _WITHOUT[effect.ablation].format(f"{heads} with the highest “{self.score}” score")
        where = self.matters if effect.where == "matters" else self.elsewhere
        unit = "nats a token" if self.loss == "nats" else "in 1 − cosine"
        result += f", the loss on {where} {self._changes(effect.change)} {unit}"
        if effect.random:
            others = f"{count} random heads" if count > 1 else "a random head"
            result += f"; with {others} instead, it {self._changes(max(effect.random), 'at most ', 'at least ')}"
        return f"{result}: {self._conclusion(effect)}."

    def of(self, ablation: Ablation, where: Where) -> Effect | None:
        """The effect of an ablation; None where it was not tried there.

        >>> effects = [Effect("zero", "matters", 3.2, [0.1])]
        >>> proof = Proof("induction", "", [(5, 1)], "nats", "repeated random tokens", "", (1.2, 3.1), effects)
        >>> proof.of("zero", "matters").change, proof.of("mean", "matters")
        (3.2, None)
        """
        return next((effect for effect in self.effects if (effect.ablation, effect.where) == (ablation, where)), None)

    def _is_harmful(self, effect: Effect) -> bool:
        if effect.where == "elsewhere":
            return True
        elsewhere = self.of(effect.ablation, "elsewhere")
        more = elsewhere is None or effect.change > elsewhere.change
        own = effect is not self.closest or effect.change > max(effect.random, default=math.inf)
        return effect.change >= ENOUGH[self.loss] and more and own

    def _is_harmless(self, effect: Effect) -> bool:
        like_others = effect.change <= max(effect.random, default=-math.inf)
        judged = effect.where == "matters" and effect.ablation != "edges"
        return not judged or effect.change < ENOUGH[self.loss] or like_others

    def _changes(self, change: float, rising: str = "", falling: str = "") -> str:
        number = f"{abs(change):.{2 if self.loss == 'nats' else 4}f}"
        return f"falls by {falling}{number}" if change < 0 < float(number) else f"rises by {rising}{number}"

    def _conclusion(self, effect: Effect) -> str:
        many = len(self.heads) != 1
        they, look, do, matter = ("they", "look", "do", "matter") if many else ("it", "looks", "does", "matters")
        if self.score in RESTING:
            if self.failed:
                return f"{they} {do} more than was predicted"
            elsewhere = self.of(effect.ablation, "elsewhere")
            rises = elsewhere is not None and elsewhere.change >= ENOUGH[self.loss]
            others = (
                f" there, but on {self.elsewhere} it {self._changes(elsewhere.change)}" if elsewhere and rises else ""
            )
            return f"{they} hardly {matter}{others}"
        if not self.failed:
            return f"{they} {do} what the score says"
        if not effect.change >= ENOUGH[self.loss]:  # nor where it is no number
            return f"{they} {look} the part and {do} not play it"
        elsewhere = self.of(effect.ablation, "elsewhere")
        if elsewhere is not None and not effect.change > elsewhere.change:
            change = self._changes(elsewhere.change)
            return f"on {self.elsewhere} it {change}, so the pattern is not what {they} {matter} for"
        return "random heads matter as much" if effect.random else "there are no other heads to compare with"


def prove(
    lens: Lens,
    atlas: Atlas,
    passages: Mapping[str, Sequence[Passage]],
    *,
    heads: int = HEADS,
    draws: int = DRAWS,
    done: Collection[tuple[str, str]] = (),
    progress: Callable[[float], object] = lambda share: None,
) -> Iterator[Proof]:
    """Switch the heads off that have a score, and as many random ones beside them, and see what that does to the loss.

    For each score that predicts where heads matter (`Score.matters`), or that they rest (a sink), and of which heads
    were found: the heads with the largest score are switched off together, by each ablation, where their pattern
    matters and elsewhere; then random heads of the same layers, which do not have the score, in their place.

    Of repeated tokens two periods are read, so that every token of the second has occurred exactly once. Of each kind
    of text as many passages are read as have 1,024 tokens together, or the beginning of one.

    Args:
        lens: whose model it is.
        atlas: the scores of its heads; its seed is that of the random heads and of the tokens that are masked.
        passages: by part of the model (`Atlas.parts`), what is read; all kinds of text in one list.
        heads: how many heads are switched off, at most.
        draws: how many times random heads are drawn.
        done: (part, score) of proofs that are there already, which are not made again. Each is made on its own: the
            others come out the same.
        progress: called with the share of the work that is done; what it raises ends it.

    Returns: the proofs, each as soon as it is made. A score without found heads, or without a text where it matters,
    has none.

    Raises ValueError where heads or draws is less than 1.

    >>> import regard, torch
    >>> from regard.atlas.atlas import Atlas
    >>> from regard.attribution.heads import sample_of
    >>> lens = regard.Lens()
    >>> reading = lens.read("Time flies like an arrow. Fruit flies like a banana.")
    >>> separator = torch.zeros(6, 12)
    >>> separator[2, 3] = 0.9                                     # as if head 3 of layer 2 were the one that was found
    >>> atlas = Atlas(lens.name, lens.fingerprint, {"": {"separator": separator}})
    >>> [proof] = prove(lens, atlas, {"": [Passage(reading.ids, sample_of(reading))]})
    >>> proof.heads, proof.loss, proof.before[0]
    ([(2, 3)], '1 − cosine', 0.0)
    """
    for name, number in (("heads", heads), ("draws", draws)):
        if number < 1:
            raise ValueError(f"prove: {name}: expected 1 or more. Got {number}.")
    plans = [
        plan
        for part in atlas.parts
        for name in atlas.scores[part]
        if (part, name) not in done and (plan := plan_of(atlas, part, name, passages.get(part, ()), heads, draws))
    ]
    total, finished = sum(plan.work for plan in plans), 0

    def advance(tokens: int) -> None:
        nonlocal finished
        finished += tokens
        progress(finished / total)

    before = cache(lambda part, kind: _measured(lens, part, passages[part], kind, atlas.seed))
    for plan in plans:
        read = {where: before(plan.part, kind) for where, kind in plan.kinds.items()}
        if read["matters"]:
            yield _proof(plan, read, advance)
        else:
            advance(plan.work)


@torch.inference_mode()
def _proof(plan: Plan, read: Mapping[Where, Sequence[Measured]], advance: Callable[[int], object]) -> Proof:
    """Read everything with the heads switched off, and with random ones."""
    ablations: list[Ablation] = ["zero", "mean"] if plan.score.edges is None else ["zero", "mean", "edges"]
    sets = [plan.heads, *plan.random]
    experiments = [Experiment(heads, ablation) for ablation in ablations for heads in sets]
    before, effects = dict[Where, float](), list[Effect]()
    for where, passages in read.items():
        if not passages:
            continue
        count = sum(len(passage.before) for passage in passages)
        before[where] = sum(float(passage.before.sum()) for passage in passages) / count
        after = [0.0] * len(experiments)
        for passage in passages:
            edges = None if plan.score.edges is None else plan.score.edges(passage.passage.sample).rule()
            for n, final in read_without(passage.model, passage.ids, experiments, passage.heads, edges):
                after[n] += float(passage.of(final).sum()) / count
                advance(len(passage.ids))
        for number, ablation in enumerate(ablations):
            change, *random = (loss - before[where] for loss in after[number * len(sets) : (number + 1) * len(sets)])
            effects.append(Effect(ablation, where, change, random))
    return Proof(
        plan.score.name,
        plan.part,
        plan.heads,
        read["matters"][0].unit,
        _TEXTS[plan.kinds["matters"]],
        _TEXTS[plan.kinds["elsewhere"]] if "elsewhere" in before else "",
        (before["matters"], before.get("elsewhere", math.nan)),
        effects,
        " ".join(filter(None, [plan.note, _chance(read["matters"][0], before["matters"], plan.kinds["matters"])])),
    )


def _chance(passage: Measured, before: float, kind: Text) -> str:
    """A sentence about a model that does no better than chance as it is, and has nothing to lose; or ""."""
    tokens = passage.model.vocab_size
    if passage.unit != "nats" or tokens is None or before < math.log(tokens):
        return ""
    return f"As it is, the model predicts {_TEXTS[kind]} no better than by chance, and has nothing to lose."


def _measured(lens: Lens, part: str, passages: Sequence[Passage], kind: Text, seed: int) -> list[Measured]:
    """The passages of a kind that are read, with the loss of the model as it is."""
    losses = (measured(lens, part, passage, seed) for passage in excerpts(passages, kind))
    return [loss for loss in losses if loss is not None]
