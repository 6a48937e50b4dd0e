"""A training run that can be interrupted at any moment and resumed, to the same bits."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regard._internal import plotting
from regard._internal.files import atomic_write
from regard._internal.plurals import counted
from regard.train import text as texts
from regard.train.objective import Objective, objective_of
from regard.train.options import OLD_NAMES, Options
from regard.train.text import Text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STATE = "training.pt"


class RunExistsError(ValueError):
    """The folder holds a run, which is not to be resumed."""


class OptionMismatchError(ValueError):
    """The folder holds a run with other options. name: of the first that differs."""

    def __init__(self, out: Path, name: str, theirs: object, ours: object) -> None:
        super().__init__(f"{out} holds a run with {name}={theirs}. Got {name}={ours}.")
        self.out, self.name, self.theirs, self.ours = out, name, theirs, ours


@dataclass
class History:
    """losses: of every step. held_out: (step, loss, accuracy) of every evaluation; the best is that of the model."""

    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def best(self) -> tuple[int, float, float]:
        """The evaluation with the lowest loss; before the first, a loss of ∞."""
        return min(self.held_out, key=lambda evaluation: evaluation[1], default=(0, math.inf, 0.0))

    def ended(self, options: Options) -> str:
        """Why the run has ended; "" if it has not."""
        if len(self.losses) >= options.steps:
            return "all steps are done"
        since_best = [step for step, _, _ in self.held_out if step > self.best[0]]
        if len(since_best) < options.patience:
            return ""
        return f"no better on held-out text in {counted(len(since_best), 'evaluation')}"


@dataclass(frozen=True)
class Progress:
    """A step that was made: its number and loss, the last held-out accuracy, and the tokens trained on so far here."""

    step: int
    loss: float
    accuracy: float
    tokens: int


@dataclass
class _Run:
    """What a run consists of, and its checkpoints hold."""

    out: Path
    options: Options
    objective: Objective
    text: Text
    vocab_size: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: History

    def evaluate_and_save(self, held_out: Tensor) -> None:
        """Evaluate, export the model if it is the best so far, and save a checkpoint."""
        step = len(self.history.losses)
        self.history.held_out.append((step, *evaluate(self, held_out)))
        if self.history.best[0] == step:
            self.objective.export(self.out, self.options, self.model, self.vocab_size)
        _save_checkpoint(self)


def train(
    files: Sequence[Path],
    out: Path,
    options: Options,
    *,
    resume: bool = False,
    progress: Callable[[Progress], object] = lambda progress: None,
) -> dict[str, Any]:
    """Train an encoder on text, by masked-language modelling, or a decoder, and write it to the folder `out`.

    transformers and `regard.Lens` open the folder. A checkpoint follows each evaluation.

    Args:
        files: Plain text in UTF-8; - is stdin.
        resume: Continue the run in the folder from its last checkpoint.
        progress: Called after each step.

    Returns: A report: how the run ended, its steps, seconds, tokens, parameters and losses, and the best evaluation.

    Raises:
        ValueError: There is too little text, options contradict each other, or the folder holds something else.
        OSError: A file cannot be read or written.
    """
    objective = objective_of(options)
    objective.check(options)
    text = texts.read(files)
    saved = _open_folder(out, options, text, resume)
    tokenizer = _new_tokenizer(out, objective, text, options) if saved is None else texts.load_tokenizer(out)
    learned, held_out = (
        objective.blocks(tokenizer, sections, options.seq_length) for sections in (text.learned, text.held_out)
    )
    texts.check(learned, held_out, text, options.seq_length)
    vocab_size = tokenizer.get_vocab_size()
    model = objective.make(options, vocab_size)
    optimizer = _optimizer(model, options.learning_rate)
    run = _Run(out, options, objective, text, vocab_size, model, optimizer, History())
    if saved is None:
        _save_checkpoint(run)
    else:
        _load_checkpoint(run, saved)
    start, first_step = time.perf_counter(), len(run.history.losses)
    while not run.history.ended(options):
        step = len(run.history.losses)
        run.history.losses.append(_step(run, learned))
        if (step + 1) % options.eval_every == 0 or step + 1 == options.steps:
            run.evaluate_and_save(held_out)
        accuracy = run.history.held_out[-1][2] if run.history.held_out else 0.0
        tokens = (step + 1 - first_step) * options.batch_size * options.seq_length
        progress(Progress(step + 1, run.history.losses[-1], accuracy, tokens))
    return _report(run, time.perf_counter() - start, learned, held_out)


def _report(run: _Run, seconds: float, learned: Tensor, held_out: Tensor) -> dict[str, Any]:
    step, loss, accuracy = run.history.best
    return {
        "out": str(run.out),
        "ended": run.history.ended(run.options),
        "steps": len(run.history.losses),
        "seconds": seconds,
        "tokens": {"learned": learned.numel(), "held_out": held_out.numel()},
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "best": {"step": step, "loss": loss, "accuracy": accuracy},
        "final_loss": run.history.losses[-1],
        "held_out": [list(evaluation) for evaluation in run.history.held_out],
    }


def _optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, learning_rate, betas=(0.9, 0.98))


def _step(run: _Run, learned: Tensor) -> float:
    """One training step. Its masks and dropout depend on the seed and the step number alone. Returns the loss."""
    step, options = len(run.history.losses), run.options
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    torch.manual_seed(options.seed * 1_000_003 + step)  # for dropout
    inputs, labels = run.objective.examples(learned[_order(len(learned), step, options)], run.vocab_size, generator)
    warmup = max(1, options.steps // 10)
    for group in run.optimizer.param_groups:
        group["lr"] = options.learning_rate * min(
            (step + 1) / warmup, (options.steps - step) / (options.steps - warmup + 1)
        )
    run.model.train()
    at = labels >= 0
    loss = nn.functional.cross_entropy(run.objective.logits(run.model, inputs, at), labels[at])
    run.optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimizer.step()
    return loss.item()


def _order(count: int, step: int, options: Options) -> Tensor:
    """The blocks that a step learns from: all blocks in turn, shuffled anew in each epoch."""
    places = torch.arange(step * options.batch_size, (step + 1) * options.batch_size)
    epochs = [
        torch.randperm(count, generator=torch.Generator().manual_seed(options.seed * 7919 + n))
        for n in range(int(places[0]) // count, int(places[-1]) // count + 1)
    ]
    return torch.cat(epochs)[places - int(places[0]) // count * count]


@torch.no_grad()
def evaluate(run: _Run, held_out: Tensor) -> tuple[float, float]:
    """(loss, accuracy) on held-out text, with the same masks every time."""
    run.model.eval()
    inputs, labels = held_out_examples(run.objective, held_out, run.vocab_size)
    loss = correct = 0.0
    for start in range(0, len(held_out), run.options.batch_size):
        batch = slice(start, start + run.options.batch_size)
        at = labels[batch] >= 0
        logits, ids = run.objective.logits(run.model, inputs[batch], at), labels[batch][at]
        loss += nn.functional.cross_entropy(logits, ids, reduction="sum").item()
        correct += (logits.argmax(-1) == ids).sum().item()
    count = int((labels >= 0).sum())
    return loss / count, correct / count


def held_out_examples(objective: Objective, held_out: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """What the model reads in an evaluation, and what it is to predict."""
    return objective.examples(held_out, vocab_size, torch.Generator().manual_seed(0))


# Files


def _open_folder(out: Path, options: Options, text: Text, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to resume from; None for a new run. Raises ValueError if `out` holds something else."""
    state = out / STATE
    names: set[str] = set()
    for path in out.iterdir() if out.is_dir() else ():
        if path.name.startswith(".regard-"):  # a temporary file of a run that was killed
            path.unlink()
        else:
            names.add(path.name)
    before_first_checkpoint = out.is_dir() and names <= {"tokenizer.json", "tokenizer_config.json"}
    if before_first_checkpoint or not resume:
        if state.exists():
            raise RunExistsError(f"{out} holds a run already: resume=True continues it.")
        if out.exists() and not before_first_checkpoint:
            raise ValueError(f"{out} is not an empty folder.")
        out.mkdir(parents=True, exist_ok=True)
        return None
    if not state.exists():
        raise ValueError(f"{out} holds no run to resume: there is no {STATE}.")
    return _read_checkpoint(out, options, text)


