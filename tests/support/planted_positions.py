"""Llamas with other positions: ALiBi, which no model of transformers has that uses its attention interface, and learned
ones, which no model has along with groups of heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, LlamaModel


class AlibiModel(LlamaModel):
    """s_ij = q_i·k_j/√D − m_h (i − j), with m_h = 2^(−8(h+1)/H); reads whole texts, without a cache.

    Press et al. 2022, https://arxiv.org/abs/2108.12409.
    """

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        """As LlamaModel, whose rotary planes stand still, with a mask of numbers that are added to the scores."""
        self.rotary_emb.inv_freq.zero_()
        heads, place = self.config.num_attention_heads, torch.arange(input_ids.shape[1])
        slopes = 2 ** (-8 * torch.arange(1, heads + 1) / heads)
        distance = (place[:, None] - place).float()
        mask = (-slopes[:, None, None] * distance).masked_fill(distance < 0, torch.finfo(torch.float32).min)
        mask = mask.expand(len(input_ids), -1, -1, -1)
        if attention_mask is not None:
            hidden = attention_mask[:, None, None] == 0
            mask = mask.masked_fill(hidden, torch.finfo(torch.float32).min)
        return super().forward(input_ids, mask.to(self.dtype), **{**options, "use_cache": False})


class LearnedModel(LlamaModel):
    """A vector for each position is added to the embedding; reads whole texts, without a cache."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.wpe = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Any:
        """As LlamaModel, whose rotary planes stand still."""
        self.rotary_emb.inv_freq.zero_()
        embedded = self.embed_tokens(input_ids) + self.wpe.weight[: input_ids.shape[1]]
        return super().forward(None, attention_mask, **{**options, "inputs_embeds": embedded, "use_cache": False})


class AlibiForCausalLM(LlamaForCausalLM):
    """With the head of a language model."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = AlibiModel(config)
        self.post_init()


class LearnedForCausalLM(LlamaForCausalLM):
    """With the head of a language model."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = LearnedModel(config)
        self.post_init()
