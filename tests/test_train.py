"""Training from plain text: what comes out is a model that others open, and a kill loses nothing."""

import errno
import json
import math
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
import transformers
from matplotlib.backends.backend_agg import FigureCanvasAgg

import regard
from regard import cli
from regard._internal import files
from regard.train import causal, masked
from regard.train import run as training
from regard.train import text as texts
from regard.train.options import OLD_NAMES, Options
from regard.train.picture import picture
from regard.train.run import History, train

TINY = Options(layers=1, dim=16, heads=2, vocab_size=60, seq_length=16, steps=12, batch_size=4, eval_every=4)
DECODER = replace(TINY, decoder=True, vocab_size=300, groups=1)
WORDS = "time flies like an arrow fruit flies like a banana the cat sat on the mat".split()  # noqa: SIM905


def sentences(count=400, seed=0):
    """Text in which a word tells the next: it goes round."""
    generator, lines = random.Random(seed), []
    for _ in range(count):
        first, length = generator.randrange(len(WORDS)), generator.randint(4, 12)
        lines.append(" ".join(WORDS[(first + n) % len(WORDS)] for n in range(length)) + ".")
    return "\n".join(lines) + "\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(sentences(), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    """Runs of a dozen steps are over sooner than the pictures of their losses are drawn, but for the test of those."""
    if request.node.name != "test_the_command":
        monkeypatch.setattr("regard._internal.plotting.to_bytes", lambda figure, file_format: b"a picture")


# Text


def test_every_twentieth_section_is_held_out_and_nothing_is_lost(file):
    text = texts.read([file])
    assert sorted("".join(text.learned + text.held_out)) == sorted(sentences())
    assert 0.03 < len(text.held_out) / (len(text.learned) + len(text.held_out)) < 0.08
    assert texts.read([file, file]).digest != text.digest


def test_blocks_hold_all_tokens_in_turn(file):
    text = texts.read([file])
    tokenizer = masked.make_tokenizer(text.learned, TINY)
    blocks = masked.blocks(tokenizer, text.learned, 16)
    assert (blocks[:, 0] == masked.CLS).all()
    assert (blocks[:, -1] == masked.SEP).all()
    tokens = [number for section in text.learned for number in tokenizer.encode(section, add_special_tokens=False).ids]
    assert blocks[:, 1:-1].flatten().tolist() == tokens[: blocks.shape[0] * 14]
    assert len(tokens) - blocks.shape[0] * 14 < 14


@pytest.mark.parametrize(("objective", "options"), [(masked, TINY), (causal, DECODER)], ids=["masked", "causal"])
def test_the_same_text_makes_the_same_tokenizer(file, objective, options):
    text = texts.read([file])
    made = {objective.make_tokenizer(text.learned, options).to_str() for _ in range(5)}
    assert len(made) == 1


def test_masks():
    ids = torch.randint(5, 1000, (2000, 42))
    ids[:, 0], ids[:, -1] = masked.CLS, masked.SEP
    changed, labels = masked.examples(ids, 1000, torch.Generator().manual_seed(1))
    at = labels >= 0
    assert torch.equal(labels[at], ids[at])
    assert at.sum(1).tolist() == [6] * 2000  # 15 % of 40
    assert not at[:, [0, -1]].any()
    assert (changed == ids)[~at].all()
    share = {"mask": changed[at] == masked.MASK, "same": changed[at] == ids[at]}
    assert share["mask"].float().mean() == pytest.approx(0.8, abs=0.01)
    assert share["same"].float().mean() == pytest.approx(0.1, abs=0.01)
    assert not (changed[at] < masked.MASK).any()
    assert at[:, 1:-1].float().mean(0).sub(0.15).abs().max() < 0.03  # every place as often


def test_texts_of_a_decoder_end_and_blocks_begin_with_the_end_token():
    tokenizer = causal.make_tokenizer(["a cat sat\n"], DECODER)
    sections = ["a cat\n<|endoftext|>\n", "sat\non\n<|endoftext|>\n<|endoftext|>\nit\n"]  # cut in between
    blocks = causal.blocks(tokenizer, sections, 6)
    assert (blocks[:, 0] == causal.END_ID).all()
    tokens = [id for text in ("a cat", "sat\non", "it") for id in (*tokenizer.encode(text).ids[1:], causal.END_ID)]
    assert blocks[:, 1:].flatten().tolist() == tokens[: len(tokens) // 5 * 5]
    assert tokenizer.decode(tokenizer.encode("naïve 北京 \x00\x7f").ids) == "naïve 北京 \x00\x7f"
    inputs, labels = causal.examples(blocks, 300, torch.Generator())
    assert torch.equal(inputs[:, 1:], labels[:, :-1])


def test_all_blocks_in_turn():
    options = Options(batch_size=3, seed=5)
    seen = torch.cat([training._order(7, step, options) for step in range(7)])
    for epoch in seen.view(3, 7):
        assert sorted(epoch.tolist()) == list(range(7))
    assert not torch.equal(seen[:7], seen[7:14])


# Training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    (folder / "text.txt").write_text(sentences(1500), encoding="utf-8")
    options = Options(
        layers=1,
        dim=64,
        heads=2,
        vocab_size=100,
        seq_length=16,
        steps=400,
        batch_size=32,
        learning_rate=3e-3,
        eval_every=100,
    )
    seen = []
    report = train([folder / "text.txt"], folder / "model", options, progress=seen.append)
    return folder / "model", report, seen


def test_it_learns_what_words_tell_of_one_another(trained):
    _, report, seen = trained
    assert report["ended"] == "all steps are done"
    assert report["best"]["accuracy"] > 0.5  # the most frequent token is an eighth of all
    assert [progress.step for progress in seen] == list(range(1, 401))
    assert seen[-1].tokens == 400 * 32 * 16
    assert seen[-1].loss == report["final_loss"] < 0.7 * seen[0].loss


def test_regard_and_transformers_open_it(trained):
    folder, _, _ = trained
    reading = regard.Lens(folder).read("time flies like an arrow")
    assert [word.text for word in reading.words] == WORDS[:5]
    transformers.utils.logging.disable_progress_bar()
    model, loading = transformers.AutoModelForMaskedLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer("Time flies like an arrow", return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        theirs = model.bert(**given, output_hidden_states=True).hidden_states
    assert torch.cat(theirs).sub(reading.hidden).abs().max() < 1e-5
    masked = tokenizer("time flies [MASK] an arrow", return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        logits = model(**masked).logits[0]
    guess = logits[masked["input_ids"][0] == tokenizer.mask_token_id].argmax(-1)
    assert tokenizer.convert_ids_to_tokens(guess) == ["like"]
    assert tokenizer.model_max_length == 16


def test_a_decoder_predicts_the_next_token_and_opens_everywhere(file, tmp_path):
    options = replace(DECODER, dim=32, heads=4, groups=2, steps=120, batch_size=16, learning_rate=1e-2, eval_every=60)
    report = train([file], tmp_path / "model", options)
    assert report["best"]["accuracy"] > 0.5
    assert report["best"]["loss"] < 0.5 * math.log(300)
    lens = regard.Lens(tmp_path / "model")
    reading = lens.read("fruit flies like a ")
    transformers.utils.logging.disable_progress_bar()
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", output_loading_info=True, attn_implementation="eager"
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert model.config.num_key_value_heads == 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    given = tokenizer("fruit flies like a ", return_tensors="pt")
    assert given["input_ids"][0].tolist() == reading.ids.tolist()
    with torch.no_grad():
        out = model(given["input_ids"], output_attentions=True)
    torch.testing.assert_close(reading.attention[0].weights.dense(), out.attentions[0][0], atol=1e-5, rtol=0)
    probabilities = out.logits[0].softmax(-1)
    torch.testing.assert_close(reading.predictions(3).probabilities, probabilities.topk(3).values, atol=1e-5, rtol=0)
    assert lens.generate("the cat sat on", 8).finish().text.startswith("the cat sat on the mat")


def test_the_best_is_kept_and_it_stops_early(file, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.2, 1.0])
    kept = []
    monkeypatch.setattr(training, "evaluate", lambda *_: (next(losses), 0.5))
    monkeypatch.setattr(masked, "export", lambda *_: kept.append(True))
    options = Options(**{**vars(TINY), "steps": 100, "eval_every": 2, "patience": 3})
    report = train([file], tmp_path / "model", options)
    assert report["ended"] == "no better on held-out text in 3 evaluations"
    assert (report["steps"], report["best"]["step"], len(kept)) == (10, 4, 2)


def test_the_picture():
    figure = picture(History([3.0, 2.0, 1.0], [(2, 2.0, 0.1), (3, 1.5, 0.2)]))
    FigureCanvasAgg(figure).draw()
    assert [axes.get_title() for axes in figure.axes] == ["Loss (nats per token)", "Held-out accuracy"]


# Nothing lost


def same(run, other):
    kept = ("final_loss", "best", "held_out", "steps")
    return [run[name] for name in kept] == [other[name] for name in kept]


@pytest.mark.parametrize("options", [replace(TINY, dropout=0.1), DECODER], ids=["encoder", "decoder"])
def test_stopped_anywhere_and_gone_on_with_it_is_the_same_run(file, tmp_path, options):
    whole = train([file], tmp_path / "whole", options)
    for stop in (1, 4, 6, 11):

        def interrupt(progress, stop=stop):
            if progress.step == stop:
                raise KeyboardInterrupt

        out = tmp_path / f"stopped at {stop}"
        with pytest.raises(KeyboardInterrupt):
            train([file], out, options, progress=interrupt)
        assert same(train([file], out, options, resume=True), whole)
        assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert same(train([file], tmp_path / "whole", options, resume=True), whole)  # there was nothing left to do


def test_killed(file, tmp_path):
    """In a process of its own, by a signal that nobody can catch."""
    options = [
        "--layers",
        "1",
        "--dim",
        "16",
        "--heads",
        "2",
        "--vocab-size",
        "60",
        "--seq-length",
        "16",
        "--batch-size",
        "4",
    ]
    command = [
        sys.executable,
        "-c",
        "from regard.cli import main; main()",
        "train",
        str(file),
        *options,
        "--steps",
        "80",
        "--eval-every",
        "16",
    ]

    def ended(out, *more):
        done = subprocess.run([*command, "--out", str(out), "--json", *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    whole = ended(tmp_path / "whole")
    out = tmp_path / "killed"
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / training.STATE).exists():
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was not at the end yet
    assert same(ended(out, "--resume"), whole)


def test_killed_before_the_first_checkpoint(file, tmp_path, monkeypatch):
    for more in ({}, {"resume": True}):
        out = tmp_path / f"model {more}"
        monkeypatch.setattr(training, "_save_checkpoint", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train([file], out, TINY)
        monkeypatch.undo()
        (out / "tokenizer.json").write_text("of another text")
        assert train([file], out, TINY, **more)["steps"] == TINY.steps


def test_a_full_disk_leaves_the_last_checkpoint(file, tmp_path, monkeypatch):
    fsync, count = files.os.fsync, iter(range(1000))

    def full(descriptor):
        if next(count) >= 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        train([file], tmp_path / "model", TINY)
    monkeypatch.setattr(files.os, "fsync", fsync)
    assert not [path for path in (tmp_path / "model").iterdir() if path.name.startswith(".")]
    assert same(train([file], tmp_path / "model", TINY, resume=True), train([file], tmp_path / "whole", TINY))


# Wrong input


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, file):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["regard", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        out, err = capsys.readouterr()
        return done.value.code or 0, out, err

    return run


SMALL = [
    "--layers",
    1,
    "--dim",
    16,
    "--heads",
    2,
    "--vocab-size",
    60,
    "--seq-length",
    16,
    "--steps",
    2,
    "--batch-size",
    2,
]


def test_the_command(command, tmp_path):
    code, out, err = command("text.txt", "--out", "model", *SMALL)
    assert (code, err) == (0, "")
    assert "2 steps" in out
    assert "regard.Lens('model')" in out
    assert (tmp_path / "model" / "losses.png").stat().st_size > 1000
    code, out, err = command("text.txt", "--out", "model", *SMALL)
    assert (code, err) == (1, "regard: model holds a run already: --resume continues it.\n")
    code, out, err = command("text.txt", "--out", "model", *SMALL, "--seed", 1, "--resume")
    assert (code, err) == (1, "regard: model holds a run with --seed 0. Got --seed 1.\n")
    (tmp_path / "text.txt").write_text(sentences(seed=1))
    code, out, err = command("text.txt", "--out", "model", *SMALL, "--resume")
    assert (code, err) == (1, "regard: model holds a run on another text.\n")


def test_the_command_of_a_decoder(command, tmp_path):
    small = [*SMALL, "--decoder", "--vocab-size", 300]
    code, out, err = command("text.txt", "--out", "model", *small)
    assert (code, err) == (0, "")
    assert "of next tokens" in out
    code, out, err = command("text.txt", "--out", "model", *SMALL, "--vocab-size", 300, "--resume")
    assert (code, err) == (1, "regard: model holds a run of a decoder. Got an encoder.\n")
    code, out, err = command("text.txt", "--out", "model", *small, "--groups", 1, "--resume")
    assert (code, err) == (1, "regard: model holds a run with --groups None. Got --groups 1.\n")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--groups", 1], "--groups: only a decoder has them. Add --decoder."),
        (["--decoder"], "vocab_size: expected more than 256 for a decoder"),
        (["--decoder", "--vocab-size", 300, "--groups", 4], "expected groups that divide the 2 heads. Got 4."),
        (["--decoder", "--vocab-size", 300, "--dim", 15], "expected a dim that is divisible by 2 heads. Got 15."),
        (["--decoder", "--vocab-size", 300, "--dim", 6], "expected heads of an even dim"),
        (["--decoder", "--vocab-size", 300, "--dropout", 0.1], "dropout: a decoder has none."),
    ],
)
def test_sizes_that_no_decoder_has(command, tmp_path, more, message):
    code, out, err = command("text.txt", "--out", "model", *SMALL, *more)
    assert (code, out) == (1, "")
    assert message in err
    assert not (tmp_path / "model").exists()


def test_groups_of_an_encoder(file, tmp_path):
    with pytest.raises(ValueError, match=r"groups: only a decoder has them\. Got groups=1 without decoder=True\."):
        train([file], tmp_path / "model", replace(TINY, groups=1))


def test_ctrl_c(command, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_step", stop)
    code, _, err = command("text.txt", "--out", "model", *SMALL)
    assert (code, err) == (1, "regard: stopped. regard train … --resume continues from the last checkpoint.\n")


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (b"", [], "There is no text in bad.txt."),
        (b" \n\n", [], "There is no text in bad.txt."),
        (b"two words", [], "Too little text: 10 characters, and blocks of 16 tokens need about "),
        (b"some text \xff and more", [], "bad.txt: not UTF-8 at byte 10."),
        (sentences().encode(), ["--heads", 3], "expected a dim that is divisible by 3 heads. Got 16."),
        (sentences().encode(), ["--resume"], "model holds no run to resume: there is no training.pt."),
        (sentences().encode(), ["--out", "text.txt"], "text.txt is not an empty folder."),
        (sentences().encode(), ["--out", "."], ". is not an empty folder."),
        (None, [], "bad.txt: No such file or directory"),
    ],
)
def test_wrong_input(command, tmp_path, content, more, message):
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    code, out, err = command("bad.txt", "--out", "model", *SMALL, *more)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_how_much_text_is_needed_is_enough(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(sentences(3))
    with pytest.raises(ValueError, match="Too little text") as error:
        train([path], tmp_path / "model", TINY)
    needed = int(str(error.value).split(" need about ")[1].split()[0].rstrip(".").replace(",", ""))
    path.write_text(sentences(2000)[:needed])
    assert train([path], tmp_path / "enough", TINY)["steps"] == TINY.steps


def test_a_damaged_checkpoint(command, tmp_path):
    command("text.txt", "--out", "model", *SMALL)
    state = tmp_path / "model" / training.STATE
    state.write_bytes(state.read_bytes()[:1000])
    code, _, err = command("text.txt", "--out", "model", *SMALL, "--resume")
    assert code == 1
    assert err.startswith("regard: model/training.pt is damaged: ")


# What the previous release has written and asked


def test_a_run_of_the_previous_release_is_resumed(file, tmp_path):
    def stop(progress):
        if progress.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([file], tmp_path / "model", TINY, progress=stop)
    state = tmp_path / "model" / training.STATE
    content = torch.load(state, weights_only=True)
    content["options"] = {OLD_NAMES.get(name, name): value for name, value in content["options"].items()}
    assert content["options"].keys() >= {"vocabulary", "length", "batch", "rate", "every"}
    torch.save(content, state)
    with pytest.raises(ValueError, match=r"model holds a run with seq_length=16\. Got seq_length=18\.$"):
        train([file], tmp_path / "model", replace(TINY, seq_length=18), resume=True)
    assert same(train([file], tmp_path / "model", TINY, resume=True), train([file], tmp_path / "whole", TINY))


def test_old_names_of_options(command):
    with pytest.warns(DeprecationWarning, match=r"^Options: length= is now called seq_length=\.$"):
        assert Options(length=32) == Options(seq_length=32)
    old = ["--layers", 1, "--dim", 16, "--heads", 2, "--steps", 2, "--vocabulary", 60, "--length", 16, "--batch", 2]
    code, out, err = command("text.txt", "--out", "model", *old, "--rate", 1e-3, "--every", 1)
    assert code == 0
    assert err.splitlines() == [
        "regard: --vocabulary is now called --vocab-size.",
        "regard: --length is now called --seq-length.",
        "regard: --batch is now called --batch-size.",
        "regard: --rate is now called --learning-rate.",
        "regard: --every is now called --eval-every.",
    ]
    assert "2 steps" in out
