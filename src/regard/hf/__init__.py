"""The door to Hugging Face: attention weights that are never stored, from the models of transformers.

Importing this module registers "regard" with transformers, as an attention and as the mask that belongs to it, and
wraps two methods of `PreTrainedModel`, `get_correct_attn_implementation` and `set_attn_implementation`, so that models
whose attention cannot be served are refused; transformers would leave them as they are, and say nothing.

    import regard.hf
    model = AutoModel.from_pretrained(name, attn_implementation="regard")
    out = model(**inputs, output_attentions=True)

`out.attentions[layer]`, and `encoder_attentions`, `decoder_attentions` and `cross_attentions` where a model has them,
are then `regard.Weights` in the shape of eager's matrices: exact, in O(N) memory. So are those of `generate`, which
keep the scores of a generated token and not, step after step, all keys before it. Outputs are those of eager attention
in every row; the weights of a query that may look at nothing are 0 here and uniform in eager. What has been compared,
family by family, is in docs/families.md.

>>> import torch, transformers
>>> import regard.hf
>>> config = transformers.LlamaConfig(
...     vocab_size=11, hidden_size=16, intermediate_size=13, num_hidden_layers=2,
...     num_attention_heads=4, num_key_value_heads=2, attn_implementation="regard",
... )
>>> model = transformers.LlamaModel(config).eval()
>>> with torch.no_grad():  # without it, a loss on the attentions has a gradient
...     out = model(torch.tensor([[3, 1, 4, 1, 5]]), output_attentions=True)
>>> out.attentions[1]
Weights(shape=(1, 4, 5, 5), dtype=torch.float32, device=cpu)
>>> out.attentions[1][0, 2, 0]                            # the first token can look at itself alone
tensor([1., 0., 0., 0., 0.])

Give `output_attentions=True` to the call: in a config, transformers refuses it for all implementations but eager.
Attention dropout is refused in training, because nothing is stored that could be dropped the same way twice.
"""

from __future__ import annotations

from transformers import AttentionInterface, AttentionMaskInterface

from regard.hf import cache
from regard.hf.attention import attend
from regard.hf.mask import LazyMask, lazy_mask
from regard.hf.models import NAME, check, prepare
from regard.hf.recorder import Recorded, record

__all__ = ["NAME", "LazyMask", "Recorded", "attend", "cache", "check", "lazy_mask", "record"]

AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lazy_mask)
prepare()
