"""How sentence vectors are made: the files of a model's folder that sentence-transformers reads.

What a folder says is computed as sentence-transformers 6.2 computes it, or refused by name: never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from regard._internal.files import read_json

POOLS = ("mean", "cls", "max", "last", "weightedmean", "mean_sqrt_len")
TRANSFORMER_CONFIGS = tuple(  # the first that is there and not empty counts
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
CONFIG = "config_sentence_transformers.json"

_POOLS = {name: name for name in POOLS} | {"lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}
_POOL_FLAGS = {  # of older files; several are concatenated in this order
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
_POOLING_KEYS = {"embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt", *_POOL_FLAGS}
_MODULE = re.compile(  # of sentence-transformers itself; a class of the same name elsewhere is another one
    r"sentence_transformers\.(?:models|base\.modules|sentence_transformer\.modules)(?:\.\w+)*\.(\w+)"
)
_TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_TRANSFORMER_DEFAULTS: dict[str, tuple] = {  # of the Transformer module: values under which it does what regard does
    "transformer_task": ("feature-extraction",),
    "modality_config": (_TEXT,),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": ({}, None),
    "tokenizer_name_or_path": (None,),
}
_MODEL_ARGUMENTS = {"attn_implementation", "add_pooling_layer", "dtype", "torch_dtype"}
_NO_EFFECT = {  # on the vectors that `encode` gives: what only flash attention, or encode_query, would look at
    *("max_seq_length", "do_lower_case", "unpad_inputs", "query_length", "document_length", "query_expansion"),
    *("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"),
}

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sentences:
    """How a model makes sentence vectors.

    Attributes:
        pools: how a vector is made of the tokens'; several are concatenated; none where `unpooled` says why.
        limit: the most tokens of a text, special ones included; None where nothing is said.
        prompts: texts to put before a text, by name; `prompt` is the name of the default one; with_prompt: whether
            its tokens are pooled.
        lower: whether texts are lower-cased.
        before, after: what is done to the tokens' vectors before pooling, and to the sentence's after it.
        dims: how many of a vector's numbers are kept, the first ones; None for all.
        root: the folder in which the Transformer lies, "" for the folder itself.
        model, tokenizer, config: arguments with which transformers opens these.
        refusal: why the folder's sentence vectors cannot be computed, or "".
        unpooled: why it is not known how to pool, so that the caller has to choose, or "".
        note: what a user would not expect, or "".
    """

    pools: tuple[str, ...] = ("mean",)
    limit: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None
    with_prompt: bool = True
    lower: bool = False
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    dims: int | None = None
    root: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""
    unpooled: str = ""
    note: str = ""


def sentences(folder: Path | None) -> Sentences | None:
    """What the folder says; None where it has no modules.json (see `unsaid`).

    Raises ValueError where one of the files is damaged.
    """
    if folder is None or not (folder / "modules.json").is_file():
        return None
    modules = read_json(folder / "modules.json", list)
    if not all(isinstance(module, dict) and isinstance(module.get("path"), str) for module in modules):
        raise ValueError(f"{folder / 'modules.json'} is damaged: expected a list of modules, each with its path.")
    says = _config(_Reader(folder), Sentences())
    try:
        return _modules(folder, modules, says)
    except _Unknown as reason:
        return replace(says, refusal=str(reason))


def unsaid(architectures: Sequence[str] | None, causal: bool, chat: bool) -> Sentences:
    """Of a model without modules.json: the last token of a causal language model, else the mean of all tokens."""
    if chat:
        why = "sentence-transformers would put a text into the chat template of its tokenizer, which regard does not"
        return Sentences((), unpooled=why)
    if architectures and architectures[0].endswith("ForCausalLM") and causal:
        note = "Its folder has no modules.json: a sentence's vector is its last token's, as in sentence-transformers."
        return Sentences(("last",), note=note)
    return Sentences()


class _Unknown(Exception):  # noqa: N818  it does not leave this file
    """What regard does not compute."""


class _Reader:
    """Files of a folder that may be absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        return read_json(file) if file.is_file() else {}


