"""The Transformer of a race in a folder: config.json with its sizes and the tokens of its task, model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard._internal.files import atomic_write, read_json
from regard.nn import Transformer, greedy
from regard.nn.layers import ACTIVATIONS
from regard.race.tasks import BOS, EOS, PAD, Task

MODEL_TYPE = "regard-transformer"
_SIZES = ("layers", "dim", "heads", "d_ff", "activation", "pre_norm", "epsilon")


@dataclass(frozen=True)
class Kept:
    """A Transformer that was trained on a task, and all tokens of its sources and targets.

    The numbers of the tokens begin with 3; 0 is padding, 1 begins a target, and 2 ends it.
    """

    model: Transformer
    tokens: tuple[str, ...]
    task: str

    def encode(self, source: Sequence[str]) -> Tensor:
        """(N,): the numbers of tokens. Raises ValueError where the model does not know one, or there is none."""
        numbers = {token: n for n, token in enumerate(self.tokens, EOS + 1)}
        for token in source:
            if token not in numbers:
                known = "".join(other for other in self.tokens if len(other) == 1)
                raise ValueError(f"This model has no token for “{token}”: it knows the characters {known}")
        if not source:
            raise ValueError("The text is empty.")
        return torch.tensor([numbers[token] for token in source])

    def write(self, source: Sequence[str], max_new_tokens: int = 64) -> list[str]:
        """The tokens that the model writes for a source, the likeliest each time. Raises as `encode`."""
        ids = greedy(self.model, self.encode(source)[None], bos_id=BOS, eos_id=EOS, max_new_tokens=max_new_tokens)
        return [self.tokens[id - EOS - 1] if id > EOS else "?" for id in ids[0].tolist() if id != EOS]


def save(folder: Path, model: Transformer, task: Task, dtype: torch.dtype = torch.float32) -> None:
    """Write a trained model to a folder, which is made where it does not exist; `dtype` is that of the weights."""
    from safetensors.torch import save as as_bytes

    layer = model.encoder.layers[0]
    sizes = (
        len(model.encoder.layers),
        layer.attention_norm.normalized_shape[0],
        layer.attention.heads,
        layer.feed_forward.fc1.out_features,
        next(name for name, module in ACTIVATIONS.items() if module is layer.feed_forward.activation),
        layer.attention_norm.pre_norm,
        layer.attention_norm.eps,
    )
    config = {"model_type": MODEL_TYPE, "task": task.name, "vocab_size": task.vocab_size}
    config |= dict(zip(_SIZES, sizes, strict=True))
    config |= {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "tokens": list(task.tokens)}
    tensors = model.state_dict()
    tensors = {
        name: tensors[name].to(dtype).contiguous() for name in tensors if name != "decoder.embeddings.tokens.weight"
    }
    content = as_bytes(tensors, {"format": "pt"})  # encoder and decoder have the same embeddings
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "model.safetensors", lambda file: file.write(content))
    atomic_write(folder / "config.json", lambda file: file.write(json.dumps(config, indent=2).encode()))


def load(folder: Path) -> Kept:
    """The model in a folder, in evaluation mode and in float32.

    Raises ValueError where the folder holds something else, or its files are damaged, OSError where there are none.
    """
    from safetensors.torch import load_file

    config: dict[str, Any] = read_json(folder / "config.json")
    if config.get("model_type") != MODEL_TYPE:
        raise ValueError(f"{folder}: model_type: expected {MODEL_TYPE!r}. Got {config.get('model_type')!r}.")
    try:
        sizes = {name: config[name] for name in _SIZES}
        model = Transformer(config["vocab_size"], sizes.pop("layers"), dropout=0.0, **sizes)
        tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        tensors["decoder.embeddings.tokens.weight"] = tensors["encoder.embeddings.tokens.weight"]
        model.load_state_dict(tensors)
        return Kept(model.eval(), tuple(config["tokens"]), config["task"])
    except OSError:
        raise
    except Exception as error:  # damaged files raise errors of every kind
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise ValueError(f"{folder} is damaged: {reason}") from None
