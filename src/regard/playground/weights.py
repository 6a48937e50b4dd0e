"""Models as files that run in the browser: `models/NAME.js`, one line, `regardModel({…});`.

A matrix is rounded to 8 bits: code = round(w / scale) with scale = max |w| / 127 over a row or, in rows of more than
512 numbers, over 128 of them, because the second matrix of a feed-forward network has a few columns that are far larger
than the rest. The 22.7 million numbers of the embedded encoder take 29 MB as text; in float16 they would take 56 MB.
Vectors (biases, gains) are float32, the small tables of positions and types float16. A small model may be float16 or
float32 throughout. What is left of the weights is what the page computes with; `read` and `rounded_folder` give Python
the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from regard._internal.files import atomic_write, read_json
from regard.nn import checkpoint
from regard.nn.layers import ACTIVATIONS
from regard.playground.tokenizers import Spec, character_spec, tokenizer_spec
from regard.viewer.payload import deflated

Precision = Literal["int8", "float16", "float32"]
Architecture = Literal["encoder", "decoder", "encoder-decoder"]
LONGEST_ROW, PIECE = 512, 128  # numbers that have one scale

TARGET_LENGTH = 64  # of a kept Transformer, whose sinusoids have no end


@dataclass(frozen=True)
class ModelFile:
    """A model for the page; frontend/src/model/types.d.ts has its form as JSON.

    Attributes:
        name: as a reader sees it.
        architecture: which of the page's forward passes computes it.
        config: layers, heads, groups, dim, positions and epsilon, and what else its forward pass needs.
        tokenizer: from `regard.playground.tokenizers`.
        tensors: its weights by the names of its modules.
        precision: of the matrices.
        halves: the matrices that are float16 in any case.
    """

    name: str
    architecture: Architecture
    config: Mapping[str, Any]
    tokenizer: Spec
    tensors: Mapping[str, Tensor]
    precision: Precision = "int8"
    halves: Collection[str] = ()


def encoder_file(folder: Path, name: str) -> ModelFile:
    """A model of BERT's architecture in a folder, as `regard.nn.Encoder` computes it.

    Raises ValueError for another architecture or tokenizer, OSError where files are missing.
    """
    from regard.models.tokenizer import file_tokenizer
    from regard.nn import Encoder

    sizes = checkpoint.sizes(folder, ACTIVATIONS)
    if sizes["padding_idx"] is not None:
        raise ValueError(f"{folder}: the page does not compute the positions of RoBERTa.")
    opened = file_tokenizer(folder)
    if opened is None:
        raise ValueError(f"{folder}: tokenizer.json does not say all about its tokenizer.")
    config = {name: sizes[name] for name in ("layers", "heads", "dim", "positions", "epsilon", "activation")}
    config["groups"] = sizes["heads"]
    tensors = Encoder.from_pretrained(folder).state_dict()
    halves = ("embeddings.positions.weight", "embeddings.types.weight")
    return ModelFile(name, "encoder", config, tokenizer_spec(opened.tokenizer), tensors, halves=halves)


def decoder_file(folder: Path, name: str, precision: Precision = "float16") -> ModelFile:
    """A Llama in a folder, as transformers' LlamaForCausalLM computes it.

    Raises ValueError for another architecture or tokenizer, OSError where files are missing.
    """
    from tokenizers import Tokenizer

    config = read_json(folder / "config.json")
    heads, dim = config.get("num_attention_heads"), config.get("hidden_size")
    rope = config.get("rope_parameters") or {}
    plain = {
        "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "rope_scaling": None,
        "head_dim": heads and dim // heads,
    }  # fmt: skip
    for setting, value in plain.items():
        if config.get(setting, value) != value:
            raise ValueError(f"{folder}: {setting}: expected {value!r}. Got {config[setting]!r}.")
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"{folder}: rope_type: expected 'default'. Got {rope['rope_type']!r}.")
    ends = config.get("eos_token_id")
    sizes = {
        "layers": config["num_hidden_layers"], "heads": heads, "groups": config["num_key_value_heads"], "dim": dim,
        "positions": config["max_position_embeddings"], "epsilon": config["rms_norm_eps"],
        "theta": rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
        "end": ends if isinstance(ends, list) else [] if ends is None else [ends],
    }  # fmt: skip
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return ModelFile(name, "decoder", sizes, tokenizer_spec(tokenizer), _llama_tensors(folder, config), precision)


def _llama_tensors(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors in a folder. Raises ValueError where the file is damaged, or lacks some of them."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder}: model.safetensors is damaged: {error}.") from None
    layer = ("input_layernorm", "post_attention_layernorm", *(f"self_attn.{name}_proj" for name in "qkvo"))
    layer += tuple(f"mlp.{name}_proj" for name in ("gate", "up", "down"))
    wanted = ["model.embed_tokens", "model.norm", *([] if config.get("tie_word_embeddings") else ["lm_head"])]
    wanted += [f"model.layers.{n}.{name}" for n in range(config["num_hidden_layers"]) for name in layer]
    if missing := [f"{name}.weight" for name in wanted if f"{name}.weight" not in tensors]:
        raise ValueError(f"{folder}: model.safetensors lacks {missing[0]}.")
    return {f"{name}.weight": tensors[f"{name}.weight"] for name in wanted}


def translator_file(folder: Path, name: str, precision: Precision = "float16") -> ModelFile:
    """A Transformer that `regard race --keep` has kept, of a task whose tokens are characters.

    Raises ValueError for another model, OSError where files are missing.
    """
    from regard.race import kept
    from regard.race.tasks import BOS, EOS

    opened, sizes = kept.load(folder), read_json(folder / "config.json")
    if not sizes["pre_norm"]:
        raise ValueError(f"{folder}: pre_norm: the page computes norms before the attention. Got False.")
    if words := [token for token in opened.tokens if len(token) != 1]:
        raise ValueError(f"{folder}: tokens: expected single characters. Got {words[0]!r}.")
    config = {name: sizes[name] for name in ("layers", "heads", "dim", "epsilon", "activation")}
    config |= {"groups": sizes["heads"], "positions": TARGET_LENGTH, "start": BOS, "end": [EOS]}
    tokenizer = character_spec(["[PAD]", "[START]", "[END]", *opened.tokens], [("A", 0)])
    tensors = opened.model.state_dict()
    del tensors["decoder.embeddings.tokens.weight"]  # the encoder's
    return ModelFile(name, "encoder-decoder", config, tokenizer, tensors, precision)


def write(file: ModelFile, path: str | Path) -> str:
    """Write a model's file, atomically, and return its SHA-256. The same model gives the same bytes.

    Raises OSError where it cannot be written, ValueError for weights that are not finite.
    """
    data, stored = bytearray(), []
    for name, tensor in file.tensors.items():
        precision: Precision = "float32" if tensor.ndim < 2 else "float16" if name in file.halves else file.precision
        stored.append(_stored(name, tensor, precision, data))
    content = {
        "name": file.name,
        "architecture": file.architecture,
        "config": dict(file.config),
        "tokenizer": file.tokenizer,
        "tensors": stored,
        "data": deflated(bytes(data)),
    }
    text = f"regardModel({json.dumps(content, separators=(',', ':'))});\n".encode("ascii")
    atomic_write(path, lambda target: target.write(text))
    return hashlib.sha256(text).hexdigest()


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights of a model's file by their names, float32: exactly those that the page computes with."""
    content = _content(path)
    data = zlib.decompress(base64.b64decode(content["data"]), -zlib.MAX_WBITS)
    return {tensor["name"]: _loaded(tensor, data) for tensor in content["tensors"]}


