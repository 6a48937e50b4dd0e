"""Targets: the numbers that are explained, and the heads of models that make them."""

import pickle
from collections import defaultdict

import numpy as np
import pytest
import torch
import transformers

import regard
from regard.attribution import Target, default_target, parse_target
from regard.attribution.again import read_again
from regard.lens.forward import of_pass
from regard.models.head import find_head
from support.data import STORIES, required
from support.headed import BODIES, HEADS, bodied, headed

TEXT = "the cat sat on the mat"
EXACT = defaultdict(lambda: 1e-9, {"GptOssForCausalLM": 1e-5})
CLASSES = [(kind, name, what) for what, classes in HEADS.items() for kind, name in classes.items()]


def lens_of(kind, name):
    return regard.Lens(headed(kind, name))


def logits_of(lens, reading):
    model = lens._arguments["model"][0]
    with torch.no_grad():
        return model(reading.ids[None]).logits[0]


# Heads


@pytest.mark.parametrize(("kind", "name", "what"), CLASSES, ids=[kind for kind, _, _ in CLASSES])
def test_a_head_gives_the_logits_of_the_model(kind, name, what, tmp_path):
    model, tokenizer = headed(kind, name, torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([tokenizer(TEXT).input_ids])).logits[0]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for lens in (regard.Lens((model, tokenizer)), regard.Lens(tmp_path)):
        reading, head = lens.read(TEXT), lens.model.head
        assert (head.kind, head.model) == (what, kind)
        with torch.inference_mode():
            assert torch.allclose(head(reading.final, reading.ids), expected, atol=1e-5, rtol=1e-5)
        assert list(head.labels) == (["NEGATIVE", "POSITIVE", "NEUTRAL"] if what == "class" else [])


def test_a_model_with_a_head_is_read_as_without(tmp_path):
    for name, kind in (("bert", "BertForMaskedLM"), ("llama", "LlamaForCausalLM")):
        model, tokenizer = headed(kind, name, torch.float32)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        with_head, without = regard.Lens((model, tokenizer)), regard.Lens((model.base_model, tokenizer))
        first, second, third = (lens.read(TEXT) for lens in (with_head, without, regard.Lens(tmp_path / name)))
        assert torch.equal(first.hidden, second.hidden)
        assert torch.equal(first.final, second.final)
        assert torch.allclose(first.hidden, third.hidden, atol=1e-5)
        assert without.model.head is None


@pytest.mark.parametrize(("kind", "name"), [("LlamaForCausalLM", "llama"), ("GPT2LMHeadModel", "gpt2")])
def test_a_model_is_opened_once_with_its_head(kind, name, tmp_path, monkeypatch):
    model, tokenizer = headed(kind, name, torch.float32)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    opened = []
    real = transformers.PreTrainedModel.from_pretrained.__func__
    counting = classmethod(lambda cls, *args, **more: opened.append(cls.__name__) or real(cls, *args, **more))
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", counting)
    lens = regard.Lens(tmp_path)
    embeddings = lens.model.forward.model.get_input_embeddings().weight
    assert lens.model.head.unembedding.data_ptr() == embeddings.data_ptr()
    assert opened == [kind]


def test_tensors_that_a_folder_of_a_model_with_a_head_lacks(tmp_path):
    model, tokenizer = headed("LlamaForCausalLM", "llama", torch.float32)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "layers.1.mlp.up_proj" not in name}
    model.save_pretrained(tmp_path, state_dict=tensors)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"its file lacks layers\.1\.mlp\.up_proj\.weight and 0 more of its tensors"):
        regard.Lens(tmp_path)


def test_a_head_that_is_not_in_the_folder_is_none(tmp_path):
    model, tokenizer = headed("BertForMaskedLM", "bert", torch.float32)
    model.base_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"BertModel"', '"BertForMaskedLM"'))
    lens = regard.Lens(tmp_path)
    assert lens.model.head is None
    with pytest.raises(ValueError, match=r"^next_token: \S+ predicts no tokens: it has no head. Open a model with one"):
        Target.next_token(lens.read(TEXT))


