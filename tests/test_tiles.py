"""The map's tiles against the weights themselves, and what the viewer keeps."""

import gc
import threading
import time
import weakref
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regard.viewer import tiles
from regard.viewer.cache import LRUCache, size_of
from regard.viewer.jobs import Cancelled, JobQueue, Pending
from regard.viewer.tiles import Matrix
from support import readings as _readings
from support.readings import made


def expected(matrix, level, numbers=None):
    """All cells of a level, one by one."""
    shown = [unit.index for unit in matrix.reading.units if not (matrix.hide and unit.special)]
    numbers = matrix.reading.weights(matrix.layer, matrix.head) if numbers is None else numbers
    width = 1 << level
    cells = range(0, len(shown), width)
    reduce = torch.Tensor.mean if matrix.reduce == "mean" else _largest
    result = [[reduce(numbers[shown][:, shown][i : i + width, j : j + width]) for j in cells] for i in cells]
    return torch.tensor(result)


def _largest(cell):
    return cell.flatten()[cell.abs().argmax()]


def assembled(matrix, level, overview=None):
    """All tiles of a level, put together."""
    cells = -(-matrix.size // (1 << level))
    count = -(-cells // tiles.TILE_SIZE)
    rows = [torch.cat([matrix.tile(level, y, x, overview) for x in range(count)], 1) for y in range(count)]
    return torch.cat(rows)


@settings(max_examples=25)
@given(
    words=st.integers(1, 20),
    reduce=st.sampled_from(["mean", "max"]),
    hide=st.booleans(),
    tile=st.sampled_from([3, 8, 256]),
    block=st.sampled_from([1, 5, 16, 1024]),
    rule=st.sampled_from(["plain", "causal", "softcap, scale and sinks"]),
)
def test_every_cell_of_every_level(words, reduce, hide, tile, block, rule):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_SIZE", tile)
        patch.setattr(tiles, "BLOCK_SIZE", block)
        patch.setattr(tiles, "OVERVIEW_LEVEL", 1)
        reading = made(" ".join(f"w{n}" for n in range(words)), **_readings.RULES[rule])
        matrix = Matrix(reading, 1, 4, reduce, hide)
        assert matrix.size == words + (not hide)
        assert -(-matrix.size // (1 << matrix.top)) <= tile
        reported = []
        overview = matrix.overview(reported.append) if matrix.needs_overview else None
        assert reported == sorted(reported)
        for level in range(matrix.top + 1):
            torch.testing.assert_close(assembled(matrix, level), expected(matrix, level), atol=1e-6, rtol=0)
            torch.testing.assert_close(assembled(matrix, level, overview), expected(matrix, level), atol=1e-6, rtol=0)


def maps_of(reading, layer):
    """Maps of a layer with what they are in dense lines, by head: one with signs, and one of all heads together."""
    weights = reading.attention[layer].weights
    dense = weights.dense().double()
    heads, size, _ = dense.shape
    row, column, vectors = torch.randn(size, 1), torch.randn(heads, size, 1), torch.randn(heads, size, 4)
    gram = torch.einsum("hje,gje->jhg", vectors, vectors)
    together = torch.einsum("hij,hje->ije", dense, vectors.double()).norm(dim=-1)
    return {
        "signed": (weights.times(query=row, key=column), dense * row * column.mT),
        "together": (weights.combined(gram), together.expand(heads, -1, -1)),
    }


def between_units(reading, dense):
    """The mean over a unit's queries of the sum over its keys, unit by unit."""
    rows = torch.stack([dense[list(unit.tokens)].mean(0) for unit in reading.units])
    return torch.stack([rows[:, list(unit.tokens)].sum(1) for unit in reading.units], 1)


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["signed", "together"]),
    words=st.integers(1, 20),
    reduce=st.sampled_from(["mean", "max"]),
    hide=st.booleans(),
    tile=st.sampled_from([3, 8, 256]),
    block=st.sampled_from([1, 5, 1024]),
)
def test_every_cell_of_a_map(kind, words, reduce, hide, tile, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_SIZE", tile)
        patch.setattr(tiles, "BLOCK_SIZE", block)
        patch.setattr(tiles, "OVERVIEW_LEVEL", 1)
        reading = made(" ".join(f"w{n}" for n in range(words)))
        numbers, dense = maps_of(reading, 1)[kind]
        matrix = Matrix(reading, 1, 4, reduce, hide, numbers)
        wanted = between_units(reading, dense[4])
        overview = matrix.overview(lambda share: None) if matrix.needs_overview else None
        for level in range(matrix.top + 1):
            cells = expected(matrix, level, wanted).float()
            torch.testing.assert_close(assembled(matrix, level), cells, atol=2e-5, rtol=0)
            torch.testing.assert_close(assembled(matrix, level, overview), cells, atol=2e-5, rtol=0)


@pytest.mark.parametrize("limit", [0, tiles.DENSE_LIMIT], ids=["head by head", "together"])
@pytest.mark.parametrize("kind", ["signed", "together"])
def test_the_thumbnails_of_a_map(monkeypatch, kind, limit):
    monkeypatch.setattr(tiles, "THUMBNAIL_SIZE", 8)
    monkeypatch.setattr(tiles, "DENSE_LIMIT", limit)
    reading = made(" ".join(f"w{n}" for n in range(20)))
    numbers, dense = maps_of(reading, 0)[kind]
    pictures = tiles.thumbnails(reading, 0, False, numbers=numbers)
    heads = dense if kind == "signed" else dense[:1]
    wanted = torch.stack([expected(Matrix(reading, 0, 0, "max"), 2, between_units(reading, head)) for head in heads])
    torch.testing.assert_close(pictures, wanted.float(), atol=2e-5, rtol=0)


def test_a_tile_that_is_not_there():
    matrix = Matrix(made("a b c"), 0, 0)
    for level, row, column in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, -1), (2**70, 0, 0)):
        with pytest.raises(IndexError, match=f"There is no tile {row}, {column} of level {level}"):
            matrix.tile(level, row, column)


