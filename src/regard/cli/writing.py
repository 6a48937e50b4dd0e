"""Commands that let a language model write: generate, chat."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli.console import print_json, print_rich, warn
from regard.cli.options import AllowPickle, Json, SaveReading

if TYPE_CHECKING:
    from regard.lens import Lens
    from regard.lens.generate import Generation

commands = typer.Typer()

Writer = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help="A language model of the Hugging Face Hub, or a local folder.",
        show_default="SmolLM2-135M-Instruct",
    ),
]
MaxTokens = Annotated[int, typer.Option(help="The most tokens of a reply.", min=1)]
Temperature = Annotated[
    float, typer.Option(help="0 for the likeliest token at every step; above it, tokens are drawn.")
]
TopP = Annotated[float, typer.Option(help="Draw from so much of the distribution only.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same reply.")]
Stop = Annotated[
    list[str] | None, typer.Option(help="A string that ends the reply; repeat for several.", show_default=False)
]
Looks = Annotated[bool, typer.Option("--looks", help="Show for each token its probability and whom it looked at.")]


@commands.command(epilog='Example: regard generate "The capital of France is" --max-tokens 12 --looks')
def generate(
    prompt: Annotated[str, typer.Argument(help='The text to go on with; "-" reads it from stdin.')],
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    looks: Looks = False,
    model: Writer = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: SaveReading = None,
) -> None:
    """Let a language model go on with a text, token by token.

    On a terminal, colours show how probable each token was, and a key shows whom each looked at when it was chosen.
    What was written until Ctrl-C is kept.
    """
    from regard._internal.files import read_text
    from regard.lens import display

    if save is not None:
        display.check_suffix(save)
    text = read_text("-") if prompt == "-" else prompt
    lens = _open(model, allow_pickle)
    with _reading() as progress:
        generation = lens.generate(text, max_tokens, temperature, top_p, seed, stop or (), progress)
        stopped = _write(generation, quiet=as_json)
    _finish(generation, stopped, looks, as_json, save)


@commands.command(epilog='Example: regard chat "What is the capital of France?" --looks')
def chat(
    message: Annotated[
        str | None, typer.Argument(help="A message; without one, a conversation.", show_default=False)
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="What the model is told before the first message.", show_default=False)
    ] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    looks: Looks = False,
    model: Writer = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: SaveReading = None,
) -> None:
    """Chat with a language model, by its own chat template.

    Without a message, on a terminal, every line is one: /looks shows whom the tokens of the last reply looked at, and
    /quit or Ctrl-D ends. Ctrl-C ends a reply and keeps what was written. Elsewhere, stdin is the message.
    """
    from regard._internal.files import read_text
    from regard.lens import display

    if save is not None:
        display.check_suffix(save)
    lens = _open(model, allow_pickle)
    history = [] if system is None else [{"role": "system", "content": system}]

    def reply(text: str) -> tuple[Generation, bool]:
        with _reading() as progress:
            messages = [*history, {"role": "user", "content": text}]
            generation = lens.chat(messages, max_tokens, temperature, top_p, seed, stop or (), progress)
            stopped = _write(generation, quiet=as_json)
        history.extend([messages[-1], {"role": "assistant", "content": generation.text}])
        return generation, stopped

    if message is None and sys.stdin.isatty():
        _converse(lens, reply, looks)
        return
    generation, stopped = reply(read_text("-").strip() if message is None else message)
    _finish(generation, stopped, looks, as_json, save)


def _converse(lens: Lens, reply: Callable[[str], tuple[Generation, bool]], looks: bool) -> None:
    """Messages and replies in turn. What cannot be answered is said in a line, and the conversation goes on."""
    import contextlib

    with contextlib.suppress(ImportError):  # arrow keys and a history of messages
        import readline  # noqa: F401
    warn(f"{lens.name}. /looks shows whom the last reply looked at; /quit or Ctrl-D ends.")
    last: Generation | None = None
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text == "/quit":
            return
        try:
            if text == "/looks":
                warn("There is no reply yet." if last is None else None)
            elif text:
                last, _ = reply(text)
            if last is not None and (looks or text == "/looks"):
                _print_looks(last)
        except ValueError as error:
            warn(str(error))


def _open(model: str | None, allow_pickle: bool) -> Lens:
    from regard.lens import Lens
    from regard.models import EMBEDDED_DECODER

    return Lens(EMBEDDED_DECODER if model is None else model, allow_pickle=allow_pickle)


@contextmanager
def _reading() -> Iterator[Callable[[float], object]]:
    """A progress bar while the prompt is read, which is gone before the first token is printed."""
    from regard._internal import progress

    with progress.reading() as show:
        yield show


def _write(generation: Generation, quiet: bool) -> bool:
    """Print tokens as they come, coloured by their probability on a terminal; whether Ctrl-C ended the reply."""
    from regard.output.writing import TokenPrinter

    printer = None if quiet else TokenPrinter()
    try:
        for token in generation:
            if printer is not None:
                printer(token)
    except KeyboardInterrupt:
        return True
    finally:
        if printer is not None:
            printer.end()
    return False


def _finish(generation: Generation, stopped: bool, looks: bool, as_json: bool, save: Path | None) -> None:
    """What follows a reply: its numbers, whom its tokens looked at, a file; exit code 1 where Ctrl-C ended it."""
    from regard.lens import display
    from regard.output import writing

    if as_json:
        print_json(writing.to_dict(generation, looks))
    elif looks or _asked_for_looks(generation):
        _print_looks(generation)
    if save is not None:
        display.save(generation.reading, save)
    if stopped:
        warn("stopped; what was written is kept.")
        raise typer.Exit(1)


def _asked_for_looks(generation: Generation) -> bool:
    """On a terminal, wait for a key: whether it is the one that shows whom the tokens looked at."""
    import click

    if not (sys.stdin.isatty() and sys.stdout.isatty() and generation.tokens):
        return False
    print("[l] whom each token looked at   [any other key] done", end="\r", flush=True, file=sys.stderr)
    try:
        key = click.getchar()
    except (KeyboardInterrupt, EOFError):
        key = ""
    print(" " * 60, end="\r", flush=True, file=sys.stderr)
    return key.lower() == "l"


def _print_looks(generation: Generation) -> None:
    from regard.output import writing

    print_rich(lambda width: writing.looks_table(generation, width))
