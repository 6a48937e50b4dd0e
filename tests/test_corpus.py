"""Files of texts → Parquet: what is written, and what is read of every format."""

import gzip
import importlib.metadata
import io
import json
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import regard
from regard.corpus import EmbedConfig, Source, embed_files, shards
from regard.corpus.files import find_files
from regard.corpus.records import BadRecord, Record
from support import data, models
from support.corpus import TEXTS, records_of, vectors, write_lines


@pytest.fixture(scope="module")
def lens():
    return regard.Lens()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random encoder, opened in no time."""
    return str(models.saved("bert", tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def lines(tmp_path):
    return write_lines(tmp_path / "lines.txt")


# What is written


def test_sentences(lens, lines, tmp_path):
    out, calls = tmp_path / "out.parquet", []
    counts = embed_files(Source([lines, lines]), out, progress=lambda *more: calls.append(more))
    tokens = sum(lens.embed(TEXTS * 2).tokens)
    assert counts == {"texts": 6, "vectors": 6, "tokens": tokens, "truncated": 0, "bad": 0, "dim": 384}
    assert (sum(texts for texts, _, _ in calls), sum(tokens for _, tokens, _ in calls)) == (6, tokens)
    shares = [share for _, _, share in calls]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    table = pq.read_table(out)
    assert table.schema.remove_metadata() == pa.schema(
        [
            ("text_id", pa.int64()),
            ("text", pa.string()),
            ("truncated", pa.bool_()),
            ("vector", pa.list_(pa.float32(), 384)),
        ]
    )
    assert {key.decode(): value.decode() for key, value in table.schema.metadata.items()} == {
        "regard.model": "all-MiniLM-L6-v2",
        "regard.revision": "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "regard.fingerprint": lens.fingerprint,
        "regard.level": "sentence",
        "regard.layers": "-1",
        "regard.pool": "mean",
        "regard.mix": "mean",
        "regard.subwords": "mean",
        "regard.truncation": "windows",
        "regard.dtype": "float32",
        "regard.store": "float32",
        "regard.version": importlib.metadata.version("regard"),
    }
    assert table["text_id"].to_pylist() == [0, 1, 2, 3, 4, 5]
    assert table["text"].to_pylist() == TEXTS * 2
    assert table["truncated"].to_pylist() == [False] * 6
    assert np.array_equal(vectors(table), lens.embed(TEXTS * 2).vectors)
    assert sorted(os.listdir(tmp_path)) == ["lines.txt", "out.parquet"]


@pytest.mark.parametrize("level", ["token", "word"])
def test_tokens_and_words(lens, lines, tmp_path, level, monkeypatch):
    monkeypatch.setattr(shards, "MAX_TEXTS", 2)  # more than one part
    out = tmp_path / "out.parquet"
    counts = embed_files(Source([lines]), out, EmbedConfig(level=level, layers=2))
    table = pq.read_table(out)
    expected = lens.embed(TEXTS, level=level, layers=2)
    assert table.column_names == ["text_id", "index", "start", "end", level, "truncated", "vector"]
    assert (counts["texts"], counts["vectors"]) == (3, sum(map(len, expected.spans)))
    rows = table.drop_columns("vector").to_pylist()
    assert [row["text_id"] for row in rows] == [n for n, spans in enumerate(expected.spans) for _ in spans]
    assert [row["index"] for row in rows] == [n for spans in expected.spans for n, _ in enumerate(spans)]
    assert all(TEXTS[row["text_id"]][row["start"] : row["end"]] == row[level] for row in rows)
    if level == "word":
        assert [row["word"] for row in rows[:5]] == ["Don't", "stop", "!", "unbelievable", "👍🏽"]
    assert np.array_equal(vectors(table), np.concatenate(expected.vectors))


@pytest.mark.parametrize(("output_dtype", "kind"), [("float16", pa.float16()), ("int8", pa.int8())])
def test_smaller_numbers(lens, lines, tmp_path, output_dtype, kind):
    out = tmp_path / "out.parquet"
    embed_files(Source([lines]), out, EmbedConfig(output_dtype=output_dtype))
    table = pq.read_table(out)
    assert table.schema.field("vector").type == pa.list_(kind, 384)
    kept, expected = vectors(table).astype(np.float32), lens.embed(TEXTS).vectors
    if output_dtype == "int8":
        assert np.abs(kept).max(1).tolist() == [127] * 3
        kept = kept * table["scale"].to_numpy()[:, None]
    tolerance = (
        2**-11 * np.abs(expected) + 1e-7 if output_dtype == "float16" else np.abs(expected).max(1, keepdims=True) / 254
    )
    assert (np.abs(kept - expected) <= tolerance * 1.001).all()


def test_a_folder_of_parts(lens, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_TEXTS", 2)
    embed_files(Source([lines]), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["part-000000.parquet", "part-000001.parquet"]
    table = pq.read_table(tmp_path / "out")  # a dataset to all that reads Parquet
    assert table["text"].to_pylist() == TEXTS
    assert np.array_equal(vectors(table), lens.embed(TEXTS).vectors)
    with pytest.raises(FileExistsError, match="is there already: choose another name"):
        embed_files(Source([lines]), tmp_path / "out")
    embed_files(Source([lines]), tmp_path / "out", EmbedConfig(level="token"), overwrite=True)
    assert "token" in pq.read_table(tmp_path / "out").column_names
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    with pytest.raises(FileExistsError, match="was not written by regard embed"):
        embed_files(Source([lines]), tmp_path / "mine", overwrite=True)
    assert os.listdir(tmp_path / "mine") == ["precious"]


def test_options_reach_the_model(lens, lines, tmp_path):
    out = tmp_path / "out.parquet"
    config = EmbedConfig(
        level="word", layers=[1, -1], aggregate="concatenate", subtoken_pooling="first-last", truncation="truncate"
    )
    counts = embed_files(Source([lines]), out, config)
    assert (counts["dim"], counts["truncated"]) == (4 * 384, 1)
    expected = lens.embed(
        TEXTS, "word", [1, -1], aggregate="concatenate", subtoken_pooling="first-last", truncation="truncate"
    )
    assert np.array_equal(vectors(pq.read_table(out)), np.concatenate(expected.vectors))
    assert pq.read_table(out)["truncated"].to_pylist()[-1] is True


# What is read


TABLE = [{"text": "one, two", "id": "a"}, {"text": 'a "quoted"\nline', "id": "b"}]
CONLLU = """\
# sent_id = s1
# text = I don't know  it.
1\tI\tI\tPRON\t_\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\t_\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_
3.1\tgone\tgo\tVERB\t_\t_\t_\t_\t_\t_
4\tknow\tknow\tVERB\t_\t_\t0\troot\t_\t_
5\tit\tit\tPRON\t_\t_\t4\tobj\t_\tSpaceAfter=No
6\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_

