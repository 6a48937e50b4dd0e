"""benchmarks/atlas.py: its dense sinks, and what it measures of heads that are switched off. Nothing is timed."""

from pathlib import Path

import pytest
import torch

import regard
from regard.atlas.ablation import Experiment
from regard.atlas.needle import needles
from regard.atlas.texts import repeated
from regard.attribution.heads import SCORES
from regard.attribution.layers import layers_of
from regard.playground import shipped


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import atlas

    return atlas


@pytest.fixture(scope="module")
def lens():
    return regard.Lens(shipped.folder("stories"))


def test_the_dense_sinks_are_those_of_the_weights(bench, lens, monkeypatch):
    monkeypatch.setattr(bench, "ROWS", 7)  # blocks, the last of them shorter
    reading = lens.read(bench.text_of(lens, 60))
    assert len(reading.tokens) == 60
    for layer in layers_of(reading):
        column = layer.weights.dense()[..., 0]
        for dense in (bench.column_in_float64, bench.column_by_transformers):
            torch.testing.assert_close(dense(layer.weights.scores).float(), column, atol=2e-6, rtol=0)


def test_what_is_printed_of_sinks(bench, lens, capsys):
    bench.compare_sinks(lens, 60)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert sum("rows on the other side" in line and " 0 of " in line for line in lines) == 2


def test_each_score_is_timed_once(bench, lens):
    reading = lens.read(bench.text_of(lens, 40))
    ticks = iter(range(100))
    seconds = bench.parts(reading, bench.sample_of(reading), lambda: next(ticks))
    assert set(seconds) == {name for name, score in SCORES.items() if score.text == "text" and score.of != "cross"}
    assert set(seconds.values()) == {1}
    scores = bench.scores_of(reading, bench.sample_of(reading))
    assert scores.keys() == seconds.keys()
    assert scores["sink"].shape == (reading.layers, reading.heads)


def test_medians_leave_the_first_round_out(bench):
    clock = iter([0, 100, 101, 101, 106, 106, 108])  # of the first round, the beginning alone is asked for
    assert bench.medians({"run": lambda: None}, 3, lambda: next(clock)) == {"run": 2}


def test_changes_are_those_of_the_loss(bench, lens):
    nothing, heads = Experiment([]), Experiment([(0, 0), (1, 2)])
    inputs = repeated(lens, sequences=2, period=5, times=2)
    before, after = bench.changes(lens, inputs, "repeated", [nothing, heads])
    assert before == pytest.approx(0, abs=1e-6)
    assert abs(after) > 1e-4


def test_the_answer_about_a_needle_is_measured_whole(bench, lens):
    given = needles(lens, count=1, length=250)[0]
    reading = given.read(lens)[0]
    log, written = bench.answer_of(lens, given, reading.final)
    start = int(given.answer[0, 0]) + 1
    logs = reading.logits.log_softmax(-1)[range(start - 1, len(given.ids) - 1), given.ids[start:]]
    assert log == pytest.approx(float(logs.mean()), abs=1e-5)
    assert written == torch.equal(reading.logits[start - 1 : -1].argmax(-1), given.ids[start:])
    sure = torch.nn.functional.one_hot(given.ids.roll(-1), reading.logits.shape[1]) * 50.0
    head = bench.SimpleNamespace(model=bench.SimpleNamespace(head=lambda final, ids: final))
    assert bench.answer_of(head, given, sure) == (pytest.approx(0, abs=1e-6), True)
    sure[start + 1] = sure[start + 1].roll(1)
    assert not bench.answer_of(head, given, sure)[1]
