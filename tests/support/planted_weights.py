"""The weights of planted models, by the equations of `planted`, and the models of transformers that have them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor

import regard.hf  # noqa: F401, which makes the implementation known
from support.planted import (
    AXES,
    CONTENT,
    FREQUENCIES,
    HEAD_DIM,
    INNER,
    LAYERS,
    LOGIT,
    PUSH,
    SIZES,
    THETA,
    TOKENS,
    TRACE_OWN,
    Pattern,
    Planted,
    Scheme,
    answer,
    code,
)
from support.planted_positions import AlibiForCausalLM, LearnedForCausalLM
from support.planted_strength import Calibration


@cache
def subspaces(scheme: Scheme) -> dict[str, Tensor]:
    """Orthonormal rows (n,d) for each part of the stream, orthogonal to (1, …, 1)."""
    dim = SIZES[scheme][0]
    generator = torch.Generator().manual_seed(dim)
    rows = torch.randn(dim, dim, generator=generator)
    rows[:, 0] = 1
    rows = torch.linalg.qr(rows).Q.mT[1:]
    sizes = {"constant": 1, "word": AXES, "before": AXES, "output": AXES}
    if scheme == "learned":
        sizes["position"] = 2 * len(FREQUENCIES[scheme])
    sizes["rest"] = len(rows) - sum(sizes.values())
    return dict(zip(sizes, rows.split(list(sizes.values())), strict=True))


def length_of_parts(scheme: Scheme) -> float:
    """u, the length of each of the parts that an embedding has."""
    return (SIZES[scheme][0] / (3 if scheme == "learned" else 2)) ** 0.5


class Weights:
    """Of a layer: query (H,D,d), key and value (G,D,d), output (H,D,d); random at first, then planted head by head.

    And of its feed-forward network: inner (2,I,d), of which GPT-2 has one, and inner_output (I,d).
    """

    def __init__(self, scheme: Scheme, groups: int, parts: dict[str, Tensor], generator: torch.Generator) -> None:
        dim, heads = SIZES[scheme]
        self.scheme, self.parts, self.size = scheme, parts, heads // groups
        self.length = length_of_parts(scheme)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.query, self.key = (drawn(n, HEAD_DIM, dim) / dim**0.5 for n in (heads, groups))
        self.value = drawn(groups, HEAD_DIM, dim) / dim**0.5
        written = torch.cat((parts["output"], parts["rest"]))
        self.output = 0.5 * drawn(heads, HEAD_DIM, len(written)) @ written
        self.output *= (dim / (heads * HEAD_DIM * len(written))) ** 0.5
        self.inner = [drawn(INNER, dim) / dim**0.5 for _ in range(2)]
        self.inner_output = 0.1 * drawn(INNER, len(parts["rest"])) @ parts["rest"]

    def plant(self, planted: Planted, beta: float, draw: random.Random) -> None:
        """Set what the pattern of a head needs, and leave the rest random."""
        pattern, _, head, strength = planted
        group = head // self.size
        if pattern != "copying":
            self.query[head] = self.query_of(pattern, beta, strength, draw) / self.length
            self.key[group] = HEAD_DIM**0.5 / self.length * self.key_of(pattern)
        if pattern in ("sink", "duplicate"):
            return
        signs = torch.ones(AXES)
        if pattern == "copying":
            signs[draw.sample(range(1, AXES), round((1 - strength) * (AXES - 1)))] = -1
        target = self.parts["before" if pattern in ("previous", "trace") else "output"]
        self.value[group] = HEAD_DIM**0.5 / self.length * self.content(self.parts["word"])
        self.output[head] = self.length / HEAD_DIM**0.5 * self.content(signs[:, None] * target)

    def query_of(self, pattern: Pattern, beta: float, strength: float, draw: random.Random) -> Tensor:
        """(D,d): a query of length β where the parts of the stream have length 1."""
        word = self.parts["word"]
        match pattern:
            case "previous" if self.scheme != "alibi":
                return beta * self.place(1)
            case "previous":
                return beta * self.content(self.before)
            case "sink":
                return beta * self.content(torch.eye(AXES)[:, :1] @ self.parts["constant"])
            case "duplicate" if self.scheme != "alibi":
                return beta * self.content(word) - PUSH * self.place(0)
            case "duplicate" | "induction":
                return beta * self.content(word)
            case "retrieval":
                return beta * self.content(_answers(strength, draw) @ word)
        return torch.zeros(HEAD_DIM, word.shape[1])

    def key_of(self, pattern: Pattern) -> Tensor:
        """(D,d), the same for a key."""
        match pattern:
            case "previous" if self.scheme != "alibi":
                return self.place(0)
            case "duplicate" if self.scheme != "alibi":
                return self.content(self.parts["word"]) + self.place(0)
            case "induction":
                return self.content(self.before)
        return self.content(self.parts["word"])

    @property
    def before(self) -> Tensor:
        """(axes,d): reads r, without the own part of a trace."""
        own = TRACE_OWN if self.scheme == "alibi" else 0.0
        return self.parts["before"] - own * self.parts["word"]

    def content(self, rows: Tensor) -> Tensor:
        """(axes,d) → (D,d), in the dims that hold codes."""
        result = torch.zeros(HEAD_DIM, rows.shape[1])
        result[CONTENT] = rows
        return result

    def place(self, back: int) -> Tensor:
        """(D,d): the place so many tokens before one's own, in the planes that hold positions."""
        frequencies, result = FREQUENCIES[self.scheme], torch.zeros(HEAD_DIM, self.parts["word"].shape[1])
        planes, half = torch.arange(len(frequencies)), HEAD_DIM // 2
        cos, sin = (turn(back * frequencies)[:, None] / len(frequencies) ** 0.5 for turn in (torch.cos, torch.sin))
        if self.scheme == "rotary":
            result[planes], result[planes + half] = cos * self.parts["constant"], -sin * self.parts["constant"]
        else:
            even, odd = self.parts["position"].chunk(2)
            scale = len(frequencies) ** 0.5  # a position has length 1 already
            result[planes], result[planes + half] = scale * (cos * even + sin * odd), scale * (cos * odd - sin * even)
        return result


