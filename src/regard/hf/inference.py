"""The forward pass of GPT-2 and Llama for inference: the numbers of their modules, in fewer passes over memory.

A prompt is computed in place: residuals are added by the matrix products, activations and rotations overwrite what
they read. One more token is a single call of the kernel, which reads the weights once; at a token a time transformers
spends as long between the matrix products of a small model as in them. Weights are read where the model has them, so
that those that were changed or exchanged count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules import module as torch_module
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPastAndCrossAttentions

from regard.attention import Attention, attention_of_model, is_replaced
from regard.backends import cpu
from regard.hf.growing import GrowingLayer, grow_in_place
from regard.hf.product import Product, TorchProduct, multiplies_in_tiles, product_for
from regard.hf.recorder import Recorded, current
from regard.mask import Mask
from regard.scores import Scores
from regard.weights import Weights

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Projected = tuple[Tensor, Tensor | None]  # a weight (outputs,inputs), perhaps a transposed view, and its bias
# Where hooks are from that change nothing: one returns memory, one collects outputs that were asked for.
IDLE = frozenset({"regard.hf.models", "transformers.utils.output_capturing"})
PROGRESS = frozenset({"regard.models.model"})  # where hooks of layers are from that only count them, and are called
READ = frozenset({
    "input_ids", "past_key_values", "attention_mask", "position_ids", "use_cache", "return_dict", "output_attentions",
})  # fmt: skip

# Of a prompt at a time in the feed-forward network: what it makes of them stays in the cache.
ROWS = 512
TILED_ROWS = 1024  # where each product splits its weights, too


class Family(NamedTuple):
    """An architecture: all modules that its bodies may have, by their classes, and where those of a layer are.

    `modules` are named in the order of a layer: the norm, the projections of queries, keys and values (one or three),
    that of the output, the second norm, the gate if there is one, the projections up and down.
    """

    known: frozenset[str]
    blocks: str
    attention: str
    modules: tuple[str, ...]
    gated: bool
    final_norm: str
    embeddings: tuple[str, ...]  # of tokens and, where they are learned, of positions
    output: type


LLAMA = Family(
    frozenset({
        "Embedding", "Linear", "LlamaAttention", "LlamaDecoderLayer", "LlamaMLP", "LlamaModel", "LlamaRMSNorm",
        "LlamaRotaryEmbedding", "ModuleList", "SiLUActivation",
    }),
    "layers",
    "self_attn",
    (
        "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    ),
    True,
    "norm",
    ("embed_tokens",),
    BaseModelOutputWithPast,
)  # fmt: skip
GPT2 = Family(
    frozenset({
        "Conv1D", "Dropout", "Embedding", "GELUTanh", "GPT2Attention", "GPT2Block", "GPT2MLP", "GPT2Model", "LayerNorm",
        "ModuleList", "NewGELUActivation",
    }),
    "h",
    "attn",
    ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"),
    False,
    "ln_f",
    ("wte", "wpe"),
    BaseModelOutputWithPastAndCrossAttentions,
)  # fmt: skip
FAMILIES = {"LlamaModel": LLAMA, "GPT2Model": GPT2}


class Layer:
    """A layer of a model, and its tensors where the model has them."""

    def __init__(self, block: Any, family: Family) -> None:
        self.block, self.attention = block, block.get_submodule(family.attention)
        modules = [block.get_submodule(name) for name in family.modules]
        gates = 1 if family.gated else 0
        self.norm, self.inner_norm = modules[0], modules[-3 - gates]
        self.inputs, self.output = modules[1 : -4 - gates], modules[-4 - gates]
        self.gate = modules[-3] if family.gated else None
        self.up, self.down = modules[-2:]
        self.parameters = [module._parameters for module in modules]

    def report(self) -> None:
        """Call the hooks that count layers."""
        for hook in list(self.block._forward_hooks.values()):
            if hook.__module__ in PROGRESS:
                hook(self.block, (), None)

    def tensors(self) -> list[Tensor | None]:
        """What `cpu.token` takes: all but keys and values."""
        inputs = [tensors(module) for module in self.inputs]
        if len(inputs) == 1:
            weight, bias = inputs[0]
            parts = (None,) * 3 if bias is None else bias.chunk(3)
            inputs = list(zip(weight.chunk(3), parts, strict=True))
        gate = (None, None) if self.gate is None else tensors(self.gate)
        pairs = [of_norm(self.norm), *inputs, tensors(self.output), of_norm(self.inner_norm), gate]
        return [*chain.from_iterable([*pairs, tensors(self.up), tensors(self.down)])]


def of_norm(module: Any) -> tuple[Tensor, Tensor | None]:
    """Gain and shift of a norm; a root mean square norm has no shift."""
    own = module._parameters
    return own["weight"], own.get("bias")


def tensors(module: Any) -> Projected:
    """Weight and bias of a linear layer; GPT-2 has them the other way round."""
    own = module._parameters
    weight, bias = own["weight"], own.get("bias")
    return (weight.T if type(module).__name__ == "Conv1D" else weight), bias


class Inference:
    """The forward pass of a float32 model of a known family on the CPU, without its modules.

    Args:
        model: a `LlamaModel` or `GPT2Model`.
        forward: the function that its modules compute it by, to try it against.
    """

    def __init__(self, model: Any, forward: Callable[..., Any]) -> None:
        self.model, self.forward = model, forward
        self.family = family = FAMILIES[type(model).__name__]
        self._modules = [(module, dict(module._modules)) for module in model.modules()]
        self.layers: list[Layer] = []
        if cpu.available() and all(type(module).__name__ in family.known for module, _ in self._modules):
            layers = [Layer(block, family) for block in getattr(model, family.blocks)]
            self.layers = [] if layers[0].attention.head_dim > cpu.LARGEST_DIM else layers
        self.final_norm = getattr(model, family.final_norm)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a model, and one that was pickled, makes its own."""
        return type(None), ()

    def serves(self, ids: Tensor, cache: Any) -> bool:
        """Whether the modules would do the same: none is unknown, watched or exchanged, and nothing is trained."""
        if not self.layers or ids.ndim != 2 or not ids.is_cpu or not ids.numel() or is_replaced():
            return False
        if (
            not _is_plain(cache)
            or torch.is_autocast_enabled("cpu")
            or getattr(self.model.config, "add_cross_attention", False)
        ):
            return False
        recorder = current.get()
        hooks = (*torch_module._global_forward_hooks.values(), *torch_module._global_forward_pre_hooks.values())
        if any(getattr(hook, "__self__", None) is not recorder for hook in hooks):
            return False
        if recorder is not None and ids.shape[1] == 1:  # it wants the state before each layer
            return False
        for module, children in self._modules:
            if module.training or module._modules != children or _is_watched(module):
                return False
        scaling = self.layers[0].attention.scaling
        for layer in self.layers:
            if layer.attention.scaling != scaling:
                return False
            for own in layer.parameters:
                for tensor in own.values():
                    if tensor is not None and not _is_plain_float(tensor):
                        return False
        return self._agrees

    @cached_property
    def _agrees(self) -> bool:
        """Whether it gives the states that the modules give, tried on a few tokens: at once, and the last alone."""
        recorder = current.set(None)
        try:
            vocabulary = getattr(self.model, self.family.embeddings[0]).num_embeddings
            ids = torch.arange(4, device=cpu.CPU)[None] % vocabulary
            expected = self.forward(self.model, input_ids=ids, use_cache=False).last_hidden_state
            close = 1e-4 * float(expected.abs().max())
            whole = self(ids, None, None, False).last_hidden_state
            cache = DynamicCache(config=self.model.config)
            self(ids[:, :-1], cache, None, False)
            last = self(ids[:, -1:], cache, None, False).last_hidden_state
        finally:
            current.reset(recorder)
        return torch.allclose(whole, expected, rtol=1e-4, atol=close) and torch.allclose(
            last, expected[:, -1:], rtol=1e-4, atol=close
        )

    def __call__(self, ids: Int[Tensor, "B n"], cache: Any, positions: Tensor | None, keep: bool) -> Any:
        """What the model returns for tokens after those in the cache, which gets their keys and values, if any."""
        model, past = self.model, 0 if cache is None else cache.get_seq_length()
        if positions is None:
            positions = torch.arange(past, past + ids.shape[1], device=cpu.CPU)[None]
        tokens, *learned = (getattr(model, name).weight for name in self.family.embeddings)
        x = F.embedding(ids, tokens)
        x = x + F.embedding(positions, learned[0]) if learned else x.clone()
        angles = None if learned else model.rotary_emb(x, position_ids=positions)
        single = ids.numel() == 1 and past
        weights = self._token(x, cache, angles, keep) if single else self._prompt(x, cache, angles)
        kept = {"attentions": tuple(weights)} if keep else {}
        state = self.final_norm.forward(x)
        return self.family.output(last_hidden_state=state, past_key_values=cache, **kept)

    def _token(
        self, x: Float[Tensor, "1 1 dim"], cache: Any, angles: tuple[Tensor, Tensor] | None, keep: bool
    ) -> list[Weights]:
        """One token through all layers, in place; its weights, if they are to be kept."""
        grow_in_place(cache)
        layers = []
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            kept.append(1)
            layers.append([*layer.tensors(), kept.keys, kept.values])
        keys, dim = cache.layers[0].keys.shape[2:]
        heads, scale = self.model.config.num_attention_heads, self.layers[0].attention.scaling
        attended = None
        if keep:
            attended = x.new_empty(len(layers), heads, dim), x.new_empty(len(layers), heads, dtype=torch.float64), None
        turned = None if angles is None else (angles[0][0, 0], angles[1][0, 0])
        cpu.token(layers, x[0, 0], turned, scale, self._epsilon, attended)
        for layer in self.layers:
            layer.report()
        if attended is None:
            return []
        mask = Mask(1, keys)
        queries, lse = attended[0][:, None, :, None], attended[1][:, None, :, None]
        return [
            Weights(Scores(query, kept.keys, mask, scale), norm, leading=(1, heads), backend="cpu")
            for query, norm, kept in zip(queries, lse, cache.layers, strict=True)
        ]

    def _prompt(self, x: Float[Tensor, "B N dim"], cache: Any, angles: tuple[Tensor, Tensor] | None) -> list[Weights]:
        """Tokens through all layers, in place, and their weights."""
        recorder, weights = current.get(), []
        rows, family = x.flatten(0, 1), self.family
        width = tensors(self.layers[0].up)[0].shape[0]
        together = TILED_ROWS if multiplies_in_tiles(len(rows)) else ROWS
        hidden = x.new_empty(1 + family.gated, min(together, len(rows)), width)
        for n, layer in enumerate(self.layers):
            before = None if recorder is None else x.clone()
            attended = self._attend(layer, n, self._normed(layer.norm, x), cache, angles)
            heads = attended.output.transpose(1, 2).flatten(2).flatten(0, 1)
            _projection(layer.output, len(rows))(heads, rows, added=True)
            weights.append(attended.weights)
            if recorder is not None:
                recorded = Recorded(layer.attention, attended)
                recorded.output, recorded.x = layer.output, before
                recorder.attentions.append(recorded)
            self._feed_forward(layer, rows, hidden)
            layer.report()
        return weights

    def _feed_forward(
        self, layer: Layer, x: Float[Tensor, "rows dim"], hidden: Float[Tensor, "1|2 some hidden"]
    ) -> None:
        """The second half of a layer, in place; `hidden` is memory to work in, for some rows at a time."""
        up, down = _projection(layer.up, len(x)), _projection(layer.down, len(x))
        gate = None if layer.gate is None else _projection(layer.gate, len(x))
        for rows in x.split(hidden.shape[1]):
            normed, inner = self._normed(layer.inner_norm, rows), hidden[0, : len(rows)]
            up(normed, inner)
            if gate is None:
                torch.ops.aten.gelu_(inner, approximate="tanh")
            else:
                inner.mul_(F.silu(gate(normed, hidden[1, : len(rows)]), inplace=True))
            down(inner, rows, added=True)

    def _attend(self, layer: Layer, n: int, x: Tensor, cache: Any, angles: tuple[Tensor, Tensor] | None) -> Attention:
        batch, count, _ = x.shape
        flat, dim = x.flatten(0, 1), layer.attention.head_dim
        projected = [
            _projection(module, len(flat))(flat, flat.new_empty(len(flat), len(tensors(module)[0])))
            for module in layer.inputs
        ]
        separate = projected[0].chunk(3, -1) if len(projected) == 1 else projected
        query, key, value = (rows.unflatten(-1, (-1, dim)).unflatten(0, (batch, count)) for rows in separate)
        if angles is not None:
            for heads in (query, key):
                _rotate(heads, *angles)
        query, key, value = (heads.transpose(1, 2) for heads in (query, key, value))
        if cache is not None:
            key, value = cache.update(key, value, n)
        return attention_of_model(query, key, value, causal=True, scale=layer.attention.scaling)

    @property
    def _epsilon(self) -> float:
        norm = self.final_norm
        epsilon: float = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
        return epsilon

    def _normed(self, module: Any, x: Tensor) -> Tensor:
        gain, shift = of_norm(module)
        if shift is None:
            return F.rms_norm(x, gain.shape, gain, self._epsilon)
        return F.layer_norm(x, gain.shape, gain, shift, self._epsilon)


