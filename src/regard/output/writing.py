"""What a language model writes, in the terminal and as JSON: tokens, probabilities, and whom they looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard.lens.words import printable
from regard.output.lines import Wrapped

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens.generate import Generation, NextToken
    from regard.lens.reading import Reading
    from regard.lens.units import Word

LIKELY, POSSIBLE = 0.9, 0.5  # probabilities from which a token is plain, and green
STYLES = ((LIKELY, ""), (POSSIBLE, "green"), (0.1, "yellow"), (0.0, "bold red"))
SHOWN = 3  # words that a token looked at
ROWS = 64  # queries that are held at once


class Looks(NamedTuple):
    """Whom the model looked at when it chose a token.

    Attributes:
        first: the share of attention that the first token of the text drew, the mean over all layers and heads.
        words: those that drew most of the rest, with their shares of all attention.
    """

    first: float
    words: list[tuple[Word, float]]


class TokenPrinter:
    """Prints tokens one after the other as they come: coloured by their probability on a terminal, plain elsewhere."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._ended = True

    def __call__(self, token: NextToken) -> None:
        """Print a token."""
        style = next(style for least, style in STYLES if token.probability >= least)
        lines = "\n".join(printable(line) for line in token.text.split("\n"))
        self._console.print(Text(lines, style), end="")
        self._console.file.flush()
        self._ended = False

    def end(self) -> None:
        """End the line, and say on a terminal what the colours mean."""
        if self._ended:
            return
        self._console.print()
        if self._console.is_terminal:
            names = [f"{STYLES[0][0]:.0%} or more", *(f"{least:.0%}" for least, _ in STYLES[1:-1]), "less"]
            legend = Text("probability: ", "dim")
            for name, (_, style) in zip(names, STYLES, strict=True):
                legend.append(name, style or "default").append("  ")
            self._console.print(legend)


def looks(generation: Generation) -> list[Looks]:
    """For each token of a reply, whom the model looked at when it chose it: at the token before it.

    The mean of the weights over all layers and heads, summed over the tokens of a word. The first token of a text draws
    most of it in most models, whatever it says; its share is named apart. Of an encoder-decoder it is the target's own
    attention.
    """
    reading = generation.reading.decoder or generation.reading
    assert reading.reply is not None
    start, stop = reading.reply.token - 1, len(reading.tokens) - 1
    return [row for first in range(start, stop, ROWS) for row in _looks(reading, first, min(first + ROWS, stop))]


def _looks(reading: Reading, start: int, stop: int) -> list[Looks]:
    by_word: Float[Tensor, "rows units"] = torch.zeros(stop - start, len(reading.units))
    first = torch.zeros(stop - start)
    for layer in reading.attention_layers:
        weights = reading.attention[layer].weights[:, start:stop].float().mean(0).cpu()
        first += weights[:, 0]
        weights[:, 0] = 0
        by_word += reading.by_unit(weights)
    count = len(reading.attention_layers)
    shares, places = (by_word / count).topk(min(SHOWN, len(reading.units)))
    return [
        Looks(share, [(reading.units[n], w) for n, w in zip(row, weights, strict=True) if w > 0])
        for share, row, weights in zip((first / count).tolist(), places.tolist(), shares.tolist(), strict=True)
    ]


def looks_table(generation: Generation, width: int) -> RenderableType:
    """The tokens of a reply with their probabilities, and whom each looked at."""
    table = Table(box=None, pad_edge=False, header_style="dim", width=min(width, 100))
    table.add_column("token", no_wrap=True)
    table.add_column("probability", justify="right")
    table.add_column("first token", justify="right")
    table.add_column("looked at", ratio=1)
    for token, at in zip(generation.tokens, looks(generation), strict=True):
        words = ", ".join(f"{printable(word.text)} {weight:.0%}" for word, weight in at.words)
        table.add_row(f"“{printable(token.text)}”", f"{token.probability:.1%}", f"{at.first:.0%}", words)
    legend = (
        "Where the model looked when it chose each token: weights, the mean over all layers and heads, by word. The "
        "first token of the text, which draws attention whatever it says, stands apart. A mean of weights shows where "
        "heads look, not what decides the output."
    )
    return Group(table, Text(), Wrapped(legend, "dim"))


def to_dict(generation: Generation, with_looks: bool) -> dict[str, Any]:
    """A reply as plain values for JSON."""
    tokens: list[dict[str, Any]] = [token._asdict() for token in generation.tokens]
    for token, at in zip(tokens, looks(generation) if with_looks else (), strict=False):
        words = [{"text": word.text, "start": word.start, "end": word.end, "weight": w} for word, w in at.words]
        token["looks"] = {"first_token": at.first, "words": words}
    return {
        "model": generation.model,
        **({} if generation.source is None else {"source": generation.source}),
        "prompt": generation.prompt,
        "reply": generation.text,
        "finished": generation.finished,
        "tokens": tokens,
    }
