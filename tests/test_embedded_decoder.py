"""The embedded decoder: its conversion, which is never half there, and the commands that let it write."""

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import regard
from regard.models import EMBEDDED_DECODER, smollm2
from support.cli import REGARD, could_not, done
from support.data import STORIES, required


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small file in place of the published one, and an empty cache: the numbers of conversions so far."""
    content = b"not really GGUF"
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / smollm2._FILE).write_bytes(content)
    spec = ModuleSpec(smollm2._PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(smollm2, "find_spec", lambda name: spec)
    monkeypatch.setattr(smollm2, "_SHA256", smollm2.hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(smollm2, "_SIZE", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    conversions = []

    def convert(source, made):
        assert source == folder / smollm2._FILE
        conversions.append(made)
        save_file({"x": torch.ones(100)}, made / "model.safetensors")
        (made / "config.json").write_text("{}")
        (made / "tokenizer.json").write_text("{}")

    monkeypatch.setattr(smollm2, "_convert", convert)
    return SimpleNamespace(file=folder / smollm2._FILE, cache=tmp_path / "cache", conversions=conversions)


def kept(package):
    """What there is in the cache: files, hidden folders and all."""
    return sorted(path for path in package.cache.rglob("*") if path.is_file() or path.name.startswith("."))


def test_it_is_converted_once(package):
    folder = smollm2.embedded_decoder_folder()
    assert folder.is_relative_to(package.cache)
    assert folder.name == EMBEDDED_DECODER
    assert smollm2.embedded_decoder_folder() == folder
    assert len(package.conversions) == 1
    assert [path.name for path in kept(package)] == ["config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "config.json", "tokenizer.json"])
def test_what_is_damaged_is_converted_again(package, damage):
    folder = smollm2.embedded_decoder_folder()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    if damage in ("truncated", "empty"):
        weights.write_bytes(whole[:-1] if damage == "truncated" else b"")
    else:
        (folder / damage).unlink()
    assert smollm2.embedded_decoder_folder() == folder
    assert weights.read_bytes() == whole
    assert len(package.conversions) == 2
    assert len(kept(package)) == 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"takes 540 MB: No space left on device"),
        (SafetensorError("I/O error: No space left on device"), r"takes 540 MB: I/O error: No space left on device"),
        (KeyboardInterrupt(), None),
    ],
    ids=["full", "full for safetensors", "Ctrl-C"],
)
def test_nothing_half_written_is_left(package, monkeypatch, error, message):
    def interrupted(source, made):
        (made / "model.safetensors").write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(smollm2, "_convert", interrupted)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError, match=message):
            smollm2.embedded_decoder_folder()
    assert kept(package) == []
    smollm2.embedded_decoder_folder()
    assert len(kept(package)) == 3


def test_without_space_it_does_not_begin(package, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=999))
    with pytest.raises(OSError, match=rf"{package.cache}\S* has 0 MB free, and {EMBEDDED_DECODER} takes 540\."):
        smollm2.embedded_decoder_folder()
    assert package.conversions == kept(package) == []


def test_two_at_once(package):
    both, convert = threading.Barrier(2), smollm2._convert
    errors = []

    def meeting(source, made):
        convert(source, made)
        both.wait(20)  # each has converted before either is in place

    def open_one():
        try:
            smollm2.embedded_decoder_folder()
        except BaseException as error:
            errors.append(error)

    smollm2._convert = meeting  # which the fixture puts back
    threads = [threading.Thread(target=open_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len(package.conversions) == 2
    assert len(kept(package)) == 3


def test_another_file_is_refused(package):
    package.file.write_bytes(b"another")
    with pytest.raises(OSError, match=f"is not the published {EMBEDDED_DECODER}: its SHA-256 differs"):
        regard.Lens(EMBEDDED_DECODER)
    assert kept(package) == []


def test_without_its_package_it_says_what_to_install(package, monkeypatch):
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"is not installed: pip install 'regard\[decoder\]'"):
        regard.Lens(EMBEDDED_DECODER)


def test_the_embedded_decoder(smollm2):
    assert smollm2.name == EMBEDDED_DECODER
    reply = smollm2.chat([{"role": "user", "content": "What is the capital of France?"}])
    assert reply.finish().reply.text == "The capital of France is Paris."
    assert reply.finished == "end"
    assert smollm2.read("Paris").tokens[0].text == "Paris"  # nothing before it


# The commands


@pytest.fixture
def stories():
    """A trained decoder, without the progress bars that a command switches off before it imports transformers."""
    from transformers.utils import logging

    folder, bars = required(STORIES), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    yield folder
    if bars:
        logging.enable_progress_bar()


def test_generate(run, stories):
    expected = regard.Lens(stories).generate("Once upon a time", max_tokens=12)
    expected.finish()
    options = ("Once upon a time", "--max-tokens", 12, "--model", stories)
    assert done(run("generate", *options)) == expected.text + "\n"
    numbers = json.loads(done(run("generate", *options, "--json", "--looks")))
    assert (numbers["reply"], numbers["finished"]) == (expected.text, "length")
    assert [token["id"] for token in numbers["tokens"]] == [token.id for token in expected.tokens]
    reading = expected.reading
    rows = torch.stack([a.weights.dense().mean(0) for a in reading.attention]).mean(0)[reading.reply.token - 1 : -1]
    firsts = torch.tensor([token["looks"]["first_token"] for token in numbers["tokens"]])
    assert torch.allclose(firsts, rows[:, 0], atol=1e-5)
    table = done(run("generate", *options, "--looks"))
    assert "looked at" in table


def test_a_prompt_from_stdin(run, stories, monkeypatch, tmp_path):
    (tmp_path / "prompt").write_text("Once upon a time")
    with open(tmp_path / "prompt") as file:
        monkeypatch.setattr("sys.stdin", file)
        written = done(run("generate", "-", "--max-tokens", 4, "--model", stories))
        assert written == done(run("generate", "Once upon a time", "--max-tokens", 4, "--model", stories))


def test_what_cannot_be_written(run, stories):
    could_not(run("generate", "", "--model", stories), "empty")
    could_not(run("generate", "a " * 3000, "--model", stories), r"tokens, and stories260k reads at most .*`regard ask")
    could_not(run("chat", "Hello", "--model", stories), "no chat template")
    could_not(run("generate", "Hello", "--model", "all-MiniLM-L6-v2"), "no head that predicts the next token")
    never = done(run("generate", "Once", "--max-tokens", 3, "--stop", "ZZZ", "--json", "--model", stories))
    assert json.loads(never)["finished"] == "length"


def test_ctrl_c_keeps_what_was_written(stories, tmp_path):
    saved = tmp_path / "reply.json"
    command = [*REGARD, "generate", "Once upon a time", "--max-tokens", "100000", "--temperature", "1"]
    command += ["--model", str(stories), "--save", str(saved)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = os.read(process.stdout.fileno(), 1)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    written = (first + rest).decode()
    assert process.returncode == 1
    assert errors.decode() == "regard: stopped; what was written is kept.\n"
    assert json.loads(saved.read_text())["text"].endswith(written.rstrip("\n")[-20:])
