"""The command that answers from documents: ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regard.cli.console import print_json, print_rich, warn
from regard.cli.options import AllowPickle, Json

if TYPE_CHECKING:
    from regard.answers import Answer
    from regard.lens import Lens

commands = typer.Typer()


@commands.command(epilog='Example: regard ask "Who keeps the key?" notes.txt')
def ask(
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Text files; - reads stdin.", show_default=False)
    ],
    by: Annotated[
        Literal["paragraphs", "sentences", "lines"],
        typer.Option("--passages", help="What files are divided into."),
    ] = "paragraphs",
    sources: Annotated[int, typer.Option(min=1, help="How many passages to give for each sentence.")] = 5,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of the reply.")] = 64,
    windows: Annotated[
        bool,
        typer.Option("--windows", help="Read documents that are longer than the model's context in windows first."),
    ] = False,
    learn: Annotated[
        bool, typer.Option("--learn", help="First learn which heads of the model matter, and keep that.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="A language model that was tuned to follow instructions.",
            show_default="SmolLM2-135M-Instruct",
        ),
    ] = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save to a .html or .json file.", show_default=False)
    ] = None,
) -> None:
    """Ask a question about documents: the answer, the passages that it came from, and the proof.

    Under each sentence of the reply are its sources, ranked, with three numbers. Attention: the share that the sentence
    gave to the passage, over the heads that matter. Logits: what the passage added to the logits of the sentence's
    tokens. Knockout, the proof: by how many nats the log-probability of the sentence falls when the passage is hidden.
    """
    from regard import answers
    from regard._internal import progress
    from regard.lens import Lens
    from regard.models import EMBEDDED_DECODER
    from regard.output import answer as output

    if save is not None and save.suffix.lower() not in (".html", ".json"):
        raise ValueError(f"Expected a file that ends in .html or .json. Got {str(save)!r}.")
    passages = answers.read_passages(files, by)
    lens = Lens(EMBEDDED_DECODER if model is None else model, allow_pickle=allow_pickle)
    if learn:
        _learn(lens)
    with progress.stages() as advance:
        answer = answers.ask(
            lens, question, passages, max_tokens=max_tokens, sources=sources, windows=windows, advance=advance
        )
    if save is not None:
        _save(answer, save)
    if as_json:
        print_json(answer.to_dict())
    else:
        print_rich(lambda width: output.show(answer, width))


def _learn(lens: Lens) -> None:
    """Learn the weights of a model's heads, with progress."""
    from regard import answers
    from regard._internal import progress
    from regard.answers.heads import stored_at

    with progress.counter("documents to learn from which heads matter") as advance:
        answers.learn(lens, advance=advance)
    warn(f"Which heads of {lens.name} matter is kept in {stored_at(lens)}.")


def _save(answer: Answer, path: Path) -> None:
    """Save an answer as a page or as numbers."""
    from regard._internal.files import atomic_write

    if path.suffix.lower() == ".html":
        from regard.viewer.answer import save

        save(answer, path)
    else:
        content = json.dumps(answer.to_dict(), ensure_ascii=False).encode()
        atomic_write(path, lambda file: file.write(content))
