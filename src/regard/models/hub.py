"""Any model of the Hugging Face hub, or of a folder, opened and computed by transformers.

The model is put on regard's attention, so that every layer's weights can be seen; a few architectures whose attention
is their own can embed texts only. What is loaded is checked: all tensors of the file are used, the tokenizer belongs to
the model, and a few tokens are read before anyone relies on it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import getsource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard._internal.files import read_json
from regard._internal.plurals import counted
from regard.models.decoder import opened_after
from regard.models.errors import adapter_error, opening_error
from regard.models.head import Head, body_of, find_head, kind_of, writes_targets
from regard.models.hidden_states import TransformersStates
from regard.models.model import Forward, Model, Pass
from regard.models.pooling import (
    CONFIG,
    TRANSFORMER_CONFIGS,
    PoolingConfig,
    default_pooling,
    pooling_config,
    with_limit,
)
from regard.models.prompt import prompt_parts
from regard.models.reader import Reader, check_reads_text, embedding_rows, text_encoder, virtual_tokens
from regard.models.tokenizer import OpenedTokenizer, example_encoding, from_transformers, lowercased
from regard.nn import checkpoint

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_EMBEDDING_ONLY = ("mpnet", "deberta", "deberta-v2")  # compute their own attention ("eager"), which cannot be shown
_ENCODER_ONLY = ("t5", "mt5", "umt5")  # encoder-decoders of which sentence-transformers, too, uses the encoder alone


def from_folder(folder: Path, allow_pickle: bool = False) -> Model:
    """The model in a folder. Raises ValueError or OSError in one line, as `opening_error` words it."""
    options = {"revision": None, "local_files_only": True}
    model, tokenizer, pooling = _load(str(folder), folder, options, allow_pickle)
    open_whole = functools.partial(open_with_head, str(folder), pooling, allow_pickle, **options)
    return _as_model(model, tokenizer, folder.resolve().name, pooling, folder, open_whole=open_whole)


def from_name(name: str, revision: str | None = None, allow_pickle: bool = False) -> Model:
    """The model of a name on the hub, from the local cache where it is there. Raises as `from_folder`."""
    options = {"revision": revision, "local_files_only": _hub_unreachable()}
    model, tokenizer, pooling = _load(name, None, options, allow_pickle)
    commit = _commit(name, {**options, "subfolder": pooling.root if pooling else ""})
    open_whole = functools.partial(open_with_head, name, pooling, allow_pickle, **options)
    return _as_model(model, tokenizer, name, pooling, commit=commit, open_whole=open_whole)


def from_memory(model: Any, tokenizer: Any, name: str) -> Model:
    """A model of transformers and its tokenizer, which is put in evaluation mode and on regard's attention."""
    return _as_model(model, tokenizer, name)


def _load(
    name: str, folder: Path | None, options: dict[str, Any], allow_pickle: bool
) -> tuple[Any, Any, PoolingConfig | None]:
    """Model, tokenizer and pooling configuration, by transformers."""
    from transformers import AutoTokenizer
    from transformers.utils.peft_utils import find_adapter_config_file

    import regard.hf

    try:
        pooling = pooling_config(folder or _pooling_files(name, options))
        settings = pooling or PoolingConfig()
        options = {**options, "subfolder": settings.root}
        if find_adapter_config_file(name, **options):
            raise adapter_error("its folder")
        config = _config(name, settings, options)
        model = _open_text_model(name, config, settings, allow_pickle, options)
        if config.model_type not in _EMBEDDING_ONLY:
            regard.hf.check(model)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options, **settings.tokenizer_kwargs)
    except Exception as error:  # transformers and the libraries below it raise exceptions of every kind
        raise opening_error(name, error) from error
    return model, tokenizer, pooling


def _open_text_model(
    name: str, config: Any, settings: PoolingConfig, allow_pickle: bool, options: Mapping[str, Any]
) -> Any:
    """A model whose tensors are all in its file: with its head, where that is known here and in the file.

    The head of an encoder-decoder, which belongs to its decoder, is opened when it is asked for.
    """
    kind = None if config.is_encoder_decoder or config.model_type in _EMBEDDING_ONLY else _headed_class(config)
    if kind is not None:
        model, info = _open(kind, name, config, settings, allow_pickle, options)
        body = body_of(model)
        if body is not model:
            _check_tensors(body, _of_body(model, info))
            return body if _lacks_head(model, info) else model
    model, info = _open(_body_class(config), name, config, settings, allow_pickle, options)
    _check_tensors(model, info)
    return model


def open_with_head(name: str, pooling: PoolingConfig | None, allow_pickle: bool, **options: Any) -> Any:
    """The model of a folder or name with the head that its config names, by transformers; None where there is none.

    `options` are those of transformers' from_pretrained that say where it is.
    """
    import regard.hf  # noqa: F401  # registers the attention

    settings = pooling or PoolingConfig()
    options = {**options, "subfolder": settings.root}
    try:
        config = _config(name, settings, options)
        kind = _headed_class(config)
        if kind is None:
            return None
        model, info = _open(kind, name, config, settings, allow_pickle, options)
    except Exception as error:  # as in _load
        raise opening_error(name, error) from error
    return None if _lacks_head(model, info) else model.eval()


