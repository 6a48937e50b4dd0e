"""What a language model expects at every token, against transformers' logits and loss, and the logit lens."""

import json
import math
import pickle
from dataclasses import replace

import pytest
import tokenizers
import torch
import transformers

import regard
from regard.lens import Predictions, predictions
from support.data import STORIES, required
from support.headed import HEADS, eager, headed

TEXT = "the cat sat on the mat"
CAUSAL = {"GPT2LMHeadModel": "gpt2", "LlamaForCausalLM": "llama", "Gemma2ForCausalLM": "gemma2"}
causal = pytest.mark.parametrize("kind", CAUSAL)
CLOSE = 1e-4


def opened(kind, name):
    model, tokenizer = headed(kind, name)
    if name == "gemma2":
        model.config.final_logit_softcapping = 3.0  # small, so that it changes what is predicted
    return model, regard.Lens((model, tokenizer)).read(TEXT)


@torch.no_grad()
def expected(model, reading):
    """The logits of transformers, and its loss."""
    output = eager(model)(reading.ids[None], labels=reading.ids[None])
    return output.logits[0].double(), float(output.loss)


def far(first, second):
    return float((first.double() - second.double()).abs().max())


@causal
def test_the_logits_of_transformers(kind):
    model, reading = opened(kind, CAUSAL[kind])
    theirs, _ = expected(model, reading)
    assert reading.logits.shape == theirs.shape
    assert far(reading.logits, theirs) <= CLOSE
    if kind == "Gemma2ForCausalLM":
        assert 2.9 < float(theirs.abs().max()) <= 3.0  # what the softcap makes of them


@causal
@pytest.mark.parametrize("k", [1, 5, 60])
def test_the_most_likely_tokens_and_the_surprise(kind, k):
    model, reading = opened(kind, CAUSAL[kind])
    theirs, loss = expected(model, reading)
    ours = reading.predictions(k)
    shares = theirs.softmax(-1)
    assert ours.ids.shape == ours.probabilities.shape == (len(reading.tokens), k)
    assert far(ours.probabilities, shares.topk(k).values) <= CLOSE
    assert far(ours.probabilities, shares.gather(1, ours.ids)) <= CLOSE
    assert all(len(set(row)) == k for row in ours.ids.tolist())
    nats = -shares[:-1].gather(1, reading.ids[1:, None])[:, 0].log()
    assert far(ours.surprise[:-1], nats) <= CLOSE
    assert ours.surprise[-1].isnan()
    assert abs(math.log(ours.perplexity) - loss) <= CLOSE


def normed(model, kind, x):
    """The final norm and the unembedding, written out."""
    if kind == "GPT2LMHeadModel":
        norm = model.transformer.ln_f
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        return (norm.weight * x + norm.bias) @ model.transformer.wte.weight.T
    gemma = kind == "Gemma2ForCausalLM"
    norm = model.model.norm
    x = x / (x.square().mean(-1, keepdim=True) + (norm.eps if gemma else norm.variance_epsilon)).sqrt()
    logits = ((1 + norm.weight if gemma else norm.weight) * x) @ model.lm_head.weight.T
    return 3 * (logits / 3).tanh() if gemma else logits


@causal
@torch.no_grad()
def test_the_logit_lens_of_every_layer(kind):
    model, reading = opened(kind, CAUSAL[kind])
    dense, states = eager(model), []
    for block in dense.transformer.h if kind == "GPT2LMHeadModel" else dense.model.layers:
        block.register_forward_hook(lambda m, x, y: states.append(y[0][0] if isinstance(y, tuple) else y[0]))
    dense(reading.ids[None])
    assert len(states) == reading.layers
    for layer, x in enumerate(states):
        shares = normed(dense, kind, x).softmax(-1)
        ours = reading.predictions(7, layer=layer)
        assert ours.layer == layer
        assert far(ours.probabilities, shares.gather(1, ours.ids)) <= CLOSE
        assert far(ours.probabilities, shares.topk(7).values) <= CLOSE
        nats = -shares[:-1].gather(1, reading.ids[1:, None])[:, 0].log()
        assert far(ours.surprise[:-1], nats) <= CLOSE
    assert far(reading.predictions(layer=0).surprise[:-1], reading.predictions().surprise[:-1]) > 100 * CLOSE


