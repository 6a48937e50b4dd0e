"""Checkpoints of BERT's family as transformers saves them: config.json and model.safetensors, in regard.nn's names."""

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
    """How some architecture calls things: {theirs: ours}. A name with {n} is there once for each layer.

    `heads` are what may stand on the encoder, and is not for it; `config` what the config says where it says nothing.
    """

    prefix: str
    sizes: Mapping[str, str]
    names: Mapping[str, str]
    heads: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)


_BERT = Family(
    prefix="bert.",
    sizes={
        "vocab_size": "vocabulary",
        "hidden_size": "dim",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "intermediate_size": "inner",
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
        "encoder.layer.{n}.intermediate.dense": "layers.{n}.feed_forward.widen",
        "encoder.layer.{n}.output.dense": "layers.{n}.feed_forward.narrow",
        "encoder.layer.{n}.output.LayerNorm": "layers.{n}.feed_forward_norm",
    },
    heads=("pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs.", "embeddings.position_ids"),
)
_ROBERTA = Family("roberta.", _BERT.sizes, _BERT.names, _BERT.heads)
_DISTILBERT = Family(
    prefix="distilbert.",
    sizes={
        "vocab_size": "vocabulary",
        "dim": "dim",
        "n_layers": "layers",
        "n_heads": "heads",
        "hidden_dim": "inner",
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
        "transformer.layer.{n}.ffn.lin1": "layers.{n}.feed_forward.widen",
        "transformer.layer.{n}.ffn.lin2": "layers.{n}.feed_forward.narrow",
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


def find(model: str | os.PathLike) -> Path:
    """The folder of a model: itself, or where the hub's files lie, after they have been fetched.

    Raises OSError where there is none of that name, or the hub cannot be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    name = str(model)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or folder.exists():
        raise OSError(f"There is no folder {name!r}.")
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "model.safetensors", "tokenizer*.json", "modules.json", "*_config.json", "*/config.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # of the network, of the hub, of the name: of every kind
        raise OSError(
            f"{name} is neither a folder nor in the local cache, and cannot be fetched from the hub."
        ) from error


def digest(folder: Path) -> str:
    """The SHA-256 of the weights in a folder: of the file, or of the digests of all the files."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    digests = [_sha256(file) for file in files]
    return "sha256:" + (digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest())


def fingerprint(folder: Path) -> str:
    """The SHA-256 of all that makes a vector: weights, configs, tokenizer, and the modules of sentence-transformers."""
    folders = [folder]
    if (folder / "modules.json").is_file():
        folders += [folder / str(module.get("path")) for module in read_json(folder / "modules.json", list)]
    kinds = (".json", ".txt", ".model", ".safetensors", ".bin", ".jinja")
    files = {file for place in folders if place.is_dir() for file in place.iterdir() if file.suffix in kinds}
    lines = [f"{file.relative_to(folder)} {_sha256(file)}" for file in sorted(files) if file.is_file()]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def fingerprint_of(model: Any, *others: str) -> str:
    """The same of a model of transformers in memory, and of what else makes a vector."""
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


def why_not(folder: Path, activations: Collection[str]) -> str | None:
    """Why `regard.nn.Encoder` does not compute what the model in a folder does; None if it does.

    Raises OSError or ValueError where there is no config.json that can be read.
    """
    config = _config(folder)
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
        return f"pad_token_id: expected a number, by which it counts its positions. Got {config['pad_token_id']!r}."
    name = next(theirs for theirs, ours in family.sizes.items() if ours == "activation")
    if config[name] not in activations:
        return f"{name}: expected one of {', '.join(activations)}. Got {config[name]!r}."
    return None


def sizes(folder: Path, activations: Collection[str]) -> dict[str, Any]:
    """Of the encoder in a folder, in our names; "padding" is the id by which RoBERTa counts its positions.

    Raises ValueError where it is another architecture, and what `why_not` raises.
    """
    if reason := why_not(folder, activations):
        raise ValueError(f"{folder}: {reason}")
    config = _config(folder)
    family = FAMILIES[config["model_type"]]
    found = {ours: config.get(theirs, family.config.get(theirs)) for theirs, ours in family.sizes.items()}
    return found | {"padding": config.get("pad_token_id", 1) if family is _ROBERTA else None}


def tensors(folder: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of model.safetensors that are wanted, in our names and float32; heads of the model are left out.

    Raises ValueError where it is damaged, or tensors are missing, of another shape or surplus, naming them.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        file = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder}: model.safetensors is damaged: {error}.") from None
    family = FAMILIES[_config(folder)["model_type"]]
    names = _names(family, len({name.split(".")[1] for name in wanted if name.startswith("layers.")}))
    found: dict[str, Tensor] = {}
    surplus = []
    for name, tensor in file.items():
        place, _, kind = name.removeprefix(family.prefix).rpartition(".")
        ours = f"{names.get(place)}.{ {'gamma': 'weight', 'beta': 'bias'}.get(kind, kind) }"
        if ours in wanted and ours not in found and tensor.is_floating_point():
            found[ours] = tensor.float()
        elif not name.removeprefix(family.prefix).startswith(family.heads):
            surplus.append(name)
    if missing := sorted(wanted.keys() - found.keys()):
        raise ValueError(f"{folder}: model.safetensors lacks {_some(missing)}.")
    if surplus:
        raise ValueError(f"{folder}: model.safetensors has what such a model does not: {_some(sorted(surplus))}.")
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            expected, got = tuple(tensor.shape), tuple(found[name].shape)
            raise ValueError(f"{folder}: {name}: expected {expected}, by config.json. Got {got}.")
    return found


def save(folder: Path, tensors: Mapping[str, Tensor], sizes: Mapping[str, Any], **config: Any) -> None:
    """A masked language model of BERT's shape, as transformers opens it. Each file is written beside and renamed."""
    from safetensors.torch import save as as_bytes

    layers = _names(_BERT, sizes["layers"])
    theirs = {f"encoder.{ours}": f"bert.{name}" for name, ours in layers.items()} | _MASKED_LANGUAGE_MODEL
    renamed = {}
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition(".")
        renamed[f"{theirs[place]}.{kind}"] = tensor.detach().contiguous()
    about = {name: sizes[ours] for name, ours in _BERT.sizes.items()}
    about |= {"model_type": "bert", "architectures": ["BertForMaskedLM"], "dtype": "float32"} | config
    content = as_bytes(renamed, {"format": "pt"})
    atomic_write(folder / "model.safetensors", lambda file: file.write(content))
    atomic_write(folder / "config.json", lambda file: file.write(json.dumps(about, indent=2).encode()))


def _names(family: Family, layers: int) -> dict[str, str]:
    """{theirs: ours} of all modules."""
    found = {}
    for theirs, ours in family.names.items():
        for n in range(layers) if "{n}" in theirs else range(1):
            found[theirs.format(n=n)] = ours.format(n=n)
    return found


def _some(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "config.json")


class NoInitialisation(TorchFunctionMode):
    """Leaves out torch.nn.init, which on the meta device would import the compiler, and take a second."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)
