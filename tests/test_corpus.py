"""Files of texts → Parquet: every format, what is damaged, runs that are stopped, a Ray cluster."""

import errno
import gzip
import importlib.metadata
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import regard
from regard.corpus import BadRecordError, EmbedConfig, Source, embed_files, run, shards
from regard.corpus.files import find_files, read_records
from regard.corpus.records import BadRecord, Record
from support import data
from support import models as fixtures

LONG = "Attention is a weighted average of what the words around bring with them. " * 60
TEXTS = ["Don't stop!", "unbelievable 👍🏽", LONG.strip()]


@pytest.fixture(scope="module")
def lens():
    return regard.Lens()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random encoder, opened in no time."""
    return str(fixtures.saved("bert", tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def lines(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_bytes("\ufeffDon't stop!\r\n\n   \nunbelievable 👍🏽\n".encode() + LONG.encode())
    return file


def vectors(table):
    return np.stack(table["vector"].to_numpy())


def records_of(source):
    return list(read_records(source, find_files(source)))


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


# What is damaged


def _parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


BAD = {
    "a byte": ("a.txt", b"good\nb\xffd\n", "a.txt, line 2: not UTF-8 at byte 1 of the text."),
    "utf-16": ("a.txt", "one\ntwo\n".encode("utf-16"), "a.txt: it is encoded in UTF-16: convert it to UTF-8."),
    "nul": (
        "a.txt",
        b"good\n\nx\n\x00\n",
        "a.txt, line 4: a NUL at character 0: the file is damaged, or not a text file.",
    ),
    "no token": ("a.txt", "good\n\u200b\n".encode(), "a.txt, line 2: the text contains no tokens for tiny: '\\u200b'."),
    "10 MB": ("a.txt", b"good\n" + b"a " * 5_000_000 + b"\ngood", "a.txt, line 2: longer than 8,388,608 bytes."),
    "2 MB": ("a.txt", b"good\n" + b"a " * 10**6, "a.txt, line 2: it has 1,999,999 characters. The limit is 1,048,576:"),
    "paragraph": (
        "p.txt",
        b"\ngood\n\n" + (b"a " * 500 + b"\n") * 10_000,
        "p.txt, line 4: longer than 8,388,608 bytes.",
    ),
    "json": ("a.jsonl", b'{"text": "a"}\n{"text": ', "a.jsonl, line 2: not JSON: Expecting value"),
    "deep json": ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: not JSON: "),
    "list": ("a.jsonl", b"[1]\n", "a.jsonl, line 1: expected an object. Got list."),
    "no key": ("a.jsonl", b'{"body": "a"}\n', "a.jsonl, line 1: it has no 'text', but 'body'."),
    "number": ("a.jsonl", b'{"text": 5}\n', "a.jsonl, line 1: expected a text. Got int."),
    "null": ("a.jsonl", b'{"text": null}\n', "a.jsonl, line 1: expected a text. Got nothing."),
    "blank": ("a.jsonl", b'{"text": " "}\n', "a.jsonl, line 1: the text is empty."),
    "surrogate": ("a.jsonl", b'{"text": "a\\ud800"}\n', "a.jsonl, line 1: not UTF-8 at byte 1 of the text."),
    "no column": ("a.csv", b"title,body\na,b\n", "a.csv: it has no column 'text', but 'title', 'body'."),
    "few columns": ("a.csv", b"text,id\na,b\nc\n", "a.csv, line 3: 1 column, and the first line has 2."),
    "csv byte": ("a.csv", b"text\ngood\n\xe9\n", "a.csv, line 3: not UTF-8 at byte 0 of the text."),
    "open quote": (
        "a.csv",
        b'text\n"' + (b"a " * 500 + b"\n") * 10_000,
        "a.csv, line 2: field larger than field limit (8388608)",
    ),
    "9 columns": ("a.conllu", b"1\ta\n\n", "a.conllu, line 1: a line of this sentence has 2 columns. CoNLL-U has 10."),
    "no parquet": ("a.parquet", b"PAR1 no more", "a.parquet, after row 0: the rest is lost: the file is damaged ("),
    "parquet column": ("a.parquet", _parquet(body=["a"]), "a.parquet: it has no column 'text', but 'body'."),
    "parquet type": ("a.parquet", _parquet(text=[1]), "a.parquet: its column 'text' holds int64, not text."),
    "parquet null": ("a.parquet", _parquet(text=["a", None]), "a.parquet, row 2: expected a text. Got nothing."),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_records(tmp_path, tiny, case):
    name, content, message = BAD[case]
    file, out = tmp_path / name, tmp_path / "out.parquet"
    file.write_bytes(content)
    (tmp_path / "more.txt").write_text("more\n")
    source = Source([file, tmp_path / "more.txt"], "paragraphs" if name == "p.txt" else None)
    with pytest.raises(BadRecordError) as error:
        embed_files(source, out, EmbedConfig(tiny))
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert not out.exists()
    calls = []
    counts = embed_files(source, out, EmbedConfig(tiny), on_error="skip", warn=calls.append)
    assert counts["bad"] == len(calls) >= 1
    assert calls[0].startswith(f"{tmp_path}/{message}")
    good = {"json": ["a"], "few columns": ["a"], "parquet null": ["a"], "10 MB": ["good", "good"], "nul": ["good", "x"]}
    good |= {"utf-16": []} | ({} if case in good or b"good" not in content else {case: ["good"]})
    assert pq.read_table(out)["text"].to_pylist() == [*good.get(case, []), "more"]
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_damaged_page_of_parquet(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {n} {'x' * (n % 99)}" for n in range(20_000)]}), file, row_group_size=5000)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 900] = bytes(900)
    file.write_bytes(content)
    *good, last = records_of(Source([file]))
    assert isinstance(last, BadRecord) or any(isinstance(record, BadRecord) for record in good)


def test_ids_twice(tmp_path, tiny):
    for name, ids in (("a.jsonl", ["x", 7, "y"]), ("b.jsonl", ["z", "7"])):
        (tmp_path / name).write_text("".join(json.dumps({"text": "a", "id": id}) + "\n" for id in ids))
    source, calls = Source([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], id="id"), []
    message = f"{tmp_path}/b.jsonl, line 2: its id '7' was used before, in {tmp_path}/a.jsonl, line 2."
    with pytest.raises(ValueError, match="was used before") as error:
        embed_files(source, tmp_path / "out.parquet", EmbedConfig(tiny))
    assert str(error.value).startswith(message)
    embed_files(source, tmp_path / "out.parquet", EmbedConfig(tiny), on_error="skip", warn=calls.append)
    assert calls == [message]
    assert pq.read_table(tmp_path / "out.parquet")["text_id"].to_pylist() == ["x", "7", "y", "z"]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf\n \n\n"], ids=["empty", "blank"])
def test_no_text(tmp_path, tiny, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"^There is no text in .*a\.txt\.$"):
        embed_files(Source([tmp_path / "a.txt"]), tmp_path / "out.parquet", EmbedConfig(tiny))
    assert os.listdir(tmp_path) == ["a.txt"]


def test_all_that_could_not_be_embedded(tmp_path, tiny):
    (tmp_path / "a.txt").write_bytes(b"\xff\n\0\n")
    with pytest.raises(ValueError, match=r"^There is no text in"):
        embed_files(Source([tmp_path / "a.txt"]), tmp_path / "out.parquet", EmbedConfig(tiny), on_error="skip")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_texts_that_are_too_long_can_be_refused(tmp_path, tiny):
    (tmp_path / "a.txt").write_text("short\n" + "long " * 300 + "\nshort too\n")
    config, calls = EmbedConfig(tiny, truncation="error"), []
    with pytest.raises(ValueError, match=r"a\.txt, line 2: it has .* tokens, and tiny takes 37 at once"):
        embed_files(Source([tmp_path / "a.txt"]), tmp_path / "out.parquet", config)
    embed_files(Source([tmp_path / "a.txt"]), tmp_path / "out.parquet", config, on_error="skip", warn=calls.append)
    assert len(calls) == 1
    assert pq.read_table(tmp_path / "out.parquet")["text_id"].to_pylist() == [0, 2]  # as in the file


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"on": "mars"}, ValueError, "on: expected 'local', 'ray' or 'ray=ADDRESS'"),
        ({"workers": 2}, ValueError, "workers: only with on='ray'"),
        ({"config": EmbedConfig(level="page")}, ValueError, "level: expected"),
        ({"config": EmbedConfig(layers=[9])}, IndexError, "layers: expected 0"),
        ({"config": EmbedConfig("./nowhere")}, OSError, "There is no folder"),
        ({"source": Source([Path("none.txt")])}, FileNotFoundError, "none.txt"),
        ({"source": Source([Path("a.txt")], id="id")}, ValueError, "plain text has no column 'id'"),
        ({"source": Source([Path("a.txt")], column="body")}, ValueError, "plain text has no column 'body'"),
        ({"source": Source([Path("-")], "parquet")}, ValueError, "Parquet can be read only from an uncompressed file"),
        ({"source": Source([Path("-")]), "on": "ray"}, ValueError, "stdin cannot be read"),
        ({"out": "out.csv"}, ValueError, r"^out: expected FILE\.parquet, or the name of a folder\. Got 'out\.csv'\.$"),
        ({"out": "no/such/folder/out.parquet"}, FileNotFoundError, "no/such/folder"),
        ({"out": "a.txt/out.parquet"}, NotADirectoryError, r"a\.txt"),
    ],
)  # fmt: skip
def test_what_cannot_be_done(tmp_path, tiny, monkeypatch, more, error, message):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a text")
    arguments = {"source": Source([Path("a.txt")]), "out": "out.parquet", "config": EmbedConfig(tiny), **more}
    with pytest.raises(error, match=message):
        embed_files(**arguments)
    assert os.listdir(".") == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_read_only_target(tiny):
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder, "a.txt")
        texts.write_text("a text")
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0  # who may write everywhere
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match=r"out\.parquet\.parts"):
                embed_files(Source([texts]), Path(folder, "out.parquet"), EmbedConfig(tiny))
        finally:
            if root:
                os.seteuid(0)
        assert os.listdir(folder) == ["a.txt"]
        os.chmod(folder, 0o755)


class FullDisk(io.FileIO):
    left = 10_000

    def write(self, content):
        FullDisk.left -= len(content)
        if FullDisk.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


def test_a_full_disk(tmp_path, tiny, monkeypatch):
    """What was written stays, and the run goes on when there is room."""
    monkeypatch.setattr(shards, "MAX_TEXTS", 10)
    (tmp_path / "a.txt").write_text("".join(f"text {n}\n" for n in range(30)))
    source, out = Source([tmp_path / "a.txt"]), tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        patch.setattr("regard._internal.files.open", FullDisk, raising=False)
        with pytest.raises(OSError, match="No space left on device") as error:
            embed_files(source, out, EmbedConfig(tiny))
    assert "out.parquet.parts/part-" in error.value.filename
    kept = list((tmp_path / "out.parquet.parts").glob("part-*"))
    assert 1 <= len(kept) < 3
    calls = []
    assert embed_files(source, out, EmbedConfig(tiny), progress=lambda *more: calls.append(more[0]))["texts"] == 30
    assert sum(calls) == 30 - 10 * len(kept)


def test_without_what_it_needs(lines, tmp_path, monkeypatch):
    for name, on, extra in (("pyarrow", "local", "corpus"), ("ray", "ray", "ray")):
        with monkeypatch.context() as patch:
            patch.setattr(run, "find_spec", lambda wanted, name=name: None if wanted == name else wanted)
            with pytest.raises(ImportError, match=rf"^This needs {name}: pip install 'regard\[{extra}\]'\.$"):
                embed_files(Source([lines]), tmp_path / "out.parquet", on=on)


# Runs that are stopped


@pytest.fixture
def many(tmp_path):
    """Forty parts of ten texts."""
    file = tmp_path / "many.txt"
    chance = random.Random(1)
    words = ["time", "flies", "like", "an", "arrow", "fruit", "banana", "the", "cat", "sat", "on", "mat"]
    file.write_text("".join(" ".join(chance.choices(words, k=chance.randint(1, 60))) + "\n" for _ in range(400)))
    return file


PROGRAM = """
import sys
from pathlib import Path
from regard.corpus import EmbedConfig, Source, embed_files, shards
shards.MAX_TEXTS = 10
print("ready", flush=True)
embed_files(Source([Path(sys.argv[1])]), sys.argv[2], EmbedConfig(sys.argv[3], level="word"))
"""


def test_killed_and_started_again(many, tmp_path, tiny):
    """Byte for byte what a run gives that nobody disturbs. benchmarks/kills.py does it a hundred times."""

    def start(out):
        command = [sys.executable, "-c", PROGRAM, str(many), str(tmp_path / out), tiny]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start("whole.parquet") as process:
        assert process.wait(120) == 0, process.stderr.read()
    chance, parts, kills = random.Random(0), tmp_path / "out.parquet.parts", 0
    for _ in range(40):
        with start("out.parquet") as process:
            assert process.stdout.readline() == "ready\n"
            have = len(list(parts.glob("part-*")))
            until, limit = have + chance.randint(3, 12), time.monotonic() + 100
            while process.poll() is None and len(list(parts.glob("part-*"))) < until and time.monotonic() < limit:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        kills += process.returncode == -signal.SIGKILL
        if (tmp_path / "out.parquet").exists() and not parts.exists():
            break
    assert kills >= 2
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["many.txt", "out.parquet", "whole.parquet"]


def test_what_is_done_is_not_done_again(many, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(shards, "MAX_TEXTS", 100)
    source, out = Source([many]), tmp_path / "out.parquet"
    shares = []

    def stop(texts, tokens, share):
        shares.append(share)
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_files(source, out, EmbedConfig(tiny), progress=stop)
    assert not out.exists()
    for other in (EmbedConfig(tiny, level="word"), EmbedConfig(), EmbedConfig(tiny, output_dtype="float16")):
        with pytest.raises(FileExistsError, match=r"out\.parquet\.parts was begun by another run \("):
            embed_files(source, out, other)
    many.write_text(many.read_text().replace("\n", " changed\n", 1))  # in the first part
    calls = []
    embed_files(source, out, EmbedConfig(tiny), progress=lambda *more: calls.append(more))
    assert sum(texts for texts, _, _ in calls) == 300  # the first, which changed, and the two that were not done
    assert pq.read_table(out)["text"].to_pylist() == many.read_text().splitlines()
    embed_files(source, tmp_path / "again.parquet", EmbedConfig(tiny))
    assert (tmp_path / "again.parquet").read_bytes() == out.read_bytes()


def test_one_run_at_a_time(many, tmp_path, tiny):
    def another(texts, tokens, share):
        with pytest.raises(FileExistsError, match="another run is using this folder"):
            embed_files(Source([many]), tmp_path / "out.parquet", EmbedConfig(tiny))

    assert embed_files(Source([many]), tmp_path / "out.parquet", EmbedConfig(tiny), progress=another)["texts"] == 400


def test_overwrite_begins_anew(many, tmp_path, tiny):
    out = tmp_path / "out.parquet"
    out.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="is there already"):
        embed_files(Source([many]), out, EmbedConfig(tiny))
    assert out.read_bytes() == b"old"
    assert embed_files(Source([many]), out, EmbedConfig(tiny), overwrite=True)["texts"] == 400
    assert pq.read_table(out).num_rows == 400


def test_memory_does_not_grow_with_the_corpus(tmp_path, tiny):
    """So much as 60,000 lines more bring less than 40 MB."""
    program = """
