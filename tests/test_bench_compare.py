"""Two reports side by side, the grids of sixty shapes and of the roofline, and their pictures. Nothing is timed."""

import io
import json

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from regard.backends import cpu
from regard.bench import attention, compare, compare_view, machines, peaks, pictures, roofline_picture, saved
from regard.bench.grid_wide import wide
from regard.bench.peers import Problem, ours, sdpa
from regard.bench.roofline import LinearRow, roofline
from support.cli import runner

PEAKS = peaks.Peaks({"float32": 1e12, "bfloat16": 2e12, "float16": 1e12, "float64": 5e11}, 1e11, "the tests")
TINY = 64


def made_up(grid, rows, seconds, peers=("sdpa",)):
    """A report of a grid in which regard takes some seconds for each row, and peers one."""
    report = attention.Report(PEAKS, len(rows), 3, grid)
    report.peaks_by_isa = {row.isa: PEAKS for row in rows if row.isa}
    times = {"regard": seconds} | dict.fromkeys(peers, 1.0)
    report.results = [attention.Result(row, "cpu", times) for row in rows]
    return report


@pytest.fixture
def files(tmp_path):
    """Reports of a version, and of one that is twice as fast, and lacks a row where it has another."""
    rows = wide()
    for name, chosen, seconds in (("a", rows[:-1], 2.0), ("b", rows[1:], 1.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(made_up("wide", chosen, seconds).to_dict()))
    return tmp_path / "a.json", tmp_path / "b.json"


def printed(renderable):
    console = Console(width=120, file=io.StringIO(), highlight=False, markup=False, emoji=False)
    console.print(renderable)
    return console.file.getvalue()


# The grids


def test_sixty_shapes_each_once():
    for shrink in (1, 4):
        rows = wide(shrink)
        assert len({row.name for row in rows}) == len(rows) == 60
    kinds = [row.kind for row in wide()]
    assert max(kinds.count(kind) for kind in kinds) <= 11
    assert {row.dtype for row in wide()} == {torch.float32, torch.float64, torch.bfloat16, torch.float16}


@pytest.mark.parametrize("row", {row.name: row for row in wide(TINY)}.values(), ids=lambda row: row.name)
def test_regard_and_sdpa_agree_on_each(row):
    problem = Problem(row)
    with torch.inference_mode(not row.gradient):
        attention._check(problem, sdpa(problem)(), ours(problem)())


def test_the_roofline_measures_every_instruction_set(monkeypatch):
    monkeypatch.setattr(attention, "measure_peaks", lambda dtypes: PEAKS)
    rows = roofline()
    assert len({row.name for row in rows}) == len(rows)
    assert {row.isa for row in rows} == set(cpu.instruction_sets())
    small = [row for row in roofline(TINY) if isinstance(row, LinearRow) or row.causal][::5]
    report = attention.measure(small, [], 1, 0.0, name="roofline")
    assert report.complete
    assert [result.backend for result in report.results] == [f"cpu, {row.isa}" for row in small]
    assert report.peaks_by_isa.keys() == {row.isa for row in small}
    assert cpu.instruction_set() == machines.machine()["instruction_set"]


def test_a_linear_layer_has_its_work():
    row = LinearRow(torch.bfloat16, 2048, 384, 1536)
    assert (row.flops, row.bytes) == (2 * 2048 * 384 * 1536, 2 * 384 * (2048 + 1536))


# Pictures and totals


def test_the_summary_counts_who_is_slower():
    report = made_up("wide", wide(), 2.0)
    total = attention.summary(report.results)["sdpa"]
    assert (total.rows, total.slower, total.lowest) == (60, 60, 0.5)
    assert total.geometric_mean == pytest.approx(0.5)
    report.results[7].seconds = {"regard": 4.0, "sdpa": 1.0}
    total = attention.summary(report.results)["sdpa"]
    assert (total.lowest, total.lowest_row, total.median) == (0.25, report.results[7].row.name, 0.5)
    assert total.geometric_mean == pytest.approx(0.5 * 2 ** (-1 / 60))


def test_pictures():
    rows = roofline() or [LinearRow(torch.float32, 8, 8, 8, isa="avx2")]
    figure = pictures.picture(made_up("roofline", rows, 1.0, peers=()))
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == 6
    assert figure.legends[0].get_texts()[0].get_text().startswith(rows[0].isa)
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 7]
    assert len(lines) == 2 * len(cpu.instruction_sets())
    assert {line.get_linestyle() for line in lines} == {"-", "--"}
    figure = pictures.picture(made_up("wide", wide(), 0.5))
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes[0].get_yticks()) == 60
    with pytest.raises(ValueError, match="no picture of these rows"):
        pictures.check("wide", wide(), ["eager"])
    with pytest.raises(ValueError, match="no picture of these rows"):
        roofline_picture.check([row for row in wide() if row.kind == "tiny"])


