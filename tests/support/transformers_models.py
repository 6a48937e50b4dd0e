"""Tiny models of transformers with random weights, for tests of what they compute and not of what they say."""

from __future__ import annotations

from typing import Any, NamedTuple
from unittest import SkipTest  # not every program that makes these models has pytest

import torch
import transformers

import regard.hf

ALL_SUPPORTED = 5, 16  # since this release of transformers, all families below use its attention interface


class Family(NamedTuple):
    model: str
    config: str
    options: dict[str, Any]
    head: str = ""  # the class with a language model's head, for generate()


# Prime and unequal sizes where the models allow it, so that no two axes can be confused.
_BERT = {
    "vocab_size": 41,
    "hidden_size": 15,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 37,
}
_LLAMA = {
    "vocab_size": 41,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_ALTERNATING = ["sliding_attention", "full_attention"]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_MOE = {"num_local_experts": 3, "num_experts_per_tok": 2}
_SEQ2SEQ = {"vocab_size": 41, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
_BART = {
    **_SEQ2SEQ,
    "d_model": 15,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 5,
    "encoder_ffn_dim": 17,
    "decoder_ffn_dim": 13,
}

ENCODERS = {
    "bert": Family("BertModel", "BertConfig", _BERT),
    "roberta": Family("RobertaModel", "RobertaConfig", _BERT),
    "distilbert": Family(
        "DistilBertModel",
        "DistilBertConfig",
        {"vocab_size": 41, "dim": 15, "n_layers": 2, "n_heads": 3, "hidden_dim": 17},
    ),
    "modernbert": Family(
        "ModernBertModel",
        "ModernBertConfig",
        {**_BERT, "hidden_size": 12, "local_attention": 6, "global_attn_every_n_layers": 2, "pad_token_id": 0},
    ),
}
DECODERS = {
    "gpt2": Family(
        "GPT2Model",
        "GPT2Config",
        {"vocab_size": 41, "n_embd": 15, "n_layer": 2, "n_head": 3, "n_positions": 64, "eos_token_id": 2},
        "GPT2LMHeadModel",
    ),
    "llama": Family("LlamaModel", "LlamaConfig", _LLAMA, "LlamaForCausalLM"),
    "mistral": Family("MistralModel", "MistralConfig", {**_LLAMA, "sliding_window": 5}, "MistralForCausalLM"),
    "qwen3": Family("Qwen3Model", "Qwen3Config", _LLAMA, "Qwen3ForCausalLM"),
    "gemma2": Family(
        "Gemma2Model",
        "Gemma2Config",
        {**_LLAMA, "sliding_window": 5, "layer_types": _ALTERNATING, "attn_logit_softcapping": 2.0},
        "Gemma2ForCausalLM",
    ),
    "gpt-oss": Family(
        "GptOssModel",
        "GptOssConfig",
        {**_LLAMA, **_MOE, "sliding_window": 5, "layer_types": _ALTERNATING, "rope_parameters": _ROPE},
        "GptOssForCausalLM",
    ),
    "llama4-chunked": Family(
        "Llama4TextModel",
        "Llama4TextConfig",
        {**_LLAMA, **_MOE, "attention_chunk_size": 5, "layer_types": ["chunked_attention", "full_attention"]},
        "Llama4ForCausalLM",
    ),
}
SEQ2SEQ = {
    "t5": Family(
        "T5Model",
        "T5Config",
        {**_SEQ2SEQ, "d_model": 15, "d_kv": 4, "d_ff": 17, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 3},
        "T5ForConditionalGeneration",
    ),
    "bart": Family("BartModel", "BartConfig", _BART, "BartForConditionalGeneration"),
    "whisper": Family(
        "WhisperModel",
        "WhisperConfig",
        {
            **_BART,
            "d_model": 12,
            "decoder_attention_heads": 2,
            "num_mel_bins": 7,
            "max_source_positions": 13,
            "max_target_positions": 37,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        "WhisperForConditionalGeneration",
    ),
}
VIT = Family(
    "ViTModel",
    "ViTConfig",
    {
        "hidden_size": 15,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 17,
        "image_size": 12,
        "patch_size": 4,
    },
)


def make(family: Family, *, head: bool = False, **options: Any) -> Any:
    """A model in eval(), its weights so large that attention is far from uniform; the same ones in every call."""
    torch.manual_seed(7)
    config = getattr(transformers, family.config)(**{**family.options, **options})
    try:
        model = getattr(transformers, family.head if head else family.model)(config)
    except ValueError as error:
        skip_on_old_transformers(error)
        raise
    interface_or_skip(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "sinks" in name:
                parameter.normal_(0, 0.3)
    return model.eval()


def interface_or_skip(model: torch.nn.Module) -> None:
    """Skip the test if the model's attention is out of regard's reach in this old release of transformers."""
    try:
        regard.hf.check(model)
    except ValueError as error:
        skip_on_old_transformers(error)
        raise


def skip_on_old_transformers(error: Exception) -> None:
    """Skip the test if this release of transformers is so old that the model cannot be tried."""
    if tuple(map(int, transformers.__version__.split(".")[:2])) < ALL_SUPPORTED:
        raise SkipTest(
            f"transformers {transformers.__version__}, torch {torch.__version__}: {str(error)[:200]}"
        ) from error


# What they are given, and what they give

TOKENS = 11
LENGTHS = {"none": [11, 11, 11], "right": [11, 7, 2], "left": [11, 7, 2]}


def batch(padding: str = "none", tokens: int = TOKENS) -> dict[str, torch.Tensor]:
    """Three sequences of unequal lengths."""
    ids = torch.randint(4, 41, (3, tokens), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor(LENGTHS[padding])[:, None]
    position = torch.arange(tokens)
    real = position >= tokens - lengths if padding == "left" else position < lengths
    return {"input_ids": ids.where(real, 0), "attention_mask": real.long()}


def both(model, call):
    """The results of the call with eager attention and with regard."""
    model.set_attn_implementation("eager")
    try:
        eager = call()
    except NotImplementedError as error:  # old releases of torch lack an operator that this model needs
        skip_on_old_transformers(error)
        raise
    model.set_attn_implementation("regard")
    return [eager, call()]


def seq2seq_inputs(family, padding: str) -> tuple[dict, torch.Tensor | None, torch.Tensor]:
    text, target = (
        batch(padding),
        batch("none" if padding == "none" else "right", tokens=5 if padding == "none" else 11),
    )
    inputs = {"decoder_input_ids": target["input_ids"], "decoder_attention_mask": target["attention_mask"]}
    if "Whisper" in family.model:
        features = torch.randn(3, 7, 26, generator=torch.Generator().manual_seed(5))
        return {**inputs, "input_features": features}, None, target["attention_mask"]
    return {**inputs, **text}, text["attention_mask"], target["attention_mask"]
