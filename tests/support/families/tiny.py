"""Tiny random models of any family of transformers, made from the defaults of its configuration, and inputs for them.

A configuration is shrunk by the names of its fields: layers, vocabulary and experts always, widths where the model
would still be large. Inputs are made by the names of a model's arguments; the first that eager attention accepts are
taken. What these rules cannot guess stands in table.py.
"""

from __future__ import annotations

import copy
import glob
import importlib
import inspect
import itertools
import math
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from support.families import table

ROOT = os.path.join(os.path.dirname(transformers.__file__), "models")
VOCABULARY = 160
ORDINARY = 100  # token ids from here on are nobody's image, padding or end of text
LARGE = 6_000_000  # parameters; a wider model is narrowed
LARGEST = 150_000_000  # of a model that cannot be narrowed
WIDE = 256  # of a narrow model whose heads do not say it
BATCH, TOKENS, LENGTHS = 3, 11, (11, 7, 4)

_LAYERS = re.compile(
    r"(num_|n_)?(hidden_|encoder_|decoder_|text_|vision_|speech_|t2u_)*(layers?|depth|num_layers|blocks)(_num)?"
    r"|encoder_layers|decoder_layers|n_layers?|.*_num_layers|.*_num_hidden_layers|.*_layers_count|resampler_depth"
    r"|t2u_encoder_layers|t2u_decoder_layers|c2f_num_blocks|num_.*_layers|.*_depth"
)
_EXPERTS = re.compile(r"(moe_)?(num|n)_(local_|routed_)?experts|num_local_experts|moe_num_experts")
_TOP_EXPERTS = re.compile(r"num_experts_per_tok(en)?|moe_k|moe_topk|top_k_experts")
_GROUPS = re.compile(r"topk_group|n_group|num_expert_group")
_HEADS = re.compile(r".*(attention_|_n_|num_|^n_)heads?|.*attention_heads|n_head|num_heads|n_heads")
_KEY_HEADS = re.compile(r".*(key_value|kv)_heads|.*num_kv_heads|n_kv_heads")
_HEAD_DIM = re.compile(r".*head_dim|kv_channels|d_kv|v_head_dim|qk_nope_head_dim|.*head_size")
_RANK = re.compile(r".*_lora_rank|.*_rank")
_INNER = re.compile(
    r".*intermediate_size|.*ffn_dim|d_ff|n_inner|.*ffn_hidden_size|mlp_dim|.*intermediate_dim|hidden_dim"
)
_WIDTH = re.compile(
    r"hidden_size|d_model|n_embd|dim|embed_dim|embedding_dim|embedding_size|.*projection_dim|.*hidden_size|.*_hidden_dim"
    r"|output_dim|width|hidden_size_.*|.*_dims|entity_.*|.*feature_size$"
)
_TOKEN = re.compile(r".*token_(id|index)|.*_token_id.*|(pad|bos|eos|sep|cls|boi|eoi|image|video|audio)_(id|index)")


def families() -> list[str]:
    """The folders of transformers' models that use its attention interface."""
    files = glob.glob(os.path.join(ROOT, "*", "modeling_*.py"))
    return sorted({path.split(os.sep)[-2] for path in files if "ALL_ATTENTION_FUNCTIONS" in _read(path)})


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def model_classes(family: str) -> list[type[PreTrainedModel]]:
    """One class for each configuration of a family: the one without a head, where there is one."""
    by_config: dict[type, list[type]] = {}
    for path in sorted(glob.glob(os.path.join(ROOT, family, "modeling_*.py"))):
        if "ALL_ATTENTION_FUNCTIONS" not in _read(path):
            continue
        module = importlib.import_module(f"transformers.models.{family}.{os.path.basename(path)[:-3]}")
        for kind in vars(module).values():
            if (
                not isinstance(kind, type)
                or not issubclass(kind, PreTrainedModel)
                or kind.__module__ != module.__name__
            ):
                continue
            if "forward" in vars(kind) and isinstance(kind.config_class, type):
                by_config.setdefault(kind.config_class, []).append(kind)
    return [min(kinds, key=_headless) for kinds in by_config.values()]


def _headless(kind: type) -> tuple:
    name, config = kind.__name__, kind.config_class.__name__.removesuffix("Config")
    return (
        name not in table.HEADED,
        name != f"{config}Model",
        name != config,
        "For" in name,
        "With" in name,
        len(name),
    )


# Configurations


