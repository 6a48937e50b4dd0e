"""The decoder of an encoder-decoder: once it has read a source, a causal language model like any other.

    source → encoder → states ─────────────┐
    start token, target → self-attention, cross-attention, … × layers → next tokens of the target

So it is opened as a `Model` of its own, for each source: its texts are targets, its tokenizer puts the model's start
token before them, and its head predicts the next token of a target. Its cross-attentions are those of a second `Model`,
`Model.cross`, of the same forward pass.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regard.attention import Attention, replaced_where
from regard.models.head import Head, find_target_head
from regard.models.model import Model, Pass
from regard.models.reader import Reader
from regard.models.tokenizer import example_encoding, from_transformers

if TYPE_CHECKING:
    from jaxtyping import Float
    from tokenizers import Tokenizer

    import regard.hf


class TargetReader(Reader):
    """Runs a decoder over a target, after a source. Raises ValueError, naming the model, as `Reader`.

    Which of its attentions are cross-attentions is found out when it is opened: those with as many keys as the source
    has tokens, a number that the target does not have.
    """

    def __init__(self, decoder: Any, name: str, ids: Sequence[int], source: Float[Tensor, "N dim"]) -> None:
        self.source = source.repeat(len(ids) + 1, 1)[: len(ids) + 1]
        super().__init__(decoder, name, ids)

    def _try(self, ids: Sequence[int]) -> list[nn.Module]:
        import regard.hf

        states = self._states(1)
        with regard.hf.record() as recorded, torch.no_grad():
            self.model(input_ids=torch.tensor([ids]).to(states.device), encoder_hidden_states=states, return_dict=True)
        self._is_cross = [attention.weights.shape[-1] == states.shape[1] for _, attention in recorded]
        self.layers = sum(self._is_cross)
        if not self.layers or len(recorded) != 2 * self.layers:
            raise ValueError(
                f"{self.name}: {len(recorded) - self.layers} self-attentions and {self.layers} cross-attentions of its "
                "decoder can be seen, which a reading cannot assign to layers."
            )
        used = {module for module, _ in recorded}
        for blocks in self.model.modules():
            if isinstance(blocks, nn.ModuleList) and len(blocks) == self.layers and used & set(blocks.modules()):
                return list(blocks)
        return []

    def after(self, source: Float[Tensor, "N dim"]) -> TargetReader:
        """The same after another source."""
        reader = copy.copy(self)
        reader.source = source
        return reader

    def __call__(self, ids: Tensor, lengths: Tensor | None, types: Tensor | None = None) -> Pass:
        return self._read(ids, lengths, cross=False)

    def cross(self, ids: Tensor, lengths: Tensor | None, types: Tensor | None = None) -> Pass:
        """The same pass by its cross-attentions; what replaces `attention` in models replaces those."""
        passed = self._read(ids, lengths, cross=True).cross
        assert passed is not None
        return passed

    def _read(self, ids: Tensor, lengths: Tensor | None, cross: bool) -> Pass:
        self.check_ids(ids)
        with replaced_where(lambda n: self._is_cross[n] == cross):
            hidden, final, recorded = self.run(
                ids, lengths, encoder_hidden_states=self._states(len(ids)), use_cache=False
            )
        kinds: dict[bool, list[regard.hf.Recorded]] = {False: [], True: []}
        for is_cross, attended in zip(self._is_cross, recorded, strict=True):
            kinds[is_cross].append(attended)
        own, others = ([attention for _, attention in kinds[kind]] for kind in (False, True))
        self._check_shapes(ids.shape[1], own, others)
        entering = [attended.x for attended in kinds[True]]
        return Pass(hidden, [*own], final, cross=Pass(hidden, [*others], final, entering))

    def _check_shapes(self, tokens: int, own: Sequence[Attention], others: Sequence[Attention]) -> None:
        """Raise ValueError unless queries and keys are the tokens of the target, and of the source."""
        keys = len(self.source)
        shapes = [attention.weights.shape[-2:] for attention in (*own, *others)]
        if shapes != [(tokens, tokens)] * len(own) + [(tokens, keys)] * len(others):
            raise ValueError(
                f"{self.name}: the attentions of its decoder have other queries and keys than the {tokens} tokens of "
                f"the target and the {keys} of the source, and a reading cannot assign them."
            )

    def _states(self, copies: int) -> Float[Tensor, "B N dim"]:
        """The states of the source, for so many targets."""
        states = self.source.to(self.model.device)
        if states.is_inference() and not torch.is_inference_mode_enabled():
            states = states.clone()  # a gradient cannot be taken of what was read in it
        return states.expand(copies, -1, -1)

    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """As `Reader.step`; the keys and values of the source are computed once."""
        output = self.model(
            input_ids=ids.to(self.model.device),
            encoder_hidden_states=self._states(1),
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        return output.last_hidden_state[0], output.past_key_values


def opened_after(
    open_whole: Callable[[], Any], tokenizer: Any, name: str, limit: int, states: Callable[[], Float[Tensor, "N dim"]]
) -> Callable[[Tensor], Model]:
    """A function from the final states of a source to the decoder that has read it, which is opened at the first call.

    Args:
        open_whole: gives an encoder-decoder of transformers, with its head or without.
        tokenizer: its tokenizer.
        name: what errors call it.
        limit: the most tokens that its tokenizer allows.
        states: gives final states of some source, to try the decoder with.

    Raises ValueError, when it is called, in one line, where the decoder cannot be read.
    """

    @functools.cache
    def opened() -> tuple[TargetReader, Tokenizer, int, Callable[[], Head | None]]:
        import regard.hf

        whole = open_whole()
        decoder = whole.get_decoder()
        if not hasattr(decoder, "set_attn_implementation"):
            raise ValueError(f"{name}: the decoder of {type(whole).__name__} is no model of its own that could be run.")
        decoder.set_attn_implementation("regard")
        regard.hf.check(decoder)
        tokens = target_tokenizer(whole, tokenizer, name)
        ids, source = example_encoding(tokens).ids, states()
        reader = TargetReader(decoder.eval(), name, ids, source)
        positions = getattr(decoder.config, "max_decoder_position_embeddings", None)
        positions = positions or getattr(decoder.config, "max_position_embeddings", None) or limit
        tried = reader.after(source)
        find = functools.cache(functools.partial(find_target_head, whole, tried, ids, source))
        return reader, tokens, min(limit, positions), find

    def after(source: Float[Tensor, "N dim"]) -> Model:
        reader, tokens, limit, find_head = opened()
        return _decoder_after(reader.after(source), tokens, name, limit, find_head)

    return after


def _decoder_after(
    reader: TargetReader, tokenizer: Tokenizer, name: str, limit: int, find: Callable[[], Head | None]
) -> Model:
    def states(*_: Any) -> Any:
        raise ValueError(f"embed: the decoder of {name} embeds no texts; use the lens that read the source.")

    def model(forward: Callable[..., Pass], source: Tensor | None, cross: Model | None) -> Model:
        return Model(
            name,
            tokenizer,
            forward,
            states,
            reader.layers,
            limit,
            blocks=reader.blocks,
            find_head=find,
            step=reader.step,
            cross=cross,
            source=source,
        )

    return model(reader, None, model(reader.cross, reader.source, None))


def target_tokenizer(model: Any, tokenizer: Any, name: str) -> Tokenizer:
    """The tokenizer of targets: as the decoder reads them, the model's start token first, and no end token.

    Tokenizers that write targets otherwise than sources (mBART, M2M100: the code of the language) are set to that.
    """
    from tokenizers import processors

    tokens, switched = from_transformers(tokenizer, name).tokenizer, copy.deepcopy(tokenizer)
    if hasattr(switched, "_switch_to_target_mode"):
        switched._switch_to_target_mode()
    tokens.post_processor = switched.backend_tokenizer.post_processor
    example = example_encoding(tokens)
    mask = example.special_tokens_mask
    prefix, start = example.ids[: mask.index(0)], _start_token(model, example.ids, name)
    names = [tokens.id_to_token(id) for id in (start, *prefix)]
    tokens.post_processor = processors.TemplateProcessing(
        single=[*(f"{token}:0" for token in names), "$A:0"],
        special_tokens=[*dict(zip(names, (start, *prefix), strict=True)).items()],
    )
    return tokens


def _start_token(model: Any, labels: Sequence[int], name: str) -> int:
    """What the decoder reads first: a token of the configuration, in mBART the language of the target."""
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:
        try:
            return int(shift(labels=torch.tensor([labels]))[0, 0])
        except Exception:  # of a configuration that lacks what it needs, the models raise exceptions of every kind
            pass
    for config in (getattr(model, "generation_config", None), model.config):
        for token in ("decoder_start_token_id", "bos_token_id"):
            if getattr(config, token, None) is not None:
                return int(getattr(config, token))
    raise ValueError(f"{name}: its configuration has no decoder_start_token_id, with which its decoder would begin.")