@causal
def test_the_lens_at_the_last_layer_is_the_models_own(kind):
    _, reading = opened(kind, CAUSAL[kind])
    own, last = reading.predictions(), reading.predictions(layer=-1)
    assert last.layer == reading.layers - 1
    assert torch.equal(own.ids, last.ids)
    assert torch.equal(own.probabilities, last.probabilities)
    model = reading.lens.model
    with torch.inference_mode():
        through = model.head(model.final_norm(reading.hidden[-1][None])[0], reading.ids)
    assert far(through, reading.logits) <= CLOSE


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("layer", [None, 0])
def test_blocks_of_tokens(rows, layer, monkeypatch):
    _, reading = opened("GPT2LMHeadModel", "gpt2")
    whole, head, sizes = reading.predictions(layer=layer), reading.lens.model.head, []

    def counted(final, ids):
        sizes.append((len(final), len(ids)))
        return head(final, ids)

    vars(reading.lens.model)["head"] = replace(head, _logits=counted)
    monkeypatch.setattr(predictions, "BLOCK", rows * reading.logits.shape[1] + 1)
    sizes.clear()
    blocks = reading.predictions(layer=layer)
    count = len(reading.tokens)
    assert sizes[1:] == [(min(rows, count - n),) * 2 for n in range(0, count, rows)]  # after one row, for the size
    assert torch.equal(blocks.ids, whole.ids)
    assert far(blocks.probabilities, whole.probabilities) < 1e-12
    assert far(blocks.surprise[:-1], whole.surprise[:-1]) < 1e-12


def test_half_precision_is_computed_in_float32():
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.bfloat16)
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    ours = reading.predictions(reading.logits.shape[1])
    assert ours.probabilities.dtype == ours.surprise.dtype == torch.float32
    assert far(ours.probabilities.sum(-1), torch.ones(len(reading.tokens))) < 1e-5


def test_a_single_token_surprises_nobody():
    model, tokenizer = headed("GPT2LMHeadModel", "gpt2")
    ours = regard.Lens((model, tokenizer)).read("x").predictions()
    assert ours.ids.shape == (1, 5)
    assert math.isnan(ours.perplexity)
    assert "perplexity" not in repr(ours)