def _projection(module: Any, rows: int) -> Product | TorchProduct:
    return product_for(*tensors(module), rows)


def _rotate(heads: Float[Tensor, "B N H D"], cosine: Float[Tensor, "B N D"], sine: Float[Tensor, "B N D"]) -> None:
    """The rotary embedding, in place: each pair (x[i], x[i + D/2]) is turned by an angle."""
    half = heads.shape[-1] // 2
    first, second = heads[..., :half], heads[..., half:]
    cosine, sine = cosine[:, :, None], sine[:, :, None]
    moved = first * sine[..., half:]
    first.mul_(cosine[..., :half]).addcmul_(second, sine[..., :half], value=-1)
    second.mul_(cosine[..., half:]).add_(moved)


def _is_plain(cache: Any) -> bool:
    """Whether a cache, if any, only holds keys and values."""
    if cache is None:
        return True
    layers = cache.layers if type(cache) is DynamicCache else ()
    return type(cache) is DynamicCache and all(type(layer) in (DynamicLayer, GrowingLayer) for layer in layers)


def _is_plain_float(tensor: Tensor) -> bool:
    return tensor.dtype is torch.float32 and tensor.is_cpu and tensor.is_contiguous()


def _is_watched(module: Any) -> bool:
    """Whether a hook reads or changes what the module is given or gives, or its forward pass is another."""
    if module._forward_pre_hooks or "forward" in vars(module):
        return True
    after = module._forward_hooks
    return bool(after) and any(hook.__module__ not in IDLE | PROGRESS for hook in after.values())