def test_a_head_that_reads_more_than_the_final_states_is_none():
    model, tokenizer = headed("LlamaForCausalLM", "llama")
    lens = regard.Lens((model, tokenizer))
    ids = tokenizer(TEXT).input_ids

    def other(*inputs):
        passed = lens.model.forward(*inputs)
        return passed._replace(final=passed.final + 1)

    assert find_head(model, lens.model.forward, ids) is not None
    assert find_head(model, other, ids) is None


def test_an_encoder_has_no_head():
    assert [regard.Lens(bodied(name)).model.head for name in BODIES] == [None] * 4


# Numbers


@pytest.mark.parametrize(("kind", "name"), HEADS["next token"].items(), ids=HEADS["next token"].keys())
def test_a_next_token_is_a_logit(kind, name):
    lens = lens_of(kind, name)
    reading = lens.read(TEXT)
    logits = logits_of(lens, reading)
    assert Target.next_token(reading, 7).of(reading) == pytest.approx(float(logits[-1, 7]), abs=EXACT[kind])
    difference = Target.next_token(reading, 7, instead_of=9, position=2)
    assert difference.of(reading) == pytest.approx(float(logits[2, 7] - logits[2, 9]), abs=EXACT[kind])
    likely = default_target(reading)
    assert likely.predicted == (len(reading.tokens) - 1, int(logits[-1].argmax()), None)
    assert likely.of(reading) == pytest.approx(float(logits[-1].max()), abs=EXACT[kind])


@pytest.mark.parametrize(("kind", "name"), HEADS["class"].items(), ids=HEADS["class"].keys())
def test_a_class_is_a_logit(kind, name):
    lens = lens_of(kind, name)
    reading = lens.read(TEXT)
    logits = logits_of(lens, reading)
    assert Target.label(reading, "neutral").of(reading) == pytest.approx(float(logits[2]), abs=EXACT[kind])
    assert Target.label(reading, 1).name == "the class POSITIVE"
    assert default_target(reading).of(reading) == pytest.approx(float(logits.max()), abs=EXACT[kind])


def test_a_masked_token_is_predicted_where_it_stands():
    lens = lens_of("BertForMaskedLM", "bert")
    reading = lens.read(TEXT)
    with pytest.raises(ValueError, match=r"next_token: position: BertForMaskedLM predicts the token at a position"):
        Target.next_token(reading, "cat")
    logits = logits_of(lens, reading)
    number = lens.model.tokenizer.token_to_id("the")
    assert Target.next_token(reading, "the", position=3).of(reading) == pytest.approx(
        float(logits[3, number]), abs=1e-9
    )
    assert Target.next_token(reading, position=3).predicted.token == int(logits[3].argmax())
    assert default_target(reading).name == "the sentence's vector"


@pytest.mark.parametrize("name", BODIES)
def test_vectors(name):
    lens = regard.Lens(bodied(name, torch.float32))
    reading = lens.read(TEXT)
    vector = lens.embed([TEXT]).vectors[0]
    assert Target.sentence(reading).of(reading) == pytest.approx(float(np.linalg.norm(vector)), rel=1e-5)
    cat = lens.embed([TEXT], level="word").vectors[0][1]
    assert Target.word(reading, "cat").of(reading) == pytest.approx(float(np.linalg.norm(cat)), rel=1e-5)
    assert Target.coordinate(reading, "cat", 3).of(reading) == pytest.approx(float(cat[3]), rel=1e-4, abs=1e-6)
    other = lens.embed(["unbelievable"]).vectors[0]
    cosine = float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other))
    assert Target.similarity(reading, "unbelievable").of(reading) == pytest.approx(cosine, abs=1e-5)
    assert Target.similarity(reading, reading).of(reading) == pytest.approx(1, abs=1e-6)
    assert Target.sentence(reading, "max").of(reading) > 0


