"""The race: tasks with the right answers, equal models, and a conclusion that follows from the numbers."""

import datetime
import json
import random
import re
import sys

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from regard import cli
from regard.race import kept, timing, training
from regard.race.picture import picture
from regard.race.report import Report
from regard.race.tasks import BOS, EOS, TASKS, batch, draw
from regard.race.training import NAMES, TrainingResult

# Tasks


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_tenth_is_held_out_and_never_learned(task):
    learned = {"".join(source) for source in draw(task, 500, "0 1", held_out=False)}
    held_out = {"".join(source) for source in draw(task, 500, "0 1", held_out=True)}
    assert not learned & held_out
    assert draw(task, 5, "0 1", held_out=False) == draw(task, 5, "0 1", held_out=False)
    assert draw(task, 5, "0 1", held_out=False) != draw(task, 5, "0 2", held_out=False)
    share = sum(source in held_out for source in held_out | learned) / len(held_out | learned)
    assert 0.3 < share < 0.7


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_token_has_a_number(task):
    sources = [task.example, *draw(task, 300, "x", held_out=False)]
    examples = batch(task, sources)
    assert examples.source.max() < task.vocab_size
    assert (examples.target[:, 0] == BOS).all()
    for row, source, length in zip(examples.label, sources, examples.lengths, strict=True):
        written = row[row >= 0].tolist()
        assert written[-1] == EOS
        assert task.decode(written) == task.answer(source)
        assert length == len(source)


def test_reversing():
    generator = random.Random(0)
    lengths = [len(TASKS["reverse"].make(generator)) for _ in range(5000)]
    assert (min(lengths), max(lengths)) == (1, 32)
    assert TASKS["reverse"].answer(list("flies")) == list("seilf")


@pytest.mark.parametrize(
    "text",
    [
        "the 3rd of March 1987", "3 March 1987", "3rd March 1987", "March 3, 1987", "Mar 3, 1987",
        "Tuesday, 3 March 1987", "3.3.1987", "3/3/1987",
    ],
)  # fmt: skip
def test_a_date_in_every_form(text):
    assert "".join(TASKS["dates"].answer(list(text))) == "1987-03-03"


def test_dates_are_dates():
    for source in draw(TASKS["dates"], 500, "d", held_out=False):
        date = datetime.date.fromisoformat("".join(TASKS["dates"].answer(source)))
        text = "".join(source)
        assert f"{date.year}" in text
        assert re.search(rf"\b{date.day}(st|nd|rd|th|\b)", text)
        if "day, " in text:
            assert text.startswith(f"{date:%A}")
        if re.search(r"\d(st|nd|rd|th)", text):
            ending = "th" if date.day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
            assert f"{date.day}{ending}" in text
    assert "".join(TASKS["dates"].answer(list("12/3/1987"))) == "1987-12-03"
    assert "".join(TASKS["dates"].answer(list("12.3.1987"))) == "1987-03-12"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("0", "zero"),
        ("7", "seven"),
        ("19", "nineteen"),
        ("80", "eighty"),
        ("87", "eighty seven"),
        ("100", "one hundred"),
        ("115", "one hundred and fifteen"),
        ("1000", "one thousand"),
        ("1987", "one thousand nine hundred and eighty seven"),
        ("2001", "two thousand and one"),
        ("100020", "one hundred thousand and twenty"),
        ("1000000", "one million"),
        ("3000100", "three million one hundred"),
        ("999999999", "nine hundred and ninety nine million nine hundred and ninety nine thousand "
                      "nine hundred and ninety nine"),
    ],
)  # fmt: skip
def test_numbers_in_words(number, words):
    assert " ".join(TASKS["numbers"].answer(list(number))) == words


# Models


@pytest.mark.parametrize("dim", [32, 64, 128])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_both_have_as_many_parameters(task, dim):
    sizes = [training.parameter_count(training.make(name, task.vocab_size, dim)) for name in NAMES]
    assert abs(sizes[0] - sizes[1]) <= 0.05 * sizes[1]


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_what_it_looks_at_are_weights(name):
    task = TASKS["numbers"]
    model = training.make(name, task.vocab_size, 32, layers=1)
    result = training.train(model, task, 60, 16, 1e-2, 0, lambda done: None)
    training.evaluate(model, task, result, 60, 0)
    assert len(result.losses) == 60
    assert sum(result.losses[-5:]) < 0.7 * sum(result.losses[:5])
    assert sum(count for _, count in result.by_length.values()) == 60
    assert result.alignment.shape == (len(result.written) + 1, len(task.example))
    torch.testing.assert_close(result.alignment.sum(1), torch.ones(len(result.written) + 1))


def test_the_same_seed_teaches_the_same():
    task = TASKS["reverse"]
    losses = []
    for seed in (0, 0, 1):
        model = training.make("recurrent", task.vocab_size, 16, layers=1, seed=seed)
        losses.append(training.train(model, task, 3, 4, 1e-3, seed, lambda done: None).losses)
    assert losses[0] == losses[1] != losses[2]


# What follows from the numbers


def known(accuracies=(1.0, 0.5)):
    report = Report({"reverse": 100}, 0, (32, 512, 2048))
    report.times.step = {
        32: {"recurrent": 1.0, "transformer": 2.0},
        512: {"recurrent": 8.0, "transformer": 2.0},
        2048: {"recurrent": 30.0, "transformer": 3.0},
    }
    report.times.token = {n: {"recurrent": 0.002, "transformer": 0.001} for n in (32, 512, 2048)}
    report.results["reverse"] = {
        name: TrainingResult(9, [1.0], 5.0, {1: (accuracy, 3), 2: (accuracy, 1)}, ["a"], torch.eye(2, 19))
        for name, accuracy in zip(NAMES, accuracies, strict=True)
    }
    return report