def serve(kind: type) -> None:
    """Lets the models of a class be computed by `Inference` where it serves; each has its own, made when it is used."""
    forward = kind.forward  # type: ignore[attr-defined]
    if kind.__name__ not in FAMILIES or hasattr(forward, "_for_inference"):
        return

    @wraps(forward)
    def served(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or len(args) > 1:
            return forward(self, *args, **kwargs)
        asked = {"input_ids": args[0], **kwargs} if args else kwargs
        config = self.config
        if config._attn_implementation != "regard" or not _is_usual(config, asked):
            return forward(self, *args, **kwargs)
        inference = vars(self).get("_inference")
        if inference is None or inference.model is not self:
            inference = vars(self)["_inference"] = Inference(self, forward)
        ids, cache = asked["input_ids"], asked.get("past_key_values")
        if not inference.serves(ids, cache):
            return forward(self, *args, **kwargs)
        use_cache = asked.get("use_cache")
        if cache is None and (config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache(config=config)
        return inference(ids, cache, asked.get("position_ids"), bool(asked.get("output_attentions")))

    served._for_inference = True  # type: ignore[attr-defined]
    kind.forward = served  # type: ignore[attr-defined]


def _is_usual(config: Any, asked: dict[str, Any]) -> bool:
    """Whether a model is asked for what `Inference` gives, of tokens none of which is padding."""
    ids, mask, cache = (asked.get(name) for name in ("input_ids", "attention_mask", "past_key_values"))
    if ids is None or any(
        value is not None and value is not False for name, value in asked.items() if name not in READ
    ):
        return False
    if asked.get("return_dict") is False or not config.return_dict or config.output_hidden_states:
        return False
    positions = asked.get("position_ids")
    if positions is not None and (positions.ndim != 2 or positions.shape[1] != ids.shape[1]):
        return False
    past = 0 if cache is None else cache.get_seq_length()
    return mask is None or (mask.shape == (ids.shape[0], past + ids.shape[1]) and bool(mask.all()))