@pytest.mark.parametrize("whole", [10, 2048])
def test_a_thumbnail_is_of_all_rows_or_of_the_first_of_each_cell(monkeypatch, whole):
    monkeypatch.setattr(tiles, "SAMPLED_UNITS", whole)
    monkeypatch.setattr(tiles, "THUMBNAIL_SIZE", 8)
    matrix = Matrix(made(" ".join(f"w{n}" for n in range(30))), 0, 1, "max")
    weights = matrix.reading.weights(0, 1)
    rows = weights if whole > 31 else torch.zeros_like(weights).index_copy(0, torch.arange(0, 31, 4), weights[::4])
    cells = [[rows[i : i + 4, j : j + 4].max() for j in range(0, 31, 4)] for i in range(0, 31, 4)]
    torch.testing.assert_close(matrix.thumbnail(), torch.tensor(cells))


@pytest.mark.parametrize("hide", [False, True], ids=["with [S]", "without [S]"])
@pytest.mark.parametrize("rule", ["plain", "causal", "softcap, scale and sinks"])
def test_the_thumbnails_of_a_layer_are_those_of_its_heads(monkeypatch, rule, hide):
    monkeypatch.setattr(tiles, "THUMBNAIL_SIZE", 8)
    reading = made(" ".join(f"w{n}" for n in range(37)), **_readings.RULES[rule])
    together = tiles.thumbnails(reading, 1, hide)
    assert together.shape == (6, 5, 5)
    heads = torch.stack([Matrix(reading, 1, head, "max", hide).thumbnail() for head in range(6)])
    torch.testing.assert_close(together, heads, atol=1e-6, rtol=0)
    monkeypatch.setattr(tiles, "DENSE_LIMIT", 0)  # as where the weights of all heads are too many
    reported = []
    torch.testing.assert_close(tiles.thumbnails(reading, 1, hide, reported.append), heads, atol=0, rtol=0)
    assert reported == [n / 6 for n in range(6)]


def test_thumbnails_ask_for_the_weights_once(monkeypatch):
    """Which takes no longer than the dense weights; head by head it took several times as long."""
    asked = []
    reading = made(" ".join(f"w{n}" for n in range(300)))
    weights = reading.attention[0].weights
    monkeypatch.setattr(type(weights), "__getitem__", lambda *_: asked.append("a part"))
    grouped = type(weights).grouped
    monkeypatch.setattr(type(weights), "grouped", lambda *a, **k: (asked.append("all"), grouped(*a, **k))[1])
    assert tiles.thumbnails(reading, 0, False).shape == (6, 38, 38)
    assert asked == ["all"]


def test_a_text_of_special_tokens_alone_cannot_hide_them():
    reading = made("a b")
    reading = replace(reading, unit_spans=[(None, [n]) for n in range(len(reading.tokens))])
    assert tiles.thumbnails(reading, 0, False).shape == (6, 3, 3)
    for asked in (lambda: tiles.thumbnails(reading, 0, True), lambda: Matrix(reading, 0, 0, hide=True).tile(0, 0, 0)):
        with pytest.raises(LookupError, match="All units of this text are special tokens"):
            asked()


def test_a_layout_does_not_keep_its_reading():
    reading = made("a b c")
    Matrix(reading, 0, 0).tile(0, 0, 0)
    gone = weakref.ref(reading)
    del reading
    gc.collect()
    assert gone() is None