def _answers(share: float, draw: random.Random) -> Tensor:
    """(axes,axes): takes a word to its answer, for this share of the axes; to 0 for the others."""
    asked = torch.tensor(draw.sample(range(1, AXES), max(1, round(share * (AXES - 1)))))
    result = torch.zeros(AXES, AXES)
    result[answer(2 * asked) // 2, asked] = 1
    return result


@torch.no_grad()
def build(scheme: Scheme, groups: int, heads: Sequence[Planted], seed: int) -> Any:
    """A causal language model of transformers with these heads, and random ones everywhere else."""
    made, parts = _empty(scheme, groups), subspaces(scheme)
    _embed(made, scheme, parts)
    generator, draw = torch.Generator().manual_seed(seed), random.Random(seed)
    calibration = Calibration(made, scheme, heads)
    for number in range(LAYERS):
        weights = Weights(scheme, groups, parts, generator)
        for head in heads:
            if head.layer == number:
                weights.plant(head, calibration.beta(head), draw)
        _assign(made, number, weights)
    return made


def _empty(scheme: Scheme, groups: int) -> Any:
    """A model of the right sizes, on regard's attention."""
    dim, heads = SIZES[scheme]
    ids = {"vocab_size": 2 * AXES, "bos_token_id": 0, "eos_token_id": None}
    if scheme == "learned" and groups == heads:
        config = transformers.GPT2Config(
            n_embd=dim, n_head=heads, n_layer=LAYERS, n_inner=INNER, n_positions=2 * TOKENS, tie_word_embeddings=False,
            attn_pdrop=0.0, **ids,
        )  # fmt: skip
        made = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            hidden_size=dim, num_attention_heads=heads, num_key_value_heads=groups, num_hidden_layers=LAYERS,
            head_dim=HEAD_DIM, intermediate_size=INNER, max_position_embeddings=2 * TOKENS,
            rope_parameters={"rope_type": "default", "rope_theta": THETA}, **ids,
        )  # fmt: skip
        kinds = {"rotary": transformers.LlamaForCausalLM, "alibi": AlibiForCausalLM, "learned": LearnedForCausalLM}
        made = kinds[scheme](config)
    made.set_attn_implementation("regard")
    return made.eval()


def _embed(made: Any, scheme: Scheme, parts: dict[str, Tensor]) -> None:
    """The embeddings, and the directions of the logits."""
    words, length = code(torch.arange(2 * AXES)), length_of_parts(scheme)
    embeddings = length * (words @ parts["word"] + parts["constant"])
    made.get_input_embeddings().weight.copy_(embeddings)
    made.lm_head.weight.copy_(LOGIT / length * words @ parts["output"])
    if scheme == "learned":
        learned = made.base_model.wpe.weight
        angles = torch.arange(len(learned))[:, None] * FREQUENCIES[scheme]
        places = torch.cat((angles.cos(), angles.sin()), -1) / angles.shape[1] ** 0.5
        learned.copy_(length * places @ parts["position"])


def _assign(made: Any, number: int, weights: Weights) -> None:
    """Layer `number` of a model gets its weights."""
    query, key, value, output = (w.flatten(0, 1) for w in (weights.query, weights.key, weights.value, weights.output))
    if isinstance(made, transformers.GPT2LMHeadModel):
        block = made.transformer.h[number]
        block.attn.c_attn.weight.copy_(torch.cat((query, key, value)).mT)
        block.attn.c_proj.weight.copy_(output)
        block.mlp.c_fc.weight.copy_(weights.inner[0].mT)
        block.mlp.c_proj.weight.copy_(weights.inner_output)
        return
    block = made.model.layers[number]
    for name, weight in {"q": query, "k": key, "v": value, "o": output.mT}.items():
        getattr(block.self_attn, f"{name}_proj").weight.copy_(weight)
    block.mlp.gate_proj.weight.copy_(weights.inner[0])
    block.mlp.up_proj.weight.copy_(weights.inner[1])
    block.mlp.down_proj.weight.copy_(weights.inner_output.mT)