import resource, sys
from pathlib import Path
from regard.corpus import EmbedConfig, Source, embed_files
for n, lines in enumerate((6_000, 66_000)):
    Path("lines.txt").write_text("".join(f"{n} the cat sat\\n" for n in range(lines)))
    embed_files(Source([Path("lines.txt")]), f"{n}.parquet", EmbedConfig(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    result = subprocess.run([sys.executable, "-c", program, tiny], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    before, after = map(int, result.stdout.split())
    scale = 1 if sys.platform == "darwin" else 1024
    assert (after - before) * scale < 40e6


# A cluster


CLUSTER = """
import sys
from pathlib import Path
from ray.cluster_utils import Cluster
from regard.corpus import EmbedConfig, Source, embed_files

def main(texts, out, model):
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    calls = []

    def progress(texts, tokens, share):
        calls.append((texts, share))
        if len(calls) == 3:
            cluster.remove_node(nodes[0], allow_graceful=False)

    source = Source([Path(texts)])
    counts = embed_files(source, out, EmbedConfig(model), on=f"ray={cluster.address}", progress=progress)
    assert sum(texts for texts, _ in calls) == counts["texts"], (calls, counts)
    assert calls[-1][1] == 1
    cluster.shutdown()

main(*sys.argv[1:])
"""


def test_a_node_of_the_cluster_is_killed(tmp_path, tiny, many):
    """What it had not done is done by the others; the result is that of one machine, to the byte."""
    pytest.importorskip("ray")
    texts = tmp_path / "texts.txt"
    texts.write_text(many.read_text() * 20)
    embed_files(Source([texts]), tmp_path / "one.parquet", EmbedConfig(tiny))
    command = [sys.executable, "-c", CLUSTER, texts, tmp_path / "all.parquet", tiny]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "all.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()


def test_no_cluster_there(tmp_path, tiny, lines):
    pytest.importorskip("ray")
    program = "from regard.cli import main; main()"
    command = [sys.executable, "-c", program, "embed", lines, "--out", tmp_path / "out.parquet", "--model", tiny]
    result = subprocess.run([*command, "--on", "ray=127.0.0.1:1"], capture_output=True, text=True, timeout=200)
    assert result.returncode == 1
    assert result.stderr.startswith("regard: embed: no Ray cluster at '127.0.0.1:1': ")
    assert sorted(os.listdir(tmp_path)) == ["lines.txt"]


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
