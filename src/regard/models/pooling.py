"""How a model makes sentence vectors: the configuration files that sentence-transformers keeps in its folder.

`pooling_config(folder)` reads modules.json and the files it names into a `PoolingConfig`. Every setting is computed as
sentence-transformers 6.2 computes it, or refused by name; none is ignored.
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
TRANSFORMER_CONFIGS = tuple(  # the first that exists and is not empty counts
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
CONFIG = "config_sentence_transformers.json"

_POOLS = {name: name for name in POOLS} | {"lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}
_POOL_FLAGS = {  # in older files; several are concatenated in this order
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
_POOLING_KEYS = {"embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt", *_POOL_FLAGS}
_MODULE = re.compile(  # of sentence-transformers itself: a class of the same name elsewhere is a different one
    r"sentence_transformers\.(?:models|base\.modules|sentence_transformer\.modules)(?:\.\w+)*\.(\w+)"
)
_TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_TRANSFORMER_DEFAULTS: dict[str, tuple[Any, ...]] = {  # values with which the Transformer module does what regard does
    "transformer_task": ("feature-extraction",),
    "modality_config": (_TEXT,),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": ({}, None),
    "tokenizer_name_or_path": (None,),
}
_MODEL_ARGUMENTS = {"attn_implementation", "add_pooling_layer", "dtype", "torch_dtype"}
_NO_EFFECT = {  # settings that do not change the vectors of `encode`: for flash attention or `encode_query` only
    *("max_seq_length", "do_lower_case", "unpad_inputs", "query_length", "document_length", "query_expansion"),
    *("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"),
}

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PoolingConfig:
    """How a model makes sentence vectors of its tokens' vectors.

    Attributes:
        modes: the pooling modes, whose results are concatenated; empty where `unspecified` says why.
        max_length: the most tokens of a text, special ones included; None where no file says.
        prompts: texts that can be put before a text, by name.
        default_prompt: the name of the prompt that is used if none is chosen.
        include_prompt: whether the prompt's tokens are pooled too.
        lowercase: whether texts are lower-cased first.
        token_steps: what is applied to the tokens' vectors before pooling.
        sentence_steps: what is applied to the sentence's vector after pooling.
        truncate_dim: how many of a vector's numbers are kept, from the first; None for all.
        root: the subfolder that holds the Transformer, "" for the folder itself.
        model_kwargs, tokenizer_kwargs, config_kwargs: arguments with which transformers opens these three.
        unsupported: what the folder asks for that regard does not compute, or "".
        unspecified: why the pooling mode is not known, so that the caller has to choose one, or "".
        note: what a user would not expect, in a sentence, or "".
    """

    modes: tuple[str, ...] = ("mean",)
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True
    lowercase: bool = False
    token_steps: tuple[Step, ...] = ()
    sentence_steps: tuple[Step, ...] = ()
    truncate_dim: int | None = None
    root: str = ""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_kwargs: Mapping[str, Any] = field(default_factory=dict)
    config_kwargs: Mapping[str, Any] = field(default_factory=dict)
    unsupported: str = ""
    unspecified: str = ""
    note: str = ""


def pooling_config(folder: Path | None) -> PoolingConfig | None:
    """The pooling configuration of a folder; None where it has no modules.json (see `default_pooling`).

    Raises ValueError where one of the files is damaged.
    """
    if folder is None or not (folder / "modules.json").is_file():
        return None
    modules = read_json(folder / "modules.json", list)
    if not all(isinstance(module, dict) and isinstance(module.get("path"), str) for module in modules):
        raise ValueError(f"{folder / 'modules.json'} is damaged: expected a list of modules, each with its path.")
    pooling = _with_settings(_OptionalFiles(folder), PoolingConfig())
    try:
        return _with_modules(folder, modules, pooling)
    except _UnsupportedError as error:
        return replace(pooling, unsupported=str(error))


def default_pooling(architectures: Sequence[str] | None, causal: bool, chat: bool) -> PoolingConfig:
    """For a model without modules.json: the last token of a causal language model, else the mean of all tokens.

    For a model with a chat template the pooling mode is unspecified.
    """
    if chat:
        reason = "sentence-transformers would put a text into the chat template of its tokenizer, which regard does not"
        return PoolingConfig((), unspecified=reason)
    if architectures and architectures[0].endswith("ForCausalLM") and causal:
        note = "Its folder has no modules.json: a sentence's vector is its last token's, as in sentence-transformers."
        return PoolingConfig(("last",), note=note)
    return PoolingConfig()


def with_limit(
    pooling: PoolingConfig, tokenizer_limit: int | None, configured: int | None, positions: int | None
) -> PoolingConfig:
    """The configuration with the `max_length` that applies.

    The folder's own, or else the smaller one of the tokenizer's and the model config's, where XLNet writes −1 for none;
    in any case at most the `positions` that the model has learned.
    """
    limits = [pooling.max_length]
    if pooling.max_length is None:
        limits = [tokenizer_limit, None if configured == -1 else configured]
    return replace(pooling, max_length=min((n for n in (*limits, positions) if n is not None), default=None))


class _UnsupportedError(Exception):
    """A setting that regard does not compute; never leaves this file."""


class _OptionalFiles:
    """Reads JSON files of a folder: {} for one that does not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        return read_json(file) if file.is_file() else {}


