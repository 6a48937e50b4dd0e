"""docs/plain.py and docs/plain_decoder.py: without a library, and yet the library's numbers."""

import ast
import importlib.util
import json
import math
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import regard
from regard.nn import Decoder, Embeddings, checkpoint
from regard.train import masked
from regard.train.options import Options

DOCS = Path(__file__).parents[1] / "docs"
PROGRAMS = {"plain.py": (150, {"math", "json"}), "plain_decoder.py": (100, {"math", "plain"})}
TEXTS = [
    "Time flies like an arrow",
    "Fruit flies like a banana",
    "the young girl sees a small dog.",
    "House flies, like bananas; apples & 2 horses!",
    "Sleepers  swim\n(unbelievably)",
    "x",
    "qqq",  # a letter that it does not know
    "the bird sees the cat, the dog, the horse, the fish, the bee, an old man.",  # as long as it may be
]


def module(name):
    """A program of docs, imported under its name, under which plain_decoder.py imports plain.py."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def plain():
    try:
        yield module("plain")
    finally:
        sys.modules.pop("plain", None)


@pytest.fixture(scope="module")
def plain_decoder(plain):
    try:
        yield module("plain_decoder")
    finally:
        sys.modules.pop("plain_decoder", None)


@pytest.fixture(scope="module")
def lens(tmp_path_factory):
    """The weights of plain.json as a folder of BERT, with the tokenizer that `regard train` makes."""
    folder, model = tmp_path_factory.mktemp("plain"), json.loads((DOCS / "plain.json").read_text(encoding="utf-8"))
    vocabulary, positions = model["vocabulary"], model["embeddings"]["positions"]
    content = json.loads(masked.make_tokenizer(["a b"], Options(vocab_size=10, seq_length=len(positions))).to_str())
    content["model"]["vocab"] = {token: n for n, token in enumerate(vocabulary)}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    weights = {f"encoder.{name}": tensor for name, tensor in tensors_of(model).items()}
    weights["encoder.embeddings.types.weight"] = torch.zeros(2, len(positions[0]))
    sizes = {
        "layers": len(model["layers"]), "dim": len(positions[0]), "heads": model["heads"], "dropout": 0.0,
        "vocab_size": len(vocabulary), "positions": len(positions), "types": 2,
        "d_ff": len(model["layers"][0]["fc1"]["bias"]), "epsilon": 1e-12, "activation": "gelu",
    }  # fmt: skip
    checkpoint.save(folder, weights, sizes, pad_token_id=masked.PAD)
    return regard.Lens(str(folder))


def tensors_of(model):
    """The numbers of a file under the names of regard.nn."""
    tensors = {f"embeddings.{name}.weight": model["embeddings"][name] for name in ("tokens", "positions")}
    tensors |= {f"embeddings.norm.{kind}": numbers for kind, numbers in model["embeddings"]["norm"].items()}
    for n, layer in enumerate(model["layers"]):
        parts = {name: layer[name] for name in layer if name.endswith("norm")}
        parts |= {f"feed_forward.{name}": layer[name] for name in ("fc1", "fc2")}
        for name in {"attention", "cross_attention"} & layer.keys():
            parts |= {f"{name}.{part}": numbers for part, numbers in layer[name].items()}
        for name, part in parts.items():
            tensors |= {f"layers.{n}.{name}.{kind}": numbers for kind, numbers in part.items()}
    made = {name: torch.tensor(numbers) for name, numbers in tensors.items()}
    return {n: t.T.contiguous() if t.ndim == 2 and not n.startswith("embeddings") else t for n, t in made.items()}


@pytest.fixture(scope="module")
def decoder():
    model = json.loads((DOCS / "plain_decoder.json").read_text(encoding="utf-8"))
    tokens, positions = (model["embeddings"][name] for name in ("tokens", "positions"))
    made = Decoder(
        Embeddings(len(tokens), len(tokens[0]), len(positions)), len(model["layers"]), dim=len(tokens[0]),
        heads=model["heads"], d_ff=len(model["layers"][0]["fc1"]["bias"]), epsilon=1e-12,
    )  # fmt: skip
    made.load_state_dict(tensors_of(model))
    return made.eval()


@pytest.fixture
def plain_weights():
    try:
        yield module("plain_weights")
    finally:
        sys.modules.pop("plain_weights", None)


def run(program, text, folder=DOCS):
    command = [sys.executable, "-S", str(folder / program)]  # -S: no installed package can be imported
    settings = {"capture_output": True, "text": True, "encoding": "utf-8", "env": {"PYTHONUTF8": "1"}}
    return subprocess.run(command, input=text, **settings)


def far(numbers, tensor):
    return float((torch.tensor(numbers, dtype=torch.float64) - tensor.double()).abs().max())


@pytest.mark.parametrize("program", PROGRAMS)
def test_short_and_without_a_library(program):
    longest, allowed = PROGRAMS[program]
    source = (DOCS / program).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= longest
    tree = ast.parse(source)
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == allowed
    assert not re.search(r"__import__|importlib|\bexec\(|\beval\(", source)


def test_the_files_are_small():
    assert sum((DOCS / f"{name}.json").stat().st_size for name in ("plain", "plain_decoder")) < 500_000


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_weights_and_vectors_are_those_of_the_library(plain, lens, text):
    model, reading = plain.load(), lens.read(text)
    tokens = plain.tokenise(text, model)
    assert tokens == [token.piece or token.text for token in reading.tokens]
    x, weights = plain.encoder(tokens, model)
    assert len(weights) == len(reading.attention) == 2
    for ours, attended in zip(weights, reading.attention, strict=True):
        assert far(ours, attended.weights.dense()) <= 1e-5
    assert far(x, reading.hidden[-1]) <= 1e-4  # numbers of size 3


def test_it_prints_what_it_computes(lens):
    done = run("plain.py", "Fruit flies like a banana")
    assert done.returncode == 0
    assert not done.stderr
    reading = lens.read("Fruit flies like a banana")
    blocks = re.findall(r"layer (\d), head (\d)(.*)\n((?:.+\n)+)", done.stdout)
    assert [(int(layer), int(head)) for layer, head, *_ in blocks] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for layer, head, tokens, rows in blocks:
        assert tokens.split() == ["[CLS]", "fruit", "flies", "like", "a", "banana", "[SEP]"]
        numbers = [[float(number) for number in row.split()[1:]] for row in rows.splitlines()]
        assert far(numbers, reading.attention[int(layer)].weights.dense()[int(head)]) <= 1e-5


def test_the_words_of_the_lesson(plain):
    assert plain.dot([1, 2, 3], [4, 5, 6]) == 32
    assert plain.product([[1, 2], [3, 4], [5, 6]], [[1, 0, 2], [0, 1, 3]]) == [[1, 2, 8], [3, 4, 18], [5, 6, 28]]
    assert plain.softmax([1000.0, 1000.0 + math.log(3)]) == pytest.approx([0.25, 0.75])
    norm = {"weight": [2.0, 2.0], "bias": [1.0, 1.0]}
    assert plain.layer_norm([3.0, 7.0], norm) == pytest.approx([-1.0, 3.0])
    assert plain.pieces_of("unfit", ["un", "unf", "##it", "##fit", "u"]) == ["unf", "##it"]
    assert plain.pieces_of("unfits", ["un", "unf", "##it", "##fit", "u"]) == ["[UNK]"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_probabilities_are_those_of_the_library(plain, plain_decoder, lens, decoder, text):
    source, model = plain.load(), plain.load("plain_decoder.json")
    memory, _ = plain.encoder(plain.tokenise(text, source), source)
    words = ["[BEGIN]", "die", "Zeit", "mögen", "[END]"]
    ids = torch.tensor([[model["vocabulary"].index(word) for word in words]])
    with torch.no_grad():
        hidden, attended, _ = decoder(ids, decoder.begin(lens.read(text).hidden[-1][None]))
        expected = (hidden[-1] @ decoder.embeddings.tokens.weight.T).softmax(-1)[0]
    for n in range(1, len(words) + 1):
        probabilities, weights = plain_decoder.next_word(words[:n], memory, model)
        assert far(probabilities, expected[n - 1]) <= 1e-5
        for ours, (_, crossed) in zip(weights, attended, strict=True):
            assert far(ours, crossed.weights.dense()[0, :, :n]) <= 1e-5


def test_the_future_is_hidden(plain, plain_decoder):
    assert plain_decoder.causal([[1.0, 2.0], [3.0, 4.0]]) == [[1.0, -math.inf], [3.0, 4.0]]
    source, model = plain.load(), plain.load("plain_decoder.json")
    memory, _ = plain.encoder(plain.tokenise("Time flies", source), source)
    first, _ = plain_decoder.decoder(["[BEGIN]", "die", "Zeit"], memory, model)
    second, _ = plain_decoder.decoder(["[BEGIN]", "die", "Katze"], memory, model)
    assert first[:2] == second[:2]
    assert first[2] != second[2]


@pytest.mark.parametrize(
    ("english", "german"),
    [
        ("Time flies like an arrow", "die Zeit fliegt wie ein Pfeil"),
        ("Fruit flies like a banana", "Fruchtfliegen mögen eine Banane"),
        ("House flies like the red apple", "Stubenfliegen mögen den roten Apfel"),
    ],
)
def test_it_translates_flies_and_like_by_their_context(english, german):
    done = run("plain_decoder.py", english)
    assert done.returncode == 0
    written = [line.split()[0] for line in done.stdout.splitlines()[2:]]
    assert written == [*german.split(), "[END]"]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("text", "got"), [("\n", 0), ("  \n", 0), ("bee " * 23, 23)])
def test_a_text_that_is_too_short_or_too_long(program, text, got):
    done = run(program, text)
    assert done.returncode == 1
    assert done.stdout == "Text: "
    assert done.stderr == f"{program}: Expected a text of 1 to 22 tokens. Got {got}.\n"


def test_no_text_at_all():
    done = run("plain.py", "")
    assert (done.returncode, done.stderr) == (1, "plain.py: EOF when reading a line\n")


def test_unknown_characters_are_unknown_words():
    done = run("plain.py", "flies 北 🍌")
    assert done.returncode == 0
    assert done.stdout.split("\n")[1].split()[4:] == ["[CLS]", "flies", "[UNK]", "[UNK]", "[SEP]"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_its_file(program, tmp_path):
    for name in ("plain.py", "plain_decoder.py"):
        shutil.copy(DOCS / name, tmp_path)
    done = run(program, "bee", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No such file" in done.stderr
    assert "plain.json" in done.stderr
    (tmp_path / "plain.json").write_text("{", encoding="utf-8")
    assert run(program, "bee", folder=tmp_path).stderr.startswith(f"{program}: Expecting property name")


# Where the weights come from


def test_the_files_are_made_again(plain, plain_decoder, plain_weights, tmp_path, monkeypatch, capsys):
    """With few sentences and steps; the shapes are those of the files beside the programs."""
    for name, number in (("SENTENCES", 1000), ("ENCODER_STEPS", 3), ("DECODER_STEPS", 3)):
        monkeypatch.setattr(plain_weights, name, number)
    threads = torch.get_num_threads()
    try:
        plain_weights.main(tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert "% of masked tokens on held-out text" in capsys.readouterr().out
    for name in ("plain.json", "plain_decoder.json"):
        made, kept = (json.loads((folder / name).read_text(encoding="utf-8")) for folder in (tmp_path, DOCS))
        assert {key: t.shape for key, t in tensors_of(made).items() if "tokens" not in key} == {
            key: t.shape for key, t in tensors_of(kept).items() if "tokens" not in key
        }
        for content in (made, kept):
            assert all(torch.equal((1000 * t).round() / 1000, t) for t in tensors_of(content).values())
    monkeypatch.setattr(plain, "__file__", str(tmp_path / "plain.py"))
    source = plain.load()
    memory, weights = plain.encoder(plain.tokenise("time flies", source), source)
    assert [sum(row) for row in weights[0][0]] == pytest.approx([1] * 4)
    assert 0 < len(list(plain_decoder.write(memory, plain.load("plain_decoder.json")))) < 16


def test_the_sentences_say_the_same_in_both_languages(plain_weights):
    pick = random.Random(1)
    pairs = dict(plain_weights.sentence(pick) for _ in range(5000))
    for english, german in pairs.items():
        words, written = english.split(), german.split()
        fly = words[words.index("flies") + 1] if "flies" in words[:4] else ""
        assert ("fliegt wie" in german) == (fly == "like" and words[0] in ("time", "a", "an", "the"))
        accusative = any(verb in written for verb in ("mag", "mögen", "sieht", "sehen", "isst", "essen"))
        assert not (accusative and written[-1] in ("Apfel", "Fisch", "Pfeil") and {"ein", "der"} & set(written[2:]))
    assert {words.split()[0] for words in pairs} >= {"time", "fruit", "house", "flies", "a", "an", "the"}
