"""Tiny models with their heads, and the same models with eager attention: what attributions are held to."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers

from support.models import tiny

BODIES = ["bert", "gpt2", "llama", "t5"]
HEADS = {  # what is predicted: classes of transformers, and the tiny model that gives them config and tokenizer
    "next token": {
        "GPT2LMHeadModel": "gpt2",
        "LlamaForCausalLM": "llama",
        "Qwen3ForCausalLM": "qwen3",
        "GPTNeoXForCausalLM": "neox",
        "Gemma2ForCausalLM": "gemma2",
        "GptOssForCausalLM": "gpt-oss",
        "DeepseekV3ForCausalLM": "deepseek",
        "BertLMHeadModel": "bert",
    },
    "masked token": {"BertForMaskedLM": "bert", "RobertaForMaskedLM": "roberta"},
    "class": {
        "BertForSequenceClassification": "bert",
        "RobertaForSequenceClassification": "roberta",
        "GPT2ForSequenceClassification": "gpt2",
        "LlamaForSequenceClassification": "llama",
    },
}


def headed(kind: str, name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """A model of a class of transformers and its tokenizer: large weights, gains other than 1, biases other than 0."""
    body, tokenizer = tiny(name)
    body.config.id2label = {0: "NEGATIVE", 1: "POSITIVE", 2: "NEUTRAL"}
    if name == "deepseek":
        body.config.num_key_value_heads = body.config.num_attention_heads  # which eager attention reads
    dtype = torch.float32 if name == "gpt-oss" else dtype  # whose experts know no float64
    return _random(getattr(transformers, kind)(body.config), dtype), tokenizer


def bodied(name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """A model without a head and its tokenizer."""
    body, tokenizer = tiny(name)
    return _random(body, torch.float32 if name == "gpt-oss" else dtype), tokenizer


def _random(model: Any, dtype: torch.dtype) -> Any:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (1.0 if gain else 0.0))
    return model.to(dtype).eval()


def eager(model: Any) -> Any:
    """The same model, with the dense attention of transformers; of an encoder-decoder its encoder."""
    model = copy.deepcopy(model.get_encoder() if model.config.is_encoder_decoder else model)
    model.set_attn_implementation("eager")
    return model


def eager_decoder(lens: Any) -> Any:
    """The language model that a lens has opened, with the dense attention and the head of transformers."""
    body = copy.deepcopy(lens.model.forward.model)
    with torch.device("meta"):
        whole = transformers.AutoModelForCausalLM.from_config(body.config).eval()
    setattr(whole, whole.base_model_prefix, body)
    whole.get_output_embeddings().weight = torch.nn.Parameter(lens.model.head.unembedding, requires_grad=False)
    whole.set_attn_implementation("eager")
    return whole
