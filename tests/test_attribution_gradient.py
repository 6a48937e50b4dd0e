"""Gradients through the weights, and relevance, against Chefer et al. 2021 as published: dense, by eager attention."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import regard
from regard.attribution import Target, gradient, relevance
from regard.attribution.gradient import gradients
from support.headed import BODIES, bodied, eager, headed
from support.models import saved

TEXT = "the cat sat on the mat"
EXACT = 1e-5


def close(ours, theirs, exact=EXACT):
    """Whether the largest difference is small beside the largest number."""
    difference = float((ours.double() - theirs.double()).abs().max())
    assert difference <= exact * float(theirs.abs().max()), difference


def dense(model, ids, y):
    """The weights of eager attention in each layer and their gradient, both (H,N,N), of a function of the output."""
    output = eager(model)(input_ids=ids[None], output_attentions=True, output_hidden_states=True, return_dict=True)
    grads = torch.autograd.grad(y(output), output.attentions, allow_unused=True)
    return [
        (weights[0].detach(), torch.zeros_like(weights[0]) if grad is None else grad[0])
        for weights, grad in zip(output.attentions, grads, strict=True)
    ]


def published(layers, tokens):
    """R of equations 5 and 6, N × N."""
    matrix = torch.eye(tokens, dtype=layers[0][0].dtype)
    for weights, grad in layers:
        matrix = matrix + (weights * grad).clamp(min=0).mean(0) @ matrix
    return matrix


def along(vector):
    return lambda output: vector(output) @ (vector(output) / vector(output).norm()).detach()


def check(reading, target, model, y, rows):
    layers = dense(model, reading.ids, y)
    for layer, (weights, grad) in enumerate(layers):
        close(gradient(reading, target, layer).dense(), (weights * grad).clamp(min=0))
    expected = published(layers, len(reading.tokens))[rows].mean(0)
    result = relevance(reading, target).tokens
    close(result, expected)
    own = torch.zeros(len(expected)).index_fill(0, torch.tensor(rows), 1 / len(rows))
    close(result - own, expected - own)  # what the layers add is much less than the token itself


@pytest.mark.parametrize("name", BODIES)
def test_the_vector_of_the_sentence(name):
    model, tokenizer = bodied(name)
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    every = list(range(len(reading.tokens)))
    check(reading, Target.sentence(reading), model, along(lambda out: out.last_hidden_state[0].mean(0)), every)


@pytest.mark.parametrize("name", [*BODIES, "roberta", "gemma2", "qwen3", "neox", "gpt-oss"])
def test_the_vector_of_a_word(name):
    model, tokenizer = bodied(name)
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    rows = list(reading.word("mat").tokens)
    check(reading, Target.word(reading, "mat"), model, along(lambda out: out.last_hidden_state[0, rows].mean(0)), rows)
    number = Target.coordinate(reading, "mat", 3)
    check(reading, number, model, lambda out: out.last_hidden_state[0, rows, 3].mean(), rows)


@pytest.mark.parametrize(
    ("kind", "name"), [("GPT2LMHeadModel", "gpt2"), ("LlamaForCausalLM", "llama"), ("Gemma2ForCausalLM", "gemma2")]
)
def test_a_next_token(kind, name):
    model, tokenizer = headed(kind, name)
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    check(reading, Target.next_token(reading, 7), model, lambda out: out.logits[0, -1, 7], [len(reading.tokens) - 1])
    difference = Target.next_token(reading, 7, instead_of=9, position=3)
    check(reading, difference, model, lambda out: out.logits[0, 3, 7] - out.logits[0, 3, 9], [3])


@pytest.mark.parametrize(
    ("kind", "name", "row"),
    [("BertForSequenceClassification", "bert", 0), ("LlamaForSequenceClassification", "llama", -1)],
)
def test_a_class(kind, name, row):
    model, tokenizer = headed(kind, name)
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    rows = [row % len(reading.tokens)]
    check(reading, Target.label(reading, "POSITIVE"), model, lambda out: out.logits[0, 1], rows)


def test_a_similarity():
    model, tokenizer = bodied("bert")
    lens = regard.Lens((model, tokenizer))
    reading, other = lens.read(TEXT), lens.read("unbelievable, isn't it?").final.clone().mean(0)

    def y(output):
        return torch.cosine_similarity(output.last_hidden_state[0].mean(0), other, dim=0)

    check(reading, Target.similarity(reading, "unbelievable, isn't it?"), model, y, list(range(len(reading.tokens))))


@pytest.fixture(scope="module")
def small():
    model, tokenizer = bodied("gpt2")
    return model, regard.Lens((model, tokenizer)).read(TEXT)


@given(layer=st.integers(0, 1), token=st.integers(0, 5), number=st.integers(0, 14), power=st.integers(1, 3))
def test_any_function_of_an_inner_layer(small, layer, token, number, power):
    model, reading = small
    target = Target.function(reading, lambda output: output.hidden[layer][token, number] ** power)
    if layer == 0:  # no attention comes before it
        assert torch.equal(relevance(reading, target).tokens, torch.eye(6, dtype=torch.float64)[token])
    else:
        check(reading, target, model, lambda out: out.hidden_states[layer][0, token, number] ** power, [token])


def test_the_native_encoder(tmp_path):
    model, tokenizer = bodied("bert", torch.float32)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lens = regard.Lens(tmp_path)
    assert type(lens.model.blocks[0]).__module__ == "regard.nn.layers"
    reading = lens.read(TEXT)
    rows = list(reading.word("mat").tokens)
    y = along(lambda out: out.last_hidden_state[0, rows].mean(0))
    layers = dense(model.double(), reading.ids, y)
    target = Target.word(reading, "mat")
    for layer, (weights, grad) in enumerate(layers):
        close(gradient(reading, target, layer).dense(), (weights * grad).clamp(min=0), 1e-4)
    close(relevance(reading, target).tokens, published(layers, len(reading.tokens))[rows].mean(0))


def test_frozen_parameters_and_every_mode():
    model, tokenizer = headed("LlamaForCausalLM", "llama")
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    expected = relevance(reading, Target.next_token(reading, 7)).tokens
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(relevance(reading, Target.next_token(reading, 7)).tokens, expected)
    model.requires_grad_(False)
    assert torch.allclose(relevance(reading, Target.next_token(reading, 7)).tokens, expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_pass_for_all_layers():
    model, tokenizer = bodied("bert")
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    target, passes = Target.sentence(reading), []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    for layer in (0, 1, -1):
        gradient(reading, target, layer)
    assert torch.equal(gradient(reading, target, -1).dense(), gradient(reading, target, 1).dense())
    relevance(reading, target)
    handle.remove()
    assert len(passes) == 1
    again = regard.Lens((model, tokenizer)).read(TEXT)  # the same text, another reading
    assert gradients(again, target) is not gradients(reading, target)


def test_nothing_of_size_n_by_n_is_made(embedded_lens):
    # 450 tokens, 12 heads: one N × N tensor of all heads would have 2.4 million numbers.
    reading = embedded_lens.read("word " * 448)
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            sizes.extend(tensor.numel() for tensor in tree_leaves(result) if isinstance(tensor, torch.Tensor))
            return result

    with Sizes():
        gradients(reading, Target.sentence(reading))
    assert len(sizes) > 100
    assert max(sizes) <= 450 * 1536  # the hidden layer of a feed-forward network


def test_threads():
    model, tokenizer = bodied("bert")
    lens = regard.Lens((model, tokenizer))
    readings = [lens.read(text) for text in (TEXT, "unbelievable", "the mat", "Time flies like an arrow")]
    expected = [relevance(reading, Target.sentence(reading)).tokens for reading in readings]
    results = [None] * len(readings)

    def work(n):
        for _ in range(5):
            results[n] = relevance(readings[n], Target.sentence(readings[n])).tokens

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(readings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, right) for result, right in zip(results, expected, strict=True))


def test_bad_input():
    lens = regard.Lens(bodied("bert"))
    reading = lens.read(TEXT)
    with pytest.raises(IndexError, match=r"There is no layer 2"):
        gradient(reading, Target.sentence(reading), 2)
    with pytest.raises(ValueError, match=r"was made for another text than 'the mat'"):
        gradient(lens.read("the mat"), Target.sentence(reading), 0)
    constant = Target.function(reading, lambda output: torch.tensor(1.0), "a constant")
    with pytest.raises(ValueError, match=r"gradient: a constant does not depend on what the model computes"):
        relevance(reading, constant)
    flat = Target.function(reading, lambda output: 0 * output.final.sum(), "nothing")
    with pytest.raises(ValueError, match=r"gradient: nothing does not change with what the model computes"):
        relevance(reading, flat)


def test_a_reading_of_a_folder(tmp_path):
    lens = regard.Lens(saved("gpt2", tmp_path))
    reading = lens.read(TEXT)
    assert relevance(reading, Target.word(reading, "mat")).tokens.argmax() == 5
