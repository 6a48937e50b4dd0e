"""What is read of files: their types, columns, ids, line ends, damage; folders, and what is left out of them."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regard.corpus import Source, UnknownFormatError
from regard.corpus.files import find_files, read_records
from regard.corpus.records import BadRecord, Record


def records_of(*arguments, **options):
    source = Source(*arguments, **options)
    return list(read_records(source, find_files(source)))


def texts(records):
    """The texts of good records, and what is said of bad ones, without the folder's name."""
    return [record.text if isinstance(record, Record) else f"{Path(record.place).name}: {record.why}"
            for record in records]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    """Write a file."""

    def written(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


# JSON


JSON = {
    "array": ('[{"text": "one"},\n {"text": "two"}]', ["one", "two"]),
    "texts": ('["one", "two"]', ["one", "two"]),
    "one after another": ('{"text": "one"}\n{"text":\n "two"}{"text": "three"}', ["one", "two", "three"]),
    "empty": ("", []),
    "empty array": (" [ ] \n", []),
    "byte order mark": ('\ufeff[{"text": "one"}]', ["one"]),
    "not objects": ('[{"text": "one"}, 12, {"text": 3}]',
                    ["one", "a.json, item 2: expected an object. Got int.",
                     "a.json, item 3: expected a text. Got int."]),
    "cut": ('[{"text": "one"}, {"text": "tw', ["one", "a.json, item 2: not JSON: Unterminated string starting at; "
                                              "the rest is lost."]),
    "not closed": ('[{"text": "one"}', ["one", "a.json, item 2: not JSON: expected ','. Got the end of the file; "
                                        "the rest is lost."]),
    "a comma too many": ('[{"text": "one"},]', ["one", "a.json, item 2: not JSON: a value is missing after the last "
                                                "comma; the rest is lost."]),
    "more after it": ('[{"text": "one"}] x', ["one", "a.json, item 2: not JSON: more follows after the end of the "
                                              "array; the rest is lost."]),
    "no JSON": ("<html>", ["a.json, item 1: not JSON: Expecting value; the rest is lost."]),
    "deep": ("[" * 100_000, ["a.json, item 1: not JSON: maximum recursion depth exceeded while decoding a JSON array "
                             "from a unicode string; the rest is lost."]),
    "a key twice": ('[{"text": "one", "text": "two"}]',
                    ["a.json, item 1: not JSON: the key 'text' is in one object 2 times; the rest is lost."]),
}  # fmt: skip


@pytest.mark.parametrize("case", JSON)
def test_json(file, case):
    content, expected = JSON[case]
    assert texts(records_of([file("a.json", content)])) == expected


def test_a_long_array_of_json(file):
    """Longer than a piece that is read at once, in one line and in many, with a long item in it."""
    items = [
        {"text": f"{n} " + "x" * random.Random(n).choice([3, 50, 300_000 if n % 500 == 0 else 7])} for n in range(2000)
    ]
    for indent in (None, 2):
        assert texts(records_of([file("a.json", json.dumps(items, indent=indent))])) == [item["text"] for item in items]


def test_paths_into_json(file):
    row = {
        "meta": {"title": "one", "tags": ["x", "two"]},
        "a.b": "dotted",
        "a": {"b": "inside"},
        "turns": [{"say": "hi"}],
    }
    path = file("a.jsonl", json.dumps(row))
    columns = {"meta.title": "one", "meta.tags.1": "two", "a.b": "dotted", "turns.0.say": "hi"}
    for column, text in columns.items():
        assert texts(records_of([path], column=column)) == [text]
    for column in ("meta.body", "meta.tags.2", "meta.title.x", "turns.say"):
        (bad,) = records_of([path], column=column)
        assert bad.why == f"it has no {column!r}, but 'meta', 'a.b', 'a', 'turns'."
    (record,) = records_of([path], column="meta.title", id="meta.tags.0", keep=["turns.0.say", "meta.none"])
    assert (record.id, record.kept) == ("x", ("hi", None))


# Ids


@pytest.mark.parametrize(
    ("id", "why"),
    [
        (None, "it has no id: its 'id' is null."),
        ("", "its id is empty."),
        (True, "expected an id that is a text or a whole number. Got bool."),
        (1.5, "expected an id that is a text or a whole number. Got float."),
        (["a"], "expected an id that is a text or a whole number. Got list."),
        ("a\ud800", r"its id 'a\ud800' is not UTF-8."),
    ],
    ids=repr,
)
def test_ids_that_are_none(file, id, why):
    bad, good = records_of([file("a.jsonl", json.dumps({"text": "a", "id": id}) + '\n{"text": "b", "id": 7}')], id="id")
    assert str(bad).endswith(f"a.jsonl, line 1: {why}")
    assert (good.text, good.id) == ("b", "7")


def test_an_id_of_bytes_that_are_not_utf8(file):
    records = records_of([file("a.csv", b"id,text\n\xff,one\nb,two\n")], id="id")
    assert texts(records) == [r"a.csv, line 2: its id '\udcff' is not UTF-8.", "two"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes, as Linux has them")
def test_a_file_name_that_is_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    path.write_text("one\n\0\n")
    good, bad = records_of([path], places=True)
    assert good.at.file == bad.place.removesuffix(", line 2") == f"{tmp_path}/\\xff.txt"


# Tables


TABLES = {
    "a column twice": ("a.csv", "text,text\na,b\n", ["a.csv: its header has the column 'text' 2 times."]),
    "another column twice": ("a.csv", "text,x,x\na,b,c\n", ["a"]),
    "text after a quote": ("a.csv", 'text\n"a" b\nmore\n', ["a.csv, line 2: ',' expected after '\"'.", "more"]),
    "an open quote": ("a.csv", 'text\ngood\n"a\nb\n',
                      ["good", "a.csv, line 3: unexpected end of data; the rest is lost."]),
    "ragged": ("a.csv", "text,id\na,1\nb\nc,3,4\nd,4\n",
               ["a", "a.csv, line 3: 1 column, and the first line has 2.",
                "a.csv, line 4: 3 columns, and the first line has 2.", "d"]),
    "old Mac": ("a.csv", 'text,id\ra,1\r"b\rc",2\r', ["a", "b\rc"]),
    "header alone": ("a.csv", "text\n", []),
    "quotes of CSV in TSV": ("a.tsv", 'text\tid\n"He said ""hi"""\t1\n"hm"\t2\nsaid "so"\t3\n',
                             ["a.tsv, line 2: its 'text' is quoted as in CSV; in TSV a quote is an "
                              "ordinary character.", '"hm"', 'said "so"']),
    "a tab in quotes": ("a.tsv", 'text\tid\n"a\tb"\t1\nc\t2\n',
                        ["a.tsv, line 2: 3 columns, and the first line has 2.", "c"]),
    "a large cell": ("a.csv", "text,id\n" + "a " * 400_000 + ",1\nb,2\n", ["a " * 400_000, "b"]),
}  # fmt: skip


def test_a_line_of_a_table_that_is_too_long(file):
    """Whether it stands alone or in a quoted cell: no record comes out without it."""
    long = "x" * 9_000_000
    alone = file("a.csv", f"text,id\n{long},1\nb,2\n")
    assert texts(records_of([alone])) == ["a.csv, line 2: longer than 8,388,608 bytes.", "b"]
    assert records_of([alone])[1].at.line == 3
    quoted = file("a.csv", f'text,id\n"a\n{long}\nz",1\nb,2\n')
    assert texts(records_of([quoted])) == ["a.csv, line 3: longer than 8,388,608 bytes.", "b"]


def test_an_item_of_json_that_is_too_long(file):
    (bad,) = records_of([file("a.json", '[{"text": "' + "x" * 20_000_000 + '"}, {"text": "b"}]')])
    assert bad.why == "not JSON: no value ends within 8,388,608 characters; the rest is lost."
    bad, good = records_of([file("a.json", '[{"text": "' + "x" * 2_000_000 + '"}, {"text": "b"}]')])
    assert bad.why.startswith("it has 2,000,000 characters. The limit is 1,048,576")
    assert good.text == "b"


@pytest.mark.parametrize("case", TABLES)
def test_tables(file, case):
    name, content, expected = TABLES[case]
    assert texts(records_of([file(name, content)])) == expected


PARQUET = {
    "dictionary": (pa.array(["one", "two", "one"]).dictionary_encode(), ["one", "two", "one"]),
    "large_string": (pa.array(["one"], pa.large_string()), ["one"]),
    "list": (pa.array([["one"]]), ["a.parquet: its column 'text' holds list<element: string>, not text."]),
    "null": (pa.nulls(2), ["a.parquet: its column 'text' holds null, not text."]),
    "binary": (pa.array([b"one"]), ["a.parquet: its column 'text' holds binary, not text."]),
    "no rows": (pa.array([], pa.string()), []),
}


@pytest.mark.parametrize("case", PARQUET)
def test_types_of_parquet(tmp_path, case):
    column, expected = PARQUET[case]
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert texts(records_of([tmp_path / "a.parquet"])) == expected


def test_structs_of_parquet(tmp_path):
    rows = [{"title": "one", "by": {"id": 1}}, None, {"title": None, "by": None}, {"title": "four", "by": {"id": 4}}]
    table = pa.table({"meta": rows, "a.b": list("wxyz")})
    pq.write_table(table, tmp_path / "a.parquet")
    first, *bad, last = records_of([tmp_path / "a.parquet"], column="meta.title", id="meta.by.id", keep=["a.b"])
    assert [(record.text, record.id, record.kept[0].to_pylist()) for record in (first, last)] == [
        ("one", "1", ["w"]), ("four", "4", ["z"])
    ]  # fmt: skip
    assert texts(bad) == [f"a.parquet, row {n}: expected a text. Got nothing." for n in (2, 3)]
    (bad,) = records_of([tmp_path / "a.parquet"], column="meta.body")
    assert "it has no column 'meta.body': its 'meta' holds struct<" in bad.why
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "b.parquet")
    assert texts(records_of([tmp_path / "b.parquet"])) == ["b.parquet: it has the column 'text' 2 times."]


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("# text = one", "this sentence has no words."),
        ("²\ta" + "\t_" * 8, "'²' is not a word number."),
        ("1\t " + "\t_" * 8, "the word 1 is empty."),
        ("1 a _ _ _ _ _ _ _ _", "a line of this sentence has 1 column. CoNLL-U has 10."),
        ("# text = b\n1\ta" + "\t_" * 8, "the word 'a' is not in the text of the sentence."),
    ],
)
def test_oddities_of_conllu(file, block, why):
    bad, good = records_of([file("a.conllu", f"{block}\n\n1\tgood" + "\t_" * 8 + "\n")])
    assert (bad.why, good.text) == (why, "good")


