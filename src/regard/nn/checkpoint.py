"""Checkpoints of BERT's family as transformers saves them: config.json and model.safetensors, in regard.nn's names.

`fetch` finds or downloads the folder, `sizes` and `tensors` read it, `save` writes it; `digest` and `fingerprint` tell
versions apart. `FAMILIES` maps the names of each architecture to those of `regard.nn`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from regard._internal.files import atomic_write, read_json


@dataclass(frozen=True)
class Family:
    """The names of an architecture.

    Attributes:
        prefix: what its tensors' names begin with in a model that has a head.
        sizes: {its name in config.json: ours}.
        names: {its module: ours}; a name with {n} exists once per layer. Several of ours have its outputs in turn.
        heads: the beginnings of tensors' names that belong to heads, and not to the model.
        config: the defaults of config.json.
        unused: the ends of tensors' names that old files have and nobody reads.
        by_input: whether its layers have weights (inputs,outputs), the other way round than nn.Linear.
    """

    prefix: str
    sizes: Mapping[str, str]
    names: Mapping[str, str]
    heads: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    by_input: bool = False


_BERT = Family(
    prefix="bert.",
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "intermediate_size": "d_ff",
        "max_position_embeddings": "positions",
        "type_vocab_size": "types",
        "layer_norm_eps": "epsilon",
        "hidden_act": "activation",
    },
    names={
        "embeddings.word_embeddings": "embeddings.tokens",
        "embeddings.position_embeddings": "embeddings.positions",
        "embeddings.token_type_embeddings": "embeddings.types",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.layer.{n}.attention.self.query": "layers.{n}.attention.query",
        "encoder.layer.{n}.attention.self.key": "layers.{n}.attention.key",
        "encoder.layer.{n}.attention.self.value": "layers.{n}.attention.value",
        "encoder.layer.{n}.attention.output.dense": "layers.{n}.attention.output",
        "encoder.layer.{n}.attention.output.LayerNorm": "layers.{n}.attention_norm",
        "encoder.layer.{n}.intermediate.dense": "layers.{n}.feed_forward.fc1",
        "encoder.layer.{n}.output.dense": "layers.{n}.feed_forward.fc2",
        "encoder.layer.{n}.output.LayerNorm": "layers.{n}.feed_forward_norm",
    },
    heads=("pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs.", "embeddings.position_ids"),
)
_ROBERTA = Family("roberta.", _BERT.sizes, _BERT.names, _BERT.heads)
_DISTILBERT = Family(
    prefix="distilbert.",
    sizes={
        "vocab_size": "vocab_size",
        "dim": "dim",
        "n_layers": "layers",
        "n_heads": "heads",
        "hidden_dim": "d_ff",
        "max_position_embeddings": "positions",
        "type_vocab_size": "types",
        "layer_norm_eps": "epsilon",
        "activation": "activation",
    },
    names={
        "embeddings.word_embeddings": "embeddings.tokens",
        "embeddings.position_embeddings": "embeddings.positions",
        "embeddings.LayerNorm": "embeddings.norm",
        "transformer.layer.{n}.attention.q_lin": "layers.{n}.attention.query",
        "transformer.layer.{n}.attention.k_lin": "layers.{n}.attention.key",
        "transformer.layer.{n}.attention.v_lin": "layers.{n}.attention.value",
        "transformer.layer.{n}.attention.out_lin": "layers.{n}.attention.output",
        "transformer.layer.{n}.sa_layer_norm": "layers.{n}.attention_norm",
        "transformer.layer.{n}.ffn.lin1": "layers.{n}.feed_forward.fc1",
        "transformer.layer.{n}.ffn.lin2": "layers.{n}.feed_forward.fc2",
        "transformer.layer.{n}.output_layer_norm": "layers.{n}.feed_forward_norm",
    },
    heads=("vocab_", "pre_classifier.", "classifier.", "qa_outputs.", "embeddings.position_ids"),
    config={"type_vocab_size": 0, "layer_norm_eps": 1e-12, "sinusoidal_pos_embds": False},
)
FAMILIES = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
}
_MASKED_LANGUAGE_MODEL = {
    "dense": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "": "cls.predictions",
}


def local_folder(model: str | os.PathLike[str]) -> Path | None:
    """The folder of a model; None for a name on the Hugging Face hub.

    Raises OSError for a file, and for a path to a folder that does not exist.
    """
    folder, name = Path(model).expanduser(), str(model)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise OSError(f"{name} is a file: expected a folder with config.json and model.safetensors.")
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise OSError(f"There is no folder {name!r}.")
    return None


def fetch(model: str | os.PathLike[str]) -> Path:
    """The folder of a model: its own, or that of the local cache for a name on the hub, fetched if necessary.

    Raises OSError where there is no such model, or the hub cannot be reached.
    """
    folder, name = local_folder(model), str(model)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    files = ["config.json", "model.safetensors", "tokenizer*.json", "modules.json", "*_config.json", "*/config.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:  # the network, the hub and a bad name raise exceptions of every kind
        raise OSError(
            f"{name} is neither a folder nor in the local cache, and cannot be fetched from the hub."
        ) from error


def digest(folder: Path) -> str:
    """The SHA-256 of the weights in a folder: of the file or, of several, of their digests."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    digests = [_sha256(file) for file in files]
    return "sha256:" + (digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest())