def test_the_conclusion_is_computed():
    report = known()
    (length, who), *others = timing.crossovers(report.times.step)
    assert (who, others) == ("transformer", [])
    assert length == pytest.approx(32 * 16 ** (1 / 3))  # a third of the way from ½ to 4, in logarithms
    text = "\n".join(report.conclusion())
    assert "takes 30.0 × as long as at 32 with recurrent attention, 1.5 × with the Transformer" in text
    assert (
        "Faster: recurrent attention, 2.0 × at 32; the Transformer, 4.0 × at 512; the Transformer, 10.0 × at 2,048"
        in text
    )
    assert "from length 81 on, Transformer" in text
    assert "There is no crossover in between." in text
    assert text.endswith(
        "recurrent attention 100.0% in 5 s, Transformer 50.0% in 5 s: only recurrent attention solves it."
    )
    assert known((1.0, 0.995)).conclusion()[-1].endswith("both solve it.")
    assert known((0.0, 0.2)).conclusion()[-1].endswith("neither solves it.")
    report.times.step[128] = {"recurrent": 3.0, "transformer": 1.0}
    assert (
        "at length 2,048 takes 10.0 × as long as at 128 with recurrent attention, 3.0 × with" in report.conclusion()[0]
    )
    assert timing.crossovers({1: {"recurrent": 2.0, "transformer": 1.0}}) == []


def test_the_picture():
    figure = picture(known())
    FigureCanvasAgg(figure).draw()
    titles = [axes.get_title() for axes in figure.findobj(lambda artist: hasattr(artist, "get_xlim"))]
    assert [title for title in titles if title in NAMES.values()] == list(NAMES.values())


# The command


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(timing, "LENGTHS", (4, 8))
    monkeypatch.setattr(timing, "TOKENS", 16)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["regard", "race", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        out, err = capsys.readouterr()
        return done.value.code or 0, out, err

    return command


def test_a_race(run, tmp_path):
    files = [tmp_path / "race.png", tmp_path / "race.svg", tmp_path / "race.json"]
    saved = [word for file in files for word in ("--save", file)]
    code, out, err = run("--task", "numbers", "--steps", 2, "--dim", 16, *saved)
    assert (code, err) == (0, "")
    assert "recurrent attention" in out
    assert "neither solves it." in out
    assert all(file.stat().st_size > 500 for file in files)
    saved = json.loads(files[2].read_text())
    assert saved["complete"]
    assert set(saved["seconds_per_step"]) == set(saved["seconds_per_token"]) == {"4", "8"}
    assert saved["tasks"]["numbers"]["transformer"]["example"] == "19870303"
    assert saved["conclusion"] == [line for line in out.splitlines() if line][-len(saved["conclusion"]) :]


def test_stopped_before_the_end(run, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stop)
    code, out, err = run("--task", "reverse", "--json")
    assert (code, err) == (1, "regard: stopped before the end.\n")
    assert json.loads(out)["seconds_per_step"].keys() == {"4", "8"}
    assert json.loads(out)["tasks"] == {}


def test_the_transformer_is_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "LENGTHS", ())
    folder = tmp_path / "numbers"
    code, _, err = run("--task", "numbers", "--steps", 3, "--dim", 16, "--keep", folder)
    assert (code, err) == (0, "")
    opened = kept.load(folder)
    task = TASKS["numbers"]
    model = training.make("transformer", task.vocab_size, 16)
    training.train(model, task, 3, 32, 1e-3, 0, lambda done: None)
    for name, tensor in model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], tensor)
    assert opened.tokens == task.tokens
    assert opened.write("1987", 7) == training.translate(model.eval(), task, [list("1987")])[0][:7]
    code, _, err = run("--task", "numbers", "--keep", folder)
    assert (code, err) == (1, f"regard: --keep: {folder} is not an empty folder.\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dim": 32}))
    with pytest.raises(ValueError, match="numbers is damaged: Error"):
        kept.load(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model_type: expected 'regard-transformer'\. Got None\."):
        kept.load(folder)


def test_a_kept_model_says_what_it_does_not_know():
    opened = kept.Kept(training.make("transformer", 7, 16), ("a", "b", "-", " "), "letters")
    assert opened.encode("ab-").tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match=r"^This model has no token for “é”: it knows the characters ab- $"):
        opened.write("béax")
    with pytest.raises(ValueError, match="The text is empty"):
        opened.write("")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--keep", "model"], 1, "--keep: expected one --task, whose Transformer is kept."),
        (["--task", "chess"], 2, "'chess' is not one of 'reverse', 'dates', 'numbers'"),
        (["--steps", "0"], 2, "should be greater than or equal to 1"),
        (["--save", "race.pdf"], 1, "Expected a file that ends in .png, .svg or .json. Got 'race.pdf'."),
        (["--save", "nowhere/race.png"], 1, "nowhere/race.png: No such file or directory"),
        (["--dim", "100"], 1, "expected a dim that is divisible by 3 heads. Got 100."),
    ],
)
def test_wrong_usage(run, arguments, code, message):
    actual, out, err = run(*arguments)
    assert actual == code
    assert message in " ".join(err.replace("│", " ").split())
    assert out == ""