def _with_settings(read: _OptionalFiles, pooling: PoolingConfig) -> PoolingConfig:
    """With the settings of config_sentence_transformers.json."""
    config = read(CONFIG)
    if (kind := config.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        return replace(pooling, unsupported=f"its {CONFIG} says that it is a {kind}")
    prompts = {name: text or "" for name, text in (config.get("prompts") or {}).items()}
    if not all(isinstance(text, str) for text in prompts.values()):
        raise ValueError(f"{read.folder / CONFIG} is damaged: expected prompts to be strings.")
    default = config.get("default_prompt_name")
    if default in ("query", "document"):  # these two always exist, and are empty by default
        prompts.setdefault(default, "")
    dims = config.get("truncate_dim")
    if dims is not None and (not isinstance(dims, int) or isinstance(dims, bool) or dims < 1):
        raise ValueError(f"{read.folder / CONFIG} is damaged: truncate_dim: expected a positive number. Got {dims!r}.")
    return replace(pooling, prompts=prompts, default_prompt=default, truncate_dim=dims)


def _with_modules(folder: Path, modules: Sequence[Mapping[str, Any]], pooling: PoolingConfig) -> PoolingConfig:
    """With what modules.json and the folders it names say, in order."""
    names = [module.get("name") for module in modules]
    if len(set(names)) < len(names):
        raise _UnsupportedError(f"two modules named {next(name for name in names if names.count(name) > 1)!r}")
    for module in modules:
        path = PureWindowsPath(module["path"])
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{folder / 'modules.json'}: expected paths within the folder. Got {module['path']!r}.")
    kinds = [_kind(module) for module in modules]
    if kinds[:1] != ["Transformer"]:
        raise _UnsupportedError(f"a first module {kinds[0]}, not a Transformer" if kinds else "no modules at all")
    pooling = _with_transformer(folder / modules[0]["path"], replace(pooling, root=modules[0]["path"]))
    if pooling.unsupported:
        return pooling
    pooled = False
    for kind, module in zip(kinds[1:], modules[1:], strict=True):
        read = _OptionalFiles(folder / module["path"])
        if kind == "Pooling":
            if pooled:
                raise _UnsupportedError("two modules that pool")
            pooling, pooled = _with_modes(read, pooling), True
        elif kind in _STEPS:
            pooling = _with_step(pooling, _STEPS[kind](read), read("config.json"), kind, pooled)
        else:
            raise _UnsupportedError(f"its module {kind}")
    if not pooled:
        return replace(pooling, modes=(), unspecified="its modules.json names no Pooling")
    return pooling


def _kind(module: Mapping[str, Any]) -> str:
    kind = str(module.get("type"))
    known = _MODULE.fullmatch(kind)
    return known[1] if known else repr(kind)


def _with_transformer(folder: Path, pooling: PoolingConfig) -> PoolingConfig:
    """With the settings of the Transformer module."""
    read = _OptionalFiles(folder)
    config = next(filter(None, map(read, TRANSFORMER_CONFIGS)), {})
    model = _arguments(config, "model_args", "model_kwargs")
    tokenizer = _arguments(config, "tokenizer_args", "processor_kwargs")
    limit = tokenizer.get("model_max_length", config.get("max_seq_length"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"{folder}: maximum length: expected a positive number of tokens. Got {limit!r}.")
    pooling = replace(
        pooling,
        max_length=limit,
        lowercase=bool(config.get("do_lower_case")),
        model_kwargs=model,
        tokenizer_kwargs=tokenizer,
        config_kwargs=_arguments(config, "config_args", "config_kwargs"),
    )
    if unknown := sorted(model.keys() - _MODEL_ARGUMENTS):
        return replace(pooling, unsupported=f"a Transformer opened with {unknown[0]}={model[unknown[0]]!r}")
    for name, value in config.items():
        if name not in _NO_EFFECT and value not in _TRANSFORMER_DEFAULTS.get(name, ()):
            return replace(pooling, unsupported=f"a Transformer whose {name} is {value!r}")
    return pooling


def _arguments(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The arguments under the first of these names that exists, never trusting code from elsewhere."""
    arguments = next((config[name] for name in names if name in config), None) or {}
    return {name: value for name, value in arguments.items() if name != "trust_remote_code"}


def _with_modes(read: _OptionalFiles, pooling: PoolingConfig) -> PoolingConfig:
    """With the settings of the Pooling module."""
    config = read("config.json")
    if not config.keys() & {"embedding_dimension", "word_embedding_dimension"}:
        return replace(
            pooling, modes=(), unspecified=f"its Pooling has no {read.folder.name}/config.json that says how"
        )
    if unknown := sorted(config.keys() - _POOLING_KEYS):
        raise _UnsupportedError(f"a Pooling whose {unknown[0]} is {config[unknown[0]]!r}")
    if "pooling_mode" in config and not config["pooling_mode"]:
        raise _UnsupportedError(f"a Pooling whose pooling_mode is {config['pooling_mode']!r}")
    modes = config.get("pooling_mode") or [mode for flag, mode in _POOL_FLAGS.items() if config.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if unknown := [mode for mode in modes if mode not in _POOLS]:
        raise _UnsupportedError(f"pooling by {unknown[0]!r}")
    include_prompt = bool(config.get("include_prompt", True))
    return replace(pooling, modes=tuple(_POOLS[mode] for mode in modes), include_prompt=include_prompt)


# Modules that change vectors before or after pooling


def _with_step(pooling: PoolingConfig, step: Step, config: Mapping[str, Any], kind: str, pooled: bool) -> PoolingConfig:
    source = config.get("module_input_name", "sentence_embedding")
    target = config.get("module_output_name") or source
    if source != target or source not in ("token_embeddings", "sentence_embedding"):
        raise _UnsupportedError(f"a {kind} from {source} to {target}")
    if source == "token_embeddings":
        return pooling if pooled else replace(pooling, token_steps=(*pooling.token_steps, step))
    if pooled:
        return replace(pooling, sentence_steps=(*pooling.sentence_steps, step))
    if kind == "Normalize":
        return pooling  # there is no sentence vector yet: it has no effect
    raise _UnsupportedError(f"a {kind} of the sentence vector before the Pooling that makes it")


def _normalize(read: _OptionalFiles) -> Step:
    return lambda vectors: F.normalize(vectors, dim=-1)


def _dense(read: _OptionalFiles) -> Step:
    """x → activation(x Wᵀ + b); with a residual connection + x, or + x Rᵀ where the sizes differ."""
    config = read("config.json")
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = getattr(nn, str(name).rpartition(".")[2], None)
    if not (isinstance(activation, type) and issubclass(activation, nn.Module) and str(name).startswith("torch.nn.")):
        raise _UnsupportedError(f"a Dense whose activation is {name!r}")
    tensors = _tensors(read.folder)
    weight, bias, residual = (tensors.pop(key, None) for key in ("linear.weight", "linear.bias", "residual.weight"))
    size = config.get("out_features"), config.get("in_features")
    if weight is None or tuple(weight.shape) != size or (bias is None) == config.get("bias", True) or tensors:
        raise ValueError(f"{read.folder}: its tensors are not those of a Dense of {size[1]} to {size[0]} numbers.")
    if bool(config.get("use_residual")) and size[0] != size[1] and residual is None:
        raise ValueError(f"{read.folder}: it lacks residual.weight.")
    try:
        activate = activation().eval()  # Dropout counts as an activation
    except TypeError:
        raise _UnsupportedError(f"a Dense whose activation is {name!r}") from None
    if any(True for _ in activate.parameters()):  # no file holds their values
        raise _UnsupportedError(f"a Dense whose activation is {name!r}")

    def dense(vectors: Tensor) -> Tensor:
        if vectors.shape[-1] != size[1]:
            raise ValueError(
                f"embed: pool: the model's Dense module takes vectors of {size[1]} numbers. Got {vectors.shape[-1]}."
            )
        output: Tensor = activate(F.linear(vectors, weight, bias))
        if config.get("use_residual"):
            output = output + (vectors if residual is None else F.linear(vectors, residual))
        return output

    return dense


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if (folder / "model.safetensors").is_file():
            tensors = load_file(folder / "model.safetensors")
        else:  # weights_only: PyTorch refuses a pickle that holds anything but tensors
            tensors = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{folder} has no model.safetensors, nor a pytorch_model.bin.") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}: its weights are damaged: {str(error).splitlines()[0]}") from None
    return {name: tensor.float() for name, tensor in tensors.items()}


_STEPS: dict[str, Callable[[_OptionalFiles], Step]] = {"Normalize": _normalize, "Dense": _dense}
