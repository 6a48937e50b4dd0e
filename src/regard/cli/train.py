"""The command that trains an encoder: train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regard._internal.plurals import counted
from regard.cli.console import print_json, warn
from regard.cli.options import Json, old_names

commands = typer.Typer()

_OldNames = old_names(
    vocabulary="vocab-size", length="seq-length", batch="batch-size", rate="learning-rate", every="eval-every"
)


@commands.command(epilog="Example: regard train book.txt --out model", cls=_OldNames)
def train(
    files: Annotated[list[Path], typer.Argument(help="Plain text files; - is stdin.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
    layers: Annotated[int, typer.Option(min=1, help="Number of layers.")] = 2,
    dim: Annotated[int, typer.Option(min=1, help="Vector size.")] = 128,
    heads: Annotated[int, typer.Option(min=1, help="Number of heads per layer; must divide --dim.")] = 4,
    vocab_size: Annotated[int, typer.Option(min=10, help="Maximum number of tokens in the vocabulary.")] = 8000,
    seq_length: Annotated[int, typer.Option(min=4, help="Maximum number of tokens that the model reads at once.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Maximum training steps.")] = 12_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences per training step.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate.")] = 2e-3,
    dropout: Annotated[float, typer.Option(min=0, max=0.9, help="Dropout probability.")] = 0.0,
    eval_every: Annotated[int, typer.Option(min=1, help="Evaluate and save a checkpoint every N steps.")] = 500,
    patience: Annotated[int, typer.Option(min=1, help="Stop after this many evaluations without improvement.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in the folder from its last checkpoint.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a contextual encoder on plain text, by masked-language modelling.

    The folder opens in regard.Lens and in transformers. One twentieth of the text is held out for evaluation.
    Interrupted runs resume: repeat the same command with --resume. The result is the same, to the bit.
    """
    from regard._internal import progress
    from regard.train import run

    options = run.Options(
        layers=layers,
        dim=dim,
        heads=heads,
        vocab_size=vocab_size,
        seq_length=seq_length,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        dropout=dropout,
        eval_every=eval_every,
        patience=patience,
        seed=seed,
    )
    try:
        with progress.training(steps) as show:
            report = run.train(
                files,
                out,
                options,
                resume=resume,
                progress=lambda at: show(at.step, at.loss, at.accuracy, at.tokens),
            )
    except run.OptionMismatchError as error:
        flag = f"--{error.name.replace('_', '-')}"
        raise ValueError(f"{error.out} holds a run with {flag} {error.theirs}. Got {flag} {error.ours}.") from None
    except run.RunExistsError:
        raise ValueError(f"{out} holds a run already: --resume continues it.") from None
    except KeyboardInterrupt:
        warn("stopped. regard train … --resume continues from the last checkpoint.")
        raise typer.Exit(1) from None
    if as_json:
        print_json(report)
        return
    best = report["best"]
    print(f"{counted(report['steps'], 'step')} in {report['seconds']:,.0f} s; {report['ended']}.")
    print(
        f"Held-out accuracy: {best['accuracy']:.1%} of masked tokens (loss {best['loss']:.2f}, at step "
        f"{best['step']:,})."
    )
    print(f"Open it with regard.Lens({str(out)!r}); {out / 'losses.png'} shows the losses.")
