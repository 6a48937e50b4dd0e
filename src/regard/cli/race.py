"""The command that races recurrent attention against self-attention: race."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regard.cli.console import check_figures, print_json, print_rich, save_figures, warn
from regard.cli.options import Json, SaveFigure, choices
from regard.race import TaskName

if TYPE_CHECKING:
    from regard.race.training import Model

commands = typer.Typer()

_EXAMPLES = """Example: regard race --task reverse --save race.png

Keep the Transformer: regard race --task dates --dim 64 --steps 2000 --keep dates"""


@commands.command(epilog=_EXAMPLES)
def race(
    task: Annotated[
        list[str] | None,
        typer.Option(help="The task to learn; repeat for several.", show_default="all", **choices(TaskName)),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps for each task and model.", show_default="by task")
    ] = None,
    dim: Annotated[
        int, typer.Option(min=2, help="Vector size of the Transformer; the recurrent model gets as many parameters.")
    ] = 128,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Lengths up to 256 and few steps; the models learn little.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep the trained Transformer of the one --task, to be opened with regard.race.kept.load.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    save: SaveFigure = None,
) -> None:
    """Race recurrent attention against self-attention.

    Both models get equal parameters, data and steps. First this measures the time of a training step and of a decoded
    token by length, then accuracy on tasks with a right answer. Each task takes some minutes. Ctrl-C stops the race and
    shows what was measured so far.
    """
    from regard._internal import progress
    from regard.race import report as racing
    from regard.race.picture import picture
    from regard.race.table import table
    from regard.race.tasks import TASKS
    from regard.race.timing import LENGTHS

    check_figures(save)
    _check_keep(keep, task)
    steps_by_task = {name: steps or (100 if quick else TASKS[name].steps) for name in dict.fromkeys(task or TASKS)}
    lengths = LENGTHS[:4] if quick else LENGTHS
    total = 2 * sum(steps_by_task.values()) + len(lengths)
    with progress.counter(f"of {total:,} steps") as advance:
        report = racing.race(steps_by_task, lengths=lengths, dim=dim, seed=seed, advance=advance, trained=_keeper(keep))
    if as_json:
        print_json(report.to_dict())
    else:
        print_rich(lambda width: table(report))
    save_figures(save, report.to_dict, lambda: picture(report))
    if not report.complete:
        warn("stopped before the end.")
        raise typer.Exit(1)


def _check_keep(keep: Path | None, task: list[str] | None) -> None:
    """Raise ValueError, before anything is trained, where a model cannot be kept."""
    if keep is None:
        return
    if len(set(task or ())) != 1:
        raise ValueError("--keep: expected one --task, whose Transformer is kept.")
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise ValueError(f"--keep: {keep} is not an empty folder.")


def _keeper(keep: Path | None) -> Callable[[str, Model], None]:
    """What is called with each trained model: it keeps the Transformer."""
    from regard.nn import Transformer
    from regard.race import kept
    from regard.race.tasks import TASKS

    def trained(task: str, model: Model) -> None:
        if keep is not None and isinstance(model, Transformer):
            kept.save(keep, model, TASKS[task])

    return trained
