"""`regard bench attention`: the grid, every kind of row at a tiny size, what is printed and saved. Nothing is timed."""

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from rich.console import Console

from regard._internal import measure
from regard.bench import attention, peaks, picture, table
from regard.bench.grid import BESIDE_PEERS, WEIGHTS_COST, Row, grid
from regard.bench.grid_wide import wide
from regard.bench.peers import PEERS, PeerUnavailableError, Problem, ours, sdpa
from support.cli import runner

TINY = 64  # the grid, so many times shorter


@pytest.fixture(scope="module")
def report():
    return attention.measure(grid(TINY), ["sdpa", "eager"], 1, 0.0)


@pytest.fixture
def known_peaks(monkeypatch):
    """Measuring them takes some seconds."""
    flops = dict.fromkeys(("float32", "bfloat16", "float16"), 1e12)
    monkeypatch.setattr(attention, "measure_peaks", lambda dtypes: peaks.Peaks(flops, 1e11, "the tests"))


# The grid


def test_the_grid_has_every_kind_of_row_and_each_once():
    rows = grid()
    assert {row.kind for row in [*rows, *wide()]} == BESIDE_PEERS.keys() | WEIGHTS_COST.keys()
    assert len({row.name for row in rows}) == len(rows)
    assert sum(row.kind == "attention" for row in rows) == 3 * 2 * 6
    assert [row.keys for row in rows if row.kind == "memory"] == [131_072]
    assert [(row.kind, row.dtype, row.heads) for row in grid(4)] == [(row.kind, row.dtype, row.heads) for row in rows]


@pytest.mark.parametrize("row", grid(TINY), ids=lambda row: row.name)
def test_pairs_are_those_that_meet(row):
    if row.kind == "memory":
        return
    with torch.inference_mode():
        problem = Problem(row)
        seen = torch.ones(row.batch, 1, row.queries, row.keys, dtype=torch.bool)
        seen &= True if problem.mask is None else problem.mask
        if row.causal:
            seen = seen.tril()
        seen &= problem.real[:, None, :, None] if row.lengths else True
    assert row.pairs == seen.sum()


def test_flops_and_bytes():
    row = Row("attention", torch.float32, 12, 512)
    assert row.flops == 4 * 512 * 512 * 64 * 12
    assert Row("backward", torch.float32, 12, 512).flops == 3.5 * row.flops
    row = Row("decoding", torch.bfloat16, 32, 1000, 128, groups=8, queries=1)
    assert (row.bound, row.bytes) == ("bytes", 2 * 8 * 1000 * 128 * 2)


def test_some_of_the_rows():
    assert {row.causal for row in attention.choose(only="CAUSAL")} == {True}
    assert {row.kind for row in attention.choose(quick=True, only="short")} == {"short"}
    with pytest.raises(
        ValueError,
        match=r"^There is no row with 'long' in its name\. The rows are 'attention float32 H 12 N 512 D 64' to ",
    ):
        attention.choose(only="long")
    assert attention.peer_names() == list(PEERS)
    with pytest.raises(ValueError, match=r"^peers: expected names among sdpa, eager, flex, jax, onnx\. Got 'x'\.$"):
        attention.peer_names(["sdpa", "x"])


# Measuring


def test_every_row_is_measured(report):
    assert report.complete
    for result in report.results:
        kind = result.row.kind
        if kind == "threads":  # the tests have one
            assert result.unavailable == {"one thread": "there is no more than one"}
            continue
        expected = {"regard", "sdpa", "eager"} if kind in BESIDE_PEERS else {"regard", "forward"}
        assert result.seconds.keys() == (expected if kind != "memory" else {"regard"})
        assert all(seconds > 0 for seconds in result.seconds.values())
        assert not result.unavailable
        assert result.backend
        assert (result.bytes is not None) == (kind == "memory")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory a process has taken")
def test_memory(report):
    assert 4 * 4 * 2048 * 64 <= report.results[-1].bytes < 1 << 29


def test_threads(known_peaks):
    torch.set_num_threads(2)
    try:
        row = next(row for row in grid(TINY) if row.kind == "threads")
        result = attention.measure([row], [], 1, 0.0).results[0]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert result.seconds.keys() == {"regard", "one thread"}


@pytest.mark.filterwarnings("ignore")  # of the peers
@pytest.mark.parametrize("kind", ["attention", "ragged", "window", "bias", "backward"])
@pytest.mark.parametrize("name", ["jax", "onnx"])
def test_a_peer_agrees_or_says_why_it_does_not_take_part(known_peaks, name, kind):
    row = next(row for row in grid(TINY) if row.kind == kind)
    result = attention.measure([row], [name], 1, 0.0).results[0]
    there = name in result.seconds
    assert there or re.match("not installed|always takes all|no window|no gradient", result.unavailable[name])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_flex_attention(known_peaks):
    row = Row("window", torch.float32, 2, 192, window=37)
    result = attention.measure([row], ["flex"], 1, 0.0).results[0]
    assert "flex" in result.seconds, result.unavailable