# Lines


def test_line_ends(file):
    for end in ("\n", "\r\n", "\r"):
        content = end.join(["one", "", "two", "three", ""])
        assert texts(records_of([file("a.txt", content)])) == ["one", "two", "three"]
        assert [str(record.at).rpartition(" ")[2] for record in records_of([file("a.txt", content)])] == ["1", "3", "4"]
        assert texts(records_of([file("a.txt", content)], "paragraphs")) == ["one", "two\nthree"]
    assert texts(records_of([file("a.txt", "one\x0c\x85\u2028two")])) == ["one\x0c\x85\u2028two"]  # no line ends


def test_stdin_can_be_closed_and_read_once(monkeypatch):
    for stdin in (None, SimpleNamespace(closed=True)):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(ValueError, match=r"^-: standard input is closed\.$"):
            records_of([Path("-")])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"one")))
    with pytest.raises(ValueError, match=r"^-: standard input can be read once\.$"):
        records_of([Path("-"), Path("-")])


LINES = [f"line {n} {random.Random(n).random()}" for n in range(3000)]
PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("suffix", PACK)
def test_what_can_be_read_of_compressed_files(file, suffix):
    content = PACK[suffix]("\n".join(LINES).encode())
    assert texts(records_of([file(f"a.txt.{suffix}", content)])) == LINES
    rows = [{"text": line} for line in LINES]
    assert texts(records_of([file(f"a.json.{suffix}", PACK[suffix](json.dumps(rows).encode()))])) == LINES
    for damaged in (content[:-3], content[: len(content) * 2 // 3], content + b"no more of it"):
        if damaged.startswith(content) and suffix in ("bz2", "xz"):
            continue  # their readers ignore what follows the end
        *good, last = records_of([file(f"a.txt.{suffix}", damaged)])
        assert texts(good) == LINES[: len(good)]
        assert last.place.endswith(f"a.txt.{suffix}, after line {len(good)}")
        assert last.why.startswith("the rest is lost: the file is damaged (")
        if suffix == "gz" or damaged.startswith(content):
            assert len(good) > len(LINES) * 0.6


def test_zeros_after_a_gzip_file(file):
    """As on tapes, and as `gzip` itself takes them."""
    assert texts(records_of([file("a.txt.gz", gzip.compress(b"one\ntwo\n") + bytes(1000))])) == ["one", "two"]


def test_300_lines_of_a_gzip_file_that_is_cut(file):
    content = gzip.compress("\n".join(LINES[:300]).encode())
    *good, last = records_of([file("a.txt.gz", content[:-200])])
    assert len(good) > 250
    assert isinstance(last, BadRecord)


# Types of files, and folders


@pytest.mark.parametrize("name", ["page.html", "page.HTML.gz", "book.pdf", "a.tar.gz", "notes.docx"])
def test_types_that_are_not_known(file, name):
    path = file(name, "<p>text</p>")
    with pytest.raises(UnknownFormatError, match=rf"{name}: files of the type \.\w+ are not known, as \.txt, "):
        records_of([path])
    if not name.endswith("gz"):
        assert texts(records_of([path], "lines")) == ["<p>text</p>"]


def test_a_name_without_a_type_is_text(file):
    assert texts(records_of([file("corpus", "one\ntwo")])) == ["one", "two"]


def folder(tmp_path, **options):
    """The files that are read of a folder, and those that are not, by name."""
    left_out = {}
    source = Source([tmp_path], **options)
    files = find_files(
        source, skipped=lambda path, reason: left_out.setdefault(str(path.relative_to(tmp_path)), reason)
    )
    return [str(path.relative_to(tmp_path)) for path in files], left_out


def test_what_is_left_out_of_a_folder(file, tmp_path):
    for name in ("b.txt", "a/c.md", "README.md", "a/LICENSE", "photo.png", "_x.txt", ".hidden", "a/plain"):
        file(name, "text")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "d.parquet")
    made = pa.schema([("text", pa.string())], {"regard.model": "tiny"})
    pq.write_table(pa.table({"text": ["a"]}, made), tmp_path / "vectors.parquet")
    file("run.parts/_regard.json", "{}")
    file("run.parts/part-000000.parquet", "")
    files, left_out = folder(tmp_path)
    assert files == ["a/c.md", "b.txt", "d.parquet"]
    assert left_out == {
        "README.md": "it describes the folder", "a/LICENSE": "it describes the folder",
        "_x.txt": "its name begins with _",
        "photo.png": "its type is not known", "a/plain": "its type is not known",
        "vectors.parquet": "written by regard",
        "run.parts": "written by regard",
    }  # fmt: skip


def test_a_folder_that_is_named_is_read_whatever_its_name(file, tmp_path):
    file("_data/a.txt", "one")
    assert texts(records_of([tmp_path / "_data"])) == ["one"]


def test_a_folder_of_one_format(file, tmp_path):
    """As that of 20 Newsgroups, whose files are numbers."""
    for name in ("alt.atheism/51060", "alt.atheism/51061", "sci.space/60862", "README"):
        file(name, "text")
    assert folder(tmp_path, format="paragraphs")[0] == ["alt.atheism/51060", "alt.atheism/51061", "sci.space/60862"]


def test_links_in_a_folder(file, tmp_path):
    outside = tmp_path.with_name(f"{tmp_path.name} outside")
    outside.mkdir()
    (outside / "far.txt").write_text("far")
    file("a/one.txt", "one")
    (tmp_path / "0").symlink_to("a")  # read already, though first by name
    (tmp_path / "a" / "loop").symlink_to("..")
    (tmp_path / "far").symlink_to(outside)
    (tmp_path / "again.txt").symlink_to("a/one.txt")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    (tmp_path / "itself.txt").symlink_to("itself.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    files, left_out = folder(tmp_path)
    assert files == ["a/one.txt", "far/far.txt"]
    assert left_out == {
        "gone.txt": "a broken link", "itself.txt": "a broken link", "pipe.txt": "not a file",
        **dict.fromkeys(("0", "a/loop", "again.txt"), "a link to a file or folder that is read already"),
    }  # fmt: skip
