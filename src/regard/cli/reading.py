"""Commands that read a text and show the attention in it: explain, show, compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli.console import print_json, print_rich, warn
from regard.cli.options import AllowPickle, Head, Json, Layer, Model, Nth, SaveReading, Text

if TYPE_CHECKING:
    from regard.lens import Comparison, Lens

commands = typer.Typer()


@commands.command(epilog='Example: regard explain "Time flies like an arrow" --word flies')
def explain(
    text: Text,
    word: Annotated[str, typer.Option(help="The word to explain.", show_default=False)],
    layer: Layer = None,
    head: Head = None,
    nth: Nth = None,
    model: Model = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: SaveReading = None,
) -> None:
    """Explain step by step, with the real numbers, how a word changes.

    Attention computes the new vector of the word. Without --layer and --head, this explains the head that carries most
    to the word from other words.
    """
    from regard.lens import Lens, display
    from regard.output import terminal

    if save is not None:
        display.check_suffix(save)
    reading = Lens(model, allow_pickle=allow_pickle).read(text)
    walk = reading.explain(word, layer, head, nth)
    if save is not None:
        display.save(reading, save, word=walk.word, layer=walk.layer, head=walk.head, view="walk")
    if as_json:
        print_json(walk.to_dict())
    else:
        print_rich(lambda width: terminal.explain(walk, width))
    warn(reading.truncated)


@commands.command(epilog='Example: regard show "Time flies like an arrow" --layer 0 --head 2 --save flies.png')
def show(
    text: Text,
    layer: Layer = None,
    head: Head = None,
    model: Model = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: SaveReading = None,
) -> None:
    """Show which word attends to which, in the terminal or as a file.

    Without --layer or --head, this is the mean over all layers or heads.
    """
    from regard.lens import Lens, display
    from regard.output import terminal
    from regard.output.json import numbers

    if save is not None:
        display.check_suffix(save)
    reading = Lens(model, allow_pickle=allow_pickle).read(text)
    reading.check(layer, head)
    if save is not None:
        display.save(reading, save, layer=layer, head=head)
    if as_json:
        print_json(numbers(reading, layer, head))
    elif save is None:
        print_rich(lambda width: terminal.heat_map(reading, layer, head, width))
    warn(reading.truncated)
    if save is not None:
        warn(reading.note)


@commands.command(epilog='Example: regard compare "Time flies like an arrow" "Fruit flies like a banana" --word flies')
def compare(
    texts: Annotated[list[str], typer.Argument(help="Two or more texts.", show_default=False)],
    word: Annotated[str, typer.Option(help="A word that occurs in at least two of the texts.", show_default=False)],
    nth: Nth = None,
    model: Model = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
) -> None:
    """Compare a word in several texts, layer by layer.

    It shows how far each context moves the vector of the word.
    """
    from regard.lens import Lens
    from regard.output import terminal

    comparison, left_out = _compare(Lens(model, allow_pickle=allow_pickle), texts, word, nth)
    if as_json:
        print_json(comparison.to_dict())
    else:
        print_rich(lambda width: terminal.similarity(comparison))
    for reading in comparison.readings:
        warn(reading.truncated)
    for reason in left_out:
        warn(f"A text was left out. {reason}")


def _compare(lens: Lens, texts: list[str], word: str, nth: int | None) -> tuple[Comparison, list[str]]:
    """The comparison of the texts that contain the word, if there are two, and why each other text was left out."""
    try:
        return lens.compare(texts, word, nth), []
    except LookupError:
        containing, left_out = [], []
        for text in texts:
            try:
                lens.read(text).word(word, 1)
                containing.append(text)
            except LookupError as error:
                left_out.append(f"In {text!r}: {error}")
        if not left_out or len(containing) < 2:
            raise
        return lens.compare(containing, word, nth), left_out
