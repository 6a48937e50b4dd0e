"""The command that says what every head of a model does: atlas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from regard.cli.console import print_json, print_rich, warn
from regard.cli.options import AllowPickle, Json

if TYPE_CHECKING:
    from regard.atlas import Atlas
    from regard.atlas.difference import Shape
    from regard.lens import Lens

commands = typer.Typer()


@commands.command(epilog="Example: regard atlas SmolLM2-135M-Instruct --save atlas.html")
def atlas(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model of the Hugging Face Hub, a local folder, or an atlas that was saved, a .json or .parquet "
            "file.",
            show_default=False,
        ),
    ],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Texts to read, each as far as the model's context goes; - is stdin. Of an encoder-decoder, sources "
            "and targets in turn. [default: four English texts]",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Another model of the same shape, or its atlas: show what has changed since it, head by head.",
            show_default=False,
        ),
    ] = None,
    proof: Annotated[
        bool, typer.Option("--proof/--no-proof", help="Switch heads off, to prove that they do what their score says.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the random tokens, and of the random heads of the proofs.")] = 0,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
    save: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Save to a .html, .png, .svg, .json or .parquet file; repeat for several.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what every head of a model does, and prove it.

    Each head has a score for every pattern of attention that is known: how much it attends to the previous token, or
    to what followed the same token before. The heads with a high score are then switched off, beside as many random
    ones: where the loss rises as the score predicts, and not so with random heads, it is confirmed.

    A model that reads no text, but sounds or images, is given noise. A run that was stopped goes on where it was.
    """
    from regard._internal import progress
    from regard.atlas import difference
    from regard.atlas.display import check_paths
    from regard.output.atlas import table

    check_paths(save or ())
    texts = [_text(file) for file in files or ()]
    sources = [_source(name, texts, proof, seed, allow_pickle) for name in (against, model) if name is not None]
    _check_shapes(sources)
    try:
        with progress.shares() as show:
            made = [_made(source, show) for source in sources]
    except KeyboardInterrupt:
        warn("stopped. Repeat the same command to resume.")
        raise typer.Exit(1) from None
    shown: Any = difference(*made) if len(made) == 2 else made[0]
    for path in save or ():
        shown.save(path)
    if as_json:
        print_json(shown.to_dict())
    elif not save:
        print_rich(lambda width: table(shown, width))
    if as_json or save:
        warn(shown.note)


def _text(file: str) -> str:
    """The text of a file. Raises ValueError where it is empty or no text, OSError where there is none."""
    from regard._internal.files import read_text

    text = read_text(file)
    if not text.strip():
        raise ValueError(f"{file}: the file is empty.")
    return text


class _Source(NamedTuple):
    """What an atlas is made of: its name, the shape of the model where that is found before, and what makes it."""

    name: str
    shape: Callable[[], Shape] | None
    make: Callable[[Callable[[str, float], object]], Atlas]


def _source(name: str, texts: Sequence[str], proof: bool, seed: int, allow_pickle: bool) -> _Source:
    """A lens; an atlas that was saved; or a model that reads no text."""
    from regard.atlas.inputs import of_noise, open_without_text
    from regard.lens import Lens

    if Path(name).suffix.lower() in (".json", ".parquet") and not Path(name).is_dir():
        return _saved(name)
    try:
        lens = Lens(name, allow_pickle=allow_pickle)
    except ValueError:
        if (model := open_without_text(name)) is None:
            raise
        if texts:
            raise ValueError(f"{name} reads no text: leave out the files.") from None
        return _Source(name, None, lambda show: of_noise(model, seed, show))
    return _of_lens(lens, texts, proof, seed)


def _saved(name: str) -> _Source:
    from regard.atlas import Atlas
    from regard.atlas.difference import shape_of

    atlas = Atlas.load(name)
    return _Source(atlas.model, lambda: shape_of(atlas), lambda show: atlas)


def _of_lens(lens: Lens, texts: Sequence[str], proof: bool, seed: int) -> _Source:
    from regard.atlas.steps import shape_of_lens

    pairs = lens.model.after is not None
    if pairs and len(texts) % 2:
        raise ValueError(f"{lens.name} is an encoder-decoder: expected files in turn, a source and its target.")
    given = list(zip(texts[::2], texts[1::2], strict=True)) if pairs else list(texts)

    def make(show: Callable[[str, float], object]) -> Atlas:
        return lens.atlas(given or None, proof=proof, seed=seed, resume=True, progress=show)

    return _Source(lens.name, lambda: shape_of_lens(lens), make)


def _made(source: _Source, show: Callable[[str, float], object]) -> Atlas:
    """The atlas of a source; each stage of each has a progress bar."""
    return source.make(lambda stage, share: show(f"{stage} {source.name}", share))


def _check_shapes(sources: Sequence[_Source]) -> None:
    """Raise ValueError, before the work begins, where two models cannot be compared head by head."""
    from regard.atlas.difference import check_shapes

    known = [(source.name, source.shape) for source in sources if source.shape is not None]
    if len(known) == 2:
        (base, of_base), (model, of_model) = known
        check_shapes(base, of_base(), model, of_model())
