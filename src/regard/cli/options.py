"""Options that several commands share, and old names of options, which work for one more release."""

from __future__ import annotations

from collections.abc import Callable
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


def old_names(**names: str) -> type[TyperCommand]:
    """The class of a command whose options had other names before: old="new", without the dashes.

    An old name works, does not appear in the help, and prints the new one on stderr.
    """

    class CommandWithOldNames(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            options = args[: args.index("--")] if "--" in args else args
            return super().parse_args(ctx, [*map(_renamer(names), options), *args[len(options) :]])

    return CommandWithOldNames


def _renamer(names: dict[str, str]) -> Callable[[str], str]:
    def rename(argument: str) -> str:
        option, equals, value = argument.partition("=")
        new = names.get(option.removeprefix("--")) if option.startswith("--") else None
        if new is None:
            return argument
        warn(f"{option} is now called --{new}.")
        return f"--{new}{equals}{value}"

    return rename
