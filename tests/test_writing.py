"""regard generate and regard chat: what they print, keep and refuse."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest
import torch
from transformers.utils import logging

import regard
from regard.output import writing
from support import data
from support.cli import REGARD, could_not, done

PROMPT = "Once upon a time"
CHAT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}Lily:"


@pytest.fixture(scope="module")
def stories():
    return str(data.required(data.STORIES))


@pytest.fixture(scope="module")
def chatty(stories, tmp_path_factory):
    """The same decoder, with a chat template."""
    import shutil

    folder = tmp_path_factory.mktemp("chatty") / "stories"
    shutil.copytree(stories, folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return str(folder)


@pytest.fixture(autouse=True)
def quiet():
    """Without transformers' progress bars, which the command leaves out where stderr is no terminal."""
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def typed(monkeypatch):
    """A function that puts a text into stdin, which is no terminal then."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def generated(stories, **options):
    generation = regard.Lens(stories).generate(PROMPT, **options)
    generation.finish()
    return generation


# regard generate


def test_what_is_written_is_printed(run, stories):
    expected = generated(stories, max_tokens=12)
    assert done(run("generate", PROMPT, "--max-tokens", "12", "--model", stories)) == expected.text + "\n"


def test_numbers_as_json(run, stories):
    options = ["--max-tokens", "5", "--temperature", "0.8", "--top-p", "0.9", "--seed", "3", "--model", stories]
    out = json.loads(done(run("generate", PROMPT, *options, "--json")))
    expected = generated(stories, max_tokens=5, temperature=0.8, top_p=0.9, seed=3)
    assert out["reply"] == expected.text
    assert out["finished"] == "length"
    assert out["tokens"] == [token._asdict() for token in expected.tokens]


def test_looks_are_the_dense_weights_of_the_query_that_chose(stories):
    generation = generated(stories, max_tokens=4)
    reading = generation.reading
    dense = torch.stack([attention.weights[...] for attention in reading.attention]).double().mean((0, 1))
    for number, at in enumerate(writing.looks(generation)):
        row = dense[reading.reply.token + number - 1]
        assert at.first == pytest.approx(float(row[0]), abs=1e-6)
        by_word = {unit.start: float(row[[t for t in unit.tokens if t]].sum()) for unit in reading.units}
        best = sorted(by_word.values(), reverse=True)[: len(at.words)]
        assert [weight for _, weight in at.words] == pytest.approx(best, abs=1e-6)
        assert all(by_word[word.start] == pytest.approx(weight, abs=1e-6) for word, weight in at.words)


def test_many_queries_are_taken_in_blocks(stories, monkeypatch):
    generation = generated(stories, max_tokens=7)
    whole = writing.looks(generation)
    monkeypatch.setattr(writing, "ROWS", 3)
    assert [at.first for at in writing.looks(generation)] == pytest.approx([at.first for at in whole])


def test_looks_in_the_terminal(run, stories):
    out = done(run("generate", PROMPT, "--max-tokens", "3", "--looks", "--model", stories))
    rows = [line for line in out.splitlines() if line.startswith("“")]
    assert len(rows) == 3
    assert all(len(re.findall(r"\d%", row)) >= 2 for row in rows)
    assert "The first token of the text" in " ".join(out.split())


def test_a_stop_string(run, stories):
    out = done(run("generate", PROMPT, "--stop", ".", "--max-tokens", "60", "--model", stories, "--json"))
    assert json.loads(out)["finished"] == "stop"
    assert "." not in json.loads(out)["reply"]


def test_the_prompt_from_stdin_and_a_page(run, stories, tmp_path, typed):
    page = tmp_path / "story.html"
    typed(PROMPT)
    assert (
        done(run("generate", "-", "--max-tokens", "3", "--model", stories, "--save", page))
        == generated(stories, max_tokens=3).text + "\n"
    )
    assert "<html" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["generate", ""], "the text is empty"),
        (["generate", "word " * 600], "reads at most 512"),
        (["generate", PROMPT, "--max-tokens", "0"], "max-tokens"),
        (["generate", PROMPT, "--temperature", "-1"], "temperature"),
        (["generate", PROMPT, "--top-p", "0"], "top_p"),
        (["generate", PROMPT, "--stop", ""], "an empty string would end every reply"),
        (["generate", PROMPT, "--save", "story.txt"], "ends in .html"),
        (["chat", "Hello"], "has no chat template"),
    ],
)
def test_what_cannot_be_done(run, stories, arguments, reason):
    result = run(*arguments, "--model", stories)
    assert result.code in (1, 2)
    assert reason in " ".join(result.err.replace("│", " ").split())


def test_a_model_without_a_head(run):
    could_not(run("generate", PROMPT, "--model", "all-MiniLM-L6-v2"), "no head")


# regard chat


def test_a_message_and_its_reply(run, chatty, typed):
    prompt = "user: Hello\nLily:"
    expected = regard.Lens(chatty).chat([{"role": "user", "content": "Hello"}], max_tokens=6)
    expected.finish()
    assert expected.prompt == prompt
    assert done(run("chat", "Hello", "--max-tokens", "6", "--model", chatty)) == expected.text + "\n"
    typed("Hello\n")
    assert done(run("chat", "--max-tokens", "6", "--model", chatty)) == expected.text + "\n"


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments):
        self.near, far = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        self.process = subprocess.Popen([*REGARD, *arguments], stdin=far, stdout=far, stderr=far, env=environment,
                                        start_new_session=True)  # fmt: skip
        os.close(far)
        self.shown = ""

    def until(self, text, seconds=60, repeat=""):
        """What is shown before a text; meanwhile, a key is typed again and again."""
        end = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if not select.select([self.near], [], [], 0.3)[0]:
                self.type(repeat)
                continue
            try:
                self.shown += os.read(self.near, 4096).decode(errors="replace")
            except OSError:  # it has ended
                break
        assert text in self.shown, self.shown
        seen, self.shown = self.shown.split(text, 1)
        return seen

    def type(self, text):
        os.write(self.near, text.encode())

    def end(self):
        code = self.process.wait(30)
        os.close(self.near)
        return code


def test_a_conversation(chatty):
    terminal = Terminal("chat", "--max-tokens", "4", "--model", chatty)
    terminal.until("> ")
    terminal.type("/looks\n")
    terminal.until("There is no reply yet.")
    terminal.type("Hello\n")
    terminal.until("probability:")
    terminal.until("> ")
    terminal.type("/looks\n")
    terminal.until("Where the model looked")
    terminal.until("> ")
    terminal.type("word " * 800 + "\n")
    terminal.until("reads at most 512")
    terminal.type("/quit\n")
    assert terminal.end() == 0


def test_a_key_shows_whom_the_tokens_looked_at(stories):
    terminal = Terminal("generate", PROMPT, "--max-tokens", "3", "--model", stories)
    terminal.until("[l]")
    terminal.until("Where the model looked", repeat="l")  # what is typed before the command waits for a key is lost
    assert terminal.end() == 0


# The embedded decoder


def test_the_embedded_decoder_answers(smollm2):
    reply = smollm2.chat([{"role": "user", "content": "What is the capital of France?"}], max_tokens=16)
    assert reply.finish().reply.text == "The capital of France is Paris."
    assert reply.finished == "end"
    assert smollm2.name == "SmolLM2-135M-Instruct"
