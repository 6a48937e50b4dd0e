"""The command that writes the viewer with models that run in the browser: playground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard.cli.console import print_json
from regard.cli.options import Json

commands = typer.Typer()


@commands.command(epilog="Example: regard playground --out site")
def playground(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write.", show_default=False)],
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="An encoder of BERT's family or a decoder of Llama's, in the place of the usual one; repeat for both. "
            "The lesson, which is about the usual ones, is then left out.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the viewer as static files, with models that run in the browser.

    Any web server can show the folder, and its index.html opens from the disk as well. Visitors need no Python: the
    page reads a text with the model that it has, and nothing that they type leaves it.
    """
    from regard._internal import progress
    from regard.playground import site
    from regard.playground.models import models

    site.check(out)
    with progress.working("writing the models"):
        chosen = models(model or ())
        sizes = site.write(out, chosen)
    if as_json:
        print_json({"folder": str(out), "models": [entry.name for entry in chosen], "files": sizes})
        return
    for name, size in sizes.items():
        print(f"{size / 1e6:8.2f} MB  {out / name}")
    print(f"{sum(sizes.values()) / 1e6:8.2f} MB  in all")
    print(f"Open {out / 'index.html'} in a browser, or serve the folder: python -m http.server --directory {out}")