def test_the_embedded_model_has_a_length_to_explain(embedded_lens):
    # Its folder divides sentence vectors by their lengths: of those, nothing could be said.
    reading = embedded_lens.read("Time flies like an arrow")
    length = reading.hidden[-1].mean(0).norm()
    assert default_target(reading).of(reading) == pytest.approx(float(length), rel=1e-5)
    assert Target.similarity(reading, "Time flies").of(reading) == pytest.approx(
        float(np.prod(embedded_lens.embed(["Time flies like an arrow", "Time flies"]).vectors, 0).sum()), abs=1e-5
    )


def test_any_function():
    lens = lens_of("LlamaForCausalLM", "llama")
    reading = lens.read(TEXT)
    target = Target.function(reading, lambda output: output.logits().logsumexp(-1).sum(), "evidence")
    assert target.of(reading) == pytest.approx(float(logits_of(lens, reading).logsumexp(-1).sum()), rel=1e-9)
    assert repr(target) == "Target(evidence)"
    with pytest.raises(
        ValueError, match=r"function: expected a function that returns a tensor of one number. Got a tensor"
    ):
        Target.function(reading, lambda output: output.final)
    with pytest.raises(ValueError, match=r"Got float"):
        Target.function(reading, lambda output: 1.0)


# Reading again


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("pair", [None, "a banana"])
def test_a_text_is_read_again_as_it_was(name, pair, tmp_path):
    model, tokenizer = bodied(name, torch.float32)
    lenses = [regard.Lens((model, tokenizer))]
    if name == "bert":
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        lenses.append(regard.Lens(tmp_path))
    for lens in lenses:
        reading = lens.read(TEXT, pair)
        with torch.inference_mode():
            passed = read_again(reading, regard.attention, "test", copies=2)
        for copy in range(2):
            again = of_pass(passed, copy)
            assert torch.allclose(again["hidden"], reading.hidden, atol=1e-6)
            assert torch.allclose(again["final"], reading.final, atol=1e-6)
    if name == "bert":
        assert (reading.types is None) == (pair is None)


# The command line


def test_parse(embedded_lens):
    reading = embedded_lens.read("Time flies like flies")
    assert parse_target(reading, "sentence").name == "the sentence's vector"
    assert parse_target(reading, "word:flies", nth=2).name == "the vector of “flies”"
    second, first = (parse_target(reading, "word:flies[17]", nth=nth).of(reading) for nth in (2, 1))
    assert first != second == pytest.approx(float(reading.hidden[-1, 4, 17]))
    assert parse_target(reading, "text:a: b").name == "the similarity with “a: b”"
    with pytest.raises(LookupError, match=r"occurs twice"):
        parse_target(reading, "word:flies")
    with pytest.raises(IndexError, match=r"number: the vector of “Time” has 384 numbers, from 0 to 383. Got 384"):
        parse_target(reading, "word:Time[384]")
    for text in ("", "word:", "text:", "text: ", "flies", "sentence:", "label", "next"):
        with pytest.raises(ValueError, match=r"expected one of these forms: next, next:cat|has no head"):
            parse_target(reading, text)


def test_parse_tokens():
    lens = lens_of("GPT2LMHeadModel", "gpt2")
    reading = lens.read(TEXT)
    tokenizer = lens.model.tokenizer
    spaced, bare = tokenizer.token_to_id("Ġa"), tokenizer.token_to_id("a")
    assert None not in (spaced, bare)
    assert parse_target(reading, "next:a").predicted.token == spaced  # the word, where there is one
    assert parse_target(reading, "next:a-Ġ").predicted[1:] == (spaced, tokenizer.token_to_id("Ġ"))
    assert parse_target(reading, "next:-").predicted[1:] == (tokenizer.token_to_id("-"), None)
    assert parse_target(reading, "next:<s>").predicted.token == tokenizer.token_to_id("<s>")
    assert parse_target(reading, "next").predicted == default_target(reading).predicted
    with pytest.raises(ValueError, match=r"'a-b-c' can be divided|expected a single token"):
        parse_target(reading, "next:a-b-c")
    assert parse_target(reading, "next:---").predicted[1:] == (tokenizer.token_to_id("-"),) * 2
    with pytest.raises(
        ValueError, match=r"token: expected a single token, and 'xyz' is none: \S+ reads it as 3: x y z"
    ):
        parse_target(reading, "next:xyz")
    with pytest.raises(ValueError, match=r"instead_of: expected a single token"):
        Target.next_token(reading, "a", instead_of="xyz")