def _read_checkpoint(out: Path, options: Options, text: Text) -> dict[str, Any]:
    """The checkpoint in a folder. Raises ValueError if it is damaged, or of another run."""
    state = out / STATE
    try:
        saved: dict[str, Any] = torch.load(state, weights_only=True)
        theirs_by_name, digest = saved["options"], saved["text"]
    except Exception as error:  # a damaged file raises errors of every kind
        raise ValueError(f"{state} is damaged: {str(error).splitlines()[0] if str(error) else error!r}.") from None
    for option in fields(options):  # a run of an earlier release has the default of an option that is new
        name, ours = option.name, getattr(options, option.name)
        theirs = theirs_by_name.get(name, theirs_by_name.get(OLD_NAMES.get(name), option.default))
        if theirs != ours:
            raise OptionMismatchError(out, name, theirs, ours)
    if digest != text.digest:
        raise ValueError(f"{out} holds a run on another text.")
    return saved


def _load_checkpoint(run: _Run, saved: dict[str, Any]) -> None:
    run.model.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    run.history = History(saved["losses"], [tuple(evaluation) for evaluation in saved["held_out"]])


def _save_checkpoint(run: _Run) -> None:
    """Save the state of a run, and a picture of its losses if matplotlib is installed."""
    state = {
        "options": asdict(run.options),
        "text": run.text.digest,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "losses": run.history.losses,
        "held_out": [list(evaluation) for evaluation in run.history.held_out],
    }
    content = io.BytesIO()
    torch.save(state, content)
    atomic_write(run.out / STATE, lambda file: file.write(content.getbuffer()))
    if run.history.held_out:
        from regard.train.picture import picture

        try:
            png = plotting.to_bytes(picture(run.history), "png")
        except ImportError:  # the picture is optional
            return
        atomic_write(run.out / "losses.png", lambda file: file.write(png))


def _new_tokenizer(out: Path, objective: Objective, text: Text, options: Options) -> Tokenizer:
    """A tokenizer for the text, written to the folder before anything else."""
    tokenizer = objective.make_tokenizer(text.learned, options)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": options.seq_length}
    config |= objective.tokenizer_config()
    atomic_write(out / "tokenizer_config.json", lambda file: file.write(json.dumps(config, indent=2).encode()))
    atomic_write(out / "tokenizer.json", lambda file: file.write(tokenizer.to_str(pretty=True).encode()))
    return tokenizer
