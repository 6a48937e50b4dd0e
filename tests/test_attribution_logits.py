"""Direct logit attribution: every head's part of a logit, and that all parts together are the logit of the model."""

from collections import defaultdict

import pytest
import torch
import transformers

import regard
from regard.attribution import Target, logits, parse_target
from support.data import STORIES, required
from support.headed import HEADS, bodied, eager, headed
from support.transformers_models import interface_or_skip

TEXT = "the cat sat on the mat"
SERVED = {
    "GPT2LMHeadModel": ("gpt2", "transformer.ln_f", "mlp"),
    "LlamaForCausalLM": ("llama", "model.norm", "mlp"),
    "Qwen3ForCausalLM": ("qwen3", "model.norm", "mlp"),
    "GPTNeoXForCausalLM": ("neox", "gpt_neox.final_layer_norm", "mlp"),
    "DeepseekV3ForCausalLM": ("deepseek", "model.norm", "mlp"),
    "GptOssForCausalLM": ("gpt-oss", "model.norm", "mlp"),
}
served = pytest.mark.parametrize("kind", SERVED)
# GPT-2 computes in float64 throughout; the others take norms, rotations and eager's softmax in float32.
EXACT = defaultdict(lambda: 1e-6, {"GPT2LMHeadModel": 1e-12, "GptOssForCausalLM": 1e-5})
CHANGE = 7, 9  # one token rather than another


def opened(kind):
    model, tokenizer = headed(kind, SERVED[kind][0])
    lens = regard.Lens((model, tokenizer))
    return model, lens.read(TEXT)


def frozen(model, kind, x, direction):
    """The direction before the final norm at each row of x (N,dim), and what the norm's bias adds."""
    norm = model.get_submodule(SERVED[kind][1])
    epsilon = getattr(norm, "eps", getattr(norm, "variance_epsilon", None))
    if isinstance(norm, torch.nn.LayerNorm):
        sigma = (x.var(-1, unbiased=False) + epsilon).sqrt()
        scaled = norm.weight * direction
        return (scaled - scaled.mean()) / sigma[:, None], float(norm.bias @ direction)
    return norm.weight * direction / (x.square().mean(-1) + epsilon).sqrt()[:, None], 0.0


def seen(model, kind, ids):
    """What embeddings, feed-forward layers and output projections give, and the input of the final norm."""
    seen, handles = {}, []
    norm, mlp = SERVED[kind][1:]
    for name, module in model.named_modules():
        if name == norm:
            handles.append(module.register_forward_pre_hook(lambda m, args: seen.update(x=args[0][0])))
        if name.endswith(f".{mlp}"):

            def keep(m, args, output, name=name):
                seen[name] = (output[0] if isinstance(output, tuple) else output)[0]

            handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        output = model(ids[None], output_hidden_states=True, output_attentions=True)
    for handle in handles:
        handle.remove()
    return seen, output


@served
@torch.no_grad()
def test_all_parts_together_are_the_logit(kind):
    model, reading = opened(kind)
    target = Target.next_token(reading, *CHANGE)
    parts, output = seen(eager(model), kind, reading.ids)
    table = model.get_output_embeddings().weight
    direction = table[CHANGE[0]] - table[CHANGE[1]]
    u, total = frozen(model, kind, parts.pop("x"), direction)
    total = total + (output.hidden_states[0][0] * u).sum(-1)  # the embeddings
    assert len(parts) == reading.layers
    for layer, fed_forward in enumerate(parts.values()):
        bias = reading.lens.model.surroundings[layer].output.bias
        constant = 0 if bias is None else (bias * u).sum(-1)
        total = total + logits(reading, target, layer).sum().sum(0) + constant + (fed_forward * u).sum(-1)
    actual = output.logits[0, :, CHANGE[0]] - output.logits[0, :, CHANGE[1]]
    assert torch.allclose(total, actual.to(total), rtol=EXACT[kind], atol=EXACT[kind])