# Comparing


def test_two_versions(files, monkeypatch, capsys, tmp_path):
    comparison = compare.compare(*files)
    assert len(comparison.pairs) == 58
    assert (comparison.only_a, comparison.only_b) == ([wide()[0].name], [wide()[-1].name])
    pair = comparison.pairs[0]
    row = wide()[1]
    assert (pair.name, pair.base, pair.ratios, pair.faster) == (row.name, "sdpa", (0.5, 1.0), 2.0)
    assert pair.shares == pytest.approx((row.flops / 2e12, row.flops / 1e12))
    means = compare.means(comparison.pairs)
    assert (means.rows, means.faster) == (58, pytest.approx(2))
    assert means.ratios == pytest.approx((0.5, 1))
    out = printed(compare_view.table(comparison))
    assert "+100%" in out
    assert f"Only in A, 1 row: {wide()[0].name}." in " ".join(out.split())
    run = runner(monkeypatch, capsys, "bench", "compare")
    result = run(*files, "--json", "--save", tmp_path / "c.png", "--save", tmp_path / "c.json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["means"]["sdpa"]["rows"] == 58
    assert json.loads((tmp_path / "c.json").read_text("utf-8")) == json.loads(result.out)
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_two_reports_of_embeddings(tmp_path):
    report = {"benchmark": "embed", "machine": {"processor": "one", "threads": 1}, "peaks": PEAKS._asdict()}
    for name, faster in (("a", 1), ("b", 2)):
        rows = {"regard": {"seconds": 4.0 / faster, "ratio": 1.0, "share": 0.2}}
        rows["st"] = {"seconds": 8.0, "ratio": 2.0 * faster, "share": None}
        (tmp_path / name).write_text(json.dumps(report | {"rows": rows}))
    comparison = compare.compare(tmp_path / "a", tmp_path / "b")
    assert [(pair.name, pair.faster, pair.ratios) for pair in comparison.pairs] == [
        ("regard", 2.0, (1.0, 1.0)),
        ("st", 1.0, (0.5, 0.25)),
    ]
    assert "sentence-transformers float32" in printed(compare_view.table(comparison))


def test_the_machines_side_by_side(files):
    old = {"machine": {"processor": "another", "cores": 8, "threads": 4}, "peaks": PEAKS._asdict()}
    out = printed(machines.table((saved.load(files[0]).report, old), ("A", "B")))
    for text in ("another", "8, 4", "1000 GFLOP/s", "100 GB/s", torch.__version__):
        assert text in out


ROW = {"name": "x", "seconds": {"regard": 1.0}, "ratio": {}, "share": {}}
REPORT = {"machine": {}, "peaks": PEAKS._asdict(), "rows": []}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", "it should be an object"),
        (b"{}", "machine should be an object"),
        ({"machine": {}}, "peaks should be an object"),
        (REPORT | {"peaks": {"flops": {"float32": -1}, "bytes": 1}}, "peaks: float32 should be a positive number"),
        (REPORT | {"rows": [1]}, "a row should be an object"),
        (REPORT | {"rows": [{}]}, "a row has no name"),
        (REPORT | {"rows": [ROW, ROW]}, "row 'x' is there twice"),
        (REPORT | {"rows": [ROW | {"seconds": {"regard": float("nan")}}]}, "row 'x': seconds should be a positive"),
        (REPORT | {"rows": [ROW | {"ratio": {"sdpa": "2"}}]}, "row 'x': ratio to sdpa should be a positive number"),
        (REPORT | {"benchmark": "embed"}, "benchmark: 'embed' does not go with its rows"),
        (REPORT | {"rows": {"regard": {"seconds": 1.0, "ratio": 1.0}}}, "is a report of bench attention"),
        (None, "No such file or directory"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_is_no_report_or_another_one(files, monkeypatch, capsys, tmp_path, content, reason):
    file = tmp_path / "c.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    result = runner(monkeypatch, capsys, "bench", "compare")(files[0], file)
    assert (result.code, result.out) == (1, "")
    assert reason in result.err
    assert len(result.err.splitlines()) == 1


def test_the_machine_is_measured_and_saved(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(machines, "measure_peaks", lambda dtypes: PEAKS)
    run = runner(monkeypatch, capsys, "bench", "machine")
    result = run("--save", tmp_path / "m.json")
    assert (result.code, result.err) == (0, "")
    assert "instruction sets" in result.out
    loaded = saved.load(tmp_path / "m.json")
    assert (loaded.benchmark, loaded.rows) == ("machine", {})
    assert run("--save", tmp_path / "m.png").code == 1
    wrong = runner(monkeypatch, capsys, "bench", "attention")("--grid", "long")
    assert (wrong.code, wrong.err) == (1, "regard: grid: expected one of default, wide, roofline. Got 'long'.\n")
