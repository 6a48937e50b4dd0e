"""An atlas of a model that no lens opens, because it reads no text: one that hears or sees.

It is run once on inputs that are given. What needs no text is measured: where heads look, and not at which words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from regard.atlas.atlas import Atlas
from regard.atlas.sums import Sums
from regard.atlas.texts import PERIOD, TIMES
from regard.attribution.heads import Sample, measure
from regard.attribution.layers import layer_of
from regard.models.errors import opening_error
from regard.nn import checkpoint

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor

    from regard.hf import Recorded

Report = Callable[[str, float], object]

_OF_WORDS = ("separator", "punctuation")  # scores that need the words of tokens
_CROSS = ("cross", "encoder_attn", "encoder_attention", "encdec")  # in names of modules


def of_inputs(
    model: Any,
    inputs: Mapping[str, Any],
    *,
    name: str = "",
    seed: int = 0,
    note: str = "",
    progress: Report = lambda stage, share: None,
) -> Atlas:
    """What every head of a model of transformers does on inputs of any kind, such as sounds or images.

    The scores are those that need no words; repeated tokens are noticed, and measured as such. Every sequence of the
    batch counts by its rows, without those that a mask hides. Nothing is proved.

    Args:
        model: of transformers; it is put in evaluation mode and on regard's attention.
        inputs: what its forward pass takes, such as `input_features` and `decoder_input_ids`, with a batch.
        name: of the model; by default its class.
        seed: of the inputs, where they are random; only noted.
        note: what a reader should know of the inputs.
        progress: called with "measuring" and the share that is done.

    Raises ValueError where the model's attention cannot be seen, or none ran; and what the model itself raises.

    >>> import torch, regard.atlas
    >>> from transformers import ViTConfig, ViTModel
    >>> config = ViTConfig(
    ...     hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=8, image_size=12, patch_size=4
    ... )
    >>> atlas = regard.atlas.of_inputs(ViTModel(config), {"pixel_values": torch.randn(1, 3, 12, 12)})
    >>> atlas.of("previous").shape
    torch.Size([2, 4])
    """
    import regard.hf

    model.eval()
    model.set_attn_implementation("regard")
    regard.hf.check(model)
    with torch.inference_mode(), regard.hf.record() as recorded:
        model(**inputs)
    if not recorded:
        raise ValueError(f"of_inputs: no attention of {type(model).__name__} ran on these inputs.")
    sums, tokens, parts = Sums(), dict[str, int](), _by_part(model, recorded)
    done = 0
    for part, layers in parts.items():
        ids, mask = _tokens_of(part, inputs)
        for number in range(len(layers)):
            _add(sums, part, layers, number, ids, mask, tokens)
            done += 1
            progress("measuring", done / len(recorded))
    return Atlas(name or type(model).__name__, checkpoint.fingerprint_of(model), sums.means(), (), tokens, seed, note)


@torch.inference_mode()
def _add(
    sums: Sums,
    part: str,
    layers: Sequence[Recorded],
    number: int,
    ids: Int[Tensor, "B N"] | None,
    mask: Bool[Tensor, "B N"] | None,
    tokens: dict[str, int],
) -> None:
    """Add the scores of a layer, one sequence of the batch after the other, and count the tokens in the first layer."""
    heads = max(entry.attention.weights.shape[-3] for entry in layers)
    entry = layers[number]
    for sequence in range(entry.attention.weights.shape[0]):
        attention = entry.attention.of_sequence(sequence)
        layer = layer_of([type(entry)(entry.module, attention)], 0)
        of_sequence = (None if given is None else given[sequence] for given in (ids, mask))
        for sample in _samples(part, attention.weights.shape[-2:], *of_sequence):
            scores = {
                name: values
                for name, values in measure(layer, sample).items()
                if name not in _OF_WORDS and (name != "same" or (ids is not None and part != "cross"))
                if values.isfinite().any()
            }
            sums.add(part, len(layers), heads, number, int(sample.rows.sum()), scores)
            if number == 0 and part != "cross":
                tokens[sample.text] = tokens.get(sample.text, 0) + int(sample.rows.sum())


def _samples(
    part: str, shape: Sequence[int], ids: Int[Tensor, "N"] | None, mask: Bool[Tensor, "N"] | None
) -> list[Sample]:
    """A sequence as samples: as a text without known words and, where its tokens repeat, as repeated tokens."""
    queries, keys = shape
    none, place = torch.zeros(keys, dtype=torch.bool), torch.arange(queries)
    rows = mask if mask is not None and len(mask) == queries else torch.ones(queries, dtype=torch.bool)
    if part == "cross" or ids is None or len(ids) != queries:
        return [Sample("text", rows, place, torch.arange(keys), none, none, same_text=part != "cross")]
    samples = [Sample("text", rows, ids, ids, none, none)]
    first, period = repetition(ids.tolist())
    if period:
        again = rows & (place >= first + period)
        samples.append(Sample("repeated", again, ids, ids, none, none, period=period, first=first))
    return samples


def repetition(ids: Sequence[int]) -> tuple[int, int]:
    """From which token on, and after how many, tokens come again to the end, at least twice; (0, 0) where none do.

    >>> repetition([9, 1, 2, 3, 1, 2, 3, 1, 2, 3])
    (1, 3)
    >>> repetition([1, 2, 3, 4, 1, 2])
    (0, 0)
    """
    for first in range(min(4, len(ids))):  # special tokens before them
        for period in range(2, (len(ids) - first) // 2 + 1):
            if ids[first + period :] == ids[first:-period]:
                return first, period
    return 0, 0


def _tokens_of(part: str, inputs: Mapping[str, Any]) -> tuple[Int[Tensor, "B N"] | None, Bool[Tensor, "B N"] | None]:
    """The ids of the tokens that a part reads, and which of them count, as far as they are among the inputs."""
    before = "decoder_" if part in ("decoder", "cross") else ""
    ids, mask = inputs.get(f"{before}input_ids"), inputs.get(f"{before}attention_mask")
    return None if ids is None else ids.cpu(), None if mask is None else mask.cpu().bool()


def _by_part(model: Any, recorded: Sequence[Recorded]) -> dict[str, list[Recorded]]:
    """The attentions of each part of a model, layer after layer."""
    encodes = set[int]()
    if getattr(model.config, "is_encoder_decoder", False):
        encodes = {id(module) for module in model.get_encoder().modules()}
    names = {id(module): name for name, module in model.named_modules()}
    parts: dict[str, list[Recorded]] = {}
    for entry in recorded:
        part = "" if not encodes else "encoder" if id(entry.module) in encodes else "decoder"
        if part == "decoder" and _is_cross(entry, names.get(id(entry.module), "")):
            part = "cross"
        parts.setdefault(part, []).append(entry)
    return parts


def _is_cross(entry: Recorded, name: str) -> bool:
    """Whether an attention of a decoder is one to the source: by its shape or, where that says nothing, by its name."""
    queries, keys = entry.attention.weights.shape[-2:]
    return queries != keys or any(word in name.lower().rpartition("layers")[2] for word in _CROSS)


# What such a model reads where nothing is given


def open_without_text(folder: str | Path) -> Any | None:
    """The model of a folder that reads no text, by transformers; None for all others.

    Raises OSError or ValueError where such a model cannot be opened.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    path = Path(folder)
    if not (path / "config.json").is_file():
        return None
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        kinds: Any = MODEL_MAPPING[type(config)]
    except (OSError, ValueError, KeyError):
        return None
    kind = kinds[0] if isinstance(kinds, tuple | list) else kinds
    if kind.main_input_name == "input_ids":
        return None
    try:
        return AutoModel.from_pretrained(path, config=config, local_files_only=True, use_safetensors=True)
    except Exception as error:  # transformers and the libraries below it raise exceptions of every kind
        raise opening_error(str(folder), error) from error


