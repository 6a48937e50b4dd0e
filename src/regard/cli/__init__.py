"""The command line: a file a group of commands, which import what they need when they run."""

from __future__ import annotations

import gc
import io
import os
import re
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from regard.cli import ask, atlas, backends, bench, embed, playground, race, reading, serve, train, writing
from regard.cli.console import warn

__all__ = ["app", "main"]

app = typer.Typer(
    help="Self-attention you can look inside.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (reading, writing, ask, atlas, serve, playground, embed, backends, train, race):
    app.add_typer(module.commands)
app.add_typer(bench.commands, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"regard {version('regard')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed (one line on stderr), 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # characters that the terminal cannot write stop no command
    _quiet_libraries()
    gc.freeze()  # what was imported stays: a collection need not go through all of torch
    try:
        try:
            app(prog_name="regard")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough; discard the rest, also what Python flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except SystemExit as exit:
        if exit.code == 130:  # typer's code for Ctrl-C
            warn("stopped.")
            raise SystemExit(1) from None
        raise
    except (Exception, KeyboardInterrupt) as error:
        warn(_line(error))
        raise SystemExit(1) from None


def _quiet_libraries() -> None:
    """Keep the logs of libraries off stderr, and their progress bars out of files."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _line(error: BaseException) -> str:
    """An error in one line, the library's arguments in it written as options of the command line."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}."
    text = " ".join([str(error), *getattr(error, "__notes__", ())])
    text = re.sub(r"\bnth=(\d)", r"--nth \1", text)
    text = text.replace("allow_pickle=True", "--allow-pickle").replace("give a token", "give a --token")
    return " ".join(text.split()) or type(error).__name__