def fingerprint(folder: Path) -> str:
    """The SHA-256 of what affects vectors: weights, configuration, tokenizer, modules of sentence-transformers."""
    folders = [folder]
    if (folder / "modules.json").is_file():
        folders += [folder / str(module.get("path")) for module in read_json(folder / "modules.json", list)]
    kinds = (".json", ".txt", ".model", ".safetensors", ".bin", ".jinja")
    files = {
        file for subfolder in folders if subfolder.is_dir() for file in subfolder.iterdir() if file.suffix in kinds
    }
    lines = [f"{file.relative_to(folder)} {_sha256(file)}" for file in sorted(files) if file.is_file()]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def fingerprint_of(model: Any, *others: str) -> str:
    """The fingerprint of a model of transformers in memory, and of other texts that affect a vector."""
    whole = hashlib.sha256()
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    for text in (type(model).__name__, json.dumps(config, sort_keys=True, default=str), *others):
        whole.update(text.encode())
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return "sha256:" + whole.hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def incompatibility(folder: Path, activations: Collection[str]) -> str | None:
    """Why `regard.nn.Encoder` cannot compute the model in a folder; None if it can.

    Raises OSError or ValueError where config.json is missing or damaged.
    """
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in FAMILIES:
        return f"model_type: expected one of {', '.join(FAMILIES)}. Got {kind!r}."
    family = FAMILIES[kind]
    plain = {
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "sinusoidal_pos_embds": False,
        "quantization_config": None,
    }
    for name, value in plain.items():
        if config.get(name, value) not in (value, None):
            return f"{name}: expected {value!r}. Got {config[name]!r}."
    if missing := [name for name in family.sizes if name not in config and name not in family.config]:
        return f"config.json lacks {', '.join(missing)}."
    if family is _ROBERTA and not isinstance(config.get("pad_token_id", 1), int):
        return f"pad_token_id: expected a number, from which positions are counted. Got {config['pad_token_id']!r}."
    name = next(theirs for theirs, ours in family.sizes.items() if ours == "activation")
    if config[name] not in activations:
        return f"{name}: expected one of {', '.join(activations)}. Got {config[name]!r}."
    return None


def sizes(folder: Path, activations: Collection[str]) -> dict[str, Any]:
    """The arguments of the encoder in a folder; "padding_idx" is the id after which RoBERTa's positions start.

    Raises ValueError for another architecture, and what `incompatibility` raises.
    """
    if reason := incompatibility(folder, activations):
        raise ValueError(f"{folder}: {reason}")
    config = read_config(folder)
    family = FAMILIES[config["model_type"]]
    arguments = {ours: config.get(theirs, family.config.get(theirs)) for theirs, ours in family.sizes.items()}
    return arguments | {"padding_idx": config.get("pad_token_id", 1) if family is _ROBERTA else None}


