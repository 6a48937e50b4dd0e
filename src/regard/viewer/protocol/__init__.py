"""The viewer's protocol: every message between a page and Python; the limits that both know are in limits.py.

A page sends a *request*, a JSON object whose `type` says which, and gets a *reply*, or an error: over HTTP (server.py:
POST /api), in a notebook (widget.py) or, in a saved page, from a script. api.py answers requests, parse.py checks them.
Whole numbers are not negative, and count from 0. In shapes, H are heads, L layers, N tokens, and U units: the words and
special tokens, in the order of `Metadata.units`; V are those of `Metadata.columns`, where there are such.

request.py has what all requests, and the replies to any, have in common; writing.py the messages about what a model
writes; atlas.py what the page of an atlas holds; this file all others. There is no other definition:
`python -m regard.viewer.protocol` prints the JavaScript module `protocol.js`, and with --table the table in
docs/view.md; tests hold both equal to what is printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict, get_args

from torch import Tensor

from regard.viewer.protocol.atlas import AtlasEffect as AtlasEffect
from regard.viewer.protocol.atlas import AtlasHead as AtlasHead
from regard.viewer.protocol.atlas import AtlasOfHeads as AtlasOfHeads
from regard.viewer.protocol.atlas import AtlasProof as AtlasProof
from regard.viewer.protocol.atlas import AtlasRow as AtlasRow
from regard.viewer.protocol.atlas import AtlasScore as AtlasScore
from regard.viewer.protocol.atlas import AtlasWord as AtlasWord
from regard.viewer.protocol.limits import PREDICTIONS
from regard.viewer.protocol.request import CancelledReply as CancelledReply
from regard.viewer.protocol.request import ErrorReply as ErrorReply
from regard.viewer.protocol.request import PendingReply as PendingReply
from regard.viewer.protocol.request import Request as Request
from regard.viewer.protocol.request import Text as Text
from regard.viewer.protocol.writing import WRITING, Writes

if TYPE_CHECKING:
    from jaxtyping import Float

Side = Literal["from", "to"]
Reduce = Literal["mean", "max"]
Predicts = Literal["next token", "masked token"]
Attention = Literal["encoder", "decoder", "cross"]
MapName = Literal["weights", "value-weighted", "norms", "gradient", "logits"]
MAPS: tuple[MapName, ...] = get_args(MapName)  # in the order of the choice


@dataclass(frozen=True, kw_only=True)
class StartRequest(Request):
    """Which models there are, and what to show first."""

    type = "start"


@dataclass(frozen=True, kw_only=True)
class ReadRequest(Request):
    """Read a text, or a pair of texts."""

    type = "read"
    text: Text
    pair: Text | None = None
    model: str | None = None  # one of `StartReply.models`; the first, if it is not given


@dataclass(frozen=True, kw_only=True)
class ReadingRequest(Request):
    """What all requests about a reading have."""

    reading: str  # its id, from `MetadataReply.reading`


@dataclass(frozen=True, kw_only=True)
class MetadataRequest(ReadingRequest):
    """The metadata of a reading, again."""

    type = "metadata"


@dataclass(frozen=True, kw_only=True)
class LayerRequest(ReadingRequest):
    """What all requests about a layer have."""

    layer: int


@dataclass(frozen=True, kw_only=True)
class MapRequest(LayerRequest):
    """What all requests about the weights, or another map in their place, have."""

    map: MapName = "weights"  # one of `Metadata.maps`
    target: str | None = None  # of a map that is about one, such as "word:flies"; `Metadata.target`, if it is not given


@dataclass(frozen=True, kw_only=True)
class HeadRequest(LayerRequest):
    """What all requests about a head have."""

    head: int


@dataclass(frozen=True, kw_only=True)
class WordWeightsRequest(MapRequest):
    """The weights from or to a unit, in each head."""

    type = "word_weights"
    word: int  # the unit
    side: Side = "from"  # "from": the weights that it gives; "to": those that it gets


@dataclass(frozen=True, kw_only=True)
class LayerWeightsRequest(MapRequest):
    """All weights of a layer, for a text, or source and target, of at most LAYER_WEIGHTS_UNITS units each."""

    type = "layer_weights"


@dataclass(frozen=True, kw_only=True)
class ThumbnailsRequest(MapRequest):
    """A small picture of each head of a layer, and the attention pattern that the head follows."""

    type = "thumbnails"
    hide: bool = False  # leave out the special tokens
    hide_first: bool = False  # leave out the first unit


@dataclass(frozen=True, kw_only=True)
class TileRequest(HeadRequest, MapRequest):
    """One tile of the map of a head; which one does not matter where all are taken together."""

    type = "tile"
    level: int  # a cell stands for 2^level × 2^level weights
    row: int  # of the tile, among those of the level
    column: int  # of the tile, among those of the level
    reduce: Reduce = "mean"  # what a cell shows of its weights
    hide: bool = False  # leave out the special tokens
    hide_first: bool = False  # leave out the first unit


@dataclass(frozen=True, kw_only=True)
class WalkRequest(HeadRequest, MapRequest):
    """The numbers by which a head makes the context vector of one token."""

    type = "walk"
    token: int
    all: bool = False  # list up to WALK_ROWS tokens, and not only those with the largest weights, or numbers of the map


@dataclass(frozen=True, kw_only=True)
class PredictionsRequest(ReadingRequest):
    """The likeliest tokens at up to PREDICTED_TOKENS tokens, as the model expects them, or one of its layers."""

    type = "predictions"
    layer: int | None = None  # one of `PredictionsOffer.layers`; if it is not given, the model itself
    first: int = 0  # the first token
    k: int = PREDICTIONS  # for each token, 1 to PREDICTED_MOST


@dataclass(frozen=True, kw_only=True)
class TargetRequest(ReadingRequest):
    """Whether something can be the target of a map, and what it is called."""

    type = "target"
    target: str  # as on the command line: "next", "next:cat-dog", "label:POSITIVE", "text:…", "sentence", "word:flies"


@dataclass(frozen=True, kw_only=True)
class CompareRequest(Request):
    """One word in several texts: how its vectors differ, layer by layer."""

    type = "compare"
    word: Text
    texts: list[Text]  # at most COMPARED_TEXTS; each place where the word stands counts
    model: str | None = None  # one of `StartReply.models`; the first, if it is not given


@dataclass(frozen=True, kw_only=True)
class PageRequest(HeadRequest):
    """The reading as one HTML file that needs no Python."""

    type = "page"
    word: int | None = None  # the unit that is selected when the page opens
    target: str | None = None  # of the maps that are about one, as in other requests
    link: str | None = None  # the address, without its "#", that the page opens with
    comparison: CompareRequest | None = None  # a comparison to save with it


@dataclass(frozen=True, kw_only=True)
class CancelRequest(Request):
    """Cancel a job."""

    type = "cancel"
    job: int = field()  # its number, from a `PendingReply`


# Replies


class Opening(TypedDict, total=False):
    """What a page shows first: a reading, or a text to read."""

    reading: str
    text: str
    pair: str | None


class StartReply(TypedDict):
    """The models, and what to show first."""

    models: list[str]  # the names of the models; empty where no other text can be read
    opening: Opening | None  # null where there is nothing to begin with
    compares: NotRequired[bool]  # false where a saved page holds no comparison
    compared: NotRequired[CompareReply | None]  # the comparison that a saved page holds
    atlas: NotRequired[AtlasOfHeads | None]  # the atlas that a saved page holds


class Source(TypedDict):
    """What a reading was made of."""

    model: str
    text: str
    pair: str | None


class Memory(TypedDict):
    """The memory that readings take, in bytes."""

    reading: int  # of this reading
    used: int  # of all that is kept
    limit: int  # that may be used
    readings: int  # how many readings are kept


class MapOffer(TypedDict):
    """A map of a reading: the weights themselves, or what they become times what is known of the values."""

    name: MapName
    heads: bool  # whether each head has its own; false where all heads are taken together
    target: bool  # whether it is about `Metadata.target`
    signed: bool  # whether its numbers may be below 0
    missing: str | None  # a sentence that says why there is none; null where there is


class PredictionsOffer(TypedDict):
    """What a language model predicts at each token of a reading."""

    kind: Predicts  # the token after each, or the one at each place
    layers: list[int]  # those of which predictions can be requested; the last makes the model's own
    missing: str | None  # a sentence that says why there are not all layers; null where there are


class Columns(TypedDict):
    """The words that are attended to, where they are those of another text: a source, by those of its target."""

    text: str  # its first 2,000 characters
    units: list[str]
    special: list[int]
    first_tokens: list[int]
    tokens: list[str]
    unknown: list[int]
    unknown_tokens: list[int]


class Metadata(TypedDict):
    """What a page must know of a reading before it asks for weights."""

    model: str
    text: str  # its first 2,000 characters
    truncated: str | None  # which part of the text was not read, and why
    layers: int
    heads: int
    units: list[str]  # the words and special tokens, in order
    special: list[int]  # the units that are special tokens
    first_tokens: list[int]  # the first token of each unit
    tokens: list[str]
    second: int | None  # the unit with which the second text of a pair begins
    causal: bool  # whether no token sees one that comes after it
    first_share: float | None  # where causal, the share of attention that the first unit gets from those after it
    sinks: bool  # whether attention sinks take some of the weight
    unknown: list[int]  # the units for which the vocabulary has no token
    unknown_tokens: list[int]  # the tokens that stand for such text
    note: str  # what else a reader should know
    attention_layers: list[int]  # the layers that have attention
    attention: Attention | None  # which one of an encoder-decoder this is
    attentions: list[Attention]  # those to choose from: each has an id, that of the reading, a dot, and this name
    columns: Columns | None  # null where the words attend to each other
    maps: list[MapOffer]  # in the order of MAPS
    predictions: PredictionsOffer | None  # null where the model predicts no tokens
    target: str | None  # what the maps that are about one explain, unless another is chosen; null where there is none
    reply: int | None  # the unit with which the reply begins that the model wrote itself; null where there is none


class MetadataReply(Metadata):
    """The metadata of a reading."""

    reading: str  # its id: the same text, pair and model have the same
    memory: NotRequired[Memory]  # not in a saved page
    source: NotRequired[Source]  # what it was made of, where this is known
    writes: NotRequired[Writes | None]  # whether its model replies to a message, goes on with a text, or does not write
    exactness: NotRequired[str]  # in a saved page, how its numbers were rounded; empty where they are exact


class WordWeightsReply(TypedDict):
    """Weights, or numbers of the map, by head and unit of the other side; H is 1 for a map of all heads together."""

    weights: Float[Tensor, "H U"]


class LayerWeightsReply(TypedDict):
    """Weights, or numbers of the map, by head, unit that attends, and unit that is attended to."""

    weights: Float[Tensor, "H U V"]


class ThumbnailsReply(TypedDict):
    """Pictures of heads, or the one of a map of all heads together, and the heads' patterns."""

    thumbnails: Float[Tensor, "H n m"]  # each cell the largest of its numbers, by magnitude where they have signs
    shares: Float[Tensor, "H patterns"]  # the share of its weight that each head gives to each pattern
    patterns: dict[str, str]  # by name, the place that a pattern is about, as a phrase
    threshold: float  # the share from which on a head is named after a pattern


