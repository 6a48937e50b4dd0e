"""Tokenizers: read from tokenizer.json alone where that is certain to tokenize as transformers would, else by it.

Three ways to open one: `file_tokenizer` (no transformers), `auto_tokenizer` (AutoTokenizer of a folder) and
`from_transformers` (a tokenizer object), all to an `OpenedTokenizer` that neither truncates nor pads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard._internal.files import read_json
from regard.models.errors import opening_error

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_Json = Mapping[str, Any]

# Texts that a tokenizer splits differently if one of its settings differs.
_PROBES = (
    "The Café naïve",
    "a  b\n c ",
    "北京 x",
    "\u0130stanbul",
    "<s> [SEP] <pad> a<mask>b",
    "x" * 120,
    "don't 3.14!",
)

_SPECIAL = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")
_IGNORED = {  # settings of tokenizer_config.json that do not affect how a text is split
    *("tokenizer_class", "model_max_length", "name_or_path", "special_tokens_map_file", "clean_up_tokenization_spaces"),
    *("do_basic_tokenize", "never_split", "padding_side", "pad_to_multiple_of", "pad_token_type_id", "is_local"),
    *("local_files_only", "backend", "max_length", "stride", "truncation_strategy", "chat_template"),
}
_BERT_SETTINGS = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}
_BERT_SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_PLAIN_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@dataclass(frozen=True)
class OpenedTokenizer:
    """A tokenizer, and what transformers knows about it.

    Attributes:
        tokenizer: neither truncates nor pads.
        max_length: the most tokens that, by its configuration, the model can read; None where it sets no limit.
        all_special_ids: the ids of its special tokens.
        truncates_left: whether it truncates long texts at their beginning.
        has_chat_template: whether it has a chat template.
        gives_types: whether it gives token types beside ids.
    """

    tokenizer: Tokenizer
    max_length: int | None
    all_special_ids: frozenset[int]
    truncates_left: bool = False
    has_chat_template: bool = False
    gives_types: bool = True


def file_tokenizer(folder: Path) -> OpenedTokenizer | None:
    """The tokenizer of tokenizer.json; None where transformers might build a different one from the folder's files.

    Raises ValueError where a file is damaged.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file() or (folder / "added_tokens.json").is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more precise
        raise ValueError(f"{file} is damaged: {error}.") from None
    config, saved = _read_optional(folder / "tokenizer_config.json"), read_json(file)
    named = _read_optional(folder / "special_tokens_map.json")
    if not _splits_the_same(config, saved, named, _without_truncation(tokenizer)):
        return None
    special = frozenset(token["id"] for token in saved["added_tokens"] if token["special"])
    chat = "chat_template" in config or any(folder.glob("*chat_template*"))
    return OpenedTokenizer(tokenizer, _limit(config.get("model_max_length")), special, has_chat_template=chat)


