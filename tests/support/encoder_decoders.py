"""Tiny encoder-decoders with random weights, and what transformers' eager attention makes of a source and a target."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import processors

from support.models import metaspace
from support.transformers_models import interface_or_skip

SOURCE, TARGET = "the cat sat on the mat", "a cat on it"
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 0}
# Of encoder and decoder, of source and target, no two sizes are the same.
_T5 = {"d_model": 15, "d_kv": 4, "d_ff": 17, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 3}
_BART = {
    "d_model": 20,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 5,
    "encoder_ffn_dim": 17,
    "decoder_ffn_dim": 13,
    "max_position_embeddings": 48,
}
HEADED = {  # by the prefix of transformers' classes: the class with a head, and its sizes
    "T5": ("T5ForConditionalGeneration", _T5),
    "UMT5": ("UMT5ForConditionalGeneration", _T5),
    "Bart": ("BartForConditionalGeneration", _BART),
    "Marian": ("MarianMTModel", _BART),
    "MBart": ("MBartForConditionalGeneration", _BART),
    "M2M100": ("M2M100ForConditionalGeneration", _BART),
    "Pegasus": ("PegasusForConditionalGeneration", _BART),
}


def encoder_decoder(kind: str, head: bool = True, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A model and its tokenizer, which ends every text with </s>; weights so large that attention is not uniform."""
    backend = metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")
    name, sizes = HEADED[kind]
    config = getattr(transformers, f"{kind}Config")(vocab_size=backend.get_vocab_size(), **_IDS, **sizes)
    model = getattr(transformers, name if head else f"{kind}Model")(config)
    interface_or_skip(model)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model.to(dtype).eval(), tokenizer


def save(kind: str, folder: Path) -> Path:
    """The same in a folder."""
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = encoder_decoder(kind)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def eager(model: Any) -> Any:
    """The same model with the dense attention of transformers."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    return model