# sent_id = s2
1\tYes\tyes\tINTJ\t_\t_\t0\troot\t_\tSpaceAfter=No
2\t!\t!\tPUNCT\t_\t_\t1\tpunct\t_\t_
"""


def test_every_format(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \r\nthree")
    assert [(record.text, record.place) for record in records_of(Source([tmp_path / "a.txt"]))] == [
        ("one", f"{tmp_path}/a.txt, line 1"),
        ("two", f"{tmp_path}/a.txt, line 3"),
        ("three", f"{tmp_path}/a.txt, line 4"),
    ]
    (tmp_path / "p.txt").write_text("\n\none\r\nmore\n \ntwo\n\n\n")
    paragraphs = records_of(Source([tmp_path / "p.txt"], "paragraphs"))
    assert [(record.text, record.place[-6:]) for record in paragraphs] == [("one\nmore", "line 3"), ("two", "line 6")]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in TABLE))
    (tmp_path / "a.csv").write_text('\ufeffid,text\na,"one, two"\n\nb,"a ""quoted""\nline"\n')
    pq.write_table(pa.table({"id": ["a", "b"], "text": [row["text"] for row in TABLE]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        records = records_of(Source([tmp_path / name], id="id"))
        assert [{"text": record.text, "id": record.id} for record in records] == TABLE, name
        assert [record.id for record in records_of(Source([tmp_path / name]))] == [None, None]
    assert [record.place.rpartition(", ")[2] for record in records_of(Source([tmp_path / "a.csv"]))] == [
        "line 2",
        "line 4",
    ]
    (tmp_path / "a.tsv").write_text('title\tnumber\n"quoted\t7\n')
    (record,) = records_of(Source([tmp_path / "a.tsv"], column="title", id="number"))
    assert (record.text, record.id) == ('"quoted', "7")


def test_conllu(lens, tmp_path):
    file = tmp_path / "a.conllu"
    file.write_text(CONLLU)
    first, second = records_of(Source([file], id="sent_id"))
    assert (first.text, first.id, second.text, second.id) == ("I don't know  it.", "s1", "Yes!", "s2")
    assert [first.text[slice(*word)] for word in first.words] == ["I", "don't", "know", "it", "."]
    assert [second.text[slice(*word)] for word in second.words] == ["Yes", "!"]
    (tmp_path / "plain.txt").write_text("it's me")
    embed_files(Source([file, tmp_path / "plain.txt"]), tmp_path / "out.parquet", EmbedConfig(level="word"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["word"].to_pylist() == ["I", "don't", "know", "it", ".", "Yes", "!", "it's", "me"]
    expected = lens.embed([first.text], "word").vectors[0]
    np.testing.assert_allclose(vectors(table)[[0, 2, 3]], expected[[0, 2, 3]], atol=1e-6)


def test_treebank():
    file = data.required(data.TREEBANK)
    records = records_of(Source([file], id="sent_id"))
    assert len(records) == 2001
    assert not [record for record in records if isinstance(record, BadRecord)]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed(tmp_path, suffix):
    lines = [f"line {n} {random.Random(n).random()}" for n in range(20_000)]
    content = "\n".join(lines).encode()
    packed = gzip.compress(content[:50_000]) + gzip.compress(content[50_000:])  # as `cat a.gz b.gz` has it
    if suffix == "zst":
        packed = pa.compress(content, codec="zstd", asbytes=True)
    file = tmp_path / f"a.txt.{suffix}"
    file.write_bytes(packed)
    assert [record.text for record in records_of(Source([file]))] == lines
    file.write_bytes(packed[: len(packed) * 2 // 3])
    *good, last = records_of(Source([file]))
    assert len(good) > 1000
    assert [record.text for record in good] == lines[: len(good)]
    assert isinstance(last, BadRecord)
    assert str(last).startswith(f"{file}, after line {len(good)}: the rest is lost: the file is damaged (")
    file.write_bytes(b"no such thing\n" * 9)
    (bad,) = records_of(Source([file]))
    assert str(bad).startswith(f"{file}, after line 0: the rest is lost: the file is damaged (")


def test_folders(tmp_path):
    for name in ("b.txt", "a/z.jsonl", "a/y.txt.gz", "readme.pdf", ".hidden/x.txt", "_x.txt", "a/out.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [
        str(file.relative_to(tmp_path)) for file in find_files(Source([tmp_path]), exclude=[tmp_path / "a/out.parquet"])
    ]
    assert names == ["a/y.txt.gz", "a/z.jsonl", "b.txt"]
    with pytest.raises(ValueError, match=r"no file in this folder has a known format \(\.txt, "):
        find_files(Source([tmp_path / ".hidden" / ".."], "lines"), exclude=[tmp_path])


def test_stdin(tmp_path, monkeypatch, tiny):
    stdin = io.BytesIO(b'{"body": "one text"}\n{"body": "and another"}\n')
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
    shares = []
    source = Source([Path("-")], "jsonl", "body")
    counts = embed_files(
        source, tmp_path / "out.parquet", EmbedConfig(tiny), progress=lambda *more: shares.append(more[2])
    )
    assert counts["texts"] == 2
    assert shares == [None, None]
    assert not stdin.closed


LETTERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(LETTERS, min_size=1, max_size=6))
def test_any_text_comes_back(tmp_path_factory, texts):
    import csv

    folder = tmp_path_factory.mktemp("any")
    with open(folder / "a.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    (folder / "a.json").write_text(json.dumps([{"text": text} for text in texts], indent=1), encoding="utf-8")
    pq.write_table(pa.table({"text": texts}), folder / "a.parquet")
    assert [record.text for record in records_of(Source([folder / "a.json"]))] == texts
    assert [record.text for record in records_of(Source([folder / "a.jsonl"]))] == texts
    assert [record.text for record in records_of(Source([folder / "a.parquet"]))] == texts
    assert [record.text for record in records_of(Source([folder / "a.csv"]))] == texts


SUFFIXES = ["txt", "json", "jsonl", "csv", "tsv", "conllu", "parquet", "gz", "json.gz", "bz2", "csv.xz", "zst"]


@settings(deadline=None, max_examples=300)
@given(content=st.binary(max_size=300), name=st.sampled_from(SUFFIXES))
def test_any_bytes_are_records_or_bad(tmp_path_factory, content, name):
    file = tmp_path_factory.getbasetemp() / f"any.{name}"
    file.write_bytes(content)
    for record in records_of(Source([file])):
        assert str(record.place).startswith(str(file))
        if isinstance(record, Record):
            assert record.text.strip()
            assert "\0" not in record.text
            record.text.encode()


# The previous release


def test_old_names():
    with pytest.warns(DeprecationWarning, match=r"^regard\.corpus\.Recipe is now called EmbedConfig\.$"):
        assert regard.corpus.Recipe is EmbedConfig
    config = EmbedConfig(
        aggregate="concatenate", subtoken_pooling="first", truncation="truncate", output_dtype="float16"
    )
    old = {"mix": "concatenate", "subwords": "first", "truncation": "cut", "store": "float16"}
    with pytest.warns(DeprecationWarning, match="EmbedConfig: .* is now called ") as warnings:
        assert EmbedConfig(**old) == config
    assert len(warnings) == 4


def test_old_names_of_arguments(lines, tmp_path, tiny):
    with pytest.warns(DeprecationWarning, match=r"^embed_files: (recipe= .* config=|leave_out= .* skipped=)\.$"):
        embed_files(Source([lines]), tmp_path / "out.parquet", recipe=EmbedConfig(tiny), leave_out=print)


def test_the_manifest_is_that_of_the_previous_release(tiny):
    """So that its runs are resumed: the entries keep the names that they have in files."""
    config = EmbedConfig(tiny, level="word", truncation="truncate", output_dtype="float16")
    assert list(config.manifest(config.open()).items()) == [
        ("model", "tiny"),
        ("level", "word"),
        ("layers", "-1"),
        ("mix", "mean"),
        ("subwords", "mean"),
        ("truncation", "cut"),
        ("dtype", "float32"),
        ("store", "float16"),
        ("revision", config.open().revision),
        ("fingerprint", config.open().fingerprint),
        ("version", importlib.metadata.version("regard")),
    ]
