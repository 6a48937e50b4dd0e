"""What a model writes for a page: the tokens in order, stopped when it is asked to, and read as any other text."""

import dataclasses
import time

import pytest
import torch
from tokenizers import decoders

import regard
from regard.lens import generate
from regard.viewer import chat as module
from regard.viewer.api import ViewerAPI
from regard.viewer.protocol.errors import RequestError
from support.decoder import TEMPLATE, Paced, paced_lens, save_decoder
from support.headed import headed

PROMPT = "the cat sat on"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_decoder(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def chatting(tmp_path_factory):
    return save_decoder(tmp_path_factory.mktemp("models") / "chats", TEMPLATE)


@pytest.fixture
def paced(folder):
    """A lens whose steps are counted."""
    return paced_lens(folder)


def served(*lenses):
    return ViewerAPI({lens.name: lambda lens=lens: lens for lens in lenses})


def begin(api, *texts, **more):
    return api.handle({"type": "write", "texts": list(texts), **more})["writing"]


def new_tokens(api, writing, since=0, wait=0.3):
    return api.handle({"type": "written", "writing": writing, "since": since}, wait)


def written(api, writing, patience=20):
    """All of a reply, as the page gets it: what is new, time and again."""
    tokens, until = [], time.monotonic() + patience
    while time.monotonic() < until:
        reply = new_tokens(api, writing, len(tokens))
        tokens += reply["tokens"]
        if reply["finished"] is not None:
            return tokens, reply
    raise AssertionError("it does not end")


def finished(api, message):
    while "progress" in (reply := api.handle(message)):
        message = {**message, "job": reply["job"]}
    return reply


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 7}])
def test_the_tokens_are_those_of_generate_in_order(paced, options):
    lens, _ = paced
    api = served(lens)
    tokens, end = written(api, begin(api, PROMPT, max_tokens=13, **options))
    expected = lens.generate(PROMPT, 13, **options)
    assert [(token["text"], token["probability"]) for token in tokens] == [
        (token.text, token.probability) for token in expected
    ]
    assert end["finished"] == "length"
    api.close()


def test_every_token_is_there_before_the_next_is_written(paced):
    lens, step = paced
    api = served(lens)
    step.allowed.clear()
    writing = begin(api, PROMPT, max_tokens=8)
    assert new_tokens(api, writing, wait=0)["tokens"] == []
    seen = 0
    step.pause = 0.05
    step.allowed.set()
    steps = []
    while seen < 8:
        reply = new_tokens(api, writing, seen)
        seen += len(reply["tokens"])
        steps.append(step.calls)
    assert len(set(steps)) > 4, "tokens came one by one, not all at the end"
    api.close()


def test_stop_stops_the_model_and_keeps_what_was_written(paced):
    lens, step = paced
    api, step.pause = served(lens), 0.01
    writing = begin(api, PROMPT, max_tokens=900)
    while len(new_tokens(api, writing, 2)["tokens"]) < 3:
        pass
    assert api.handle({"type": "stop", "writing": writing}) == {"stopped": True}
    tokens, end = written(api, writing)
    assert end["finished"] == "interrupted"
    assert 5 <= len(tokens) < 900
    calls = step.calls
    time.sleep(0.2)
    assert step.calls == calls <= len(tokens) + 1
    assert api.handle({"type": "stop", "writing": writing}) == {"stopped": False}
    card = finished(api, {"type": "metadata", "reading": end["reading"]})
    assert "".join(card["tokens"]).replace(" ", "") == (PROMPT + "".join(token["text"] for token in tokens)).replace(
        " ", ""
    )
    api.close()


def test_a_long_prompt_is_stopped_between_two_layers(paced):
    lens, step = paced
    api = served(lens)
    assert lens.model.head is not None  # opened before the passes are counted
    passed = []
    handles = [block.register_forward_hook(lambda *_: passed.append(1)) for block in lens.model.blocks]
    handles.append(lens.model.blocks[0].register_forward_pre_hook(lambda *_: time.sleep(0.3)))
    writing = begin(api, " ".join(["cat"] * 500))
    while step.calls == 0:
        time.sleep(0.01)
    api.handle({"type": "stop", "writing": writing})
    tokens, end = written(api, writing)
    assert (tokens, end["finished"], len(passed)) == ([], "interrupted", 1)
    assert finished(api, {"type": "metadata", "reading": end["reading"]})["reply"] is None
    for handle in handles:
        handle.remove()
    api.close()


