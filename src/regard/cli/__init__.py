"""The command line. Commands import what they need when they run."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regard._internal import progress
from regard._internal.plurals import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from regard.lens import Comparison, Lens

app = typer.Typer(
    help="Self-attention you can look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
bench = typer.Typer(help="This machine, with the peers side by side.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")


Level = Literal["token", "word", "sentence"]
Truncation = Literal["windows", "cut", "error"]
Mix = Literal["mean", "concatenate"]
Subwords = Literal["mean", "first", "last", "first-last"]
OnError = Literal["stop", "skip"]
Format = Literal["lines", "paragraphs", "json", "jsonl", "csv", "tsv", "parquet", "conllu"]


class Pool(StrEnum):  # typer takes no list of literals
    """How a sentence's vector is made of its tokens'."""

    mean = "mean"
    cls = "cls"
    max = "max"
    last = "last"
    weightedmean = "weightedmean"
    mean_sqrt_len = "mean_sqrt_len"


class RaceTask(StrEnum):
    """What is to be learned."""

    reverse = "reverse"
    dates = "dates"
    numbers = "numbers"


Text = Annotated[str, typer.Argument(help="What to read.", show_default=False)]
Layer = Annotated[int | None, typer.Option(help="A layer, from 0.", show_default=False)]
Head = Annotated[int | None, typer.Option(help="A head, from 0.", show_default=False)]
Nth = Annotated[int | None, typer.Option(help="Which, from 1, of words that are there twice.", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option(metavar="NAME|FOLDER", help="A model of the Hugging Face hub, or a folder.", show_default="embedded"),
]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Open pickled weights too, which can run code.")]
Json = Annotated[bool, typer.Option("--json", help="Print numbers as JSON.")]
Save = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Save as .html, .png, .svg or .json.", show_default=False)
]


@app.command(epilog='Example: regard explain "Time flies like an arrow" --word flies')
def explain(
    text: Text,
    word: Annotated[str, typer.Option(help="The word to explain.", show_default=False)],
    layer: Layer = None,
    head: Head = None,
    nth: Nth = None,
    model: Model = None,
    allow_pickle: Pickle = False,
    as_json: Json = False,
    save: Save = None,
) -> None:
    """How attention makes the new vector of a word, step by step, with the real numbers."""
    from regard.lens import Lens
    from regard.lens.display import check_suffix

    if save is not None:
        check_suffix(save)
    reading = Lens(model, allow_pickle=allow_pickle).read(text)
    walk = reading.explain(word, layer, head, nth)
    if save is not None:
        from regard.lens.display import save as save_reading

        save_reading(reading, save, word=walk.word, layer=walk.layer, head=walk.head, view="walk")
    if as_json:
        _print_json(walk.to_dict())
    else:
        from regard.output import terminal

        _print(lambda width: terminal.explain(walk, width))
    _warn(reading.truncated)


@app.command(epilog='Example: regard show "Time flies like an arrow" --layer 0 --head 2 --save flies.png')
def show(
    text: Text,
    layer: Layer = None,
    head: Head = None,
    model: Model = None,
    allow_pickle: Pickle = False,
    as_json: Json = False,
    save: Save = None,
) -> None:
    """The weights as a picture: which word looks at which."""
    from regard.lens import Lens
    from regard.lens.display import check_suffix
    from regard.lens.display import save as save_reading
    from regard.output import terminal
    from regard.output.json import numbers

    if save is not None:
        check_suffix(save)
    reading = Lens(model, allow_pickle=allow_pickle).read(text)
    reading.check(layer, head)
    if save is not None:
        save_reading(reading, save, layer=layer, head=head)
    if as_json:
        _print_json(numbers(reading, layer, head))
    elif save is None:
        _print(lambda width: terminal.heat_map(reading, layer, head, width))
    _warn(reading.truncated)
    if save is not None:
        _warn(reading.note)


@app.command(epilog='Example: regard compare "Time flies like an arrow" "Fruit flies like a banana" --word flies')
def compare(
    texts: Annotated[list[str], typer.Argument(help="Two texts or more.", show_default=False)],
    word: Annotated[str, typer.Option(help="A word that is in two of them or more.", show_default=False)],
    nth: Nth = None,
    model: Model = None,
    allow_pickle: Pickle = False,
    as_json: Json = False,
) -> None:
    """One word in several texts: how far the context moves it, layer by layer."""
    from regard.lens import Lens
    from regard.output import terminal

    compared, left_out = _compared(Lens(model, allow_pickle=allow_pickle), texts, word, nth)
    if as_json:
        _print_json(compared.to_dict())
    else:
        _print(lambda width: terminal.similarity(compared))
    for reading in compared.readings:
        _warn(reading.truncated)
    for why in left_out:
        _warn(f"A text was left out. {why}")


def _compared(lens: Lens, texts: list[str], word: str, nth: int | None) -> tuple[Comparison, list[str]]:
    """The comparison of those texts that have the word, if two have it, and why the others were left out."""
    try:
        return lens.compare(texts, word, nth), []
    except LookupError:
        having, left_out = [], []
        for text in texts:
            try:
                lens.read(text).word(word, 1)
                having.append(text)
            except LookupError as error:
                left_out.append(f"In {text!r}: {error}")
        if not left_out or len(having) < 2:
            raise
        return lens.compare(having, word, nth), left_out


@app.command(epilog='Example: regard serve "Time flies like an arrow"')
def serve(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT|FILE]", help="What to begin with.", show_default=False)
    ] = None,
    pair: Annotated[
        str | None, typer.Option(metavar="TEXT|FILE", help="A second text, read with the first.", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="A model to offer, of the Hugging Face hub or a folder; more than once for several.",
            show_default="embedded",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(help="What visitors must know, where others can reach the address.", show_default=False),
    ] = None,
    memory: Annotated[int, typer.Option(min=1, help="MiB that the readings may take together.")] = 2048,
    allow_pickle: Pickle = False,
) -> None:
    """A page in the browser: type a text, and look at the attention that reads it.

    Only this machine can open it, unless --host and --token say otherwise. Ctrl-C ends it.
    """
    from regard.viewer.startup import lens_factories, text_of

    lenses = lens_factories(model or [None], allow_pickle)
    first = text_of(text) if text is not None else "Time flies like an arrow"
    second = None if pair is None else text_of(pair)
    try:
        from regard.viewer.api import ViewerAPI
        from regard.viewer.server import serve as run_server
    except ImportError as error:
        raise ImportError(f"The viewer's server is not installed ({error}): pip install 'regard[serve]'.") from None

    next(iter(lenses.values()))()  # a model that cannot be opened is told now, and not to the first visitor

    def ready(address: str) -> None:
        print(f"{address}\nCtrl-C ends it.", flush=True)

    run_server(ViewerAPI(lenses, memory << 20, (first, second)), host, port, token, ready)


@app.command(epilog="Example: regard embed sentences.txt --out sentences.parquet")
def embed(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Text by line, .json, .jsonl, .csv, .tsv, .parquet, .conllu, also .gz, .bz2, .xz or .zst; folders of "
            "these; - is stdin.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The .parquet to write, or a folder for many.", show_default=False)],
    level: Annotated[Level, typer.Option(help="A vector for each of these.")] = "sentence",
    layers: Annotated[
        str, typer.Option(metavar="N,N,…|all", help="Which hidden states: 0 the static ones, -1 the last.")
    ] = "-1",
    mix: Annotated[Mix, typer.Option(help="How several layers make one vector.")] = "mean",
    subwords: Annotated[Subwords, typer.Option(help="How a word is made of its tokens.")] = "mean",
    pool: Annotated[
        list[Pool] | None,
        typer.Option(
            help="How a sentence is made of its tokens; more than once for several, one after the other.",
            show_default="as the model's folder says",
        ),
    ] = None,
    dims: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="So many numbers of each sentence's vector, for models of the Matryoshka kind.",
            show_default="as the model's folder says",
        ),
    ] = None,
    truncation: Annotated[
        Truncation,
        typer.Option(help="Longer texts than the model takes: read in overlapping windows, cut, or refused."),
    ] = "windows",
    prompt: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of the model's prompts to put before.", show_default=False)
    ] = None,
    prompt_text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What to put before each text instead.", show_default=False)
    ] = None,
    chunk: Annotated[
        str | None,
        typer.Option(
            metavar="sentences|N",
            help="A vector for each sentence of a text, or each N tokens of it, once the whole text has been read.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="What the files hold.", show_default="as their names say")
    ] = None,
    column: Annotated[
        str, typer.Option(metavar="NAME", help="Which column has the text; a.b is b inside a (JSON, Parquet).")
    ] = "text",
    id: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which column has the text_id.", show_default="a number")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A column to carry into the output; more than once for several."),
    ] = None,
    places: Annotated[
        bool, typer.Option("--places", help="Add the columns file and line: where each text stands.")
    ] = False,
    dtype: Annotated[
        Literal["float32", "bfloat16", "auto"], typer.Option(help="Of the computation; auto: the fastest here.")
    ] = "float32",
    store: Annotated[Literal["float32", "float16", "int8"], typer.Option(help="Of the numbers written.")] = "float32",
    on_error: Annotated[OnError, typer.Option(help="What becomes of the run at a bad record.")] = "stop",
    on: Annotated[str, typer.Option(metavar="local|ray|ray=ADDRESS", help="Here, or on a Ray cluster.")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on the cluster.", show_default="one a processor")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there, or was begun.")] = False,
    model: Model = None,
    revision: Annotated[str | None, typer.Option(help="Of a model on the hub.", show_default=False)] = None,
    allow_pickle: Pickle = False,
    as_json: Json = False,
) -> None:
    """Contextualised embeddings of texts, as Parquet.

    What is done is kept: a run that was stopped goes on when the same command is given again.
    """
    from regard.corpus import Recipe, Source, embed_files

    source = Source(files, format, column, id, keep or (), places)
    pools = [name.value for name in pool or ()]
    recipe = Recipe(
        model=model,
        revision=revision,
        allow_pickle=allow_pickle,
        level=level,
        layers=_numbers(layers),
        pool=pools[0] if len(pools) == 1 else pools or None,  # type: ignore[arg-type]
        mix=mix,
        subwords=subwords,
        truncation=truncation,
        prompt=prompt,
        dtype=dtype,
        store=store,
        chunk=_chunk(chunk),
        dims=dims,
        prompt_text=prompt_text,
    )
    bad, left_out = _FirstWarnings(), _FirstWarnings()
    try:
        with _hints(), progress.embedding() as show:
            counts = embed_files(
                source,
                out,
                recipe,
                on_error=on_error,
                on=on,
                workers=workers,
                overwrite=overwrite,
                progress=show,
                warn=bad,
                leave_out=lambda path, why: left_out(f"{path} is not read: {why}."),
            )
    except KeyboardInterrupt:
        _warn("stopped. The same command goes on from here.")
        raise typer.Exit(1) from None
    if as_json:
        _print_json(counts)
    else:
        texts, vectors = counted(counts["texts"], "text"), counted(counts["vectors"], "vector")
        print(f"{texts}, {vectors} of {counted(counts['dim'], 'number')} in {out}")
    if left_out.count > left_out.SHOWN:
        _warn(f"{counted(left_out.count, 'file or folder', 'files and folders')} in all were not read.")
    if cut := counts["truncated"]:
        texts = counted(cut, "text is longer than the model takes", "texts are longer than the model takes")
        _warn(f"{texts}, and cut: column `truncated`.")
    if counts["bad"]:
        named = ", the first of them named above" if bad.count > bad.SHOWN else ""
        _warn(f"{counted(counts['bad'], 'record was', 'records were')} left out{named}.")


class _FirstWarnings:
    """Prints the first warnings, and counts all."""

    SHOWN = 20

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message: str) -> None:
        self.count += 1
        if self.count <= self.SHOWN:
            _warn(message)


@contextmanager
def _hints() -> Iterator[None]:
    """Errors of a corpus say which option of the command would help."""
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


def _chunk(chunk: str | None) -> int | Literal["sentences"] | None:
    if chunk is None:
        return None
    if chunk == "sentences":
        return "sentences"
    if not chunk.isdecimal() or int(chunk) < 1:
        raise typer.BadParameter(f"expected sentences, or a number of tokens. Got {chunk!r}.")
    return int(chunk)


def _numbers(layers: str) -> list[int] | str:
    if layers == "all":
        return layers
    try:
        return [int(layer) for layer in layers.split(",")]
    except ValueError:
        raise typer.BadParameter(f"expected numbers such as -1 or 2,3, or all. Got {layers!r}.") from None


@app.command(epilog="Example: regard backends")
def backends(as_json: Json = False) -> None:
    """Which backends serve here, and why the others do not."""
    from regard.backends import availability, description
    from regard.output import terminal

    rows = {name: (reasons, "" if reasons else description(name)) for name, reasons in availability().items()}
    if as_json:
        keys = ("name", "serves", "reasons", "what")
        _print_json([dict(zip(keys, (name, not one[0], *one), strict=True)) for name, one in rows.items()])
    else:
        _print(lambda width: terminal.backends(rows))


@app.command(epilog="Example: regard train book.txt --out model")
def train(
    files: Annotated[list[Path], typer.Argument(help="Plain text; - is stdin.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
    layers: Annotated[int, typer.Option(min=1)] = 2,
    dim: Annotated[int, typer.Option(min=1, help="Of the vectors.")] = 128,
    heads: Annotated[int, typer.Option(min=1, help="A number that divides dim.")] = 4,
    vocabulary: Annotated[int, typer.Option(min=10, help="Tokens at most.")] = 8000,
    length: Annotated[int, typer.Option(min=4, help="Tokens that the model can read at once.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Of training, at most.")] = 12_000,
    batch: Annotated[int, typer.Option(min=1, help="Blocks of so many tokens in a step.")] = 16,
    rate: Annotated[float, typer.Option(min=0, help="Of learning, at its highest.")] = 2e-3,
    dropout: Annotated[float, typer.Option(min=0, max=0.9)] = 0.0,
    every: Annotated[
        int, typer.Option(min=1, help="So many steps comes a look at held-out text, and a checkpoint.")
    ] = 500,
    patience: Annotated[int, typer.Option(min=1, help="Stops after so many looks without progress.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, as if never stopped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """A contextual encoder of your own, from plain text: it learns to find out masked words.

    The folder can be opened by regard.Lens and by transformers. A twentieth of the text is held out, to see how well it
    does.
    """
    from regard.train import run

    options = run.Options(layers, dim, heads, vocabulary, length, steps, batch, rate, dropout, every, patience, seed)
    try:
        with progress.training(steps) as show:
            report = run.train(
                files, out, options, resume=resume, progress=lambda at: show(at.step, at.loss, at.accuracy, at.tokens)
            )
    except KeyboardInterrupt:
        _warn("stopped. regard train … --resume goes on from the last checkpoint.")
        raise typer.Exit(1) from None
    if as_json:
        _print_json(report)
        return
    best = report["best"]
    print(f"{counted(report['steps'], 'step')} in {report['seconds']:,.0f} s; {report['ended']}.")
    found = f"{best['accuracy']:.1%} (loss {best['loss']:.2f}, at step {best['step']:,})"
    print(f"Of masked words in held-out text it finds {found}.")
    print(f"regard.Lens({str(out)!r}) opens it; {out / 'losses.png'} shows how it learned.")


@app.command(epilog="Example: regard race --task reverse --save race.png")
def race(
    task: Annotated[
        list[RaceTask] | None,
        typer.Option(help="What is to be learned; more than once for several.", show_default="all"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of training, for each.", show_default="as many as the task takes")
    ] = None,
    dim: Annotated[int, typer.Option(min=2, help="Of the Transformer; the other gets as many parameters.")] = 128,
    seed: Annotated[int, typer.Option(help="Of weights and examples.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Lengths up to 256, few steps: it learns little.")] = False,
    as_json: Json = False,
    save: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Save as .png, .svg or .json; more than once for several.")
    ] = None,
) -> None:
    """Attention over a recurrent network against self-attention: as many parameters, the same data, the same steps.

    First the time of a training step and of a written token, by length; then tasks with a right answer. Some minutes
    for each task; Ctrl-C ends it, and what was measured until then is shown.
    """
    from regard._internal import plotting
    from regard.race import report as racing
    from regard.race.picture import picture
    from regard.race.table import table
    from regard.race.tasks import TASKS

    for path in save or ():
        plotting.check_path(path)
    names = dict.fromkeys(one.value for one in task or RaceTask)
    each = {name: steps or (100 if quick else TASKS[name].steps) for name in names}
    lengths = racing.LENGTHS[:4] if quick else racing.LENGTHS
    with progress.counter(f"of {2 * sum(each.values()) + len(lengths):,} steps") as advance:
        report = racing.race(each, lengths=lengths, dim=dim, seed=seed, advance=advance)
    if as_json:
        _print_json(report.to_dict())
    else:
        _print(lambda width: table(report))
    for path in save or ():
        plotting.save(path, report.to_dict, lambda: picture(report))
    if not report.complete:
        _warn("stopped before the end.")
        raise typer.Exit(1)


@bench.command("attention", epilog="Example: regard bench attention --quick --save speed.png")
def bench_attention(
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the lengths, few rounds, only SDPA.")] = False,
    peers: Annotated[
        str | None, typer.Option(metavar="NAME,NAME,…", help="Of sdpa, eager, flex, jax, onnx.", show_default="all")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often each is timed, in turn.", show_default="7, quick 3")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Rows with this in their name: causal, short, …")
    ] = None,
    as_json: Json = False,
    save: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Save as .png, .svg or .json; more than once for several.")
    ] = None,
) -> None:
    """How fast attention is here: regard and its peers in turn, against what the machine can do.

    Some minutes; Ctrl-C ends it, and what was measured until then is shown.
    """
    from regard._internal import plotting
    from regard.bench import attention, picture
    from regard.bench.table import table

    rows = attention.choose(quick, only)
    names = attention.names_of_peers(peers.split(",") if peers is not None else ["sdpa"] if quick else None)
    for path in save or ():
        plotting.check_path(path)
        if path.suffix.lower() != ".json":
            picture.check(rows)
    with progress.counter(f"of {counted(len(rows), 'row')}") as advance:
        report = attention.measure(rows, names, rounds or (3 if quick else 7), 0.01 if quick else 0.05, advance)
    if as_json:
        _print_json(report.to_dict())
    else:
        _print(lambda width: table(report))
    _warn(None if report.complete else f"stopped after {len(report.results)} of {len(rows)} rows.")
    for path in save or ():
        plotting.save(path, report.to_dict, lambda: picture.picture(report))
    if not report.complete:
        raise typer.Exit(1)


@bench.command("embed", epilog="Example: regard bench embed --peers st,onnx --save embed.png")
def bench_embed(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Texts, as regard embed reads them.", show_default="English from Python's reference"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the texts, only sentence-transformers.")] = False,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…",
            help="Of st, st-bf16 (sentence-transformers), transformers, compile (torch's), onnx, fastembed.",
            show_default="st,st-bf16,transformers,onnx",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often each is timed, in turn.", show_default="3, quick 1")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A model of BERT's family.", show_default="embedded")
    ] = None,
    as_json: Json = False,
    save: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Save as .png, .svg or .json; more than once for several.")
    ] = None,
) -> None:
    """How fast sentence vectors are made here: regard and its peers in turn, on the same 1,500 texts."""
    from regard._internal import plotting
    from regard.bench import embed as measured
    from regard.bench.embed_view import picture, table
    from regard.models.model import embedded_folder

    names = measured.names_of_embedders(peers.split(",") if peers is not None else ["st", "st-bf16"] if quick else None)
    for path in save or ():
        plotting.check_path(path)
    texts = measured.texts_of(files) if files else measured.prose(150 if quick else 1500)
    folder = embedded_folder() if model is None else model
    with progress.counter("of 3 parts: agreement, speed, first vectors and memory") as advance:
        report = measured.measure(texts, folder, names, rounds or (1 if quick else 3), not quick, advance)
    if as_json:
        _print_json(report.to_dict())
    else:
        _print(lambda width: table(report))
    for path in save or ():
        plotting.save(path, report.to_dict, lambda: picture(report))


def main() -> None:
    """Run the command line: exit code 0 done, 1 could not (one line on stderr), 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal cannot write is no reason to stop
    _hush()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough; what is left goes nowhere, at exit too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except SystemExit as done:
        if done.code == 130:  # typer's, for Ctrl-C
            _warn("stopped.")
            raise SystemExit(1) from None
        raise
    except (Exception, KeyboardInterrupt) as error:
        _warn(_line(error))
        raise SystemExit(1) from None


def _hush() -> None:
    """Libraries keep to what was asked: one plain line on stderr where it could not be done, and no bars in a file."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}."
    text = " ".join([str(error), *getattr(error, "__notes__", ())])
    text = re.sub(r"\bnth=(\d)", r"--nth \1", text)  # arguments of the library, options here
    text = text.replace("resume=True", "--resume").replace("give a token", "give a --token")
    return " ".join(text.split()) or type(error).__name__


def _print(draw: Callable[[int], RenderableType]) -> None:
    """Print what is drawn for the width of the terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:  # a file or a pipe has no width
        console.width = 120
    console.print(draw(console.width))


def _print_json(what: object) -> None:
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(what, ensure_ascii=plain))


def _warn(message: str | None) -> None:
    if message:
        from regard.lens.words import printable

        print(f"regard: {printable(message)}", file=sys.stderr)
