"""The guide: what it says is run, what it shows is made, and nothing that it should teach is missing."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import regard.nn

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = DOCS / "from-scratch.md"
TEXT = GUIDE.read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)


def test_what_it_says_is_what_happens():
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= len(SECTIONS)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, GUIDE.name, str(GUIDE), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    try:
        runner.run(example)
    finally:
        torch.set_printoptions(profile="default")
    assert runner.summarize(verbose=False) == doctest.TestResults(failed=0, attempted=len(example.examples))


def test_the_ideas_in_their_order():
    wanted = [
        "average", "recurrent", "self-attention", "contextualised", "query", "scaling", "softmax", "heads",
        "feed-forward", "norm", "positions", "encoder", "classification", "masks", "decoder", "cross-attention",
        "trained", "language",
    ]  # fmt: skip
    assert len(SECTIONS) == len(wanted)
    assert all(word in section.lower() for word, section in zip(wanted, SECTIONS, strict=True))


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links == [re.sub(r"[^\w -]", "", section.lower()).replace(" ", "-") for section in SECTIONS]


@pytest.mark.parametrize(
    "name",
    ["AttentionHead", "MultiHeadAttention", "FeedForward", "Embeddings", "SinusoidalPositions", "EncoderLayer",
     "Encoder", "Decoder", "Transformer", "SequenceClassifier", "BahdanauAttention", "greedy", "beam"],
)  # fmt: skip
def test_what_it_names_is_there(name):
    assert name in TEXT
    assert hasattr(regard.nn, name)


def test_its_pictures_are_made_by_the_program(tmp_path):
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    pictures.main(tmp_path, "from-scratch")
    shown = set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT))
    assert shown == {path.name for path in tmp_path.iterdir()}
    for name in shown:
        with Image.open(tmp_path / name) as made, Image.open(DOCS / name) as kept:
            assert abs(made.width - kept.width) < 20
            assert abs(made.height - kept.height) < 20
