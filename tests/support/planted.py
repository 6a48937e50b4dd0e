r"""Small transformers whose weights are set by hand, so that it is known which head does what.

**The stream.** The residual stream R^d is divided into orthogonal subspaces, turned together by a random rotation that
keeps them orthogonal to (1, …, 1): a constant, the same for all tokens; the identity of the token; its position, where
positions are learned; the word before it; the output, which the unembedding reads; and what is left, for random heads.
A word is ± one axis of its subspace, code(t) ∈ {±e_a}: code(t)·code(t') = 1 for the same word, −1 for its opposite,
0 for all others, with half as many dims as words. Axis 0 is that of <s>, which begins every text.

**The norm.** The parts of an embedding are orthogonal, of length u, ‖x‖² = d and Σ x = 0 for every token, so that both
RMSNorm and LayerNorm (gain 1, shift 0) leave it as it is. After layer 0 they divide by σ_i = ‖x_i‖/√d, where σ_i² − 1
is the square of what was written, over d: the most for <s>, which looks at itself alone, so that nothing averages out,
and less and less the more tokens are seen. What remains is s_ij/(σ_i σ_j), by which strengths are reckoned in layer 1.

**Scores.** Half of the D dims of a head hold codes, the other half positions, in planes. With keys of length √D and a
query of length β, s_ij = q_i·k_j/√D is

    sink        β [t_j is <s>]                    query: the constant
    duplicate   β code(t_i)·code(t_j) − γ K(i−j)  the second term pushes the own place away
    induction   β code(t_i)·r_j                   r_j = Σ_k w_jk code(t_k), written by the previous-token head
    retrieval   β code(a(t_i))·code(t_j)          a exchanges the axes 2n − 1 and 2n: question and answer
    copying     random                            the pattern is in the values, below
    previous    β K(i−j−1)

**Positions.** K(δ) = 1/M Σ_m cos(f_m δ) has its one maximum, 1, at δ = 0.
Rotary: planes turn by f_m = θ^(−m/32) a token. Constant keys (1, 0) and queries (cos f_m, −sin f_m) in the first M = 6
planes give Σ cos(f_m (i − j − 1)). K is 0.865 at δ = ±1, and no more than 0.63 from 2 to 120 tokens away. The planes 16
to 31 hold the codes; with θ = 10⁶ they turn by 0.001 a token at most, so that over 120 tokens the product of two codes
is off by sin 0.12 at most.
Learned: position j is 1/√M (cos f_m j, sin f_m j), M = 16, f_m = π ((m + 1/2)/16)^1.5; the query turns it by −f_m, the
same K with other f_m. It is 0.23 at δ = ±1, and at most 0.36 elsewhere.
ALiBi: s_ij − m_h (i − j), and nothing else depends on positions. The previous token gets e^(−m_h) (1 − e^(−m_h)) from
slopes alone, and 1 − e^(−m_h) if the query also pushes its own place away: 0.39 for the steepest slope of 8 heads, 1/2.
So no head of layer 0 is a previous-token head. But one with the slope 1/2 and no scores of its own writes a trace,
r_i = 0.39 code(t_i) + 0.61 r_{i−1}, whose own part is known; without it, β r_i·code(t_j) is 0.24 β, 0.14 β, 0.09 β one,
two, three places back. Such queries in layer 1 find the previous token with any margin, and induction reads the same
trace. A head cannot tell its own place from an earlier occurrence of its token, as slopes favour what is near: with n
earlier ones, `duplicate` is n/(n + 1) at most. Heads that look far stand where the slope is 1/32 or less.

**Values.** Previous-token heads write code(t_j) into the subspace of the word before; induction, copying and retrieval
heads write it into the output, where the unembedding makes logits of it; so induction predicts what comes next. Which
of the words a copying head copies (+1 of its ±1 an axis) and which answers a retrieval head knows is its strength.

**Groups.** The heads of a group share keys and values. Each planted head has a group of its own, except copying heads:
they need no keys, and may stand beside heads that have the same values, code(t_j), as well. The other heads of a group
have random queries and outputs.

**Strength.** The strength of a head is its score, on texts like those of `planted_texts`: β is found by bisection on
the scores above (`planted_strength`). A score counts from `Score.found_from`, 0.5, or 0.1 for retrieval. Heads that are
planted with at least 0.6 (copying 0.8, retrieval 0.25) must be found; with 0.3 or less (copying 0.2, retrieval 1/30)
they must not. ALiBi's duplicate heads have 0.62 at most, on words that come eight times.

**Random heads** read all of the stream with weights from N(0, 1/d), so that their queries, keys and values have the
variance 1 a dim, and write into the output and into what is left of the stream. The feed-forward network writes into
the latter alone. Where queries and keys had the variance 2, one in 14,200 random heads was a sink by itself, with 0.40
of its weight on <s> on average, over 121 tokens; over 65 tokens it was four.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Scheme = Literal["rotary", "learned", "alibi"]
Pattern = Literal["previous", "sink", "duplicate", "induction", "copying", "retrieval", "trace"]

AXES, HEAD_DIM, LAYERS, TOKENS = 31, 64, 2, 121
THETA, PUSH, CERTAIN = 1e6, 24.0, 30.0
TRACE_OWN = 1 - math.exp(-1 / 2)
PERIOD, SHORT_PERIOD = 60, 15  # of repeated words: twice, and eight times for ALiBi's duplicate heads
SIZES = {"rotary": (160, 8), "alibi": (160, 8), "learned": (384, 6)}  # the dims of the stream, and heads
GROUPS: dict[Scheme, tuple[int, ...]] = {"rotary": (8, 4), "alibi": (8, 4), "learned": (6, 3)}
FREQUENCIES = {
    "rotary": THETA ** (-torch.arange(6) / 32),
    "learned": torch.pi * ((torch.arange(16) + 0.5) / 16) ** 1.5,
}
INNER, LOGIT = 32, 12.0  # the dims of the feed-forward network; the logit of a word that is copied with all the weight
STRONG = {"retrieval": 0.25, "copying": 0.8}  # from which strength on a head must be found; 0.6 for others
CONTENT = torch.tensor([*range(16, 32), *range(48, 64)])[:AXES]  # the dims of a head that hold codes
IMPLIED: dict[Pattern, tuple[str, ...]] = {  # the scores that a strong head has
    "previous": ("previous",),
    "sink": ("sink", "first"),
    "duplicate": ("duplicate",),
    "induction": ("induction", "prefix", "copying"),
    "copying": ("copying",),
    "retrieval": ("retrieval", "copying"),
    "trace": (),
}
READS_WORDS = "previous", "induction", "retrieval", "trace"  # with the values that a copying head has


class Planted(NamedTuple):
    """A head, what it does, and its score."""

    pattern: Pattern
    layer: int
    head: int
    strength: float


def code(tokens: Tensor) -> Tensor:
    """±e_a, (…,axes), of tokens: 0 is <s>, 1 stands for unknown words, 2 to 61 are words; opposites are neighbours."""
    signs = 1.0 - 2.0 * (tokens % 2)
    return torch.nn.functional.one_hot(tokens // 2, AXES) * signs[..., None]


def answer(tokens: Tensor) -> Tensor:
    """a(t): the word of the same sign on the other axis of a pair; axes 1 and 2 are one, 3 and 4, …; <s> has itself."""
    axis = tokens // 2
    return torch.where(axis == 0, tokens, torch.where(axis % 2 == 1, tokens + 2, tokens - 2))


def slopes(heads: int) -> Tensor:
    """m_h = 2^(−8(h+1)/H), Press et al. 2022, https://arxiv.org/abs/2108.12409."""
    return 2 ** (-8 * torch.arange(1, heads + 1) / heads)


