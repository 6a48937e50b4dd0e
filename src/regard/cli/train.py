"""The command that trains an encoder or a decoder: train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regard._internal.plurals import counted
from regard.cli.console import print_json, warn
from regard.cli.options import Json, old_names

if TYPE_CHECKING:
    from regard.train.options import Options

commands = typer.Typer()

_OldNames = old_names(
    vocabulary="vocab-size", length="seq-length", batch="batch-size", rate="learning-rate", every="eval-every"
)

Files = Annotated[list[Path], typer.Argument(help="Plain text files; - is stdin.", show_default=False)]
Out = Annotated[Path, typer.Option(help="The folder to write.", show_default=False)]
Layers = Annotated[int, typer.Option(min=1, help="Number of layers.")]
Dim = Annotated[int, typer.Option(min=1, help="Vector size.")]
Heads = Annotated[int, typer.Option(min=1, help="Number of heads per layer; must divide --dim.")]
VocabSize = Annotated[int, typer.Option(min=10, help="Maximum number of tokens in the vocabulary.")]
SeqLength = Annotated[int, typer.Option(min=4, help="Maximum number of tokens that the model reads at once.")]
Steps = Annotated[int, typer.Option(min=1, help="Maximum training steps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences per training step.")]
LearningRate = Annotated[float, typer.Option(min=0, help="Peak learning rate.")]
Dropout = Annotated[float, typer.Option(min=0, max=0.9, help="Dropout probability.")]
EvalEvery = Annotated[int, typer.Option(min=1, help="Evaluate and save a checkpoint every N steps.")]
Patience = Annotated[int, typer.Option(min=1, help="Stop after this many evaluations without improvement.")]
Decoder = Annotated[bool, typer.Option("--decoder", help="Train a causal language model instead of an encoder.")]
Groups = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of key and value heads of a decoder; must divide --heads.", show_default="as many as heads"
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in the folder from its last checkpoint.")]


_EXAMPLES = """Example: regard train book.txt --out model

A decoder: regard train stories.txt --out model --decoder --vocab-size 512 --seq-length 256"""


@commands.command(epilog=_EXAMPLES, cls=_OldNames)
def train(
    files: Files,
    out: Out,
    layers: Layers = 2,
    dim: Dim = 128,
    heads: Heads = 4,
    vocab_size: VocabSize = 8000,
    seq_length: SeqLength = 64,
    steps: Steps = 12_000,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 2e-3,
    dropout: Dropout = 0.0,
    eval_every: EvalEvery = 500,
    patience: Patience = 5,
    decoder: Decoder = False,
    groups: Groups = None,
    seed: Seed = 0,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a contextual encoder on plain text, or with --decoder a language model.

    An encoder learns by masked-language modelling. A decoder, of Llama's shape, learns to predict the next token; a
    line <|endoftext|> separates the texts of a file. The folder opens in regard.Lens and in transformers. One twentieth
    of the text is held out for evaluation. Interrupted runs resume: repeat the same command with --resume. The result
    is the same, to the bit.
    """
    from regard.train.options import Options

    if groups is not None and not decoder:
        raise ValueError("--groups: only a decoder has them. Add --decoder.")
    options = Options(
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
        decoder=decoder,
        groups=groups,
    )
    report = _run(files, out, options, resume)
    if as_json:
        print_json(report)
        return
    best = report["best"]
    print(f"{counted(report['steps'], 'step')} in {report['seconds']:,.0f} s; {report['ended']}.")
    scores = f"loss {best['loss']:.2f}, at step {best['step']:,}"
    print(f"Held-out accuracy: {best['accuracy']:.1%} of {'next' if decoder else 'masked'} tokens ({scores}).")
    print(f"Open it with regard.Lens({str(out)!r}); {out / 'losses.png'} shows the losses.")


def _run(files: list[Path], out: Path, options: Options, resume: bool) -> dict[str, Any]:
    """Train, with a progress bar; errors name the options of the command."""
    from regard._internal import progress
    from regard.train import run

    try:
        with progress.training(options.steps) as show:
            return run.train(
                files,
                out,
                options,
                resume=resume,
                progress=lambda at: show(at.step, at.loss, at.accuracy, at.tokens),
            )
    except run.OptionMismatchError as error:
        if error.name == "decoder":
            kinds = {True: "a decoder", False: "an encoder"}
            raise ValueError(
                f"{error.out} holds a run of {kinds[bool(error.theirs)]}. Got {kinds[bool(error.ours)]}."
            ) from None
        flag = f"--{error.name.replace('_', '-')}"
        raise ValueError(f"{error.out} holds a run with {flag} {error.theirs}. Got {flag} {error.ours}.") from None
    except run.RunExistsError:
        raise ValueError(f"{out} holds a run already: --resume continues it.") from None
    except KeyboardInterrupt:
        warn("stopped. regard train … --resume continues from the last checkpoint.")
        raise typer.Exit(1) from None