def tensors(folder: Path, wanted: Mapping[str, Tensor], family: Family | None = None) -> dict[str, Tensor]:
    """The tensors of model.safetensors with the names and shapes of `wanted`, in float32; heads are left out.

    The family is that of `FAMILIES`, if not given.

    Raises ValueError where the file is damaged, or where tensors are missing, surplus or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        file = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder}: model.safetensors is damaged: {error}.") from None
    family = family or FAMILIES[read_config(folder)["model_type"]]
    names = module_names(family, len({name.split(".")[1] for name in wanted if name.startswith("layers.")}))
    loaded: dict[str, Tensor] = {}
    surplus = []
    for name, tensor in file.items():
        own = _renamed(family, names, name.removeprefix(family.prefix), tensor)
        if own and tensor.is_floating_point() and all(ours in wanted and ours not in loaded for ours in own):
            loaded |= {ours: part.float().contiguous() for ours, part in own.items()}
        elif not name.removeprefix(family.prefix).startswith(family.heads) and not name.endswith(family.unused):
            surplus.append(name)
    if missing := sorted(wanted.keys() - loaded.keys()):
        raise ValueError(f"{folder}: model.safetensors lacks {_abbreviated(missing)}.")
    if surplus:
        raise ValueError(
            f"{folder}: model.safetensors has tensors that such a model does not have: {_abbreviated(sorted(surplus))}."
        )
    for name, tensor in wanted.items():
        if tensor.shape != loaded[name].shape:
            expected, got = tuple(tensor.shape), tuple(loaded[name].shape)
            raise ValueError(f"{folder}: {name}: expected {expected}, by config.json. Got {got}.")
    return loaded


def _renamed(family: Family, names: Mapping[str, str], name: str, tensor: Tensor) -> dict[str, Tensor]:
    """What a tensor of a file is to us, by our names: nothing, one tensor, or one for each of several modules."""
    module, _, kind = name.rpartition(".")
    ours, kind = names.get(module, "").split(), {"gamma": "weight", "beta": "bias"}.get(kind, kind)
    if not ours or (len(ours) > 1 and (not tensor.ndim or tensor.shape[-1] % len(ours))):
        return {}
    if family.by_input and tensor.ndim == 2 and ours[0].startswith("layers."):
        tensor = tensor.T
    return {f"{own}.{kind}": part for own, part in zip(ours, tensor.chunk(len(ours)), strict=True)}


def save(folder: Path, tensors: Mapping[str, Tensor], sizes: Mapping[str, Any], **config: Any) -> None:
    """Save a masked language model of BERT's architecture for transformers. Each file is written atomically.

    Args:
        folder: where model.safetensors and config.json are written.
        tensors: the state dict of a `MaskedLanguageModel`.
        sizes: the arguments of its encoder, under the names that `sizes` gives.
        config: further entries of config.json.
    """
    from safetensors.torch import save as as_bytes

    layers = module_names(_BERT, sizes["layers"])
    theirs = {f"encoder.{ours}": f"bert.{name}" for name, ours in layers.items()} | _MASKED_LANGUAGE_MODEL
    renamed = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        renamed[f"{theirs[module]}.{kind}"] = tensor.detach().contiguous()
    settings = {name: sizes[ours] for name, ours in _BERT.sizes.items()}
    settings |= {"model_type": "bert", "architectures": ["BertForMaskedLM"], "dtype": "float32"} | config
    content = as_bytes(renamed, {"format": "pt"})
    atomic_write(folder / "model.safetensors", lambda file: file.write(content))
    atomic_write(folder / "config.json", lambda file: file.write(json.dumps(settings, indent=2).encode()))


def module_names(family: Family, layers: int) -> dict[str, str]:
    """{its module: ours}, of all layers."""
    names = {}
    for theirs, ours in family.names.items():
        for n in range(layers) if "{n}" in theirs else range(1):
            names[theirs.format(n=n)] = ours.format(n=n)
    return names


def _abbreviated(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says. Raises OSError or ValueError where it is missing or damaged."""
    config: dict[str, Any] = read_json(folder / "config.json")
    return config


class NoInitialisation(TorchFunctionMode):
    """Skips torch.nn.init, which on the meta device would import the compiler and take a second."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)
