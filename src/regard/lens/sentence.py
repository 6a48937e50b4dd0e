"""How a model's folder says that sentence vectors are made: the files that sentence-transformers reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regard.files import read_json

FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json")
POOLS = ("mean", "cls", "max", "last")
_THEIRS = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
_FLAGS = {  # of the older files, in their order
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Sentences:
    """pool: how a vector is made of the tokens'. limit: tokens that the encoder was trained to read at once.

    prompts: what may be put before a text, by name; `prompt` the name of the one that is, by default; with_prompt:
    whether its tokens count. lower: the text is lower-cased. unknown: what regard does not compute, or "".
    """

    pool: str = "mean"
    normalised: bool = False
    limit: int = 1 << 30
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None
    with_prompt: bool = True
    lower: bool = False
    unknown: str = ""


def sentences(folder: Path | None) -> Sentences:
    """What the folder says; the mean of the tokens' vectors, as it is, where it says nothing.

    Raises ValueError where one of the files is damaged.
    """
    if folder is None or not (folder / "modules.json").is_file():
        return Sentences()
    about, own = _read(folder, "sentence_bert_config.json"), _read(folder, "config_sentence_transformers.json")
    found: dict[str, Any] = {
        "limit": about.get("max_seq_length") or 1 << 30,
        "lower": bool(about.get("do_lower_case")),
        "prompts": own.get("prompts") or {},
        "prompt": own.get("default_prompt_name"),
    }
    for module in _read(folder, "modules.json", list):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _read(folder, f"{module['path']}/config.json")
            found["with_prompt"] = pooling.get("include_prompt", True)
            modes = pooling.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if pooling.get(flag)]
            modes = [modes] if isinstance(modes, str) else modes
            if len(modes) == 1 and modes[0] in _THEIRS:
                found["pool"] = _THEIRS[modes[0]]
            elif modes:
                found["unknown"] = f"pooling by {' and '.join(modes)}"
        elif kind == "Normalize":
            found["normalised"] = True
        elif kind != "Transformer":
            found["unknown"] = f"its module {kind}"
    return Sentences(**found)


def _read(folder: Path, name: str, kind: type = dict) -> Any:
    file = folder / name
    return read_json(file, kind) if file.is_file() else kind()
