"""The scores of heads: one list of what is measured, and how it is measured of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from regard.attribution.heads import patterns, spread
from regard.attribution.heads.alignment import alignment
from regard.attribution.heads.copying import copying
from regard.attribution.heads.edges import Edges
from regard.attribution.heads.positional import positional
from regard.attribution.heads.retrieval import places, retrieval
from regard.attribution.heads.sinks import sink

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.attribution.heads.sample import Sample, Text
    from regard.attribution.layers import Layer

NAMED_FROM = 0.5  # of what a pattern's score can be: from here on a head is named after the pattern
STRICT_FROM = 0.9  # of the weight of every token: from here on a single head is said to follow a pattern

Kind = Literal["self", "cross", "both"]

CLARK = "Clark et al. 2019, https://arxiv.org/abs/1906.04341"
OLSSON = "Olsson et al. 2022, https://arxiv.org/abs/2209.11895"
WANG = "Wang et al. 2022, https://arxiv.org/abs/2211.00593"


@dataclass(frozen=True)
class Score:
    """A score of heads: a number for each head of a layer.

    Attributes:
        name: its name in `SCORES`.
        phrase: what a head with a high score does: "attends to the previous token".
        text: the kind of text that it is measured on.
        paper: where it comes from.
        compute: (layer, sample) → (H,), the mean over the sample's rows.
        of: the attention that has it: "self", "cross", or "both".
        range: the least and the largest number that it can be; None where there is no bound.
        unit: what the number is: "share", "nats", "tokens", "correlation".
        found_from: from which number on a head counts as one that does it; None for a score that only describes.
        matters: the kind of text whose loss should suffer where such heads are switched off; None where none should.
        edges: of a sample, the edges that its proof cuts; None for a score without such.
        whom: of a score that is the weight on its edges, whom the head attends to: "the previous token"; else "".

    >>> from regard.attribution.heads import SCORES
    >>> induction = SCORES["induction"]
    >>> induction.phrase, induction.text, induction.found_from
    ('attends to the token after the previous occurrence', 'repeated', 0.5)
    """

    name: str
    phrase: str
    text: Text
    paper: str
    compute: Callable[[Layer, Sample], Float[Tensor, "H"]] = field(repr=False)
    of: Kind = "self"
    range: tuple[float | None, float | None] = (0.0, 1.0)
    unit: str = "share"
    found_from: float | None = NAMED_FROM
    matters: Text | None = None
    edges: Callable[[Sample], Edges] | None = field(default=None, repr=False)
    whom: str = ""


def _pattern(
    name: str,
    whom: str,
    edges: Callable[[Sample], Edges],
    paper: str = CLARK,
    of: Kind = "self",
    repeated: bool = False,
    matters: Text | None = None,
    rows: Callable[[Sample], Bool[Tensor, "Q"]] = patterns.every_row,
) -> Score:
    """A score that is the weight on edges, the mean over these rows."""
    return Score(
        name=name,
        phrase=f"attends to {whom}",
        text="repeated" if repeated else "text",
        of=of,
        matters="repeated" if repeated else matters,
        paper=paper,
        compute=patterns.share_of(edges, rows),
        edges=edges,
        whom=whom,
    )


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        _pattern("previous", "the previous token", patterns.previous, matters="repeated"),
        _pattern("next", "the next token", patterns.next_, matters="text"),
        _pattern("itself", "the token itself", patterns.itself, matters="text"),
        _pattern("first", "the first token", patterns.first, of="both"),
        _pattern("last", "the last token", patterns.last, of="both"),
        _pattern("separator", "separators", patterns.separator, of="both"),
        _pattern("punctuation", "punctuation", patterns.punctuation, of="both", matters="text"),
        _pattern("same", "the same token elsewhere", patterns.same, of="both", matters="text"),
        Score(
            name="sink",
            phrase="rests on the first token",
            text="text",
            paper="Gu et al. 2024, https://arxiv.org/abs/2410.10781",
            compute=sink,
            edges=patterns.first,
        ),
        Score(
            name="entropy",
            phrase="spreads its weight over many tokens",
            text="text",
            of="both",
            range=(0.0, None),
            unit="nats",
            found_from=None,
            paper=CLARK,
            compute=spread.entropy,
        ),
        Score(
            name="distance",
            phrase="attends to tokens far away",
            text="text",
            range=(0.0, None),
            unit="tokens",
            found_from=None,
            paper="Vig and Belinkov 2019, https://arxiv.org/abs/1906.04284",
            compute=spread.distance,
        ),
        Score(
            name="positional",
            phrase="goes by distance, not by content",
            text="text",
            matters="text",
            paper="after Voita et al. 2019, https://arxiv.org/abs/1905.09418",
            compute=positional,
        ),
        _pattern("duplicate", "the token's earlier occurrences", patterns.duplicate, WANG, repeated=True),
        _pattern(
            "induction",
            "the token after the previous occurrence",
            patterns.induction,
            OLSSON,
            repeated=True,
            rows=patterns.second,
        ),
        _pattern("prefix", "the tokens after earlier occurrences", patterns.prefix, OLSSON, repeated=True),
        Score(
            name="copying",
            phrase="raises the logit of the token that it reads",
            text="repeated",
            matters="repeated",
            paper=f"after {WANG}, and {OLSSON}",
            compute=copying,
        ),
        Score(
            name="retrieval",
            phrase="copies an answer from its place in the text",
            text="needle",
            found_from=0.1,
            matters="needle",
            paper="Wu et al. 2024, https://arxiv.org/abs/2404.15574",
            compute=retrieval,
            edges=places,
        ),
        Score(
            name="alignment",
            phrase="goes through the source in step with the target",
            text="text",
            of="cross",
            range=(-1.0, 1.0),
            unit="correlation",
            matters="text",
            paper="after Raffel et al. 2017, https://arxiv.org/abs/1704.00784",
            compute=alignment,
        ),
    )
}


def measure(layer: Layer, sample: Sample) -> dict[str, Float[Tensor, "H"]]:
    """All scores of the heads of a layer that its kind of attention and this kind of text have.

    Args:
        layer: of a reading, or of what `regard.hf.record()` collected, without a batch; see
            `regard.attribution.layers.layer_of`.
        sample: what was read.

    Returns: by their names in `SCORES`, numbers in float32 on the CPU; nan where the model does not let a score be
    measured, as copying without an output projection.

    Raises ValueError for a layer with a batch, and for one of another text.

    >>> import regard
    >>> from regard.attribution.heads import measure, sample_of
    >>> from regard.attribution.layers import layer_of
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> scores = measure(layer_of(reading, 2), sample_of(reading))
    >>> scores["previous"].shape, scores["previous"].argmax()
    (torch.Size([12]), tensor(11))
    """
    expected, got = (len(sample.rows), len(sample.key_ids)), tuple(layer.weights.shape)
    if len(got) != 3 or got[1:] != expected:
        raise ValueError(
            f"measure: layer: expected weights (H, {expected[0]}, {expected[1]}), of the sample's queries and keys, "
            f"without a batch. Got {got}."
        )
    return {
        name: score.compute(layer, sample).float().cpu()
        for name, score in SCORES.items()
        if score.text == sample.text and score.of in (sample.kind, "both")
    }
