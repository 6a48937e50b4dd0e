"""The command that lists the backends: backends."""

from __future__ import annotations

import typer

from regard.cli.console import print_json, print_rich
from regard.cli.options import Json

commands = typer.Typer()


@commands.command(epilog="Example: regard backends")
def backends(as_json: Json = False) -> None:
    """List which backends work here, and why the others do not."""
    from regard.backends import availability, description
    from regard.output import terminal

    rows = {name: (reasons, "" if reasons else description(name)) for name, reasons in availability().items()}
    if as_json:
        print_json(
            [
                {"name": name, "serves": not reasons, "reasons": reasons, "what": what}
                for name, (reasons, what) in rows.items()
            ]
        )
    else:
        print_rich(lambda width: terminal.backends(rows))
