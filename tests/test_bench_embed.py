"""`regard bench embed` on a tiny model: the peers, what is counted, printed and saved. Nothing is timed."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from regard.bench import embed, embed_view, embedders, peaks
from support import models as fixtures
from support.cli import runner

TEXTS = ["the cat sat on the mat " * n for n in (1, 3, 1, 20, 2)]
pytestmark = pytest.mark.filterwarnings("default")  # of the peers, and what they stand on


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return fixtures.saved("bert", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module", autouse=True)
def known_peaks():
    flops = dict.fromkeys(("float32", "bfloat16"), 1e12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "measure_peaks", lambda dtypes: peaks.Peaks(flops, 1e11, "the tests"))
        yield


@pytest.fixture(scope="module")
def report(tiny):
    names = ["regard", "regard-bf16", "transformers", "st"]
    return embed.measure(TEXTS, tiny, names, rounds=1, alone=False)


def test_all_make_the_same_vectors(report):
    assert list(report.results) == ["regard", "regard-bf16", "transformers", "st"]
    assert not report.unavailable
    assert all(result.cosine > 0.9999 for name, result in report.results.items() if name != "regard-bf16")
    assert all(result.mean_cosine >= result.cosine for result in report.results.values())
    assert all(result.seconds > 0 for result in report.results.values())


def test_what_is_counted(report, tiny):
    """Tokens as the model reads them, cut at 37; operations of the linear layers and of the attention."""
    from regard import Lens

    sizes = Lens(tiny).embed(TEXTS, truncation="truncate").tokens
    assert max(sizes) == 37
    assert (report.texts, report.tokens) == (5, sum(sizes))
    dim, inner, layers = 24, 20, 2
    linear = sum(sizes) * 2 * (4 * dim * dim + 2 * dim * inner)
    attention = sum(2 * 2 * size * size * dim for size in sizes)
    assert report.flops == layers * (linear + attention)
    result = report.results["regard"]
    assert report.speed("regard") == report.tokens / result.seconds
    assert report.share("regard") == report.flops / result.seconds / 1e12
    assert report.ratio("st") == report.results["st"].seconds / result.seconds


def test_onnx_runtime(tiny):
    """Both ways of it, where it and onnx are installed."""
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"the peer ONNX Runtime needs {name}")
    expected = embedders.ours(tiny, "float32")(TEXTS)
    for optimised in (True, False):
        np.testing.assert_allclose(embedders.onnx(tiny, optimised)(TEXTS), expected, atol=1e-4)


def test_who_differs_or_fails_is_named_and_not_timed(tiny, monkeypatch):
    def wrong(folder):
        return lambda texts: np.random.default_rng(0).normal(size=(len(texts), 24)).astype(np.float32)

    def missing(folder):
        raise ImportError("No module named 'peer'\nand more")

    known = embedders.EMBEDDERS
    peers = {"st": embedders.Embedder("ST", "float32", missing), "onnx": embedders.Embedder("ONNX", "float32", wrong)}
    monkeypatch.setattr(embed, "EMBEDDERS", {"regard": known["regard"], **peers})
    report = embed.measure(TEXTS, tiny, ["regard", "st", "onnx"], 1, alone=False)
    assert list(report.results) == ["regard"]
    assert report.unavailable["st"] == "No module named 'peer'"
    assert report.unavailable["onnx"].startswith("its vectors differ from regard's: a cosine of ")


def test_in_a_process_of_its_own(tiny):
    first, short, peak = embed._alone("regard", tiny, TEXTS)
    assert 0 < short < first
    assert 5e7 < peak < 5e9


def test_batches():
    sizes = [5, 2000, 3, 700, 700, 700, 9]
    assert list(embedders._batches(sizes, by_length=True)) == [[2, 0, 6], [3, 4], [5], [1]]
    assert [len(batch) for batch in embedders._batches([1] * 600, by_length=False)] == [256, 256, 88]


def test_the_texts_are_english_of_mixed_length_and_always_the_same():
    texts = embed.sample_texts(300)
    assert texts == embed.sample_texts(300)
    sizes = [len(text.split()) for text in texts]
    assert len(set(sizes)) > 50
    assert max(sizes) > 10 * min(sizes)


def test_table_and_picture(report, tmp_path):
    file = io.StringIO()
    Console(file=file, width=120).print(embed_view.table(report))
    out = file.getvalue()
    assert "5 texts, " in out
    assert "sentence-transformers float32" in out
    assert max(map(len, out.splitlines())) <= 120
    assert json.loads(json.dumps(report.to_dict()))["rows"]["st"]["ratio"] == report.ratio("st")
    axes = embed_view.picture(report).axes[0]
    assert {label.get_text() for label in axes.get_yticklabels()} == {
        "regard float32", "regard bfloat16", "transformers, SDPA float32", "sentence-transformers float32",
    }  # fmt: skip
    assert len(axes.patches) == 4


def test_the_command(tiny, tmp_path, monkeypatch, capsys):
    run = runner(monkeypatch, capsys, "bench", "embed")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    saved = [tmp_path / f"embed.{suffix}" for suffix in ("png", "svg", "json")]
    options = [option for path in saved for option in ("--save", path)]
    result = run(texts, "--quick", "--peers", "transformers", "--model", tiny, "--json", *options)
    assert result.code == 0, result.err
    measured = json.loads(result.out)
    assert [name for name in measured["rows"] if name != "regard-int8"] == ["regard", "regard-bf16", "transformers"]
    assert ("regard-int8" in measured["rows"]) != ("regard-int8" in measured["unavailable"])
    assert all(path.stat().st_size > 1000 for path in saved)
    for arguments, message in (
        (["--peers", "bert"], "peers: expected names among regard, regard-bf16, regard-int8, st, "),
        (["--save", "a.txt"], "Expected a file that ends in .png, .svg or .json"),
        ([tmp_path / "none.txt"], "No such file or directory"),
        (["--model", tmp_path], "No such file or directory"),
        (["--model", fixtures.saved("gpt2", tmp_path / "gpt2")], "is no model of BERT's family: model_type: expected"),
    ):
        result = run(*arguments)
        assert result.code == 1
        assert message in result.err
        assert len(result.err.splitlines()) == 1
