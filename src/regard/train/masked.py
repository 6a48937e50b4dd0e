"""Masked-language modelling: an encoder of BERT's shape predicts tokens that it does not see, from both sides.

Devlin et al. 2019, https://arxiv.org/abs/1810.04805.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regard.nn import Embeddings, Encoder, MaskedLanguageModel, checkpoint
from regard.train.options import Options
from regard.train.text import encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, CLS, SEP, MASK = range(len(SPECIAL))


def check(options: Options) -> None:
    """Raise ValueError if the options are those of a decoder."""
    if options.groups is not None:
        raise ValueError(f"groups: only a decoder has them. Got groups={options.groups} without decoder=True.")


def make_tokenizer(sections: Sequence[str], options: Options) -> Tokenizer:
    """A WordPiece tokenizer (Schuster and Nakajima 2012), in lower case, for the text to train on.

    The trainer numbers the letters within words in the order of a hash table, and breaks ties by number. To get the
    same tokenizer every time, they are numbered first, as special tokens, which they do not remain.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    trained = Tokenizer(models.WordPiece(unk_token=SPECIAL[UNKNOWN]))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts = Counter("".join(trained.normalizer.normalize_str(section) for section in sections))
    letters = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:1000])
    numbered_first = [*SPECIAL, *(f"##{letter}" for letter in letters if not letter.isspace())]
    trainer = trainers.WordPieceTrainer(
        vocab_size=options.vocab_size, special_tokens=numbered_first, show_progress=False
    )
    trained.train_from_iterator(sections, trainer)

    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token=SPECIAL[UNKNOWN]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(SPECIAL[CLS], CLS), (SPECIAL[SEP], SEP)],
    )
    tokenizer.enable_truncation(options.seq_length)
    return tokenizer


def tokenizer_config() -> Mapping[str, Any]:
    """Its special tokens."""
    return {"do_lower_case": True} | {f"{name[1:-1].lower()}_token": name for name in SPECIAL}


def blocks(tokenizer: Tokenizer, sections: Sequence[str], seq_length: int) -> Tensor:
    """(blocks, seq_length): all tokens in order, in blocks that begin with [CLS] and end with [SEP]."""
    ids = torch.tensor([id for text in encoded(tokenizer, sections) for id in text], dtype=torch.long)
    room = seq_length - 2
    ids = ids[: len(ids) // room * room].view(-1, room)
    ends = torch.tensor([[CLS, SEP]]).expand(len(ids), 2)
    return torch.cat((ends[:, :1], ids, ends[:, 1:]), 1)


def make(options: Options, vocab_size: int) -> MaskedLanguageModel:
    """BERT's shape, with larger initial weights, from which small models learn."""
    torch.manual_seed(options.seed)
    sizes: dict[str, Any] = {"heads": options.heads, "d_ff": 4 * options.dim}
    sizes |= {"epsilon": 1e-12, "dropout": options.dropout}
    embeddings = Embeddings(vocab_size, options.dim, options.seq_length, 2, dropout=options.dropout)
    model = MaskedLanguageModel(Encoder(embeddings, options.layers, dim=options.dim, **sizes), options.dim)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def examples(ids: Tensor, vocab_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(ids with some of them replaced, the ids at those places and −100 at all others).

    15 % of each block are masked: of those 80 % become [MASK], 10 % a random token, and 10 % stay as they are. Devlin
    et al. 2019, section 3.1.
    """
    order = torch.rand(ids.shape, generator=generator).masked_fill(ids < len(SPECIAL), 2)  # special tokens last
    count = max(1, round(0.15 * (ids.shape[1] - 2)))
    at = torch.zeros_like(ids, dtype=torch.bool).scatter(1, order.topk(count, largest=False).indices, True)
    at &= ids >= len(SPECIAL)
    fate = torch.rand(ids.shape, generator=generator)
    random_ids = torch.randint(len(SPECIAL), vocab_size, ids.shape, generator=generator)
    changed = torch.where(at & (fate < 0.8), MASK, ids)
    return torch.where(at & (fate >= 0.9), random_ids, changed), ids.masked_fill(~at, -100)


def logits(model: nn.Module, inputs: Tensor, at: Tensor) -> Tensor:
    """(places, V): what the model expects at the masked places."""
    predicted: Tensor = model(inputs, at)
    return predicted


def export(out: Path, options: Options, model: nn.Module, vocab_size: int) -> None:
    """As transformers' BertForMaskedLM."""
    sizes = {
        "layers": options.layers,
        "dim": options.dim,
        "heads": options.heads,
        "dropout": options.dropout,
        "vocab_size": vocab_size,
        "positions": options.seq_length,
        "types": 2,
        "d_ff": 4 * options.dim,
        "epsilon": 1e-12,
        "activation": "gelu",
    }
    checkpoint.save(out, model.state_dict(), sizes, pad_token_id=PAD)