@served
@torch.no_grad()
def test_every_pair_as_published(kind):
    model, reading = opened(kind)
    target = Target.next_token(reading, *CHANGE)
    parts, output = seen(eager(model), kind, reading.ids)
    table = model.get_output_embeddings().weight
    u, _ = frozen(model, kind, parts["x"], table[CHANGE[0]] - table[CHANGE[1]])
    for layer, weights in enumerate(output.attentions):
        heads = weights.shape[1]
        joined = reading.lens.model.surroundings[layer].output.weight
        joined = joined if "GPT2" in kind else joined.T  # Conv1D keeps the transpose
        values = reading.attention[layer].value
        values = values.repeat_interleave(heads // len(values), 0)
        added = values @ joined.view(heads, values.shape[-1], -1)  # v_j W_O^h, (H,N,dim)
        expected = weights[0] * torch.einsum("id,hjd->hij", u, added)
        result = logits(reading, target, layer).dense()
        assert float((result - expected).abs().max()) <= EXACT[kind] * float(expected.abs().max())
        assert float(result.min()) < 0 < float(result.max())  # signed


def test_a_single_token_and_negative_layers():
    _, reading = opened("LlamaForCausalLM")
    first, second = (Target.next_token(reading, token) for token in CHANGE)
    difference = Target.next_token(reading, *CHANGE)
    total = logits(reading, first, -1).dense() - logits(reading, second, -1).dense()
    assert torch.allclose(logits(reading, difference, 1).dense(), total, atol=1e-12)


def test_a_trained_decoder():
    reading = regard.Lens(required(STORIES)).read("Once upon a time, there was a little girl")
    target = parse_target(reading, "next")
    maps = [logits(reading, target, layer)[:, -1] for layer in range(reading.layers)]
    assert all(torch.isfinite(rows).all() for rows in maps)
    assert 0 < float(sum(rows.sum() for rows in maps)) < 2 * target.of(reading)


# Refusals


def refused(kind, name, match, **options):
    reading = regard.Lens(headed(kind, name)).read(TEXT)
    with pytest.raises(ValueError, match=match):
        logits(reading, Target.next_token(reading, 7, **options), 0)


def test_refusals_name_the_module():
    refused("BertForMaskedLM", "bert", r"logits: BertForMaskedLM: its head \(lm_head\) is not a linear", position=2)
    refused("Gemma2ForCausalLM", "gemma2", r"logits: Gemma2ForCausalLM: its head")  # a softcap
    refused("BertLMHeadModel", "bert", r"logits: BertLMHeadModel: its head")


@torch.no_grad()
def test_a_layer_that_adds_a_norm_of_what_its_heads_give():
    """Gemma 2, without the softcap of its logits: all parts together are the logit."""
    model, tokenizer = headed("Gemma2ForCausalLM", "gemma2")
    model.config.final_logit_softcapping = None
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    added, states = [], []
    for layer in model.model.layers:
        layer.post_feedforward_layernorm.register_forward_hook(lambda m, args, output: added.append(output[0]))
    model.model.norm.register_forward_pre_hook(lambda m, args: states.append(args[0][0]))
    output = model(reading.ids[None], output_hidden_states=True)
    norm, direction = model.model.norm, model.get_output_embeddings().weight[7]
    sigma = (states[0].square().mean(-1) + norm.eps).sqrt()
    u = (1 + norm.weight) * direction / sigma[:, None]
    total = ((output.hidden_states[0][0] + sum(added)) * u).sum(-1)
    for layer in range(reading.layers):
        total = total + logits(reading, Target.next_token(reading, 7), layer).sum().sum(0)
    assert torch.allclose(total, output.logits[0, :, 7], rtol=1e-6, atol=1e-6)


def test_a_layer_that_scales_what_its_heads_give():
    llama, tokenizer = headed("LlamaForCausalLM", "llama")
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    options = {name: getattr(llama.config, name) for name in names}
    config = transformers.GraniteConfig(**options, residual_multiplier=0.5, num_key_value_heads=2)
    model = transformers.GraniteForCausalLM(config)
    interface_or_skip(model)
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    with pytest.raises(ValueError, match=r"GraniteDecoderLayer does not add the result of its Linear \(W_O\)"):
        logits(reading, Target.next_token(reading, 7), 0)


def test_other_targets():
    reading = regard.Lens(bodied("bert")).read(TEXT)
    with pytest.raises(ValueError, match=r"logits: target: expected a next token or the difference of two"):
        logits(reading, Target.sentence(reading), 0)
    _, reading = opened("LlamaForCausalLM")
    with pytest.raises(IndexError, match=r"There is no layer 5"):
        logits(reading, Target.next_token(reading, 7), 5)


def test_every_language_model_is_served_or_refused():
    for kind, name in HEADS["next token"].items():
        reading = regard.Lens(headed(kind, name)).read(TEXT)
        try:
            assert logits(reading, Target.next_token(reading, 7), 0).shape[-1] == len(reading.tokens)
            assert kind in SERVED
        except ValueError:
            assert kind not in SERVED