def _config(name: str, settings: PoolingConfig, options: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(name, trust_remote_code=False, **options, **settings.config_kwargs)


def _headed_class(config: Any) -> Any:
    """The class of a model whose head is known here; None where it has none."""
    import transformers

    architecture = (config.architectures or [""])[0]
    known = writes_targets(architecture) if config.is_encoder_decoder else kind_of(architecture)
    return getattr(transformers, architecture, None) if known else None


def _body_class(config: Any) -> Any:
    """AutoModel; the architecture itself where the folder holds the encoder of a T5 without a decoder."""
    import transformers

    architecture = (config.architectures or [""])[0]
    if config.model_type in _ENCODER_ONLY and architecture.endswith("EncoderModel"):
        return getattr(transformers, architecture, transformers.AutoModel)
    return transformers.AutoModel


def _open(
    kind: Any, name: str, config: Any, settings: PoolingConfig, allow_pickle: bool, options: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """A model of a class of transformers, and which tensors it lacks, or does not use."""
    arguments = {"use_safetensors": None if allow_pickle else True, **settings.model_kwargs}
    arguments["attn_implementation"] = "eager" if config.model_type in _EMBEDDING_ONLY else "regard"
    opened: tuple[Any, Mapping[str, Any]] = kind.from_pretrained(
        name, config=config, output_loading_info=True, **arguments, **options
    )
    return opened


def _lacks_head(model: Any, info: Mapping[str, Any]) -> bool:
    """Whether its head, or a pooler that it reads, is not in the file: it would be one of random numbers."""
    body = f"{model.base_model_prefix}."
    return any(not key.startswith(body) or ".pooler." in key for key in info["missing_keys"])


def _of_body(model: Any, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the tensors that a model with a head lacks, those of its body, by their names there."""
    body = f"{model.base_model_prefix}."
    return {**info, "missing_keys": [key.removeprefix(body) for key in info["missing_keys"] if key.startswith(body)]}


def _check_tensors(model: Any, info: Mapping[str, Any]) -> None:
    """Raise ValueError where the file lacks tensors of the model, or has tensors for it that the model does not use."""
    if missing := [key for key in sorted(info["missing_keys"]) if not key.startswith("pooler.")]:
        raise ValueError(f"its file lacks {missing[0]} and {len(missing) - 1} more of its tensors.")
    children = {name for name, _ in model.named_children()}
    prefix = model.base_model_prefix + "."
    buffers = ("position_ids", "token_type_ids", "inv_freq", "masked_bias", "attn.bias", "num_batches_tracked")
    surplus = [
        key
        for key in sorted(info["unexpected_keys"])
        if key.removeprefix(prefix).partition(".")[0] in children and not key.endswith(buffers)
    ]
    if surplus:
        others = f" and {counted(len(surplus) - 1, 'more tensor')}" if len(surplus) > 1 else ""
        raise ValueError(f"its file has {surplus[0]}{others}, which {type(model).__name__} does not use.")
    kind = getattr(model.config, "position_embedding_type", None) or "absolute"
    if kind != "absolute" and "position_embedding_type" not in getsource(sys.modules[type(model).__module__]):
        raise ValueError(
            f"its config asks for positions of the type {kind!r}, which {type(model).__name__} does not know."
        )


# The hub and its cache


def _hub_unreachable() -> bool:
    """Whether the hub's host name cannot be resolved: transformers would try again for half a minute."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants

    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        return not getproxies()
    return False


def _commit(name: str, options: Mapping[str, Any]) -> str:
    """The commit of a model in the hub's cache; "" where it is kept otherwise."""
    from transformers.utils.hub import cached_file

    parts = Path(cached_file(name, "config.json", **options) or "").parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-2] else ""


def _pooling_files(name: str, options: Mapping[str, Any]) -> Path | None:
    """Fetch the files that configure sentence vectors: their folder; None for a model that has no modules.json."""
    from transformers.utils.hub import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}

    def fetch(file: str) -> str | None:
        path: str | None = cached_file(name, file, **options, **quiet)
        return path

    modules = fetch("modules.json")
    if modules is None:
        return None
    fetch(CONFIG)
    for number, module in enumerate(read_json(Path(modules), list)):
        path = str(module.get("path", "")) if isinstance(module, dict) else ""
        for file in TRANSFORMER_CONFIGS if number == 0 else ("config.json", "model.safetensors", "pytorch_model.bin"):
            if ".." not in path and fetch(f"{path}/{file}" if path else file) and file == "model.safetensors":
                break
    return Path(modules).parent


# From transformers' objects to a `Model`


def _as_model(
    whole: Any,
    tokenizer: Any,
    name: str,
    pooling: PoolingConfig | None = None,
    folder: Path | None = None,
    commit: str = "",
    open_whole: Callable[[], Any] | None = None,
) -> Model:
    model, tokenizer, reading_note = text_encoder(whole, tokenizer)
    model = body_of(model)
    visible = model.config.model_type not in _EMBEDDING_ONLY
    if visible:
        _use_regard(model)
    check_reads_text(model, name, tokenizer)
    whole.eval()  # its head too, which may have dropout
    model.eval()
    config, tokens = model.config.get_text_config(), from_transformers(tokenizer, name)
    positions = _positions(model, config)
    note = "" if visible else f"{name} can only embed texts: the attention of {type(model).__name__} cannot be seen."
    forward = Reader(model, name, example_encoding(tokens.tokenizer).ids) if visible else _refuse_to_read(note)
    root = folder / pooling.root if folder and pooling else folder
    pooling = _pooling_of(whole, tokens, pooling)
    pooling = with_limit(pooling, tokens.max_length, getattr(config, "max_position_embeddings", None), positions)
    limit = min(int(tokens) for tokens in (tokenizer.model_max_length, positions, 1 << 30) if tokens is not None)
    typed_tokenizer, layers = tokens.tokenizer if tokens.gives_types else None, config.num_hidden_layers
    return Model(
        name,
        lowercased(tokens.tokenizer) if pooling.lowercase else tokens.tokenizer,
        forward,
        TransformersStates(model, typed_tokenizer, layers, name),
        layers,
        limit,
        pooling,
        revision=lambda: checkpoint.digest(root) if root else commit,
        blocks=forward.blocks if isinstance(forward, Reader) else (),
        fingerprint=functools.partial(_fingerprint, whole, folder, commit, tokens.tokenizer),
        vocab_size=embedding_rows(model) or None,
        all_special_ids=tokens.all_special_ids,
        truncates_left=tokens.truncates_left,
        note=note or pooling.note,
        reading_note=reading_note,
        find_head=functools.partial(_find_head, whole, forward, tokens),
        step=forward.step if isinstance(forward, Reader) and not virtual_tokens(model) else None,
        parts=functools.partial(prompt_parts, model),
        chat=functools.partial(_chat, tokenizer) if tokens.has_chat_template else None,
        after=_after(whole, open_whole, tokenizer, name, forward, tokens.tokenizer),
    )


def _after(
    whole: Any,
    open_whole: Callable[[], Any] | None,
    tokenizer: Any,
    name: str,
    forward: Forward,
    tokens: Tokenizer,
) -> Callable[[Tensor], Model] | None:
    """What opens the decoder of an encoder-decoder, once it has read a source; None for all other models."""
    if not getattr(whole.config, "is_encoder_decoder", False) or not isinstance(forward, Reader):
        return None

    def states() -> Tensor:
        with torch.no_grad():
            return forward(torch.tensor([example_encoding(tokens).ids]), None, None).final[0]

    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor

    def with_head() -> Any:
        return (open_whole and open_whole()) or whole

    return opened_after(with_head, tokenizer, name, min(int(tokenizer.model_max_length), 1 << 30), states)


def _find_head(model: Any, forward: Forward, tokens: OpenedTokenizer) -> Head | None:
    """The head of a model; None where it has none, or where no text is read with it."""
    if not isinstance(forward, Reader) or getattr(model.config, "is_encoder_decoder", False):
        return None
    return find_head(model, forward, example_encoding(tokens.tokenizer).ids)


def _chat(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """The prompt that a tokenizer's chat template makes of messages, up to where the reply begins."""
    prompt: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return prompt


def _use_regard(model: Any) -> None:
    import regard.hf

    model.set_attn_implementation("regard")
    regard.hf.check(model)


def _refuse_to_read(note: str) -> Forward:
    """The forward pass of a model whose attention cannot be shown: an error that says so."""

    def forward(ids: Tensor, lengths: Tensor | None, types: Tensor | None = None) -> Pass:
        raise ValueError(f"read: {note}")

    return forward


def _pooling_of(model: Any, tokens: OpenedTokenizer, pooling: PoolingConfig | None) -> PoolingConfig:
    """The pooling of a model as sentence-transformers has it, which uses both halves of an encoder-decoder."""
    config = model.config
    if pooling is None:
        causal = getattr(config, "is_causal", True)
        pooling = default_pooling(config.architectures, causal, tokens.has_chat_template)
    if getattr(config, "is_encoder_decoder", False) and config.model_type not in _ENCODER_ONLY:
        kind = type(model).__name__
        reason = f"sentence-transformers pools the states of {kind}'s decoder, and regard has those of its encoder"
        pooling = replace(pooling, modes=(), unspecified=reason)
    return pooling


def _positions(model: Any, config: Any) -> int | None:
    """How many positions the model has learned. RoBERTa and its kin start after the index of the padding token."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            learned: int = module.num_embeddings - module.padding_idx - 1
            return learned
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions


def _fingerprint(model: Any, folder: Path | None, commit: str, tokenizer: Tokenizer) -> str:
    if folder is not None:
        return checkpoint.fingerprint(folder)
    return f"commit:{commit}" if commit else checkpoint.fingerprint_of(model, tokenizer.to_str())