def test_a_reply_that_nobody_asks_for_ends(paced, monkeypatch):
    monkeypatch.setattr(module, "ABANDONED", 0.2)
    lens, step = paced
    api, step.pause = served(lens), 0.02
    begin(api, PROMPT, max_tokens=900)
    time.sleep(0.6)
    calls = step.calls
    time.sleep(0.2)
    assert step.calls == calls < 40
    api.close()


def test_one_reply_is_written_at_a_time_and_others_wait(paced):
    lens, step = paced
    api = served(lens)
    step.allowed.clear()
    first, second, third = (begin(api, PROMPT, max_tokens=3, seed=n) for n in range(3))
    assert new_tokens(api, second, wait=0) == {"tokens": [], "finished": None, "progress": None}
    assert api.handle({"type": "stop", "writing": third}) == {"stopped": True}
    assert new_tokens(api, third) == {"tokens": [], "finished": "interrupted"}, "it had not begun: there is no reading"
    step.allowed.set()
    assert [len(written(api, key)[0]) for key in (first, second)] == [3, 3]
    api.close()


def test_closing_stops_everything(paced):
    lens, step = paced
    api, step.pause = served(lens), 0.01
    keys = [begin(api, PROMPT, max_tokens=900) for _ in range(2)]
    new_tokens(api, keys[0])
    api.close()
    assert [written(api, key)[1]["finished"] for key in keys] == ["interrupted", "interrupted"]


def test_too_many_at_once_are_refused(paced):
    lens, step = paced
    api = served(lens)
    step.allowed.clear()
    keys = [begin(api, PROMPT, max_tokens=1) for _ in range(module.WAITING)]
    with pytest.raises(RequestError, match="Too many replies") as refused:
        begin(api, PROMPT)
    assert refused.value.status == 503
    step.allowed.set()
    for key in keys:
        written(api, key)
    for _ in range(module.KEPT):
        written(api, begin(api, PROMPT, max_tokens=1))
    with pytest.raises(RequestError, match="Unknown reply") as forgotten:
        new_tokens(api, keys[0])
    assert forgotten.value.status == 404
    api.close()


def test_the_reading_is_that_of_prompt_and_reply_even_after_it_was_evicted(paced):
    lens, _ = paced
    api = served(lens)
    _, end = written(api, begin(api, PROMPT, max_tokens=6))
    reading = lens.generate(PROMPT, 6).finish()
    ask = {"type": "layer_weights", "reading": end["reading"], "layer": 1}
    card = finished(api, {"type": "metadata", "reading": end["reading"]})
    assert card["units"] == [unit.text for unit in reading.units]
    assert card["reply"] == int(reading.unit_of_token[reading.reply.token])
    assert (card["writes"], "source" in card) == ("text", False)
    torch.testing.assert_close(finished(api, ask)["weights"], reading.weights(1))
    api.cache.limit = 1
    finished(api, {"type": "read", "text": "the river"})
    assert api.cache.get(end["reading"]) is None
    torch.testing.assert_close(finished(api, ask)["weights"], reading.weights(1))
    assert finished(api, {"type": "metadata", "reading": end["reading"]})["reply"] == card["reply"]
    api.close()


def test_a_chat_goes_by_turns_through_the_template(chatting):
    lens = regard.Lens(chatting)
    api = served(lens)
    assert finished(api, {"type": "read", "text": "the cat"})["writes"] == "message"
    tokens, _ = written(api, begin(api, "the cat", "sat", "on the bank", max_tokens=4))
    expected = lens.chat(
        [
            {"role": "user", "content": "the cat"},
            {"role": "assistant", "content": "sat"},
            {"role": "user", "content": "on the bank"},
        ],
        4,
    )
    assert [token["text"] for token in tokens] == [token.text for token in expected]
    with pytest.raises(RequestError, match="expected an odd number of messages"):
        written(api, begin(api, "the cat", "sat"))
    api.close()