def shrink(config: PreTrainedConfig, changes: dict[str, Any], narrow: bool) -> PreTrainedConfig:
    """The same kind of configuration, of few layers, tokens and experts; and narrow, if asked."""
    values = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    small: dict[str, Any] = {}
    layers = _few_layers(values)
    for name, value in values.items():
        if isinstance(value, PreTrainedConfig):
            inner = changes.get(name, {})
            small[name] = shrink(value, inner, narrow) if isinstance(inner, dict) else inner
        elif (size := _small(name, value, values, layers, narrow)) is not None:
            small[name] = size
    small |= {name: value for name, value in changes.items() if not isinstance(values.get(name), PreTrainedConfig)}
    return type(config)(**small)


def _few_layers(values: dict[str, Any]) -> int:
    """Two, or as many as there are kinds of layers."""
    total = next((values[name] for name in ("num_hidden_layers", "n_layers", "num_layers") if name in values), None)
    kinds = [len(set(map(str, v))) for n, v in values.items() if _per_layer(n, v, total)]
    return max(2, *kinds, 0) if kinds else 2


def _per_layer(name: str, value: Any, total: Any) -> bool:
    return isinstance(value, list | tuple) and isinstance(total, int) and total > 2 and len(value) == total


def _small(name: str, value: Any, values: dict[str, Any], layers: int, narrow: bool) -> Any:
    total = next((values[key] for key in ("num_hidden_layers", "n_layers", "num_layers") if key in values), None)
    if _per_layer(name, value, total):
        distinct = sorted(set(map(str, value)), key=list(map(str, value)).index)
        picked = [next(item for item in value if str(item) == kind) for kind in distinct]
        return (picked * layers)[:layers] if len(picked) <= layers else picked[:layers]
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if re.fullmatch(r".*vocab(_size.*)?", name) and value > VOCABULARY:
        return VOCABULARY
    if _TOKEN.fullmatch(name):
        return None if value < ORDINARY else _token(name)
    if name in ("attn_layer_offset",):
        return 1
    if name in ("sliding_window_pattern", "full_attention_interval", "attn_layer_period", "layer_group_size"):
        return 2
    if _LAYERS.fullmatch(name) and "feat" not in name and value > 2:
        return layers if name in ("num_hidden_layers", "n_layers", "num_layers") else 2
    if _EXPERTS.fullmatch(name) and value > 4:
        return 4
    if _TOP_EXPERTS.fullmatch(name) and value > 2:
        return 2
    if _GROUPS.fullmatch(name) and value > 1:
        return 1
    if name == "image_size" and isinstance(values.get("patch_size"), int) and value > 4 * values["patch_size"]:
        return 4 * values["patch_size"]
    if name == "image_size" and value > 64 and not isinstance(values.get("patch_size"), int):
        return 64
    if name == "max_length" and value > 64:
        return 64
    if name == "max_source_positions" and value > 24:
        return 24
    if name in ("max_position_embeddings", "n_positions") and value > 512:
        return 512
    if name in ("sliding_window", "attention_chunk_size", "sliding_window_size", "local_attention") and value > 5:
        return 6 if name == "local_attention" else 5
    if name in ("index_topk",):
        return 4
    return _narrow(name, value, values) if narrow else None