def test_nobody_times_a_wrong_answer(known_peaks, monkeypatch):
    def wrong(problem):
        call = sdpa(problem)
        return lambda: (call()[0] + 0.1,)

    def failing(problem):
        raise RuntimeError("out of\nluck")

    monkeypatch.setitem(PEERS, "jax", ("JAX", wrong))
    monkeypatch.setitem(PEERS, "onnx", ("ONNX", failing))
    result = attention.measure([grid(TINY)[0]], ["sdpa", "jax", "onnx"], 1, 0.0).results[0]
    assert result.seconds.keys() == {"regard", "sdpa"}
    assert re.match(r"its result differs from regard's by a relative error of 0\.\d+", result.unavailable["jax"])
    assert result.unavailable["onnx"] == "out of"


def test_a_matrix_that_is_too_large_is_refused():
    problem = SimpleNamespace(row=Row("attention", torch.float32, 8, 8192))
    with pytest.raises(PeerUnavailableError, match=r"^N × N is too large$"):
        Problem.check_matrix(problem)


def test_gradients_are_those_of_autograd():
    problem = Problem(Row("backward", torch.float32, 2, 13, 7))
    gradients, expected = ours(problem)(), sdpa(problem)()
    assert len(gradients) == 3
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, atol=1e-5, rtol=0)


def test_interleaved():
    order = []
    runs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    medians = measure.interleaved(runs, 2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert medians.keys() == {"a", "b"}
    order.clear()
    measure.interleaved({"a": lambda: order.append("a")}, 1, at_least=0.001)
    assert len(order) > 3


def test_peaks(report, monkeypatch):
    measured = report.peaks
    assert measured.flops.keys() == {"float32", "bfloat16", "float16"}
    assert all(speed > 1e8 for speed in (*measured.flops.values(), measured.bytes))
    monkeypatch.setattr(peaks, "availability", lambda: {"cpu": ["there is no kernel"]})
    measured = peaks.measure_peaks([torch.float32])
    assert measured.source == "torch's matrix product and sum, because regard's kernel is missing"
    assert all(speed > 1e8 for speed in (measured.flops["float32"], measured.bytes))


def test_ratios_and_means(report):
    first, second = Row("attention", torch.float32, 1, 8), Row("attention", torch.float32, 1, 16)
    results = [
        attention.Result(first, "cpu", {"regard": 1.0, "sdpa": 2.0, "jax": 3.0}),
        attention.Result(second, "cpu", {"regard": 1.0, "sdpa": 8.0}),
    ]
    assert attention.means(results) == pytest.approx({"sdpa": 4, "jax": 3})
    assert attention.means(results[:1]) == {}
    assert attention.sections(results) == {"float32": results}
    assert results[0].share(report.peaks, "sdpa") == first.flops / 2 / report.peaks.flops["float32"]


# What is shown


def drawn(report, width):
    console = Console(width=width, file=io.StringIO(), highlight=False, markup=False, emoji=False)
    console.print(table.table(report))
    return console.file.getvalue()


def test_table(report):
    out = drawn(report, 120)
    titles = [title for kind, title in BESIDE_PEERS.items() if kind in {row.kind for row in grid()} - {"attention"}]
    for title in (*titles, "float32", "bfloat16, causal", "Cost of the weights"):
        assert f"\n{title}" in out
    assert "Peaks: " in out
    assert f"(measured by {report.peaks.source})" in " ".join(out.split())
    assert re.search(r"\n +regard +% of peak +× SDPA +× eager *\n", out)
    assert re.search(r"\n  H 12 N 32 D 64 +[\d.]+ GFLOP/s +\d+% +\d+\.\d\d +\d+\.\d\d *\n", out)
    assert re.search(r"\n  H 32 G 8 Q 1 K 512 D 128 float32 +[\d.]+ GB/s ", out)
    assert len(re.findall(r"\n  geometric mean +\d+\.\d\d +\d+\.\d\d", out)) == 6
    assert re.search(r"\n  received\(\), in a second pass: H 12 N 32 D 64 float32 +\d+\.\d\d × +the time of the", out)
    assert re.search(r"\n  forward .* N 2,048 D 64 float32 +\d+ MB +above the idle process, in [\d.]+ s", out)
    assert out.rstrip().endswith("Not measured: one thread: there is no more than one (2 rows).")
    assert max(map(len, out.splitlines())) <= 120
    narrow = drawn(report, 60)
    assert re.search(r"[\d.]+ GFLOP/s +\d+% +\d+\.\d\d +\d+\.\d\d", narrow)
    assert max(map(len, narrow.splitlines())) <= 60


def test_json(report):
    saved = json.loads(json.dumps(report.to_dict()))
    assert saved["complete"] is True
    assert set(saved["machine"]) >= {"processor", "cores", "threads", "system", "python", "torch", "regard"}
    assert len(saved["rows"]) == len(report.results)
    first = saved["rows"][0]
    assert first["ratio"]["sdpa"] == pytest.approx(first["seconds"]["sdpa"] / first["seconds"]["regard"])
    assert first["share"].keys() == first["seconds"].keys()
    assert saved["rows"][-1]["memory"] > 0
    assert saved["means"].keys() == {name + mask for name in saved["peaks"]["flops"] for mask in ("", ", causal")}
    assert saved["means"]["float32"].keys() == {"sdpa", "eager"}


def test_picture(report):
    figure = picture.picture(report)
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:2]] == ["float32", "bfloat16"]
    for axes in figure.axes:
        assert {line.get_label() for line in axes.get_lines()} == {"regard", "SDPA", "eager"}
        assert all(list(line.get_xdata()) == [8, 32, 64, 128, 256] for line in axes.get_lines())


