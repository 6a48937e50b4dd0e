"""regard atlas: what it prints and saves, what it refuses before the work begins, and a run that is stopped."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
import torch

import regard
from regard.atlas import Atlas, state
from support import encoder_decoders, models
from support import transformers_models as tiny
from support.cli import REGARD, could_not, done

TEXT = "the cat sat on the mat, and the cat that sat on it is the cat"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Models: two of one shape, one of another, one that reads a source, and one that hears."""
    root = tmp_path_factory.mktemp("models")
    base = models.saved("llama", root / "base")
    tuned = models.saved("llama", root / "tuned")
    from safetensors.torch import load_file, save_file

    weights = load_file(tuned / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.self_attn.q_proj.weight"))
    weights[name] = weights[name] * torch.linspace(0, 2, len(weights[name]))[:, None]
    save_file(weights, tuned / "model.safetensors", metadata={"format": "pt"})
    tiny.make(tiny.SEQ2SEQ["whisper"]).save_pretrained(root / "hears")
    encoder_decoders.save("Bart", root / "bart")
    return {"base": base, "tuned": tuned, "gpt2": models.saved("gpt2", root / "gpt2"), "hears": root / "hears"} | {
        "bart": root / "bart"
    }


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Where runs are kept that were stopped."""
    monkeypatch.setattr(state, "cache_folder", lambda *names: tmp_path.joinpath("cache", "regard", *names))
    return tmp_path / "cache" / "regard" / "atlas"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_help_with_an_example(run):
    out = done(run("atlas", "--help"))
    assert "Example: regard atlas SmolLM2-135M-Instruct --save atlas.html" in out.replace("\n", " ")


def test_the_scores_of_a_model_on_a_file(run, folders, text):
    out = done(run("atlas", folders["base"], text, "--no-proof"))
    assert out.startswith("base\n2 layers × 6 heads; 48 tokens of text, 244 tokens of random tokens, repeated\n")
    for name in ("previous", "sink", "entropy", "induction"):
        assert re.search(rf"(?m)^{name} ", out)


def test_numbers_as_json(run, folders, text):
    printed = json.loads(done(run("atlas", folders["base"], text, "--no-proof", "--json")))
    atlas = regard.Lens(folders["base"]).atlas([TEXT], proof=False)
    assert printed == json.loads(json.dumps(atlas.to_dict()))
    assert printed["proofs"] == []


def test_stdin(run, folders, text, monkeypatch):
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    from_stdin = json.loads(done(run("atlas", folders["base"], "-", "--no-proof", "--json")))
    assert from_stdin == json.loads(done(run("atlas", folders["base"], text, "--no-proof", "--json")))


def test_saved_files_and_a_saved_atlas_in_the_place_of_a_model(run, folders, text, tmp_path, kept):
    files = [tmp_path / f"atlas.{suffix}" for suffix in ("json", "parquet", "png", "svg")]
    saves = [argument for file in files for argument in ("--save", file)]
    assert done(run("atlas", folders["base"], text, "--no-proof", *saves)) == ""
    assert all(file.stat().st_size > 1000 for file in files)
    shown = done(run("atlas", files[0]))
    assert shown == done(run("atlas", files[1]))
    assert "previous" in shown
    assert list(kept.iterdir()) == []  # what was kept of the run is removed


def test_a_model_against_another(run, folders, text, tmp_path):
    base = tmp_path / "base.json"
    run("atlas", folders["base"], text, "--no-proof", "--save", base)
    saved = tmp_path / "difference.json"
    command = ["atlas", folders["tuned"], text, "--no-proof", "--save", saved, "--against"]
    assert done(run(*command, folders["base"])) == ""
    change = json.loads(saved.read_text())
    assert (change["against"], change["model"]) == ("base", "tuned")
    sums = torch.tensor([change["change"][""]["entropy"][layer] for layer in range(2)]).abs().sum(1)
    assert sums[0] == 0  # the layer before the one that was changed
    assert sums[1] > 0
    assert done(run(*command, base)) == ""
    assert json.loads(saved.read_text()) == change
    assert "tuned" in done(run("atlas", folders["tuned"], text, "--no-proof", "--against", base))


def test_a_model_that_reads_no_text(run, folders):
    out = done(run("atlas", folders["hears"]))
    assert "Encoder" in out
    assert "cross-attention 2 layers × 2 heads" in out
    assert "It reads no text, and was given noise as input_features; its decoder, random tokens" in " ".join(
        out.split()
    )


def test_files_of_an_encoder_decoder_are_sources_and_targets(run, folders, tmp_path):
    files = [tmp_path / name for name in ("source", "target")]
    for file, content in zip(files, (encoder_decoders.SOURCE, encoder_decoders.TARGET), strict=True):
        file.write_text(content)
    printed = json.loads(done(run("atlas", folders["bart"], *files, "--no-proof", "--json")))
    assert list(printed["scores"]) == ["encoder", "decoder", "cross"]
    could_not(run("atlas", folders["bart"], files[0]), "bart is an encoder-decoder: expected files in turn")


# What is refused, before the work begins


@pytest.fixture
def no_work(monkeypatch):
    def atlas(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr(regard.Lens, "atlas", atlas)


def test_wrong_input(run, folders, text, tmp_path, no_work):
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfe\xff")
    (tmp_path / "a.json").write_text("{}")
    for arguments, message in [
        ([tmp_path / "none"], "none"),
        (["no/such/model"], "no/such/model"),
        ([folders["base"], tmp_path / "none.txt"], "none.txt: No such file or directory"),
        ([folders["base"], empty], "empty.txt: the file is empty."),
        ([folders["base"], binary], "binary: not UTF-8 at byte 0."),
        (
            [folders["base"], "--save", "a.pdf"],
            r"Expected a file that ends in \.html, \.png, \.svg, \.json or \.parquet",
        ),
        ([folders["base"], "--save", tmp_path / "no" / "a.png"], "No such file or directory"),
        (
            [folders["base"], "--against", folders["gpt2"]],
            "gpt2 has 2 × 3 .*, and base 2 × 6 .*: only models of the same",
        ),
        ([folders["base"], "--against", tmp_path / "none.json"], "none.json: No such file or directory"),
        ([tmp_path / "a.json"], "a.json is no atlas"),
        ([folders["hears"], text], "hears reads no text: leave out the files."),
    ]:
        could_not(run("atlas", *arguments), message)
    assert run("atlas").code == 2
    assert run("atlas", folders["base"], "--seed", "x").code == 2


def test_the_shape_of_a_saved_atlas_is_checked_first(run, folders, tmp_path, no_work):
    Atlas("a", "", {"": {"previous": torch.zeros(2, 3)}}).save(tmp_path / "a.json")
    could_not(run("atlas", folders["base"], "--against", tmp_path / "a.json"), "a has 2 × 3 .*, and base 2 × 6")


# A run that is stopped


def test_stopped_by_the_user(folders, tmp_path, kept, run):
    """It says how to go on; the same command then gives what a run that was not stopped gives."""
    texts = [tmp_path / f"{n}.txt" for n in range(60)]
    for n, path in enumerate(texts):
        path.write_text(f"{TEXT} {n}")
    arguments = ["atlas", folders["base"], *texts, "--no-proof", "--json"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [*REGARD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    with process:
        for _ in range(6000):
            if kept.is_dir() and any(kept.glob("base-*.json")):
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
        assert process.stderr.read() == "regard: stopped. Repeat the same command to resume.\n"
        assert process.stdout.read() == ""
    (file,) = kept.iterdir()
    finished = json.loads(file.read_text())["done"]
    assert 0 < finished < 64
    resumed = done(run(*arguments))
    assert list(kept.iterdir()) == []
    assert resumed == done(run(*arguments))