def _narrow(name: str, value: int, values: dict[str, Any]) -> int | None:
    """Four heads as wide as before: the parts of a head, rotary ones and others, then fit as they did."""
    heads = values.get("num_attention_heads") or values.get("num_heads") or values.get("n_head")
    hidden = values.get("hidden_size") or values.get("d_model") or values.get("embed_dim") or values.get("n_embd")
    known = isinstance(hidden, int) and isinstance(heads, int) and heads > 4 and hidden % heads == 0
    wide = 4 * (hidden // heads) if known else WIDE
    if _KEY_HEADS.fullmatch(name):
        return 4 if value == heads else min(value, 2)
    if _HEADS.fullmatch(name):
        return min(value, 4)
    if _HEAD_DIM.fullmatch(name) or name.endswith("head_dim"):
        return None
    if _RANK.fullmatch(name):
        return min(value, 32)
    if _INNER.fullmatch(name):
        return min(value, 96)
    if name in ("hidden_size", "d_model", "embed_dim", "n_embd", "dim"):
        return min(value, wide)
    return None


def _token(name: str) -> int:
    """A small id of its own for every special token."""
    return 4 + sum(map(ord, name)) % (ORDINARY - 5)


def parameters(kind: type[PreTrainedModel], config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        model = kind(config)
    return sum(parameter.numel() for parameter in model.parameters())


def tiny_config(kind: type[PreTrainedModel], changes: dict[str, Any]) -> PreTrainedConfig:
    """Of default widths if that is small, else narrow."""
    needed = changes.get("__init__", {})
    default = kind.config_class(**needed)
    changes = needed | {name: value for name, value in changes.items() if name != "__init__"}
    problem, sizes = None, {}
    for narrow in (False, True):
        try:
            config = shrink(default, changes, narrow)
            if (size := parameters(kind, config)) <= LARGE:
                return config
            sizes[size] = config
        except Exception as error:  # the widths do not fit: the others may
            problem = problem or error
    if sizes and min(sizes) <= LARGEST:
        return sizes[min(sizes)]
    raise problem or ValueError(f"of {min(sizes)} parameters at least, too many for a table")


def build(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """The model with weights so large that attention is far from uniform; the same ones in every call."""
    torch.manual_seed(7)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and parameter.numel() and "relative" not in name and parameter.is_floating_point():
                fan = parameter[0].numel()
                parameter.normal_(0, min(0.5, 1.2 / math.sqrt(fan)))
            elif "sink" in name:
                parameter.normal_()
    return model


# Inputs


class Candidates:
    """What a model may take for an argument, by its name: the likeliest first."""

    def __init__(self, config: PreTrainedConfig, changes: dict[str, Any]) -> None:
        self.config, self.changes = config, changes
        self.generator = torch.Generator().manual_seed(3)

    def of(self, name: str) -> list[Any]:
        if name in self.changes:
            given = self.changes[name]
            return [given(self) if callable(given) else given]
        if name.endswith("input_ids") or name in ("input_ids", "decoder_input_ids"):
            return [self.ids()]
        for pattern, make in _MAKERS:
            if re.fullmatch(pattern, name):
                return list(make(self))
        return []

    def size(self, *names: str, default: int = 3) -> int:
        for config in (self.config, *(v for v in vars(self.config).values() if isinstance(v, PreTrainedConfig))):
            for name in names:
                if isinstance(value := getattr(config, name, None), int):
                    return value
                if isinstance(value, list | tuple) and value and isinstance(value[0], int):
                    return value[0]
        return default

    def ids(self, tokens: int = TOKENS) -> Tensor:
        vocabulary = min(VOCABULARY, self.size("vocab_size", "text_vocab_size", default=VOCABULARY))
        low = ORDINARY if vocabulary == VOCABULARY else min(4, vocabulary - 1)
        return torch.randint(low, vocabulary, (BATCH, tokens), generator=self.generator)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def images(self) -> Iterator[Tensor]:
        channels = self.size("num_channels", "in_channels", "in_chans")
        patch = self.size("patch_size", default=16)
        for side in dict.fromkeys((self.size("image_size", "img_size", default=4 * patch), 4 * patch, 64, 128, 224)):
            yield self.noise(BATCH, channels, side, side)
        yield self.noise(BATCH, channels * patch * patch)

    def videos(self) -> Iterator[Tensor]:
        frames = self.size("num_frames", "frames_per_clip", default=2)
        side = self.size("image_size", "crop_size", default=64)
        yield self.noise(BATCH, frames, self.size("num_channels", "in_channels"), side, side)
        yield self.noise(BATCH, self.size("num_channels", "in_channels"), frames, side, side)

    def spectra(self) -> Iterator[Tensor]:
        mels = self.size("num_mel_bins", "feature_size", "input_feat_size", "input_feature_size", "n_mels",
                         "input_dim", "mel_dim", "feature_projection_input_dim", default=80)  # fmt: skip
        positions = self.size("max_source_positions", default=24)
        for frames in (2 * positions, 64, positions):
            yield self.noise(BATCH, mels, frames)
            yield self.noise(BATCH, frames, mels)
        yield self.noise(BATCH, 1, 1024, 64)

    def waves(self) -> Iterator[Tensor]:
        yield self.noise(BATCH, 4000)
        yield self.noise(BATCH, 1, 4000)
        yield self.noise(BATCH, self.size("max_length", default=128), self.size("num_mel_bins", default=80))

    def series(self) -> Iterator[Tensor]:
        steps = self.size("context_length", default=32)
        yield self.noise(BATCH, steps, self.size("num_input_channels", default=1))
        yield self.noise(BATCH, steps)

    def states(self) -> Iterator[Tensor]:
        width = self.size("hidden_size", "d_model", "encoder_hidden_dim", default=64)
        yield self.noise(BATCH, 7, width)
        yield from self.patches()

    def patches(self) -> Iterator[Tensor]:
        """Patches of one image of 4 × 4, flat, as the models of grids take them."""
        patch, time = self.size("patch_size", default=14), self.size("temporal_patch_size", "patch_temporal", default=1)
        channels = self.size("in_channels", "in_chans", "num_channels")
        yield self.noise(16, channels * time * patch * patch)
        yield self.noise(16, channels, patch, patch)
        yield self.noise(16, channels * patch * patch)


_MAKERS: list[tuple[str, Any]] = [
    (r"pixel_values|image|images", lambda c: [*c.images(), *c.videos(), *c.patches()]),
    (r"pixel_values_videos|videos?", lambda c: c.videos()),
    (r"input_features|audio_mel|audio_features", lambda c: c.spectra()),
    (r"input_values|audio_values|waveform", lambda c: [*c.waves(), *c.spectra()]),
    (r"hidden_states|flattened_patches|patch_embeds", lambda c: [*c.states()]),
    (r".*embeds?|.*_features|latents|context", lambda c: [*c.states()]),
    (r".*grid_thw", lambda c: [torch.tensor([[1, 4, 4]])]),
    (r".*spatial_shapes", lambda c: [torch.tensor([[4, 4], [4, 4]])]),
    (r".*_mask|attention_mask|.*padding", lambda c: [torch.ones(BATCH, n, dtype=torch.long) for n in (7, 64)]),
    (r"bbox", lambda c: [torch.randint(0, 50, (BATCH, TOKENS, 2), generator=c.generator).repeat(1, 1, 2).sort()[0]]),
    (r"num_patches", lambda c: [16]),
    (r"merge_sizes", lambda c: [torch.tensor([1])]),
    (r"freq", lambda c: [torch.zeros(BATCH, 1, dtype=torch.long)]),
    (r"past_values", lambda c: c.series()),
]  # fmt: skip
_MORE = ("decoder_input_ids", "pixel_values", "input_features", "input_values", "bbox", "pixel_values_videos")
_TRIES = 20
SECONDS = 10  # to look for inputs


def signature(model: PreTrainedModel) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(type(model).forward).parameters)


def inputs(model: PreTrainedModel, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments that the model accepts, and the options of the call; raises what the first try raised."""
    parameters = signature(model)
    required = [n for n, p in parameters.items() if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD][1:]
    main = model.main_input_name if model.main_input_name in parameters else list(parameters)[1]
    given = [name for name in changes if not name.startswith("__")]
    names = [*dict.fromkeys([*required, *([] if given else [main]), *given])]
    more = [[]] if given else [[], *([name] for name in _MORE if name in parameters and name not in names),
                               [name for name in _MORE[:2] if name in parameters and name not in names]]  # fmt: skip
    problems: list[str] = []
    deadline = time.process_time() + SECONDS
    for extra in more:
        candidates = Candidates(model.config, changes)
        choices = [candidates.of(name) for name in [*names, *extra]]
        for chosen in itertools.islice(itertools.product(*choices), _TRIES):
            if time.process_time() > deadline:
                break
            arguments = dict(zip([*names, *extra], chosen, strict=True))
            try:
                with torch.no_grad():
                    model(**copy.deepcopy(arguments))  # a video session keeps what it saw
            except Exception as error:  # these do not fit: the next may
                shapes = ", ".join(
                    f"{n} {tuple(v.shape) if isinstance(v, Tensor) else v}" for n, v in arguments.items()
                )
                problems.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]} <- {shapes}")
            else:
                return arguments, {}
    raise ValueError(" | ".join(dict.fromkeys(problems)) or f"no input for {names}")


def padded(arguments: dict[str, Any], parameters: dict[str, Any], side: str) -> dict[str, Any] | None:
    """The same with the shorter sequences padded; None where the model takes no text or no mask."""
    ids, mask = arguments.get("input_ids"), "attention_mask"
    if not isinstance(ids, Tensor) or ids.ndim != 2 or mask not in parameters or mask in arguments:
        return None
    position, lengths = torch.arange(ids.shape[1]), torch.tensor(LENGTHS)[:, None]
    real = position >= ids.shape[1] - lengths if side == "left" else position < lengths
    return arguments | {mask: real.long()}