class TileReply(TypedDict):
    """At most TILE_SIZE × TILE_SIZE cells, fewer at the edges."""

    cells: Float[Tensor, "rows columns"]


class Projections(TypedDict):
    """How a layer makes query, key and value of x."""

    norm: str  # the norm of x before, if any
    head_norm: bool  # whether query and key are normed after
    rotated: bool  # whether query and key are rotated by their positions
    factor: float  # by which the query is multiplied, or both where they are rotated


class WalkReply(TypedDict):
    """The walk of one token; the listed tokens are those of `rows`. A saved page has only what it holds."""

    rows: list[int]  # the tokens that are listed, in order
    weights: Float[Tensor, "rows"]
    best: NotRequired[int]  # the token with the largest weight
    scale: NotRequired[float]  # of the scores
    softcap: NotRequired[float | None]  # of the scaled scores
    adjusted: NotRequired[bool]  # whether the model adds a bias to the scores
    sink: NotRequired[float | None]  # the weight that an attention sink takes
    masked: NotRequired[bool]  # whether there are tokens that it may not see; their scores are NaN
    error: NotRequired[float | None]  # the largest difference between this context and the model's own
    carried_total: NotRequired[float | None]  # the sum of `carried` over all tokens
    projected: NotRequired[bool]  # whether lengths are ‖v W_O‖; they are ‖v‖ where W_O is not known
    made: NotRequired[Projections | None]  # null where it is not known
    x: NotRequired[Float[Tensor, "dim"]]
    query: NotRequired[Float[Tensor, "D"]]
    key: NotRequired[Float[Tensor, "D"]]  # key and value of the token itself, which none has for another text
    value: NotRequired[Float[Tensor, "E"]]
    keys: NotRequired[Float[Tensor, "rows D"]]
    values: NotRequired[Float[Tensor, "rows E"]]
    scores: NotRequired[Float[Tensor, "rows"]]
    scaled: NotRequired[Float[Tensor, "rows"]]
    mapped: NotRequired[Float[Tensor, "rows"]]  # numbers of the map, where it is not the weights
    mapped_total: NotRequired[float | None]  # the sum of their magnitudes over all tokens
    lengths: NotRequired[Float[Tensor, "rows"]]  # of the values
    carried: NotRequired[Float[Tensor, "rows"]]  # weight × length
    context: NotRequired[Float[Tensor, "E"]]
    normed: NotRequired[Float[Tensor, "dim"]]  # x after the norm, where there is one
    unrotated: NotRequired[Float[Tensor, "D"]]  # the query before it is rotated, where it is