def of_noise(model: Any, seed: int = 0, progress: Report = lambda stage, share: None) -> Atlas:
    """The atlas of a model on noise, which says so in its note. Raises ValueError as `noise` and `of_inputs`."""
    folder = Path(model.config._name_or_path)
    inputs = noise(model, _added(folder / "tokenizer.json"), seed)
    tokens = "; its decoder, random tokens that are repeated" if "decoder_input_ids" in inputs else ""
    note = f"It reads no text, and was given noise as {model.main_input_name}{tokens}."
    return of_inputs(model, inputs, name=folder.resolve().name, seed=seed, note=note, progress=progress)


def _added(file: Path) -> list[int]:
    """The special and other added tokens of a tokenizer's file; none where there is no such file."""
    if not file.is_file():
        return []
    from tokenizers import Tokenizer

    return [*Tokenizer.from_file(str(file)).get_added_tokens_decoder()]


def noise(model: Any, special: Sequence[int] = (), seed: int = 0) -> dict[str, Any]:
    """Seeded noise of the shape that a model of sounds or images reads; for a decoder, random tokens that are repeated.

    Args:
        model: of transformers.
        special: tokens of the decoder's vocabulary that are not drawn, besides those that the configuration names.
        seed: of both.

    Raises ValueError for a model that reads anything else.
    """
    chance = torch.Generator().manual_seed(seed)
    config = model.config
    kind = model.main_input_name
    shapes: dict[str, Callable[[], tuple[int, ...]]] = {
        "input_features": lambda: (config.num_mel_bins, 2 * config.max_source_positions),
        "pixel_values": lambda: (config.num_channels, config.image_size, config.image_size),
        "input_values": lambda: (16_000,),  # a second of sound
    }
    try:
        shape = shapes[kind]()
    except (KeyError, AttributeError):
        raise ValueError(
            f"{type(model).__name__} reads {kind} of a shape that is not known here; give its inputs to "
            "regard.atlas.of_inputs."
        ) from None
    inputs = {kind: torch.randn(1, *shape, generator=chance).to(model.device, model.dtype)}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = _repeated(config, set(special), chance).to(model.device)
    return inputs


def _repeated(config: Any, special: set[int], chance: torch.Generator) -> Int[Tensor, "1 N"]:
    """The start token, and random tokens as often as an atlas repeats them, as many as the decoder has positions."""
    named = {value for key, value in config.to_dict().items() if key.endswith("_token_id") and isinstance(value, int)}
    ordinary = torch.tensor([id for id in range(config.vocab_size) if id not in named | special])
    room = (getattr(config, "max_target_positions", None) or TIMES * PERIOD + 1) - 1
    period = min(PERIOD, room // TIMES, len(ordinary))
    ids = ordinary[torch.randperm(len(ordinary), generator=chance)[:period]].repeat(TIMES)
    return torch.cat([torch.tensor([config.decoder_start_token_id]), ids])[None]
