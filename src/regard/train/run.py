"""Masked-language-model training that can be killed at any moment and gone on with, to the same bits."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regard._internal import plotting
from regard._internal.files import atomic_write
from regard.nn import Embeddings, Encoder, MaskedLanguageModel, checkpoint
from regard.train import text as texts
from regard.train.text import Text, masked

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STATE = "training.pt"


@dataclass(frozen=True)
class Options:
    """What a run is: with the same options and text it is the same run, to the bit."""

    layers: int = 2
    dim: int = 128
    heads: int = 4
    vocabulary: int = 8000
    length: int = 64
    steps: int = 12_000
    batch: int = 16
    rate: float = 2e-3
    dropout: float = 0.0
    every: int = 500
    patience: int = 5
    seed: int = 0


@dataclass
class History:
    """losses: of every step. held_out: (step, loss, accuracy) of every evaluation; the best is the model's."""

    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def best(self) -> tuple[int, float, float]:
        """The evaluation with the least loss; before the first, a loss of ∞."""
        return min(self.held_out, key=lambda one: one[1], default=(0, math.inf, 0.0))

    def ended(self, options: Options) -> str:
        """Why there is no further step to go; empty while there is."""
        if len(self.losses) >= options.steps:
            return "all steps are done"
        late = [step for step, _, _ in self.held_out if step > self.best[0]]
        return f"no better on held-out text in {len(late)} evaluations" if len(late) >= options.patience else ""


@dataclass(frozen=True)
class Progress:
    """After a step: its number, its loss, the last held-out accuracy, tokens learned from so far in this process."""

    step: int
    loss: float
    accuracy: float
    tokens: int


def train(
    files: Sequence[Path],
    out: Path,
    options: Options,
    *,
    resume: bool = False,
    progress: Callable[[Progress], object] = lambda progress: None,
) -> dict[str, Any]:
    """Train an encoder on text and write it to `out`, as transformers and `regard.Lens` open it.

    A checkpoint follows each evaluation. Returns a report of what was learned.

    Raises ValueError where text or options do not do, or `out` holds another run; OSError where files fail.
    """
    text = texts.read(files)
    before = _before(out, options, text, resume)
    tokenizer = _new_tokenizer(out, text, options) if before is None else texts.load_tokenizer(out)
    learned, held_out = (
        texts.blocks(tokenizer, sections, options.length) for sections in (text.learned, text.held_out)
    )
    texts.check(learned, held_out, text, options.length)
    model = make(options, tokenizer.get_vocab_size())
    optimizer = _optimizer(model, options.rate)
    history = History()
    if before is not None:
        model.load_state_dict(before["model"])
        optimizer.load_state_dict(before["optimizer"])
        history = History(before["losses"], [tuple(one) for one in before["held_out"]])
    start, first = time.perf_counter(), len(history.losses)
    if before is None:
        _save(out, options, text, model, optimizer, history)
    while not history.ended(options):
        step = len(history.losses)
        history.losses.append(_step(model, optimizer, learned, step, options))
        if (step + 1) % options.every == 0 or step + 1 == options.steps:
            history.held_out.append((step + 1, *evaluate(model, held_out, options)))
            if history.best[0] == step + 1:
                _export(out, options, model, tokenizer)
            _save(out, options, text, model, optimizer, history)
        accuracy = history.held_out[-1][2] if history.held_out else 0.0
        progress(Progress(step + 1, history.losses[-1], accuracy, (step + 1 - first) * options.batch * options.length))
    step, loss, accuracy = history.best
    return {
        "out": str(out),
        "ended": history.ended(options),
        "steps": len(history.losses),
        "seconds": time.perf_counter() - start,
        "tokens": {"learned": learned.numel(), "held_out": held_out.numel()},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "best": {"step": step, "loss": loss, "accuracy": accuracy},
        "final_loss": history.losses[-1],
        "held_out": [list(one) for one in history.held_out],
    }


def make(options: Options, vocabulary: int) -> MaskedLanguageModel:
    """The model before the first step, of BERT's shape; its matrices larger than BERT's, which small ones learn by."""
    torch.manual_seed(options.seed)
    sizes: dict[str, Any] = {"heads": options.heads, "d_ff": 4 * options.dim}
    sizes |= {"epsilon": 1e-12, "dropout": options.dropout}
    embeddings = Embeddings(vocabulary, options.dim, options.length, 2, dropout=options.dropout)
    model = MaskedLanguageModel(Encoder(embeddings, options.layers, dim=options.dim, **sizes), options.dim)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def _optimizer(model: nn.Module, rate: float) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.98))


