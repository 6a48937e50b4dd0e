"""Tokenizers, as transformers makes them of a folder: without it where tokenizer.json alone says the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard._internal.files import read_json

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Texts that a tokenizer splits otherwise where one of its settings differs.
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
_IGNORED = {  # in tokenizer_config.json: what does not change how a text is split
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
_NOT_CHANGED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@dataclass(frozen=True)
class OpenedTokenizer:
    """A tokenizer, and what transformers knows of it beside.

    Attributes:
        tokenizer: neither cuts nor pads.
        limit: the most tokens of a text that it says the model takes; None where it says nothing.
        special: the ids of its special tokens.
        left: whether it cuts long texts at their beginning.
        chat: whether it has a chat template.
        typed: whether it gives types beside ids.
    """

    tokenizer: Tokenizer
    limit: int | None
    special: frozenset[int]
    left: bool = False
    chat: bool = False
    typed: bool = True


def from_folder(folder: Path) -> OpenedTokenizer | None:
    """The tokenizer of tokenizer.json, or None where transformers may make another one of the folder's other files.

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
    config, saved = _read(folder / "tokenizer_config.json"), read_json(file)
    if not _says_the_same(config, saved, _read(folder / "special_tokens_map.json"), _whole(tokenizer)):
        return None
    special = frozenset(token["id"] for token in saved["added_tokens"] if token["special"])
    chat = "chat_template" in config or any(folder.glob("*chat_template*"))
    return OpenedTokenizer(tokenizer, _limit(config.get("model_max_length")), special, chat=chat)


def from_transformers(tokenizer: Any, name: str) -> OpenedTokenizer:
    """The same of a tokenizer of transformers, which is left as it is.

    Raises ValueError where it does more to a text than its backend does.
    """
    backend = _whole(copy.deepcopy(tokenizer.backend_tokenizer))
    backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    probes = [probe for probe in _PROBES if _has_tokens_for(backend, probe)]
    for probe, encoding in zip(probes, _as_it_is(tokenizer, probes), strict=True):
        theirs, ours = encoding["input_ids"], backend.encode(probe)
        if ours.ids != theirs or encoding.get("token_type_ids", ours.type_ids) != ours.type_ids:
            raise ValueError(f"{name}: its tokenizer does more to a text than regard does, e.g. to {probe!r}.")
    limit = _limit(tokenizer.model_max_length)
    chat, typed = getattr(tokenizer, "chat_template", None) is not None, "token_type_ids" in tokenizer.model_input_names
    special = frozenset(tokenizer.all_special_ids)
    return OpenedTokenizer(backend, limit, special, tokenizer.truncation_side == "left", chat, typed)


def example(tokenizer: Tokenizer) -> Encoding:
    """What it makes of some text: special tokens around others. Raises ValueError where it has none for any text."""
    for text in ("a", "1", ".", "\u4e2d", *sorted(tokenizer.get_vocab())):
        if _has_tokens_for(tokenizer, text) and 0 in (encoding := tokenizer.encode(text)).special_tokens_mask:
            return encoding
    raise ValueError("The tokenizer has no tokens for any text.")


def encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding | None]:
    """The texts' tokens without special ones; None for a text that the tokenizer has no tokens for."""
    try:
        return [*tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    except Exception:  # a vocabulary without a token for the unknown; tokenizers raises nothing more precise
        known = [_has_tokens_for(tokenizer, text) for text in texts]
        pairs = zip(texts, known, strict=True)
        return [tokenizer.encode(text, add_special_tokens=False) if there else None for text, there in pairs]


def _has_tokens_for(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text)
    except Exception:  # as above
        return False
    return True


def _as_it_is(tokenizer: Any, texts: Sequence[str]) -> list[Any]:
    """What a tokenizer of transformers gives for some texts; a call would change how it cuts and pads."""
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    try:
        return [tokenizer(text, padding=False, truncation=False, verbose=False) for text in texts]
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def lower_cased(tokenizer: Tokenizer) -> Tokenizer:
    """The same, which puts each text in lower case first; the places of its tokens are still those in the text."""
    from tokenizers import normalizers

    tokenizer, normalizer = copy.deepcopy(tokenizer), tokenizer.normalizer
    others: list[Any] = [] if normalizer is None else [normalizer]
    if isinstance(normalizer, normalizers.Sequence):
        others = [*normalizer]  # type: ignore[misc]
    if not any(isinstance(other, normalizers.Lowercase) for other in others):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
    return tokenizer


def _whole(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, so set that it neither cuts nor pads."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _limit(tokens: Any) -> int | None:
    return None if tokens is None or tokens > 1 << 30 else int(tokens)  # transformers writes 1e30 for none


def _read(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _says_the_same(config: Mapping, saved: Mapping, named: Mapping, tokenizer: Tokenizer) -> bool:
    """Whether transformers' tokenizer splits texts as tokenizer.json does. False where that is not certain."""
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
    if kind in ("PreTrainedTokenizer", "TokenizersBackend"):  # tokenizer.json, and the named tokens where they are not
        others.pop("do_lower_case", None)
        known = all(
            added.get(token, {}).items() >= _NOT_CHANGED.items() for token in special.values() if token is not None
        )
        return known and not others and saved["post_processor"] is not None
    return kind == "BertTokenizer" and _is_bert(others, saved, special, added, tokenizer)


def _is_bert(others: dict, saved: Mapping, special: Mapping, added: Mapping, tokenizer: Tokenizer) -> bool:
    """Whether tokenizer.json holds what BertTokenizer makes of its vocabulary and of its settings."""
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
        and all(token.items() >= _NOT_CHANGED.items() for token in added.values())
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


def _flags(token: Mapping) -> tuple:
    return tuple(token.get(name) for name in ("content", *_NOT_CHANGED))
