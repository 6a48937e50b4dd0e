"""The command that starts the viewer: serve."""

from __future__ import annotations

from typing import Annotated

import typer

from regard.cli.options import AllowPickle

commands = typer.Typer()


@commands.command(epilog='Example: regard serve "Time flies like an arrow"')
def serve(
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT|FILE]", help="The text to open first, or a file with it.", show_default=False),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(metavar="TEXT|FILE", help="A second text, read together with the first.", show_default=False),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="A model that visitors can choose, of the Hugging Face Hub or a local folder; repeat for several.",
            show_default="embedded",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            help="The token that visitors must give; required if others can reach the address.", show_default=False
        ),
    ] = None,
    memory: Annotated[int, typer.Option(min=1, help="The size of the cache of readings, in MiB.")] = 2048,
    allow_pickle: AllowPickle = False,
) -> None:
    """Serve the viewer, a page for the browser.

    Type a text there and look at the attention that reads it. Only this machine can reach it, unless --host and --token
    say otherwise. Ctrl-C stops it.
    """
    from regard.viewer.startup import lens_factories, text_of

    lenses = lens_factories(model or [None], allow_pickle)
    first = text_of(text) if text is not None else "Time flies like an arrow"
    second = None if pair is None else text_of(pair)
    try:
        from regard.viewer.api import ViewerAPI
        from regard.viewer.server import serve as serve_forever
    except ImportError as error:
        raise ImportError(f"The viewer's server is not installed ({error}): pip install 'regard[serve]'.") from None

    next(iter(lenses.values()))()  # fail now, and not at the first request, if the model cannot be opened

    def ready(address: str) -> None:
        print(f"{address}\nCtrl-C ends it.", flush=True)

    serve_forever(ViewerAPI(lenses, memory << 20, (first, second)), host, port, token, ready)
