"""Tokenizers as the page's models have them: what frontend/src/model/tokenizer needs of a tokenizer, and no more.

Settings that the page does not compute are refused by name: a text is never divided in another way without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Spec = dict[str, Any]
Template = list[tuple[int | str, int]]

_WORD_PIECE = {"type": "WordPiece"}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BPE = {
    "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
    "byte_fallback": False, "ignore_merges": False,
}  # fmt: skip
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def tokenizer_spec(tokenizer: Tokenizer) -> Spec:
    """What the page needs of BERT's tokenizer, or of byte-level BPE.

    Raises ValueError, with the setting, for a tokenizer that the page does not compute.
    """
    saved = json.loads(tokenizer.to_str())
    model = saved["model"]
    _check("model", model, _WORD_PIECE if model["type"] == "WordPiece" else _BPE)
    common = _common(tokenizer, saved, _vocabulary(model["vocab"]))
    if model["type"] == "BPE":
        _check("pre_tokenizer", saved["pre_tokenizer"], _BYTE_LEVEL)
        _check("normalizer", {"normalizer": saved["normalizer"]}, {"normalizer": None})
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        return {"type": "bytes", **common, "merges": merges}
    _check("normalizer", saved["normalizer"], {"type": "BertNormalizer"})
    _check("pre_tokenizer", saved["pre_tokenizer"], {"type": "BertPreTokenizer"})
    normalizer = saved["normalizer"]
    accents = normalizer["strip_accents"]
    return {
        "type": "wordpiece",
        **common,
        "unknown": model["vocab"][model["unk_token"]],
        "prefix": model["continuing_subword_prefix"],
        "longest": model["max_input_chars_per_word"],
        "normalizer": {
            "clean": normalizer["clean_text"],
            "chinese": normalizer["handle_chinese_chars"],
            "accents": normalizer["lowercase"] if accents is None else accents,
            "lowercase": normalizer["lowercase"],
        },
    }


def character_spec(vocabulary: list[str], single: Template) -> Spec:
    """A tokenizer of single characters: their ids are their places. `single` are the tokens around a text, "A"."""
    return {"type": "characters", "vocab": vocabulary, "unknown": None, "added": [], "single": single, "pair": None}


def _common(tokenizer: Tokenizer, saved: Mapping[str, Any], vocabulary: list[str]) -> Spec:
    for token in saved["added_tokens"]:
        _check(f"added token {token['content']!r}", token, _PLAIN)
    first = tokenizer.encode("a", add_special_tokens=False)
    second = tokenizer.encode("a", add_special_tokens=False)
    return {
        "vocab": vocabulary,
        "added": [
            {"text": token["content"], "id": token["id"], "special": token["special"]}
            for token in saved["added_tokens"]
        ],
        "single": _template(tokenizer.post_process(first)),
        "pair": _template(tokenizer.post_process(first, second)),
    }


def _template(encoding: Encoding) -> Template:
    """The special tokens around one text or two, with the types of all tokens."""
    template: Template = []
    parts = zip(encoding.ids, encoding.type_ids, encoding.special_tokens_mask, encoding.sequence_ids, strict=True)
    for id, type_id, added, sequence in parts:
        part = id if added else "AB"[sequence or 0]
        if not template or added or template[-1][0] != part:
            template.append((part, type_id))
    return template


def _vocabulary(ids: Mapping[str, int]) -> list[str]:
    """The tokens by their ids; "" for an id without one."""
    vocabulary = [""] * (max(ids.values()) + 1)
    for token, id in ids.items():
        vocabulary[id] = token
    return vocabulary


def _check(name: str, settings: Mapping[str, Any] | None, expected: Mapping[str, Any]) -> None:
    for key, value in expected.items():
        got = None if settings is None else settings.get(key, value if value in (None, False) else None)
        if (got or None) != (value or None):
            raise ValueError(f"The page does not compute this tokenizer: {name}: {key} is {got!r} and not {value!r}.")
