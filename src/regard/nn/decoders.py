"""Checkpoints of GPT-2 and Llama as transformers saves them, for `regard.nn.LanguageModel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regard.nn.checkpoint import Family, read_config

GPT2 = Family(
    prefix="transformer.",
    sizes={
        "vocab_size": "vocab_size",
        "n_embd": "dim",
        "n_layer": "layers",
        "n_head": "heads",
        "n_inner": "d_ff",
        "n_positions": "positions",
        "layer_norm_epsilon": "epsilon",
        "activation_function": "activation",
        "tie_word_embeddings": "tied",
    },
    names={
        "wte": "tokens",
        "wpe": "positions",
        "h.{n}.ln_1": "layers.{n}.attention_norm",
        "h.{n}.attn.c_attn": "layers.{n}.attention.query layers.{n}.attention.key layers.{n}.attention.value",
        "h.{n}.attn.c_proj": "layers.{n}.attention.output",
        "h.{n}.ln_2": "layers.{n}.feed_forward_norm",
        "h.{n}.mlp.c_fc": "layers.{n}.feed_forward.fc1",
        "h.{n}.mlp.c_proj": "layers.{n}.feed_forward.fc2",
        "ln_f": "norm",
        "lm_head": "output",
    },
    heads=("lm_head.", "score.", "multiple_choice_head."),
    config={
        "n_inner": None, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "tie_word_embeddings": True,
    },
    unused=(".attn.bias", ".attn.masked_bias"),
    by_input=True,
)  # fmt: skip
LLAMA = Family(
    prefix="model.",
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "num_key_value_heads": "groups",
        "intermediate_size": "d_ff",
        "rms_norm_eps": "epsilon",
        "tie_word_embeddings": "tied",
    },
    names={
        "embed_tokens": "tokens",
        "layers.{n}.input_layernorm": "layers.{n}.attention_norm",
        "layers.{n}.self_attn.q_proj": "layers.{n}.attention.query",
        "layers.{n}.self_attn.k_proj": "layers.{n}.attention.key",
        "layers.{n}.self_attn.v_proj": "layers.{n}.attention.value",
        "layers.{n}.self_attn.o_proj": "layers.{n}.attention.output",
        "layers.{n}.post_attention_layernorm": "layers.{n}.feed_forward_norm",
        "layers.{n}.mlp.gate_proj": "layers.{n}.feed_forward.gate",
        "layers.{n}.mlp.up_proj": "layers.{n}.feed_forward.fc1",
        "layers.{n}.mlp.down_proj": "layers.{n}.feed_forward.fc2",
        "norm": "norm",
        "lm_head": "output",
    },
    heads=("lm_head.", "score."),
    config={"num_key_value_heads": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": False},
    unused=(".rotary_emb.inv_freq",),
)
FAMILIES = {"gpt2": GPT2, "llama": LLAMA, "mistral": LLAMA}
# What else config.json may say, and has to say if it does: {its name: what is expected}.
_EXPECTED: dict[str, dict[str, Any]] = {
    "gpt2": {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    "llama": {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "sliding_window": None},
}
_GELU = {"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}


def sizes(folder: Path) -> tuple[Family, dict[str, Any]]:
    """The architecture of the model in a folder, and the arguments of `LanguageModel` for it.

    Raises ValueError where `LanguageModel` cannot compute it, OSError where config.json is missing.
    """
    settings = read_config(folder)
    kind = settings.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ValueError(f"{folder}: model_type: expected one of {', '.join(FAMILIES)}. Got {kind!r}.")
    if missing := [name for name in family.sizes if name not in settings and name not in family.config]:
        raise ValueError(f"{folder}: config.json lacks {', '.join(missing)}.")
    expected = _EXPECTED["gpt2" if family is GPT2 else "llama"] | {"quantization_config": None}
    for name, value in expected.items():
        if settings.get(name, value) != value:
            raise ValueError(f"{folder}: {name}: expected {value!r}. Got {settings[name]!r}.")
    arguments: dict[str, Any] = {
        ours: settings.get(theirs, family.config.get(theirs)) for theirs, ours in family.sizes.items()
    }
    if family is LLAMA:
        return family, arguments | _llama(folder, settings)
    if arguments["activation"] not in _GELU:
        expected_names, got = ", ".join(_GELU), arguments["activation"]
        raise ValueError(f"{folder}: activation_function: expected one of {expected_names}. Got {got!r}.")
    arguments["activation"] = _GELU[arguments["activation"]]
    return family, arguments | {"d_ff": arguments["d_ff"] or 4 * arguments["dim"]}


def _llama(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What makes a layer a Llama's, with the base of its rotary positions."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"{folder}: rope_type: expected 'default', positions that are not scaled. Got {rope!r}.")
    dim = settings["hidden_size"] // settings["num_attention_heads"]
    if settings.get("head_dim") not in (None, dim):
        raise ValueError(f"{folder}: head_dim: expected {dim}, hidden_size / heads. Got {settings['head_dim']!r}.")
    theta = float(rope.get("rope_theta", settings.get("rope_theta", 10_000.0)))
    return {"rope_theta": theta, "gated": True, "rms_norm": True, "bias": False}