def test_a_peer_beyond_the_peak_stays_in_the_picture(report):
    """As with instructions that the kernel's own peak does not know."""
    low = {name: speed / 1000 for name, speed in report.peaks.flops.items()}
    beyond = replace(report, peaks=report.peaks._replace(flops=low))
    figure = picture.picture(beyond)
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        assert all(max(line.get_ydata()) <= axes.get_ylim()[1] for line in axes.get_lines())


def test_a_picture_of_one_type(report):
    float16 = [result for result in report.results if result.row.name.startswith("attention float16 causal")]
    figure = picture.picture(attention.Report(report.peaks, 6, 1, results=float16))
    assert [axes.get_title() for axes in figure.axes] == ["float16, causal"]


# The command


@pytest.fixture
def run(known_peaks, monkeypatch, capsys):
    monkeypatch.setitem(attention.GRIDS, "default", lambda shrink: grid(TINY))
    monkeypatch.delenv("COLUMNS", raising=False)

    return runner(monkeypatch, capsys, "bench", "attention")


def test_help_with_an_example(run):
    result = run("--help")
    assert (result.code, result.err) == (0, "")
    assert "Example: regard bench attention" in result.out.replace("\n", " ")


def test_printed_and_saved(run, tmp_path):
    files = [tmp_path / name for name in ("a.png", "a.svg", "a.json")]
    saves = [argument for file in files for argument in ("--save", file)]
    result = run("--quick", "--only", "attention float32", *saves)
    assert (result.code, result.err) == (0, "")
    assert "Medians of 3 rounds, interleaved." in result.out
    assert "× SDPA" in result.out
    assert "× eager" not in result.out
    with Image.open(files[0]) as image:
        assert min(image.size) > 400
    assert files[1].read_bytes().startswith(b"<?xml")
    assert len(json.loads(files[2].read_text("utf-8"))["rows"]) == 12


def test_printed_as_json(run):
    result = run("--only", "attention float16 H 1 N", "--peers", "sdpa,eager", "--rounds", 1, "--json")
    assert (result.code, result.err) == (0, "")
    saved = json.loads(result.out)
    assert saved["rounds"] == 1
    assert [row["seconds"].keys() for row in saved["rows"]] == [{"regard", "sdpa", "eager"}]


def test_stopped_by_the_user(run, monkeypatch, tmp_path):
    times = iter(range(3))

    def interrupted(runs, rounds, at_least):
        if next(times) == 2:
            raise KeyboardInterrupt
        return dict.fromkeys(runs, 1.0)

    monkeypatch.setattr(attention, "interleaved", interrupted)
    result = run("--quick", "--save", tmp_path / "a.json")
    assert (result.code, result.err) == (1, f"regard: stopped after 2 of {len(grid())} rows.\n")
    assert len(re.findall(r" GFLOP/s +\d+% +1\.00", result.out)) == 2
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["complete"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--only", "nothing"], 1, "There is no row with 'nothing' in its name"),
        (["--peers", "sdpa,x"], 1, r"peers: expected names among sdpa, eager, flex, jax, onnx\. Got 'x'\."),
        (["--save", "a.html"], 1, r"Expected a file that ends in \.png, \.svg or \.json\. Got 'a\.html'\."),
        (["--save", "no/folder/a.png"], 1, "no/folder/a.png: No such file or directory"),
        (["--only", "memory", "--save", "a.png"], 1, "There is no picture of these rows: it shows those of "),
        (["--rounds", "0"], 2, "--rounds"),
        (["--rounds", "x"], 2, "--rounds"),
        (["more"], 2, "more"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_what_could_not_be_done(run, arguments, code, message):
    result = run(*arguments)
    assert (result.code, result.out) == (code, "")
    if code == 1:
        assert re.fullmatch(rf"regard: {message}[^\n]*\n", result.err)
    assert message in result.err or code == 1
    assert "Traceback" not in result.err


def test_without_matplotlib(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("--save", "a.png")
    assert (result.code, result.err) == (1, "regard: Pictures need matplotlib: pip install 'regard[plot]'.\n")


def test_peers_are_imported_when_they_are_asked():
    program = (
        "import sys\nimport regard.cli, regard.bench.attention, regard.bench.table, regard.bench.picture\n"
        "print({'jax', 'onnx', 'onnxruntime', 'matplotlib', 'torch._inductor'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