def auto_tokenizer(folder: Path, options: Mapping[str, Any]) -> OpenedTokenizer:
    """The tokenizer that transformers' AutoTokenizer builds from a folder. Raises ValueError where it cannot."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    except Exception as error:  # transformers and the libraries below it raise exceptions of every kind
        raise ValueError(str(opening_error(str(folder), error))) from error
    return from_transformers(tokenizer, str(folder))


def from_transformers(tokenizer: Any, name: str) -> OpenedTokenizer:
    """A copy of a tokenizer of transformers.

    Raises ValueError where it does more to a text than its backend, which alone is used here.
    """
    backend = _without_truncation(copy.deepcopy(tokenizer.backend_tokenizer))
    backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    probes = [probe for probe in _PROBES if _has_tokens_for(backend, probe)]
    for probe, encoding in zip(probes, _encoded_unchanged(tokenizer, probes), strict=True):
        theirs, ours = encoding["input_ids"], backend.encode(probe)
        if ours.ids != theirs or encoding.get("token_type_ids", ours.type_ids) != ours.type_ids:
            raise ValueError(f"{name}: its tokenizer does more to a text than regard does, e.g. to {probe!r}.")
    return OpenedTokenizer(
        backend,
        _limit(tokenizer.model_max_length),
        frozenset(tokenizer.all_special_ids),
        truncates_left=tokenizer.truncation_side == "left",
        has_chat_template=getattr(tokenizer, "chat_template", None) is not None,
        gives_types="token_type_ids" in tokenizer.model_input_names,
    )


def example_encoding(tokenizer: Tokenizer) -> Encoding:
    """The encoding of a short text, special tokens included. Raises ValueError where it has no tokens for any text."""
    for text in _example_texts(tokenizer):
        if _has_tokens_for(tokenizer, text) and 0 in (encoding := tokenizer.encode(text)).special_tokens_mask:
            return encoding
    raise ValueError("The tokenizer has no tokens for any text.")


def _example_texts(tokenizer: Tokenizer) -> Iterator[str]:
    yield from ("a", "1", ".", "\u4e2d")
    yield from sorted(tokenizer.get_vocab())  # which takes a tenth of a second, and is hardly ever needed


def encode_batch(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding | None]:
    """The texts' tokens without special ones; None for a text that the tokenizer has no tokens for."""
    try:
        return [*tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    except Exception:  # the vocabulary has no token for unknown text; tokenizers raises nothing more precise
        known = [_has_tokens_for(tokenizer, text) for text in texts]
        pairs = zip(texts, known, strict=True)
        return [tokenizer.encode(text, add_special_tokens=False) if is_known else None for text, is_known in pairs]


def _has_tokens_for(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text)
    except Exception:  # as in `encode_batch`
        return False
    return True


def _encoded_unchanged(tokenizer: Any, texts: Sequence[str]) -> list[Any]:
    """The texts encoded by a tokenizer of transformers, whose truncation and padding a call would otherwise change."""
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    try:
        return [tokenizer(text, padding=False, truncation=False, verbose=False) for text in texts]
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def lowercased(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that lower-cases each text first; the spans of its tokens are still those in the text."""
    from tokenizers import normalizers

    tokenizer, normalizer = copy.deepcopy(tokenizer), tokenizer.normalizer
    others: list[Any] = [] if normalizer is None else [normalizer]
    if isinstance(normalizer, normalizers.Sequence):
        others = [*normalizer]  # type: ignore[misc]
    if not any(isinstance(other, normalizers.Lowercase) for other in others):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
    return tokenizer


def _without_truncation(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer, set to neither truncate nor pad."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _limit(tokens: Any) -> int | None:
    return None if tokens is None or tokens > 1 << 30 else int(tokens)  # transformers writes 1e30 for no limit


def _read_optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _splits_the_same(config: _Json, saved: _Json, named: _Json, tokenizer: Tokenizer) -> bool:
    """Whether transformers' tokenizer splits texts as tokenizer.json does; False where that is not certain."""
    kind = str(config.get("tokenizer_class", "BertTokenizer")).removesuffix("Fast")
    special = {name: _content(value) for name, value in (dict(config) | dict(named)).items() if name in _SPECIAL}
    added = {token["content"]: {**token} for token in saved["added_tokens"]}
    decoder = config.get("added_tokens_decoder")
    if decoder is not None and {(int(n), *_flags(token)) for n, token in decoder.items()} != {
        (token["id"], *_flags(token)) for token in added.values()
    }:
        return False
    if (saved.get("truncation") or {}).get("direction", "Right") != "Right" or not named.keys() <= set(_SPECIAL):
        return False
    others = {key: value for key, value in config.items() if key not in _IGNORED and key not in _SPECIAL}
    others.pop("added_tokens_decoder", None)
    if others.pop("truncation_side", "right") != "right" or others.pop("extra_special_tokens", None):
        return False
    if kind in ("PreTrainedTokenizer", "TokenizersBackend"):  # tokenizer.json, plus named tokens that it lacks
        others.pop("do_lower_case", None)
        known = all(
            added.get(token, {}).items() >= _PLAIN_FLAGS.items() for token in special.values() if token is not None
        )
        return known and not others and saved["post_processor"] is not None
    return kind == "BertTokenizer" and _is_bert(others, saved, special, added, tokenizer)


def _is_bert(others: dict[str, Any], saved: _Json, special: _Json, added: _Json, tokenizer: Tokenizer) -> bool:
    """Whether tokenizer.json holds what BertTokenizer builds from its vocabulary and its settings."""
    settings = {name: others.pop(name, default) for name, default in _BERT_SETTINGS.items()}
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": settings["tokenize_chinese_chars"],
        "strip_accents": settings["strip_accents"],
        "lowercase": settings["do_lower_case"],
    }
    model = {name: value for name, value in saved["model"].items() if name != "vocab"}
    word_piece = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    around = [tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")]
    encoding = tokenizer.encode("") if saved["post_processor"] else None
    return (
        not others
        and all(_BERT_SPECIAL.get(name) == token for name, token in special.items())
        and set(added) == set(_BERT_SPECIAL.values())
        and all(token.items() >= _PLAIN_FLAGS.items() for token in added.values())
        and saved["model"]["vocab"].keys() >= added.keys()
        and saved["normalizer"] == normalizer
        and saved["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and model == word_piece | {"max_input_chars_per_word": 100}
        and (saved["post_processor"] or {}).get("type") in ("TemplateProcessing", "BertProcessing")
        and encoding is not None
        and (encoding.ids, encoding.type_ids) == (around, [0, 0])
    )


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, Mapping) else token


def _flags(token: _Json) -> tuple[Any, ...]:
    return tuple(token.get(name) for name in ("content", *_PLAIN_FLAGS))
