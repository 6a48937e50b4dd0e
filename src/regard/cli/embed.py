"""The command that embeds a corpus: embed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regard._internal.plurals import counted
from regard._typing import FileFormat, OutputDtype
from regard.cli.console import FirstWarnings, print_json, warn
from regard.cli.options import AllowPickle, Json, Model, choices, old_names
from regard.lens.embed_options import Aggregate, DType, Level, Pool, SubtokenPooling, TruncationStrategy

if TYPE_CHECKING:
    from regard.corpus import EmbedConfig, Source

commands = typer.Typer()

_OldNames = old_names(
    {"--truncation": {"cut": "truncate"}}, mix="aggregate", subwords="subtoken-pooling", store="output-dtype"
)

Files = Annotated[
    list[Path],
    typer.Argument(
        help="Files of text (.txt, a text per line; .json, .jsonl, .csv, .tsv, .parquet, .conllu), also compressed "
        "(.gz, .bz2, .xz, .zst); folders of such files; - is stdin.",
        show_default=False,
    ),
]
Out = Annotated[
    Path, typer.Option(help="The output: a .parquet file, or a folder of Parquet files.", show_default=False)
]
LevelOption = Annotated[Level, typer.Option("--level", help="What gets a vector.")]
Layers = Annotated[
    str,
    typer.Option(metavar="N,N,…|all", help="Which hidden states to use: 0 is the static embedding, -1 the last layer."),
]
AggregateOption = Annotated[
    Aggregate, typer.Option("--aggregate", help="How to combine several layers into one vector.")
]
SubtokenPoolingOption = Annotated[
    SubtokenPooling, typer.Option("--subtoken-pooling", help="How to combine the tokens of a word into one vector.")
]
PoolOption = Annotated[
    list[str] | None,
    typer.Option(
        help="How to pool the tokens of a sentence into one vector; repeat to concatenate several.",
        show_default="as the model's folder says",
        **choices(Pool),
    ),
]
Dims = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Keep only the first N dimensions of each sentence vector, for Matryoshka models.",
        show_default="as the model's folder says",
    ),
]
TruncationOption = Annotated[
    TruncationStrategy,
    typer.Option(
        "--truncation",
        help="What to do with texts longer than the model reads: overlapping windows, truncation, or an error.",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="One of the model's prompts, to put before each text.", show_default=False),
]
PromptText = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Any other prompt to put before each text.", show_default=False)
]
Chunk = Annotated[
    str | None,
    typer.Option(
        metavar="sentences|N",
        help="A vector per sentence of a text, or per N tokens, computed from the whole text (late chunking).",
        show_default=False,
    ),
]
Format = Annotated[FileFormat | None, typer.Option(help="The format of all files.", show_default="by file extension")]
Column = Annotated[
    str, typer.Option(metavar="NAME", help="The column with the text; a.b means b inside a (JSON, Parquet).")
]
Id = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The column with the ids of the texts.", show_default="numbers from 0"),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A column to copy to the output; repeat for several.", show_default=False),
]
Places = Annotated[bool, typer.Option("--places", help="Add columns `file` and `line`: where each text begins.")]
Dtype = Annotated[
    DType,
    typer.Option(help="The dtype of the computation; auto is the fastest on this machine."),
]
OutputDtypeOption = Annotated[OutputDtype, typer.Option("--output-dtype", help="The dtype of the vectors written.")]
OnError = Annotated[Literal["stop", "skip"], typer.Option(help="What to do at a bad record.")]
On = Annotated[
    str, typer.Option(metavar="local|ray|ray=ADDRESS", help="Where to run: on this machine or on a Ray cluster.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of processes on the cluster.", show_default="one per processor")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output or an unfinished run.")]
Revision = Annotated[str | None, typer.Option(help="The revision of a model on the Hub.", show_default=False)]


@commands.command(epilog="Example: regard embed sentences.txt --out sentences.parquet", cls=_OldNames)
def embed(
    files: Files,
    out: Out,
    level: LevelOption = "sentence",
    layers: Layers = "-1",
    aggregate: AggregateOption = "mean",
    subtoken_pooling: SubtokenPoolingOption = "mean",
    pool: PoolOption = None,
    dims: Dims = None,
    truncation: TruncationOption = "windows",
    prompt: Prompt = None,
    prompt_text: PromptText = None,
    chunk: Chunk = None,
    format: Format = None,
    column: Column = "text",
    id: Id = None,
    keep: Keep = None,
    places: Places = False,
    dtype: Dtype = "float32",
    output_dtype: OutputDtypeOption = "float32",
    on_error: OnError = "stop",
    on: On = "local",
    workers: Workers = None,
    overwrite: Overwrite = False,
    model: Model = None,
    revision: Revision = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
) -> None:
    """Embed texts and write their contextualised vectors as Parquet.

    Interrupted runs resume: repeat the same command.
    """
    from regard.corpus import EmbedConfig, Source

    source = Source(files, format, column, id, keep or (), places)
    config = EmbedConfig(
        model=model,
        revision=revision,
        allow_pickle=allow_pickle,
        level=level,
        layers=_layers(layers),
        pool=_pools(pool),
        aggregate=aggregate,
        subtoken_pooling=subtoken_pooling,
        truncation=truncation,
        prompt=prompt,
        dtype=dtype,
        output_dtype=output_dtype,
        chunk=_chunk(chunk),
        dims=dims,
        prompt_text=prompt_text,
    )
    _run(source, out, config, as_json, on_error=on_error, on=on, workers=workers, overwrite=overwrite)


def _run(source: Source, out: Path, config: EmbedConfig, as_json: bool, **options: Any) -> None:
    """Embed the files, with a progress bar, warnings as they come, and a report in the end."""
    from regard._internal import progress
    from regard.corpus import embed_files

    bad, skipped = FirstWarnings(), FirstWarnings()
    try:
        with _hints(), progress.embedding() as show:
            counts = embed_files(
                source,
                out,
                config,
                progress=show,
                warn=bad,
                skipped=lambda path, reason: skipped(f"{path} was skipped: {reason}."),
                **options,
            )
    except KeyboardInterrupt:
        warn("stopped. Repeat the same command to resume.")
        raise typer.Exit(1) from None
    _report(counts, out, bad, skipped, as_json)


def _report(counts: dict[str, int], out: Path, bad: FirstWarnings, skipped: FirstWarnings, as_json: bool) -> None:
    """Print the counts of a run, and warn of texts and files that its output lacks."""
    if as_json:
        print_json(counts)
    else:
        texts, vectors = counted(counts["texts"], "text"), counted(counts["vectors"], "vector")
        print(f"{texts}, {vectors} of {counted(counts['dim'], 'number')} in {out}")
    if skipped.count > skipped.SHOWN:
        warn(f"{counted(skipped.count, 'file or folder was', 'files and folders were')} skipped in all.")
    if truncated := counts["truncated"]:
        texts = counted(
            truncated, "text was longer than the model reads and is", "texts were longer than the model reads and are"
        )
        warn(f"{texts} truncated: see column `truncated`.")
    if counts["bad"]:
        shown = ", the first of them named above" if bad.count > bad.SHOWN else ""
        warn(f"{counted(counts['bad'], 'record was', 'records were')} left out{shown}.")


@contextmanager
def _hints() -> Iterator[None]:
    """Add to the errors of a corpus which option of the command would help."""
    from regard.corpus import BadRecordError, OutputExistsError, UnknownFormatError

    try:
        yield
    except BadRecordError as error:
        error.add_note("(--on-error skip leaves such records out.)")
        raise
    except OutputExistsError as error:
        error.add_note("(--overwrite replaces it.)")
        raise
    except UnknownFormatError as error:
        error.add_note("(--format says what they hold, such as lines.)")
        raise


def _pools(names: list[str] | None) -> Any:
    """One pooling by its name, several as a list, None if none is given."""
    return names[0] if names and len(names) == 1 else names or None


def _chunk(chunk: str | None) -> int | Literal["sentences"] | None:
    if chunk is None:
        return None
    if chunk == "sentences":
        return "sentences"
    if not chunk.isdecimal() or int(chunk) < 1:
        raise typer.BadParameter(f"expected sentences, or a number of tokens. Got {chunk!r}.")
    return int(chunk)


def _layers(layers: str) -> list[int] | str:
    if layers == "all":
        return layers
    try:
        return [int(layer) for layer in layers.split(",")]
    except ValueError:
        raise typer.BadParameter(f"expected numbers such as -1 or 2,3, or all. Got {layers!r}.") from None