# Which heads


def plan(scheme: Scheme, groups: int, strong: bool, seed: int) -> list[Planted]:
    """Every pattern at a random place with a random strength, in groups as said above.

    Induction reads what the previous-token head of layer 0 writes, which is therefore strong in any case.
    """
    draw = random.Random(seed)
    heads = SIZES[scheme][1]
    free = {(layer, group) for layer in range(LAYERS) for group in range(groups)}
    chosen: list[Planted] = []

    def put(pattern: Pattern, layers: Sequence[int], allowed: Sequence[int], strength: float) -> None:
        size = heads // groups
        taken = {(other.layer, other.head) for other in chosen}
        places = [
            (layer, head)
            for layer in layers
            for head in allowed
            if (layer, head // size) in free and (layer, head) not in taken
        ]
        layer, head = draw.choice(places)
        free.remove((layer, head // size))
        chosen.append(Planted(pattern, layer, head, strength))

    def strength(pattern: Pattern) -> float:
        if pattern == "duplicate" and scheme == "alibi" and strong:
            return draw.uniform(0.6, 0.62)
        if pattern == "copying":
            return draw.uniform(0.8, 1) if strong else draw.uniform(0, 0.2)
        if pattern == "retrieval":
            return draw.uniform(0.25, 1) if strong else 1 / 30
        return draw.uniform(0.6, 0.95) if strong else draw.uniform(0.05, 0.3)

    anywhere, every = range(LAYERS), range(heads)
    if scheme == "alibi":  # steep slopes for what is near, flat ones for what is far
        far = range(5, heads)
        put("trace", [0], [0], 1.0)
        put("previous", [1], range(3), strength("previous"))
        put("duplicate", [0], far, strength("duplicate"))
        put("induction", [1], far, strength("induction"))
        for pattern in ("sink", "retrieval"):
            put(pattern, anywhere, range(4, heads), strength(pattern))
    else:
        put("previous", [0], every, strength("previous") if strong else 0.9)
        put("previous", [1], every, strength("previous"))
        put("induction", [1], every, strength("induction"))
        for pattern in ("sink", "duplicate", "retrieval"):
            put(pattern, anywhere, every, strength(pattern))
    free |= {(layer, head // (heads // groups)) for pattern, layer, head, _ in chosen if pattern in READS_WORDS}
    put("copying", anywhere, every, strength("copying"))
    return chosen


def truth(heads: Sequence[Planted]) -> dict[str, set[tuple[int, int]]]:
    """For each score that a planted head can have, the (layer, head) that must be found, and no others."""
    result: dict[str, set[tuple[int, int]]] = {name: set() for names in IMPLIED.values() for name in names}
    for pattern, layer, head, strength in heads:
        strong = strength >= STRONG.get(pattern, 0.6)
        weak = ("copying",) if pattern in ("induction", "retrieval") else ()  # in their values, whatever they look at
        for name in IMPLIED[pattern] if strong else weak:
            result[name].add((layer, head))
    return result


# The smallest case


class TwoHeads(NamedTuple):
    """A text as two heads read it: the weights (N,N) of both, and the probabilities (N,V) of the next word."""

    words: list[str]
    previous: Tensor
    induction: Tensor
    probabilities: Tensor


def two_heads(text: str, beta: float = 10.0) -> TwoHeads:
    """Two heads that complete a pattern, without a norm, with one-hot words and positions.

    The stream is x_i = [e(t_i), p_i, r_i, o_i]: word, position, the word before, and output, the last two 0 at first.

        head 1   q_i = β p_{i−1}    k_j = p_j    v_j = e(t_j) into r    w_ij = e^β/(e^β + i) for j = i − 1
        head 2   q_i = β e(t_i)     k_j = r_j    v_j = e(t_j) into o    s_ij = β Σ_k w_jk [t_k = t_i]

    Row i of head 1 has i + 1 keys, one with the score β and i with 0. So r_j is e(t_{j−1}), all but i/(e^β + i) of it;
    head 2 finds the places whose word before is t_i, and copies what stands there. Where t_i has occurred once before,
    n_i = i keys have a score near 0, and the word that came after it has the weight e^β/(e^β + n_i), as good as all.
    The unembedding reads o: p(t) = softmax(β o_i)_t. The text begins with <s>, as row 0 has nothing before it and looks
    at itself; where a word is new, no key matches, and head 2 spreads its weight over all.
    """
    words = ["<s>", *text.split()]
    names = sorted(set(words))
    tokens = torch.tensor([names.index(word) for word in words])
    word, place = torch.eye(len(names))[tokens], torch.eye(len(words))
    unseen = torch.full((len(words), len(words)), -torch.inf).triu(1)
    before = torch.cat((torch.zeros(1, len(words)), place[:-1]))  # p_{i−1}
    previous = (beta * before @ place.mT + unseen).softmax(-1)
    r = previous @ word
    induction = (beta * word @ r.mT + unseen).softmax(-1)
    o = induction @ word
    return TwoHeads(words, previous, induction, (beta * o).softmax(-1))
