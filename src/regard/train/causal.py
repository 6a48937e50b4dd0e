"""Causal language modelling: a decoder of Llama's shape predicts each token from those before it.

Touvron et al. 2023, https://arxiv.org/abs/2302.13971.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regard._internal.files import atomic_write
from regard.train.options import Options
from regard.train.text import encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

END = "<|endoftext|>"  # before and after every text; where a file holds several, it stands between them
END_ID = 0
BYTES = 256


def check(options: Options) -> None:
    """Raise ValueError if there is no Llama of these sizes."""
    groups = options.heads if options.groups is None else options.groups
    if options.dim % options.heads:
        raise ValueError(f"dim: expected a dim that is divisible by {options.heads} heads. Got {options.dim}.")
    if options.dim // options.heads % 2:
        raise ValueError(
            "dim: expected heads of an even dim, whose numbers rotary positions turn in pairs. Got "
            f"{options.dim} / {options.heads} = {options.dim // options.heads}."
        )
    if groups < 1 or options.heads % groups:
        raise ValueError(f"groups: expected groups that divide the {options.heads} heads. Got {groups}.")
    if options.dropout:
        raise ValueError(f"dropout: a decoder has none. Got dropout={options.dropout}.")
    if options.vocab_size <= BYTES:
        raise ValueError(
            f"vocab_size: expected more than {BYTES} for a decoder, whose tokens are all bytes and merges of them. "
            f"Got {options.vocab_size}."
        )


def make_tokenizer(sections: Sequence[str], options: Options) -> Tokenizer:
    """A byte-level BPE tokenizer, which has tokens for any text (Radford et al. 2019, section 2.2)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(sections), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, END_ID)]
    )
    tokenizer.enable_truncation(options.seq_length)
    return tokenizer


def tokenizer_config() -> Mapping[str, Any]:
    """Its special token, which begins and ends a text."""
    return {"bos_token": END, "eos_token": END, "clean_up_tokenization_spaces": False}


def blocks(tokenizer: Tokenizer, sections: Sequence[str], seq_length: int) -> Tensor:
    """(blocks, seq_length): the tokens of all texts in order, each text ended, in blocks that begin as a text does."""
    ids = torch.tensor(
        [id for text in encoded(tokenizer, _texts(sections)) for id in (*text, END_ID)], dtype=torch.long
    )
    room = seq_length - 1
    ids = ids[: len(ids) // room * room].view(-1, room)
    return nn.functional.pad(ids, (1, 0), value=END_ID)


def _texts(sections: Sequence[str]) -> list[str]:
    """The texts that the sections hold."""
    texts = re.split(rf"\s*{re.escape(END)}\s*", "".join(sections).strip())
    return [text for text in texts if text]


def make(options: Options, vocab_size: int) -> LlamaForCausalLM:
    """Llama's shape, with larger initial weights, from which small models learn."""
    from transformers import LlamaConfig, LlamaForCausalLM

    import regard.hf

    torch.manual_seed(options.seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=options.dim,
        intermediate_size=-(-2 * options.dim // 3) * 4,  # 8/3 of dim: three matrices are as large as two of 4 dim
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.groups or options.heads,
        max_position_embeddings=options.seq_length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    config._attn_implementation = regard.hf.NAME
    model = LlamaForCausalLM(config)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight is not model.model.embed_tokens.weight:
            nn.init.xavier_uniform_(module.weight)
    return model


def examples(ids: Tensor, vocab_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(all tokens but the last, the token after each)."""
    return ids[:, :-1], ids[:, 1:]


def logits(model: nn.Module, inputs: Tensor, at: Tensor) -> Tensor:
    """(places, V): what the model expects after each token."""
    predicted: Tensor = model(input_ids=inputs, use_cache=False).logits[at]
    return predicted


def export(out: Path, options: Options, model: nn.Module, vocab_size: int) -> None:
    """As transformers' LlamaForCausalLM."""
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    content = save(state, {"format": "pt"})  # the head's weights are the embeddings
    config: Any = model.config
    atomic_write(out / "model.safetensors", lambda file: file.write(content))
    atomic_write(out / "config.json", lambda file: file.write(config.to_json_string().encode()))
