"""The similarity of two texts, divided among pairs of words: its sum is the cosine of their vectors."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import regard
from regard.attribution import similarity
from support.headed import bodied
from support.models import TEXTS, saved

MODULE = "sentence_transformers.models"
DENSE = {"linear": "torch.nn.modules.linear.Identity", "tanh": "torch.nn.modules.activation.Tanh"}


def folder(path, pooling="mean", *, dense=(), normalize=False, dims=None, name="bert"):
    """A folder of sentence-transformers: a tiny model, a pooling, Dense modules, and Normalize."""
    saved(name, path)
    size = json.loads((path / "config.json").read_text())
    size = size.get("hidden_size") or size["n_embd"]
    kinds = ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * normalize]
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"{MODULE}.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": dims}))
    for n in range(1, len(kinds)):
        (path / modules[n]["path"]).mkdir()
    (path / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": size, "pooling_mode": pooling})
    )
    for n, activation in enumerate(dense, 2):
        torch.manual_seed(n)
        config = {"in_features": size, "out_features": size + n, "bias": True, "activation_function": DENSE[activation]}
        size += n
        (path / f"{n}_Dense" / "config.json").write_text(json.dumps(config))
        tensors = {"linear.weight": torch.randn(size, size - n), "linear.bias": torch.randn(size)}
        save_file(tensors, path / f"{n}_Dense" / "model.safetensors")
    return path


def cosine(lens, first, second):
    a, b = (torch.from_numpy(vector).double() for vector in lens.embed([first, second]).vectors)
    return float(a @ b / a.norm() / b.norm())


WORDS = st.lists(st.sampled_from(["time", "flies", "like", "an", "arrow", "fruit"]), min_size=1, max_size=9)
SERVED = {
    "mean": {},
    "normalized": {"normalize": True},
    "weighted": {"pooling": "weightedmean", "name": "gpt2"},
    "by the root of the length": {"pooling": "mean_sqrt_len_tokens", "normalize": True},
    "linear": {"dense": ["linear"]},
    "two linear, fewer dimensions": {"dense": ["linear", "linear"], "normalize": True, "dims": 7},
    "root and linear": {"pooling": "mean_sqrt_len_tokens", "dense": ["linear"]},
}


@pytest.mark.parametrize("options", SERVED.values(), ids=SERVED.keys())
def test_it_sums_to_the_cosine(tmp_path, options):
    lens = regard.Lens(folder(tmp_path, **options))
    for first, second in ((TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[3]), (TEXTS[0], TEXTS[0])):
        a, b = lens.read(first), lens.read(second)
        pairs = similarity(a, b)
        assert pairs.shape == (len(a.units), len(b.units))
        assert pairs.dtype == torch.float64
        assert float(pairs.sum()) == pytest.approx(cosine(lens, first, second), abs=1e-6)
        assert torch.allclose(pairs, similarity(b, a).T, atol=1e-12)


@settings(max_examples=20)
@given(st.tuples(WORDS, WORDS))
def test_the_embedded_model(embedded_lens, words):
    first, second = map(" ".join, words)
    pairs = similarity(embedded_lens.read(first), embedded_lens.read(second))
    assert float(pairs.sum()) == pytest.approx(cosine(embedded_lens, first, second), abs=1e-6)


def test_each_pair_as_defined(embedded_lens):
    a, b = embedded_lens.read("unbelievable arrows"), embedded_lens.read("Time flies like an arrow")
    x, y = a.final.double(), b.final.double()
    tokens = x @ y.T / (len(x) * len(y)) / x.mean(0).norm() / y.mean(0).norm()
    pairs = similarity(a, b)
    for i, unit in enumerate(a.units):
        for j, other in enumerate(b.units):
            expected = float(tokens[list(unit.tokens)][:, list(other.tokens)].sum())
            assert float(pairs[i, j]) == pytest.approx(expected, abs=1e-9)
    words = pairs[1:-1, 1:-1]
    assert a.words[int(words.max(1).values.argmax())].text == "arrows"
    assert b.words[int(words.max(0).values.argmax())].text == "arrow"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pooling": "cls"}, r"similarity: \S+ pools by cls, which is no sum over tokens; served are mean, "),
        ({"pooling": "max"}, r"pools by max"),
        ({"pooling": ["cls", "mean"]}, r"pools by cls\+mean"),
        ({"dense": ["tanh"]}, r"a Dense module with an activation follows its pooling"),
        ({"dense": ["linear", "tanh"], "normalize": True}, r"a Dense module with an activation"),
    ],
)
def test_what_is_no_sum_over_tokens(tmp_path, options, match):
    lens = regard.Lens(folder(tmp_path, **options))
    with pytest.raises(ValueError, match=match):
        similarity(lens.read(TEXTS[0]), lens.read(TEXTS[1]))


def test_two_models(embedded_lens):
    other = regard.Lens(bodied("bert")).read(TEXTS[0])
    with pytest.raises(ValueError, match=r"reading_b: expected a reading by the same model as reading_a, all-MiniLM"):
        similarity(embedded_lens.read(TEXTS[0]), other)