# The cache


def test_a_cache_evicts_the_least_recently_used():
    cache = LRUCache(100)
    for key in "abc":
        cache.put(key, key.upper(), 40)
    assert (list(cache), cache.used) == (["b", "c"], 80)
    assert cache.get("b") == "B"
    cache.put("d", "D", 40)
    assert list(cache) == ["b", "d"]
    cache.put("b", "B", 90)  # the same again, larger
    assert (list(cache), cache.used) == (["b"], 90)
    cache.put("e", "E", 1000)  # too large, and the only one
    assert (cache.get("e"), cache.get("b")) == ("E", None)


def test_sizes_count_each_storage_once():
    whole = torch.zeros(100)
    assert size_of([whole, whole[:10], None, whole.view(10, 10)]) == 400


def test_work_is_shared_reported_and_cancelled():
    jobs, go, reported = JobQueue(), threading.Event(), []

    def work(progress):
        reported.append("begun")
        progress(0.25)
        go.wait(10)
        progress(0.75)
        return "done"

    with pytest.raises(Pending) as pending:
        jobs.result("a", work, 0.1)
    assert pending.value.progress == 0.25
    with pytest.raises(Pending) as waiting:
        jobs.result("b", lambda progress: "b", 0.01)
    assert waiting.value.progress is None
    go.set()
    assert [jobs.result(key, work, 10) for key in "ab"] == ["done", "b"]
    assert reported == ["begun"]
    go.clear()
    with pytest.raises(Pending):
        jobs.result("c", work, 0.1)
    assert jobs.cancel(3) == ["c"]
    assert [jobs.was_cancelled(number) for number in (2, 3, None)] == [False, True, False]
    go.set()
    assert jobs.result("d", lambda progress: "the next", 10) == "the next"
    jobs.close()


def test_each_lane_has_its_turn():
    jobs, go = JobQueue(), threading.Event()
    with pytest.raises(Pending):
        jobs.result("long", lambda progress: go.wait(10), 0)
    assert jobs.result("short", lambda progress: "short", 10, "short") == "short"
    with pytest.raises(Pending):
        jobs.result("another long", lambda progress: "done", 0)
    go.set()
    assert jobs.result("another long", lambda progress: "done", 10) == "done"
    jobs.close()


def test_work_that_nobody_asks_for_is_given_up(monkeypatch):
    monkeypatch.setattr("regard.viewer.jobs.ABANDONED", 0.1)
    jobs, ended = JobQueue(), threading.Event()

    def work(progress):
        try:
            while True:
                time.sleep(0.02)
                progress(0.5)
        finally:
            ended.set()

    with pytest.raises(Pending):
        jobs.result("a", work, 0.01)
    assert ended.wait(5)
    with pytest.raises(Cancelled):
        jobs.result("a", work, 5)


def test_a_result_that_nobody_comes_for_is_let_go():
    jobs, go, thing = JobQueue(), threading.Event(), None

    def work(progress):
        nonlocal thing
        go.wait(10)
        result = torch.zeros(1)
        thing = weakref.ref(result)
        return result

    with pytest.raises(Pending):
        jobs.result("a", work, 0)
    go.set()
    jobs.result("b", lambda progress: None, 10)
    assert thing() is not None  # it may still be asked for
    jobs._jobs["a"].last_asked -= 60
    jobs.result("c", lambda progress: None, 10)
    assert thing() is None
    jobs.close()


def test_jobs_that_nobody_waits_for_take_no_place_in_the_queue():
    jobs, go = JobQueue(), threading.Event()
    for n in range(64):
        with pytest.raises(Pending):
            jobs.result(n, lambda progress: go.wait(10), 0)
    for job in jobs._jobs.values():
        job.last_asked -= 60
    assert jobs.result("short", lambda progress: "short", 10, "short") == "short"
    assert len(jobs._jobs) == 1  # the one under way
    go.set()
    jobs.close()


def test_what_work_raises_reaches_the_asker_and_is_forgotten():
    jobs = JobQueue()

    def fail(progress):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        jobs.result("a", fail, 5)
    assert jobs.result("a", lambda progress: 1, 5) == 1
    assert all(jobs.result(n, lambda progress, n=n: n, 5) == n for n, _ in product(range(5), range(2)))
    jobs.close()


def test_a_queue_too_long_is_refused():
    jobs, go = JobQueue(), threading.Event()
    for n in range(64):
        with pytest.raises(Pending):
            jobs.result(n, lambda progress: go.wait(10), 0)
    with pytest.raises(OverflowError, match="Too much is being computed at once"):
        jobs.result("more", lambda progress: 1, 0)
    go.set()
    jobs.close()