def rounded_folder(path: str | Path, folder: Path, target: Path) -> Path:
    """A copy of a model's folder, in `target`, that has the weights of its file: `Lens(target)` is the page's model."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target, dirs_exist_ok=True)
    rounded, family = read(path), checkpoint.FAMILIES.get(read_json(folder / "config.json")["model_type"])
    layers = len({name.split(".")[1] for name in rounded if name.startswith("layers.")})
    names = {} if family is None else checkpoint.module_names(family, layers)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        module, _, kind = name.removeprefix(family.prefix if family else "").rpartition(".")
        tensors[name] = rounded.get(f"{names.get(module, module)}.{kind}", tensors[name])
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


def _content(path: str | Path) -> dict[str, Any]:
    text = Path(path).read_text(encoding="ascii")
    content: dict[str, Any] = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    return content


def _stored(name: str, tensor: Tensor, precision: Precision, data: bytearray) -> dict[str, Any]:
    """Append a tensor to the data and say where it is."""
    array = tensor.detach().to("cpu", torch.float32).numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"write: {name}: expected finite numbers.")
    entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "type": precision}
    if precision != "int8":
        return entry | {"offset": _append(data, array.astype("<f2" if precision == "float16" else "<f4"))}
    width = array.shape[-1]
    width = PIECE if width > LONGEST_ROW and width % PIECE == 0 else width
    pieces = array.reshape(-1, width)
    scales = np.abs(pieces).max(-1, keepdims=True) / np.float32(127)
    codes = np.rint(pieces / np.where(scales > 0, scales, 1)).clip(-127, 127)
    entry |= {"scales": _append(data, scales.astype("<f4")), "width": width}
    return entry | {"offset": _append(data, codes.astype("<i1"))}


def _append(data: bytearray, array: np.ndarray) -> int:
    data.extend(bytes(-len(data) % 4))  # typed arrays begin at multiples of their width
    offset = len(data)
    data.extend(array.tobytes())
    return offset


def _loaded(entry: Mapping[str, Any], data: bytes) -> Tensor:
    shape, offset = entry["shape"], entry["offset"]
    kind = {"int8": "<i1", "float16": "<f2", "float32": "<f4"}[entry["type"]]
    count = int(np.prod(shape))
    array = np.frombuffer(data, kind, count, offset).reshape(shape).astype("<f4")
    if entry["type"] == "int8":
        scales = np.frombuffer(data, "<f4", count // entry["width"], entry["scales"])
        array = (array.reshape(-1, entry["width"]) * scales[:, None]).reshape(shape)
    return torch.from_numpy(array)