class PredictionsReply(TypedDict):
    """Predictions for n tokens, the likeliest first."""

    texts: list[list[str]]  # as they would stand in a text, with the space before those that begin a word
    probabilities: Float[Tensor, "n k"]
    surprise: Float[Tensor, "n"]  # −log p of the token that came next, in nats; NaN where it is not known


class TargetReply(TypedDict):
    """The name of a target."""

    name: str


class Place(TypedDict):
    """Where the word stands: `text[start:end]`."""

    text: str
    start: int
    end: int


class LeftOut(TypedDict):
    """A text that lacks the word."""

    text: int  # its index in the request
    reason: str  # a sentence


class CompareReply(TypedDict):
    """A word at n places."""

    word: str
    places: list[Place]
    clusters: list[list[int]]  # the two groups after the last layer; the second is empty where they do not part
    left_out: list[LeftOut]
    similarity: Float[Tensor, "L+1 n n"]  # cosines, before the first layer and after each
    plane: Float[Tensor, "L+1 n 2"]  # the vectors in two dimensions, each layer turned to fit the one before


class PageReply(TypedDict):
    """The text of the HTML file."""

    html: str


class CancelReply(TypedDict):
    """How many jobs were cancelled: none where it was done."""

    jobs: int


MESSAGES: dict[str, tuple[type[Request], type]] = {
    request.type: (request, reply)
    for request, reply in (
        (StartRequest, StartReply),
        (ReadRequest, MetadataReply),
        (MetadataRequest, MetadataReply),
        (WordWeightsRequest, WordWeightsReply),
        (LayerWeightsRequest, LayerWeightsReply),
        (ThumbnailsRequest, ThumbnailsReply),
        (TileRequest, TileReply),
        (WalkRequest, WalkReply),
        (PredictionsRequest, PredictionsReply),
        (TargetRequest, TargetReply),
        (CompareRequest, CompareReply),
        *WRITING,
        (PageRequest, PageReply),
        (CancelRequest, CancelReply),
    )
}
