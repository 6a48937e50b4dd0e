"""The command line: bad input, exit codes, old names of options, and what a process of its own does."""

import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from support import models as fixtures
from support.cli import ARROW, FLIES, REGARD, could_not, done

# What bad input gets


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "", "--word", "a"], "read: the text is empty."),
        (["show", " \n "], "read: the text is empty."),
        (["show", "\udcff"], "read: the text is not valid Unicode at character 0."),
        (["explain", ARROW, "--word", "fly"], "There is no word 'fly' in the text. The nearest: flies, "),
        (["explain", ARROW, "--word", ""], "The word to look for is empty."),
        (["explain", ARROW, "--word", "\udcff"], r"There is no word '\\udcff' in the text\."),
        (["explain", "the end of the day", "--word", "the"], "“the” occurs twice; choose one with --nth 1 or --nth 2."),
        (["explain", ARROW, "--word", "flies", "--nth", "0"], "'flies' has no --nth 0: it occurs 1 time."),
        (["explain", ARROW, "--word", "flies", "--layer", "6"], "There is no layer 6: .* has layers 0 to 5."),
        (["explain", ARROW, "--word", "flies", "--head", "-13"], "There is no head -13: .* has heads 0 to 11."),
        (
            ["explain", ARROW, "--word", "flies", "--against", "a fly"],
            "In 'a fly': There is no word 'flies' in the text",
        ),
        (["explain", ARROW, "--word", "flies", "--against", " "], "read: the text is empty."),
        (["explain", ARROW, "--word", "flies", "--against", "fly", "--save", "a.html"], "In 'fly': There is no word"),
        (["show", ARROW, "--layer", "99"], "There is no layer 99: all-MiniLM-L6-v2 has layers 0 to 5."),
        (["show", ARROW, "--save", "a.pdf"], "Expected a file that ends in .html, .png, .svg or .json. Got 'a.pdf'."),
        (["explain", ARROW, "--word", "flies", "--save", "a"], "Expected a file that ends in .html, .png,"),
        (["show", ARROW, "--save", "no/such/folder/a.json"], "no/such/folder/a.json: No such file or directory"),
        (
            ["show", ARROW, "--map", "nroms"],
            r"There is no map 'nroms'\. The maps: weights, value-weighted, norms, gradient",
        ),
        (["explain", ARROW, "--word", "flies", "--map", ""], r"There is no map ''\. The maps: weights"),
        (["show", ARROW, "--map", "norms", "--head", "1"], "The map 'norms' has no heads to choose from"),
        (["show", ARROW, "--map", "norms", "--target", "sentence"], "The map 'norms' explains no target: leave it out"),
        (["show", ARROW, "--map", "gradient", "--layer", "6"], "There is no layer 6: .* has layers 0 to 5."),
        (["show", ARROW, "--map", "gradient", "--target", "next"], "all-MiniLM-L6-v2 predicts no tokens"),
        (["show", ARROW, "--map", "logits"], "logits: target: expected a next token"),
        (["show", ARROW, "--map", "norms", "--save", "a.pdf"], "Expected a file that ends in .html, .png, .svg or"),
        (["attribute", ARROW, "--word", "fly"], "There is no word 'fly' in the text. The nearest: flies, "),
        (
            ["attribute", "the end of the day", "--word", "the"],
            "“the” occurs twice; choose one with --nth 1 or --nth 2.",
        ),
        (["attribute", ARROW, "--target", "word:fly"], "There is no word 'fly' in the text"),
        (["attribute", ARROW, "--target", "next:cat"], "all-MiniLM-L6-v2 predicts no tokens"),
        (["attribute", ARROW, "--target", "what"], "target: expected one of these forms: next, "),
        (["attribute", ARROW, "--target", "word:flies[384]"], "the vector of “flies” has 384 numbers, from 0 to 383"),
        (["attribute", ARROW, "--word", "flies", "--layer", "6"], "There is no layer 6: .* has layers 0 to 5."),
        (["attribute", ARROW, "--word", "flies", "--head", "1"], "head: give the layer that it is a head of."),
        (["explain", ARROW, "--word", "flies", "--target", "sentence"], "The map 'weights' explains no target"),
        (["attribute", " ", "--target", "sentence"], "read: the text is empty."),
        (
            ["attribute", ARROW, "--word", "flies", "--save", "a.html"],
            "Expected a file that ends in .png, .svg or .json",
        ),
        (
            ["attribute", ARROW, "--word", "flies", "--save", "no/a.png"],
            "no/a.png: No such file or directory",
        ),
        (["compare", ARROW, "--word", "flies"], "compare: expected two texts or more."),
        (["compare", *FLIES, "--word", "time"], "In 'The bird flies over the house': There is no word 'time'"),
        (["embed", "no-such.txt", "--out", "a.parquet"], "no-such.txt: No such file or directory"),
        (
            ["embed", "no-such.txt", "--out", "a.csv"],
            "out: expected FILE.parquet, or the name of a folder. Got",
        ),
        (["embed", "-", "-", "--out", "a.parquet"], "-: standard input can be read once"),
        (["embed", "-", "--out", "a.parquet", "--keep", "x"], "-: plain text has no column 'x'"),
        (
            ["embed", "-", "--out", "a.parquet", "--prompt", "a", "--prompt-text", "b"],
            "prompt= and prompt_text= cannot be used together",
        ),
        (["embed", "-", "--out", "a.parquet", "--chunk", "9", "--level", "word"], "chunk: only at the level of"),
        (["embed", ".", "--out", "a.parquet"], r".: no file in this folder has a known format \(\.txt, "),
        (["embed", "-", "--out", "a.parquet", "--layers", "9"], r"expected 0 \(static\) to 6 \(the last\). Got 9."),
        (["embed", "-", "--out", "a.parquet", "--on", "mars"], "expected 'local', 'ray' or 'ray=ADDRESS'. Got 'mars'."),
        (["embed", "-", "--out", "no/such/folder/a"], "no/such/folder/a.parts: No such file or directory"),
        (["show", ARROW, "--model", "./nowhere"], "There is no folder './nowhere'."),
        (["show", ARROW, "--model", "."], "is not a model: it has no config.json."),
    ],
    ids=lambda case: (
        " ".join(case[:1] + case[-2:]).encode("ascii", "replace").decode() if isinstance(case, list) else ""
    ),
)
def test_what_could_not_be_done(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    could_not(run(*arguments), message)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["explain"],
        ["explain", ARROW],
        ["explain", ARROW, "--word", "flies", "--layer", "x"],
        ["explain", ARROW, "--word", "flies", "--against", f" {ARROW}\n"],
        ["explain", ARROW, "--word", "flies", "--against", "Fruit flies", "--pair", "Fruit"],
        ["show", ARROW, "--no-such-option"],
        ["show", ARROW, "more"],
        ["attribute", ARROW],
        ["attribute", ARROW, "--word", "flies", "--target", "sentence"],
        ["embed", "a.txt"],
        ["embed", "a.txt", "--out", "a.parquet", "--level", "page"],
        ["embed", "a.txt", "--out", "a.parquet", "--layers", "last"],
        ["embed", "a.txt", "--out", "a.parquet", "--chunk", "0"],
        ["embed", "a.txt", "--out", "a.parquet", "--chunk", "pages"],
        ["embed", "a.txt", "--out", "a.parquet", "--dims", "0"],
        ["embed", "a.txt", "--out", "a.parquet", "--pool", "mean", "--pool", "best"],
    ],
    ids=lambda case: " ".join(case[:1] + case[-1:]),
)
def test_wrong_usage(run, arguments):
    result = run(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err


@pytest.mark.parametrize("name", ["mamba", "resnet"])
def test_a_model_without_attention(run, tmp_path, name):
    could_not(run("show", ARROW, "--model", fixtures.saved(name, tmp_path)), "it has no attention, or one that")


def test_damaged_and_pickled_models(run, tmp_path):
    folder = fixtures.saved("gpt2", tmp_path)
    assert run("show", ARROW, "--model", folder).code == 0
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    could_not(run("show", ARROW, "--model", folder), "cannot be opened: ")
    weights.rename(folder / "pytorch_model.bin")
    could_not(
        run("show", ARROW, "--model", folder),
        r"its weights are pickled .* or pass --allow-pickle if you trust the file\.",
    )
    could_not(run("show", ARROW, "--model", folder, "--allow-pickle"), "cannot be opened: ")
    (folder / "config.json").write_text("{")
    (folder / "pytorch_model.bin").unlink()
    could_not(run("show", ARROW, "--model", folder), "config.json is damaged: ")


def test_a_name_offline(run, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr("urllib.request.getproxies", dict)
    could_not(
        run("show", ARROW, "--model", "regard-tests/no-such-model"),
        "neither a folder nor in the local cache, and the hub",
    )


def test_pages_and_vectors_that_cannot_be_had(run, tmp_path):
    file, out = tmp_path / "a.html", tmp_path / "out.parquet"
    file.write_text("<p>text</p>")
    could_not(run("embed", file, "--out", out), r"a\.html: files of the type \.html are not known, .*\(--format says ")
    could_not(run("embed", file, "--out", out, "--format", "lines", "--dims", 999), "dims: expected at most 384")
    assert os.listdir(tmp_path) == ["a.html"]


def test_files_that_are_no_text(run, tmp_path):
    file = tmp_path / "in.txt"
    file.write_bytes(b"good\n\xff\n")
    could_not(run("embed", file, "--out", tmp_path / "out.parquet"), r"in\.txt, line 2: not UTF-8 at byte 0")
    assert sorted(os.listdir(tmp_path)) == ["in.txt"]
    result = run("embed", file, "--out", tmp_path / "out.parquet", "--on-error", "skip")
    assert result.code == 0
    assert re.fullmatch(r"regard: .*line 2: not UTF-8 .*\nregard: 1 record was left out\.\n", result.err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk(run, tmp_path):
    for suffix in (".json", ".png", ".svg", ".html"):
        (tmp_path / f"full{suffix}").symlink_to("/dev/full")
        could_not(run("show", ARROW, "--layer", 0, "--save", tmp_path / f"full{suffix}"), "No space left on device")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:
        result = subprocess.run([*REGARD, "backends"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (1, "regard: No space left on device.\n")


def test_stdin_that_is_closed(tmp_path):
    command = [*REGARD, "embed", "-", "--out", str(tmp_path / "out.parquet")]
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    result = subprocess.run(shell, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (1, "regard: -: standard input is closed.\n")
    assert not os.listdir(tmp_path)


# In a process of its own


def test_a_closed_pipe():
    """As in `regard show … | head -1`; the reader goes before anything is written, or in the middle."""
    for arguments in (["show", ARROW, "--json"], ["backends"]):
        with subprocess.Popen([*REGARD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) in (0, 1)


def test_stopped_by_the_user(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [*REGARD, "embed", str(fifo), "--out", str(tmp_path / "out.parquet")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with open(fifo, "wb"):  # it has opened the file and waits for lines
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 1
        assert process.stderr.read() == "regard: stopped. Repeat the same command to resume.\n"
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_terminal_that_knows_only_ascii():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for arguments in (["explain", "我 爱 arrow", "--word", "爱"], ["explain", "我 爱", "--word", "爱", "--json"]):
        result = subprocess.run([*REGARD, *arguments], capture_output=True, env=environment, timeout=60, check=True)
        assert result.stderr == b""
        assert result.stdout.isascii()
    assert json.loads(result.stdout)["word"] == "爱"


def test_transformers_keeps_quiet(tmp_path):
    folder = fixtures.saved("gpt2", tmp_path)
    command = [*REGARD, "show", "the cat sat", "--model", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    assert "cat" in result.stdout


# What is asked for a release longer by its old name, and what a shell asks


def test_old_names_of_options(run, tmp_path):
    file, out = tmp_path / "lines.txt", tmp_path / "out.parquet"
    file.write_text("One line.\n")
    old = ["--store=float16", "--mix", "concatenate", "--subwords", "first", "--truncation", "cut", "--level", "word"]
    result = run("embed", file, "--out", out, *old)
    assert (result.code, result.out) == (0, f"1 text, 3 vectors of 384 numbers in {out}\n")
    assert result.err == (
        "regard: --store is now called --output-dtype.\n"
        "regard: --mix is now called --aggregate.\n"
        "regard: --subwords is now called --subtoken-pooling.\n"
        "regard: cut is now called truncate.\n"
    )
    help = done(run("embed", "--help"))
    assert not any(re.search(rf"{name}\b", help) for name in ("--store", "--mix", "--subwords"))


def test_what_follows_two_dashes_is_no_option(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    could_not(run("embed", "--out", "out.parquet", "--", "--store"), "--store: No such file or directory")


def test_version(run):
    assert re.fullmatch(r"regard \d+\.\d+\.\d+\S*\n", done(run("--version")))


def test_completion_of_the_shell():
    asked = {"_REGARD_COMPLETE": "complete_bash", "COMP_WORDS": "regard e", "COMP_CWORD": "1"}
    result = subprocess.run(REGARD, capture_output=True, text=True, timeout=60, env={**os.environ, **asked})
    assert result.stdout.split() == ["explain", "embed"]
