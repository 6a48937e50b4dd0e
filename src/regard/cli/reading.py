"""Commands that read a text and show the attention in it: explain, show, attribute, compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from regard._internal.plurals import counted
from regard.cli.console import check_figures, print_json, print_rich, save_figures, warn
from regard.cli.options import (
    TARGETS,
    AllowPickle,
    Attention,
    Head,
    Json,
    Layer,
    Map,
    Model,
    Nth,
    Pair,
    SaveFigure,
    SaveReading,
    Target,
    Text,
)

if TYPE_CHECKING:
    from regard.attribution import Target as Explained
    from regard.lens import Comparison, Lens, Reading
    from regard.lens.walk import Walk

commands = typer.Typer()

Against = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Another text with the word: how far apart its two vectors are, layer by layer.",
        show_default=False,
    ),
]


@commands.command(epilog='Example: regard explain "Time flies like an arrow" --word flies')
def explain(
    text: Text,
    word: Annotated[str, typer.Option(help="The word to explain.", show_default=False)],
    layer: Layer = None,
    head: Head = None,
    nth: Nth = None,
    against: Against = None,
    map_name: Map = "weights",
    target: Target = None,
    pair: Pair = None,
    attention: Attention = None,
    model: Model = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: SaveReading = None,
) -> None:
    """Explain step by step, with the real numbers, how a word changes.

    Attention computes the new vector of the word. Without --layer and --head, this explains the head that carries most
    to the word from other words. With --map, it adds what the word took home from each under that map. With --against,
    it ends with the same word in another text, the first of them there: how far apart the two vectors are.

    Of an encoder-decoder with --pair, the word is one of the target, and its attention that to the source; --attention
    chooses another.
    """
    from regard.lens import Lens, display
    from regard.output import terminal
    from regard.output.maps import ShownMap, taken

    if save is not None:
        display.check_suffix(save)
    _check_against(against, text, pair)
    lens = Lens(model, allow_pickle=allow_pickle)
    whole, reading = _read(lens, text, pair, attention)
    walk = reading.explain(word, layer, head, nth)
    other = None if against is None else _against(lens, walk, against)
    wanted = _target(reading, target)
    shown = ShownMap(reading, map_name, wanted)
    home = None if shown.is_weights else taken(walk, shown)
    if save is not None:
        head = walk.head if home is None or home.head is not None or save.suffix.lower() == ".html" else None
        display.save(
            whole,
            save,
            word=walk.word,
            layer=walk.layer,
            head=head,
            view="walk",
            map=map_name,
            target=wanted,
            attention=reading.part or None,
        )
    if as_json:
        taken_home = {} if home is None else {"taken": home.to_dict()}
        print_json(walk.to_dict() | taken_home | ({} if other is None else {"against": _numbers_against(other)}))
    else:
        print_rich(lambda width: terminal.explain(walk, width, home, other))
    _warn_truncated(reading)
    if other is not None:
        warn(other.readings[1].truncated)


@commands.command(epilog='Example: regard show "Time flies like an arrow" --layer 0 --head 2 --save flies.png')
def show(
    text: Text,
    layer: Layer = None,
    head: Head = None,
    map_name: Map = "weights",
    target: Target = None,
    pair: Pair = None,
    attention: Attention = None,
    model: Model = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: SaveReading = None,
) -> None:
    """Show which word attends to which, in the terminal or as a file.

    Without --layer or --head, this is the mean over all layers or heads. With --map, it is what a word takes home from
    each (value-weighted; norms, of all heads together) or what the weights do for a target (gradient, logits).

    An encoder-decoder reads --pair as its target, and what is shown is where the target looks in the source;
    --attention chooses another.
    """
    from regard.lens import Lens, display
    from regard.output.heat_map import heat_map
    from regard.output.json import numbers
    from regard.output.maps import ShownMap

    if save is not None:
        display.check_suffix(save)
    whole, reading = _read(Lens(model, allow_pickle=allow_pickle), text, pair, attention)
    wanted = _target(reading, target)
    shown = ShownMap(reading, map_name, wanted)
    shown.heads(layer, head)
    if save is not None:
        part = reading.part or None
        display.save(whole, save, layer=layer, head=head, map=map_name, target=wanted, attention=part)
    if as_json:
        print_json(numbers(reading, layer, head, map_name, wanted))
    elif save is None:
        print_rich(lambda width: heat_map(shown, layer, head, width))
    _warn_truncated(reading)
    if save is not None:
        warn(reading.note)


@commands.command(epilog='Example: regard attribute "Time flies like an arrow" --word flies --save flies.png')
def attribute(
    text: Text,
    word: Annotated[str | None, typer.Option(help="Explain the vector of this word.", show_default=False)] = None,
    nth: Nth = None,
    target: Annotated[
        str | None, typer.Option(metavar="TARGET", help=f"Explain this: {TARGETS}.", show_default=False)
    ] = None,
    layer: Layer = None,
    head: Head = None,
    model: Model = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: SaveFigure = None,
) -> None:
    """Attribute what a model makes of a text to its words, by several methods side by side.

    Beside them stands the knockout, their judge: what really changes when nobody may look at the word, which takes a
    pass of the model for each word. Either --word or --target says what is explained. With --layer, and --head, the
    maps of that layer are compared instead, and the word is hidden there alone.
    """
    from regard import attribution
    from regard._internal import progress
    from regard.lens import Lens
    from regard.output import agreement as output

    if (word is None) == (target is None):
        raise typer.BadParameter("give either --word or --target.")
    check_figures(save)
    reading = Lens(model, allow_pickle=allow_pickle).read(text)
    explained = (
        attribution.parse_target(reading, target, nth)
        if target is not None
        else attribution.Target.word(reading, word or "", nth)
    )
    with progress.counter(f"of {counted(len(reading.units), 'knockout')}") as advance:
        agreement = attribution.agreement(reading, explained, layer, head, advance=advance)
    if as_json:
        print_json(agreement.to_dict())
    else:
        print_rich(lambda width: output.table(agreement, width))
    save_figures(save, agreement.to_dict, lambda: output.picture(agreement))
    warn(reading.truncated)


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


def _check_against(against: str | None, text: str, pair: str | None) -> None:
    """Refuse a second text that cannot be compared, before a model is opened."""
    if against is None:
        return
    if pair is not None:
        raise typer.BadParameter("--against compares a word of one text: leave out --pair.")
    if against.split() == text.split():
        raise typer.BadParameter("--against is the same text, and makes the same vectors of it: give another one.")


def _against(lens: Lens, walk: Walk, text: str) -> Comparison:
    """The word that is explained, and the same in another text."""
    from regard.lens.compare import comparison

    reading = lens.read(text)
    try:
        other = reading.word(walk.word.text, 1)
    except LookupError as error:
        raise LookupError(f"In {text!r}: {error}") from None
    return comparison(walk.word.text, [walk.reading, reading], [walk.word, other])


def _numbers_against(compared: Comparison) -> dict[str, Any]:
    """The other text, its word, and the cosine distances before the first layer and after each, for JSON."""
    other = compared.readings[1]
    return {
        "text": other.text,
        "word": compared.words[1].text,
        "distances": compared.distances(0, 1).tolist(),
        "note": other.note,
    }


def _read(lens: Lens, text: str, pair: str | None, attention: str | None) -> tuple[Reading, Reading]:
    """The reading, and that of the attention that is shown: of an encoder-decoder with a target, cross-attention."""
    reading = lens.read(text, pair)
    return reading, reading.attended(attention or ("cross" if reading.cross else None))


def _warn_truncated(reading: Reading) -> None:
    """Say what was not read: of cross-attention, of source and target."""
    for sentence in dict.fromkeys((reading.columns.truncated, reading.truncated)):
        warn(sentence)


def _target(reading: Reading, target: str | None) -> Explained | None:
    """The target that an option names."""
    from regard import attribution

    return None if target is None else attribution.parse_target(reading, target)


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
