"""Options that several commands share, and old names of options, which work for one more release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from regard.cli.console import warn

Text = Annotated[str, typer.Argument(help="The text to read.", show_default=False)]
Layer = Annotated[int | None, typer.Option(help="A layer, counting from 0.", show_default=False)]
Head = Annotated[int | None, typer.Option(help="A head, counting from 0.", show_default=False)]
Nth = Annotated[
    int | None,
    typer.Option(
        help="Which occurrence, counting from 1, if the word appears more than once.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER", help="A model of the Hugging Face Hub, or a local folder.", show_default="embedded"
    ),
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Also open pickled weights, which can run arbitrary code.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]
Pair = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="A second text, read together with the first; of an encoder-decoder the target, such as a translation.",
        show_default=False,
    ),
]
Attention = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of an encoder-decoder with a target: encoder, decoder or cross (the default).",
        show_default=False,
    ),
]
Map = Annotated[
    str,
    typer.Option(
        "--map", metavar="NAME", help="Which map to show: weights, value-weighted, norms, gradient or logits."
    ),
]
TARGETS = "next, next:cat, next:cat-dog, label:NAME, text:another text, sentence, word:flies or word:flies[17]"
Target = Annotated[
    str | None,
    typer.Option(metavar="TARGET", help=f"What gradient and logits explain: {TARGETS}.", show_default="by model"),
]
SaveReading = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Save to a .html, .png, .svg or .json file.", show_default=False)
]
SaveFigure = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Save to a .png, .svg or .json file; repeat for several.", show_default=False),
]


def choices(literal: Any) -> dict[str, Any]:
    """Arguments of `typer.Option` for a list of values of a Literal, which typer does not take."""
    names = get_args(literal)

    def check(values: list[str] | None) -> list[str] | None:
        for value in values or ():
            if value not in names:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, names))}.")
        return values

    return {"metavar": "|".join(names), "callback": check, "autocompletion": lambda: list(names)}


def old_names(values: dict[str, dict[str, str]] | None = None, /, **names: str) -> type[TyperCommand]:
    """The class of a command whose options, or values of them, had other names before.

    An old name works, does not appear in the help, and prints the new one on stderr.

    Args:
        values: Old and new values by option: {"--option": {"old": "new"}}.
        names: Old and new options, without the dashes: old="new".
    """

    options = {f"--{old}": f"--{new}" for old, new in names.items()}

    class CommandWithOldNames(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            return super().parse_args(ctx, [*_renamed(args[:end], options, values or {}), *args[end:]])

    return CommandWithOldNames


def _renamed(arguments: list[str], options: dict[str, str], values: dict[str, dict[str, str]]) -> list[str]:
    """Arguments with new names in place of old ones, for each of which a line goes to stderr."""
    renamed: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        for word in (option, value) if equals and (option in options or option in values) else (argument,):
            new = options.get(word) or (values.get(renamed[-1], {}).get(word) if renamed else None)
            if new:
                warn(f"{word} is now called {new}.")
            renamed.append(new or word)
    return renamed