def _config(read: _Reader, says: Sentences) -> Sentences:
    """Of config_sentence_transformers.json."""
    config = read(CONFIG)
    if (kind := config.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        return replace(says, refusal=f"its {CONFIG} says that it is a {kind}")
    prompts = {name: text or "" for name, text in (config.get("prompts") or {}).items()}
    if not all(isinstance(text, str) for text in prompts.values()):
        raise ValueError(f"{read.folder / CONFIG} is damaged: expected prompts to be texts.")
    default = config.get("default_prompt_name")
    if default in ("query", "document"):  # these two are always there, and empty
        prompts.setdefault(default, "")
    dims = config.get("truncate_dim")
    if dims is not None and (not isinstance(dims, int) or isinstance(dims, bool) or dims < 1):
        raise ValueError(f"{read.folder / CONFIG} is damaged: truncate_dim: expected a number from 1 on. Got {dims!r}.")
    return replace(says, prompts=prompts, prompt=default, dims=dims)


def _modules(folder: Path, modules: Sequence[Mapping[str, Any]], says: Sentences) -> Sentences:
    """Of modules.json and the folders that it names, in order."""
    names = [module.get("name") for module in modules]
    if len(set(names)) < len(names):
        raise _Unknown(f"two modules named {next(name for name in names if names.count(name) > 1)!r}")
    for module in modules:
        path = PureWindowsPath(module["path"])
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{folder / 'modules.json'}: expected paths within the folder. Got {module['path']!r}.")
    kinds = [_kind(module) for module in modules]
    if kinds[:1] != ["Transformer"]:
        raise _Unknown(f"a first module {kinds[0] if kinds else 'that is not there'}, not a Transformer")
    says = _transformer(folder / modules[0]["path"], replace(says, root=modules[0]["path"]))
    if says.refusal:
        return says
    pooled = False
    for kind, module in zip(kinds[1:], modules[1:], strict=True):
        read = _Reader(folder / module["path"])
        if kind == "Pooling":
            if pooled:
                raise _Unknown("two modules that pool")
            says, pooled = _pooling(read, says), True
        elif kind in _STEPS:
            says = _with_step(says, _STEPS[kind](read), read("config.json"), kind, pooled)
        else:
            raise _Unknown(f"its module {kind}")
    if not pooled:
        return replace(says, pools=(), unpooled="its modules.json names no Pooling")
    return says


def _kind(module: Mapping[str, Any]) -> str:
    kind = str(module.get("type"))
    known = _MODULE.fullmatch(kind)
    return known[1] if known else repr(kind)


def _transformer(folder: Path, says: Sentences) -> Sentences:
    read = _Reader(folder)
    config = next(filter(None, map(read, TRANSFORMER_CONFIGS)), {})
    model = _arguments(config, "model_args", "model_kwargs")
    tokenizer = _arguments(config, "tokenizer_args", "processor_kwargs")
    limit = tokenizer.get("model_max_length", config.get("max_seq_length"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"{folder}: its longest text: expected a number of tokens from 1 on. Got {limit!r}.")
    says = replace(says, limit=limit, lower=bool(config.get("do_lower_case")), model=model, tokenizer=tokenizer)
    says = replace(says, config=_arguments(config, "config_args", "config_kwargs"))
    if unknown := sorted(model.keys() - _MODEL_ARGUMENTS):
        return replace(says, refusal=f"a Transformer opened with {unknown[0]}={model[unknown[0]]!r}")
    for name, value in config.items():
        if name not in _NO_EFFECT and value not in _TRANSFORMER_DEFAULTS.get(name, ()):
            return replace(says, refusal=f"a Transformer whose {name} is {value!r}")
    return says


def _arguments(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Of the first name that is there; code from elsewhere is never trusted."""
    arguments = next((config[name] for name in names if name in config), None) or {}
    return {name: value for name, value in arguments.items() if name != "trust_remote_code"}


def _pooling(read: _Reader, says: Sentences) -> Sentences:
    config = read("config.json")
    if not config.keys() & {"embedding_dimension", "word_embedding_dimension"}:
        why = f"its Pooling has no {read.folder.name}/config.json that says how"
        return replace(says, pools=(), unpooled=why)
    if unknown := sorted(config.keys() - _POOLING_KEYS):
        raise _Unknown(f"a Pooling whose {unknown[0]} is {config[unknown[0]]!r}")
    if "pooling_mode" in config and not config["pooling_mode"]:
        raise _Unknown(f"a Pooling whose pooling_mode is {config['pooling_mode']!r}")
    modes = config.get("pooling_mode") or [mode for flag, mode in _POOL_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if unknown := [mode for mode in modes if mode not in _POOLS]:
        raise _Unknown(f"pooling by {unknown[0]!r}")
    pools = tuple(_POOLS[mode] for mode in modes)
    return replace(says, pools=pools, with_prompt=bool(config.get("include_prompt", True)))


# What may be done to vectors before and after pooling


def _with_step(says: Sentences, step: Step, config: Mapping[str, Any], kind: str, pooled: bool) -> Sentences:
    source = config.get("module_input_name", "sentence_embedding")
    target = config.get("module_output_name") or source
    if source != target or source not in ("token_embeddings", "sentence_embedding"):
        raise _Unknown(f"a {kind} from {source} to {target}")
    if source == "token_embeddings":
        return says if pooled else replace(says, before=(*says.before, step))
    if pooled:
        return replace(says, after=(*says.after, step))
    if kind == "Normalize":
        return says  # there is no sentence vector yet: it does nothing
    raise _Unknown(f"a {kind} of the sentence vector before the Pooling that makes it")


def _normalize(read: _Reader) -> Step:
    return lambda vectors: F.normalize(vectors, dim=-1)


def _dense(read: _Reader) -> Step:
    """x → activation(x Wᵀ + b), and with a residual + x, or + x Rᵀ where the sizes differ."""
    config = read("config.json")
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = getattr(nn, str(name).rpartition(".")[2], None)
    if not (isinstance(activation, type) and issubclass(activation, nn.Module) and str(name).startswith("torch.nn.")):
        raise _Unknown(f"a Dense whose activation is {name!r}")
    tensors = _tensors(read.folder)
    weight, bias, residual = (tensors.pop(key, None) for key in ("linear.weight", "linear.bias", "residual.weight"))
    size = config.get("out_features"), config.get("in_features")
    if weight is None or tuple(weight.shape) != size or (bias is None) == config.get("bias", True) or tensors:
        raise ValueError(f"{read.folder}: its tensors are not those of a Dense of {size[1]} to {size[0]} numbers.")
    if bool(config.get("use_residual")) and size[0] != size[1] and residual is None:
        raise ValueError(f"{read.folder}: it lacks residual.weight.")
    try:
        act = activation().eval()  # Dropout is one of them
    except TypeError:
        raise _Unknown(f"a Dense whose activation is {name!r}") from None
    if any(True for _ in act.parameters()):  # which no file gave
        raise _Unknown(f"a Dense whose activation is {name!r}")

    def dense(vectors: Tensor) -> Tensor:
        if vectors.shape[-1] != size[1]:
            raise ValueError(
                f"embed: pool: the model's Dense module takes vectors of {size[1]} numbers. Got {vectors.shape[-1]}."
            )
        output = act(F.linear(vectors, weight, bias))
        if config.get("use_residual"):
            output = output + (vectors if residual is None else F.linear(vectors, residual))
        return output

    return torch.inference_mode()(dense)


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if (folder / "model.safetensors").is_file():
            tensors = load_file(folder / "model.safetensors")
        else:  # tensors alone: a pickle that holds anything else is refused by PyTorch
            tensors = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{folder} has no model.safetensors, nor a pytorch_model.bin.") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: its weights are damaged: {str(error).splitlines()[0]}") from None
    return {name: tensor.float() for name, tensor in tensors.items()}


_STEPS: dict[str, Callable[[_Reader], Step]] = {"Normalize": _normalize, "Dense": _dense}