def test_a_word_that_the_vocabulary_lacks():
    reading = lens_of("BertForMaskedLM", "bert").read(TEXT)
    with pytest.raises(ValueError, match=r"'☃' is none: the vocabulary of BertForMaskedLM lacks it"):
        Target.next_token(reading, "☃", position=2)


def test_an_ambiguous_difference():
    model, tokenizer = headed("GPT2LMHeadModel", "gpt2")
    tokenizer.add_tokens(["Ġq-r", "q-r", "r-s"])
    reading = regard.Lens((model, tokenizer)).read(TEXT)
    with pytest.raises(ValueError, match=r"'q-r-s' can be divided into two tokens of GPT2LMHeadModel in several ways"):
        parse_target(reading, "next:q-r-s")


# Bad input


def test_bad_input():
    reading = lens_of("LlamaForSequenceClassification", "llama").read(TEXT)
    with pytest.raises(ValueError, match=r"no class 'ANGRY'. Its classes: NEGATIVE, POSITIVE, NEUTRAL"):
        Target.label(reading, "ANGRY")
    with pytest.raises(ValueError, match=r"has no class 3"):
        Target.label(reading, 3)
    with pytest.raises(ValueError, match=r"the head of LlamaForSequenceClassification predicts a class"):
        Target.next_token(reading, 7)
    reading = lens_of("GPT2LMHeadModel", "gpt2").read(TEXT)
    with pytest.raises(IndexError, match=r"position: the text has 6 tokens, from 0 to 5. Got 6"):
        Target.next_token(reading, 7, position=6)
    with pytest.raises(ValueError, match=r"token: GPT2LMHeadModel has tokens 0 to 2"):
        Target.next_token(reading, 99999)
    with pytest.raises(ValueError, match=r"predicts no classes: the head of GPT2LMHeadModel predicts a next token"):
        Target.label(reading)


def test_a_target_is_of_one_text():
    lens = regard.Lens(bodied("bert"))
    reading = lens.read(TEXT)
    with pytest.raises(ValueError, match=r"target: the sentence's vector was made for another text than 'the mat'"):
        Target.sentence(reading).of(lens.read("the mat"))
    assert Target.sentence(reading).of(lens.read(TEXT)) > 0


def test_words_and_readings_of_others():
    lens = regard.Lens(bodied("bert"))
    reading, other = lens.read(TEXT), lens.read("the mat")
    for make in (Target.word, lambda *given: Target.coordinate(*given, 3)):
        with pytest.raises(ValueError, match=r"'mat' is a word of another text than 'the cat sat on the mat'"):
            make(reading, other.word("mat"))
        assert make(reading, reading.word("the", 2)).of(reading) == make(reading, reading.words[4]).of(reading)
    stranger = regard.Lens(bodied("bert")).read(TEXT)
    with pytest.raises(ValueError, match=r"similarity: text: expected a reading by BertModel. Got one by BertModel"):
        Target.similarity(reading, stranger)


def test_a_pickled_reading_cannot_be_read_again():
    reading = pickle.loads(pickle.dumps(regard.Lens(bodied("bert")).read(TEXT)))
    with pytest.raises(ValueError, match=r"this reading has no lens with which its text could be read again"):
        default_target(reading)


def test_a_trained_decoder():
    lens = regard.Lens(required(STORIES))
    reading = lens.read("Once upon a time, there was a little girl")
    target = default_target(reading)
    assert target.name == "the next token “named”"
    assert parse_target(reading, "next:t-s").of(reading) < 0 < target.of(reading)