def _step(
    model: MaskedLanguageModel, optimizer: torch.optim.Optimizer, learned: Tensor, step: int, options: Options
) -> float:
    """One step; all that is random about it follows from the seed and its number."""
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    torch.manual_seed(options.seed * 1_000_003 + step)  # of dropout
    ids = learned[_order(len(learned), step, options)]
    changed, at = masked(ids, model.encoder.embeddings.tokens.num_embeddings, generator)
    rising = max(1, options.steps // 10)
    for group in optimizer.param_groups:
        group["lr"] = options.rate * min((step + 1) / rising, (options.steps - step) / (options.steps - rising + 1))
    model.train()
    loss = nn.functional.cross_entropy(model(changed, at), ids[at])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _order(count: int, step: int, options: Options) -> Tensor:
    """Which blocks a step learns from: all of them in turn, shuffled anew each time."""
    places = torch.arange(step * options.batch, (step + 1) * options.batch)
    rounds = [
        torch.randperm(count, generator=torch.Generator().manual_seed(options.seed * 7919 + n))
        for n in range(int(places[0]) // count, int(places[-1]) // count + 1)
    ]
    return torch.cat(rounds)[places - int(places[0]) // count * count]


@torch.no_grad()
def evaluate(model: MaskedLanguageModel, held_out: Tensor, options: Options) -> tuple[float, float]:
    """(loss, accuracy) on held-out text, with the same masks each time."""
    model.eval()
    changed, at = held_out_masks(held_out, model.encoder.embeddings.tokens.num_embeddings)
    total = right = 0.0
    for some in range(0, len(held_out), options.batch):
        here = slice(some, some + options.batch)
        logits, ids = model(changed[here], at[here]), held_out[here][at[here]]
        total += nn.functional.cross_entropy(logits, ids, reduction="sum").item()
        right += (logits.argmax(-1) == ids).sum().item()
    count = int(at.sum())
    return total / count, right / count


def held_out_masks(held_out: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """What is asked of the held-out text."""
    return masked(held_out, vocabulary, torch.Generator().manual_seed(0))


# Files


def _before(out: Path, options: Options, text: Text, resume: bool) -> dict[str, Any] | None:
    """The state to go on from; None at the beginning. Raises ValueError where `out` holds something else."""
    state = out / STATE
    there: set[str] = set()
    for path in out.iterdir() if out.is_dir() else ():
        if path.name.startswith(".regard-"):  # what a killed run was writing
            path.unlink()
        else:
            there.add(path.name)
    begun = out.is_dir() and there <= {"tokenizer.json", "tokenizer_config.json"}  # without a first checkpoint
    if begun or not resume:
        if state.exists():
            raise ValueError(f"{out} holds a run already: resume=True goes on with it.")
        if out.exists() and not begun:
            raise ValueError(f"{out} is not an empty folder.")
        out.mkdir(parents=True, exist_ok=True)
        return None
    if not state.exists():
        raise ValueError(f"{out} holds no run to go on with: there is no {STATE}.")
    try:
        found = torch.load(state, weights_only=True)
        theirs, digest = found["options"], found["text"]
    except Exception as error:  # a damaged file raises errors of every kind
        raise ValueError(f"{state} is damaged: {str(error).splitlines()[0] if str(error) else error!r}.") from None
    for name, value in asdict(options).items():
        if theirs.get(name) != value:
            raise ValueError(f"{out} holds a run with --{name} {theirs.get(name)}. Got --{name} {value}.")
    if digest != text.digest:
        raise ValueError(f"{out} holds a run on another text.")
    return found


def _new_tokenizer(out: Path, text: Text, options: Options) -> Tokenizer:
    """Written before all else."""
    tokenizer = texts.make_tokenizer(text, options.vocabulary, options.length)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": options.length, "do_lower_case": True}
    about |= {f"{name[1:-1].lower()}_token": name for name in texts.SPECIAL}
    atomic_write(out / "tokenizer_config.json", lambda f: f.write(json.dumps(about, indent=2).encode()))
    atomic_write(out / "tokenizer.json", lambda f: f.write(tokenizer.to_str(pretty=True).encode()))
    return tokenizer


def _export(out: Path, options: Options, model: MaskedLanguageModel, tokenizer: Tokenizer) -> None:
    sizes = asdict(options) | {"vocab_size": tokenizer.get_vocab_size(), "positions": options.length, "types": 2}
    sizes |= {"d_ff": 4 * options.dim, "epsilon": 1e-12, "activation": "gelu"}
    checkpoint.save(out, model.state_dict(), sizes, pad_token_id=texts.PAD)


def _save(
    out: Path, options: Options, text: Text, model: nn.Module, optimizer: torch.optim.Optimizer, history: History
) -> None:
    state = {
        "options": asdict(options),
        "text": text.digest,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": history.losses,
        "held_out": [list(one) for one in history.held_out],
    }
    content = io.BytesIO()
    torch.save(state, content)
    atomic_write(out / STATE, lambda file: file.write(content.getbuffer()))
    if history.held_out:
        from regard.train.picture import picture

        try:
            drawn = plotting.to_bytes(picture(history), "png")
        except ImportError:  # a picture is welcome, not needed
            return
        atomic_write(out / "losses.png", lambda file: file.write(drawn))