def test_a_vocabulary_without_a_word_of_english():
    words = {"我": 0, "爱": 1, "你": 2}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    config = transformers.GPT2Config(
        vocab_size=3, n_embd=12, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    reading = regard.Lens((model, tokenizer)).read("我爱你")
    for layer in (None, 0):
        assert {text.strip() for text in reading.predictions(3, layer).texts[0]} == words.keys()


# Models that have seen what they predict


@pytest.mark.parametrize("kind", HEADS["masked token"])
@torch.no_grad()
def test_masked_language_models(kind):
    model, reading = opened(kind, HEADS["masked token"][kind])
    output = eager(model)(reading.ids[None], output_hidden_states=True)
    ours = reading.predictions()
    assert ours.kind == "masked token"
    assert far(reading.logits, output.logits[0]) <= CLOSE
    assert far(ours.probabilities, output.logits[0].softmax(-1).topk(5).values) <= CLOSE
    head = model.cls if kind == "BertForMaskedLM" else model.lm_head
    first = head(output.hidden_states[1])[0].softmax(-1)
    assert far(reading.predictions(layer=0).probabilities, first.topk(5).values) <= CLOSE
    assert ours.surprise.isnan().all()
    assert math.isnan(ours.perplexity)


def test_a_head_of_next_tokens_on_a_model_that_sees_them():
    _, reading = opened("BertLMHeadModel", "bert")
    assert not reading.causal
    assert reading.predictions().surprise.isnan().all()


# As text and JSON


def test_the_line_and_the_numbers():
    tokens, ids = ["[CLS]", "a", "[MASK]", "[SEP]"], torch.arange(8).view(4, 2)
    texts = [["x", "y"], ["x", "y"], [" cat", "\n"], ["x", "y"]]
    shares = torch.tensor([[0.75, 0.125]]).expand(4, 2)
    nats = torch.tensor([0.5, 1.0, 1.5, torch.nan])
    masked = Predictions("masked token", None, tokens, ids, texts, shares, nats * torch.nan)
    assert repr(masked) == "Predictions(at “[MASK]”: “ cat” 75.0%, “⏎” 12.5%)"
    after = Predictions("next token", 3, tokens, ids, texts, shares, nats)
    assert repr(after) == "Predictions(after “[SEP]” by layer 3: “x” 75.0%, “y” 12.5%; perplexity 2.718)"
    assert json.loads(json.dumps(after.to_dict(), allow_nan=False)) == {
        "kind": "next token",
        "layer": 3,
        "tokens": tokens,
        "ids": ids.tolist(),
        "texts": texts,
        "probabilities": shares.tolist(),
        "surprise": [0.5, 1.0, 1.5, None],
        "perplexity": pytest.approx(math.e),
    }
    assert masked.to_dict()["perplexity"] is None


def test_a_trained_decoder():
    lens, text = regard.Lens(required(STORIES)), "Once upon a time"
    for _ in range(30):
        text += lens.read(text).predictions(1).texts[-1][0]
    assert text.startswith("Once upon a time, there was a little girl named Lily. She loved to play outside")


@torch.no_grad()
def test_the_perplexity_of_a_trained_decoder():
    reading = regard.Lens(required(STORIES)).read("Once upon a time, there was a little girl named Lily.")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(STORIES, attn_implementation="eager").eval()
    loss = theirs(reading.ids[None], labels=reading.ids[None]).loss
    assert abs(reading.predictions().perplexity - float(loss.exp())) <= CLOSE
    surprise = [reading.predictions(layer=layer).perplexity for layer in range(reading.layers)]
    assert surprise == sorted(surprise, reverse=True)  # every layer of this model knows more


# Refusals


def both(reading, match):
    for call, ask in (("logits", lambda: reading.logits), ("predictions", reading.predictions)):
        with pytest.raises(ValueError, match=rf"^{call}: {match}"):
            ask()


def test_models_that_predict_no_tokens():
    both(regard.Lens().read(TEXT), r"all-MiniLM-L6-v2 has no head that predicts tokens; open a language model")
    classifier = regard.Lens(headed("BertForSequenceClassification", "bert")).read(TEXT)
    both(classifier, r"\w+ is a BertForSequenceClassification, which predicts the class of a text")


def test_a_pickled_reading():
    reading = opened("GPT2LMHeadModel", "gpt2")[1]
    kept = pickle.loads(pickle.dumps(reading.predictions()))
    assert kept.to_dict() == reading.predictions().to_dict()
    both(pickle.loads(pickle.dumps(reading)), r"this reading has no lens, .* read the text with a Lens\.")


@pytest.mark.parametrize("layer", [2, -3])
def test_a_layer_that_does_not_exist(layer):
    reading = opened("GPT2LMHeadModel", "gpt2")[1]
    with pytest.raises(IndexError, match=rf"There is no layer {layer}: \w+ has layers 0 to 1\."):
        reading.predictions(layer=layer)


@pytest.mark.parametrize("k", [0, -1, 301])
def test_fewer_tokens_than_one_or_more_than_there_are(k):
    reading = opened("GPT2LMHeadModel", "gpt2")[1]
    with pytest.raises(ValueError, match=rf"predictions: k: expected 1 to 300, the vocabulary of \w+\. Got {k}\."):
        reading.predictions(k)


@pytest.mark.parametrize("k", [2.5, "3", None])
def test_k_is_a_whole_number(k):
    with pytest.raises(TypeError, match=r"predictions: k: expected a whole number\. Got "):
        opened("GPT2LMHeadModel", "gpt2")[1].predictions(k)


def test_logits_that_take_too_much_memory(monkeypatch):
    reading = opened("GPT2LMHeadModel", "gpt2")[1]
    monkeypatch.setattr(predictions, "DENSE_LIMIT", reading.logits.nbytes - 1)
    with pytest.raises(ValueError, match=rf"logits: \({len(reading.tokens)}, 300\) numbers take .* GiB, more than"):
        _ = reading.logits
    assert reading.predictions().ids.shape[1] == 5


def test_a_model_whose_last_layer_no_single_norm_follows():
    reading = opened("GPT2LMHeadModel", "gpt2")[1]
    vars(reading.lens.model)["final_norm"] = None
    with pytest.raises(ValueError, match=r"predictions: layer: what follows the last layer of \w+ is no single norm"):
        reading.predictions(layer=0)
    assert reading.predictions(layer=1).ids.equal(reading.predictions().ids)


def test_a_model_in_training_mode_is_put_in_evaluation_mode_with_its_head():
    model, tokenizer = headed("RobertaForSequenceClassification", "roberta", torch.float32)
    lens = regard.Lens((model.train(), tokenizer))
    assert not any(module.training for module in model.modules())
    assert lens.model.head.kind == "class"