def test_a_stop_in_mid_character_leaves_the_character_out(monkeypatch):
    model, tokenizer = headed("GPT2LMHeadModel", "gpt2", torch.float32)
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    lens = regard.Lens((model, tokenizer))
    step = Paced(lens.model.step)
    lens.model = dataclasses.replace(lens.model, step=step)
    api, step.pause = served(lens), 0.05
    ids = tokenizer("Time an 👍👍")["input_ids"][len(tokenizer("Time")["input_ids"]) :]
    dictated = iter(ids)
    monkeypatch.setattr(generate, "_choose", lambda *_: next(dictated))
    writing = begin(api, "Time", max_tokens=len(ids))
    known = []
    while len(known) < 2 or known[-1]["text"]:
        known += new_tokens(api, writing, len(known))["tokens"]
    api.handle({"type": "stop", "writing": writing})
    tokens, end = written(api, writing)
    assert "".join(token["text"] for token in tokens).strip() == "an"
    assert tokens[-1]["text"] == ""
    card = finished(api, {"type": "metadata", "reading": end["reading"]})
    assert card["text"].rstrip() == "Time an"
    assert len(card["tokens"]) == len(tokenizer("Time")["input_ids"]) + len(tokens)
    api.close()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"texts": []}, "texts: expected 1 to 32 texts."),
        ({"texts": "the cat"}, "texts: expected 1 to 32 texts."),
        ({"texts": ["a"] * 33}, "texts: expected 1 to 32 texts."),
        ({"texts": [" \n"]}, "text: there is no text."),
        ({"texts": ["x" * (1 << 20) + "x"]}, "text: it has 1,048,577 characters"),
        ({"model": "gpt-5"}, "model: expected one of "),
        ({"max_tokens": 0}, "max_tokens: expected 1 to 2,048. Got 0."),
        ({"max_tokens": 2049}, "max_tokens: expected 1 to 2,048. Got 2,049."),
        ({"max_tokens": 1.5}, "max_tokens: expected a whole number from 0. Got '1.5'."),
        ({"temperature": -1}, "temperature: expected a number from 0. Got '-1'."),
        ({"temperature": float("nan")}, "temperature: expected a number from 0. Got 'nan'."),
        ({"temperature": True}, "temperature: expected a number from 0. Got 'True'."),
        ({"temperature": 2.5}, "temperature: expected 0 to 2. Got 2.5."),
        ({"seed": 1 << 63}, "seed: expected a number of at most 63 bits."),
    ],
)
def test_hostile_requests_are_refused(paced, message, error):
    lens, step = paced
    api = served(lens)
    with pytest.raises(RequestError) as refused:
        api.handle({"type": "write", "texts": [PROMPT], **message})
    assert str(refused.value).startswith(error)
    assert step.calls == 0
    api.close()


@pytest.mark.parametrize("kind", ["written", "stop"])
def test_a_reply_of_nobody_is_unknown(paced, kind):
    api = served(paced[0])
    with pytest.raises(RequestError, match="Unknown reply") as refused:
        api.handle({"type": kind, "writing": "0" * 16})
    assert refused.value.status == 404
    api.close()


def test_what_cannot_be_written_is_a_sentence(paced):
    api = served(paced[0])
    for texts, error in (
        ([" ".join(["cat"] * 1024)], "the prompt has 1,024 tokens, and "),
        (["the", "cat", "sat"], "goes on with one text. Got 3."),
    ):
        with pytest.raises(RequestError, match=error) as refused:
            written(api, begin(api, *texts))
        assert refused.value.status == 400
    api.close()


def test_a_model_that_only_reads_says_so():
    lens = regard.Lens(headed("BertForMaskedLM", "bert", torch.float32))
    api = served(lens)
    assert finished(api, {"type": "read", "text": "Time flies"})["writes"] is None
    with pytest.raises(RequestError, match="predicts the next token"):
        written(api, begin(api, "Time flies"))
    api.close()
