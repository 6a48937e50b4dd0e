"""Commands that benchmark this machine: bench attention, bench embed, bench machine; and bench compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard._internal.plurals import counted
from regard.cli.console import check_figures, print_json, print_rich, save_figures, save_numbers, warn
from regard.cli.options import Json, SaveFigure

commands = typer.Typer(
    name="bench",
    help="Benchmark this machine, with other libraries side by side.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@commands.command(epilog="Example: regard bench attention --quick --save speed.png")
def attention(
    grid: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which shapes: default (beside all peers); wide (60 that stand for all kinds, beside SDPA); roofline "
            "(regard alone, each instruction set as a share of its peak).",
        ),
    ] = "default",
    quick: Annotated[
        bool, typer.Option("--quick", help="A quarter of the lengths, 3 rounds, SDPA as only peer.")
    ] = False,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…",
            help="The peers to compare with: sdpa, eager, flex, jax, onnx.",
            show_default="all, wide sdpa, roofline none",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="How many times to time each, interleaved.", show_default="7, wide 15, quick 3"),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only rows whose name contains this: causal, short, …")
    ] = None,
    as_json: Json = False,
    save: SaveFigure = None,
) -> None:
    """Measure the speed of attention beside other libraries.

    regard and its peers are timed, interleaved, and compared with the peak of the machine. This takes some minutes.
    Ctrl-C stops it and shows what was measured so far.
    """
    from regard._internal import progress
    from regard.bench import attention as benchmark
    from regard.bench import pictures
    from regard.bench.table import table

    rows = benchmark.choose(quick, only, grid)
    names = benchmark.peer_names(peers.split(",") if peers is not None else benchmark.default_peers(grid, quick))
    check_figures(save)
    if any(path.suffix.lower() != ".json" for path in save or ()):
        pictures.check(grid, rows, names)
    rounds = rounds or (3 if quick else 15 if grid == "wide" else 7)
    with progress.counter(f"of {counted(len(rows), 'row')}") as advance:
        report = benchmark.measure(rows, names, rounds, 0.01 if quick else 0.05, advance, grid)
    if as_json:
        print_json(report.to_dict())
    else:
        print_rich(lambda width: table(report))
    warn(None if report.complete else f"stopped after {len(report.results)} of {counted(len(rows), 'row')}.")
    save_figures(save, report.to_dict, lambda: pictures.picture(report))
    if not report.complete:
        raise typer.Exit(1)


@commands.command(epilog="Example: regard bench embed --peers st,onnx --save embed.png")
def embed(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="The texts, in the formats of regard embed.", show_default="English from Python's reference"
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the texts, sentence-transformers as only peer.")
    ] = False,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…",
            help="The peers to compare with: st, st-bf16 (sentence-transformers), transformers, compile "
            "(torch.compile), onnx, fastembed; in int8 onnx-int8, onnx-package, openvino.",
            show_default="all but compile, fastembed",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How many times to time each, interleaved.", show_default="3, quick 1")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The folder of a model of the BERT family.", show_default="embedded"),
    ] = None,
    as_json: Json = False,
    save: SaveFigure = None,
) -> None:
    """Measure the speed of sentence embeddings.

    regard and its peers are timed, interleaved, on the same texts: 1,500, unless files are given.
    """
    from regard._internal import progress
    from regard.bench import embed as benchmark
    from regard.bench.embed_view import picture, table
    from regard.models import embedded_folder

    names = benchmark.embedder_names(peers.split(",") if peers is not None else ["st", "st-bf16"] if quick else None)
    check_figures(save)
    texts = benchmark.texts_of(files) if files else benchmark.sample_texts(150 if quick else 1500)
    folder = embedded_folder() if model is None else model
    with progress.counter("of 3 stages: agreement, speed, first vectors and memory") as advance:
        report = benchmark.measure(texts, folder, names, rounds or (1 if quick else 3), not quick, advance)
    if as_json:
        print_json(report.to_dict())
    else:
        print_rich(lambda width: table(report))
    save_figures(save, report.to_dict, lambda: picture(report))


@commands.command(epilog="Example: regard bench machine --save machine.json")
def machine(as_json: Json = False, save: SaveFigure = None) -> None:
    """Measure the peaks of this machine.

    They are those of multiply-adds in each type, for the instruction set in use, and of reading memory.
    """
    from regard.bench import machines

    check_figures(save)
    if any(path.suffix.lower() != ".json" for path in save or ()):
        raise ValueError("bench machine: there is no picture of a machine: save it as .json.")
    report = machines.Machine().to_dict()
    if as_json:
        print_json(report)
    else:
        print_rich(lambda width: machines.table([report], ("",)))
    save_numbers(save, lambda: report)


@commands.command(epilog="Example: regard bench compare before.json after.json")
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A report that bench saved.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another of the same kind.", show_default=False)],
    as_json: Json = False,
    save: SaveFigure = None,
) -> None:
    """Compare two reports: of two machines, or of two versions.

    They are files that bench attention, bench embed or bench machine saved as JSON.
    """
    from regard.bench import compare as comparing
    from regard.bench import compare_view

    check_figures(save)
    comparison = comparing.compare(a, b)
    if any(path.suffix.lower() != ".json" for path in save or ()):
        compare_view.picture(comparison)
    if as_json:
        print_json(comparison.to_dict())
    else:
        print_rich(lambda width: compare_view.table(comparison))
    save_figures(save, comparison.to_dict, lambda: compare_view.picture(comparison))
