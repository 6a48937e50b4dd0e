"""What is damaged in a corpus, and runs that cannot begin or end."""

import errno
import io
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regard.corpus import BadRecordError, EmbedConfig, Source, embed_files, run, shards
from regard.corpus.records import BadRecord
from support import models
from support.corpus import records_of, write_lines


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random encoder, opened in no time."""
    return str(models.saved("bert", tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def lines(tmp_path):
    return write_lines(tmp_path / "lines.txt")


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
    with pytest.raises(ValueError, match=r"a\.txt, line 2: it has .* tokens, and tiny takes at most 37\."):
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
