"""What a corpus's vectors are written with: columns carried through, places, chunks; and what is not written."""

import datetime
import shutil
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

import regard
from regard.corpus import BadRecordError, EmbedConfig, Source, embed_files, shards
from support import models
from support.corpus import stop_at, write_json_lines


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random encoder."""
    return str(models.saved("bert", tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def lines(tmp_path):
    return partial(write_json_lines, tmp_path)


def embedded(source, tmp_path, config, out="out.parquet", **options):
    """What is written."""
    embed_files(source, tmp_path / out, config, **options)
    return pq.read_table(tmp_path / out)


# Columns that are carried through


def test_ids_are_texts_throughout(lines, tmp_path, tiny, monkeypatch):
    """A part without an id cannot be there any more: its type would not be that of the others."""
    monkeypatch.setattr(shards, "MAX_TEXTS", 2)
    file = lines(*({"text": f"a {n}", "id": None} for n in range(5)), {"text": "b", "id": "x"}, {"text": "c", "id": 7})
    warned = []
    table = embedded(Source([file], id="id"), tmp_path, EmbedConfig(tiny), on_error="skip", warn=warned.append)
    assert table["text_id"].type == pa.string()
    assert table["text_id"].to_pylist() == ["x", "7"]
    assert len(warned) == 5
    assert "line 1: it has no id: its 'id' is null." in warned[0]
    with pytest.raises(BadRecordError, match="line 1: it has no id"):
        embedded(Source([file], id="id"), tmp_path, EmbedConfig(tiny), "other.parquet")


@pytest.mark.parametrize("out", ["out.parquet", "out"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None, None, 1, 2, 3], [None, None, 1, 2, 3]),
        ([1, 2, 3, 2.5, None], [1.0, 2.0, 3.0, 2.5, None]),
        ([1, 2, "three", None, True], ["1", "2", "three", None, "true"]),
        ([True, None, False, False, True], [True, None, False, False, True]),
        ([{"a": [1, "é"]}, None, None, "x", [2]], ['{"a": [1, "é"]}', None, None, "x", "[2]"]),
        ([2**60 + 1, 1, 2.5, 0.5, 1], [str(2**60 + 1), "1", "2.5", "0.5", "1"]),  # no double holds it
        ([2**70, 1, 1, 1, 1], [str(2**70), "1", "1", "1", "1"]),
        ([None] * 5, [None] * 5),
    ],
    ids=repr,
)
def test_columns_of_json_are_kept(lines, tmp_path, tiny, monkeypatch, values, expected, out):
    """In parts of two, whose types are not the same: the files have one type, and the values stay what they are."""
    monkeypatch.setattr(shards, "MAX_TEXTS", 2)
    file = lines(*({"text": f"a {n}", "meta": {"x": value}} for n, value in enumerate(values)))
    table = embedded(Source([file], keep=["meta.x"]), tmp_path, EmbedConfig(tiny), out)
    assert table.column_names == ["text_id", "meta.x", "text", "truncated", "vector"]
    assert table["meta.x"].to_pylist() == expected
    assert list(map(type, table["meta.x"].to_pylist())) == list(map(type, expected))
    if out == "out":
        assert len({str(pq.read_schema(shard).field("meta.x").type) for shard in (tmp_path / out).iterdir()}) == 1


def test_columns_of_parquet_are_kept_with_their_types(tmp_path, tiny):
    columns = {
        "text": ["one", "two", "three"],
        "day": pa.array([datetime.date(2020, 1, 2), None, datetime.date(2021, 3, 4)]),
        "time": pa.array([1, 2, None], pa.timestamp("ns")),
        "tags": pa.array([["a"], None, ["b", "c"]]),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
        "small": pa.array([1, 2, 3], pa.int8()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    names = ["day", "time", "tags", "kind", "small"]
    table = embedded(Source([tmp_path / "a.parquet"], keep=names), tmp_path, EmbedConfig(tiny))
    for name in names:
        expected = pa.table(columns)[name].combine_chunks()
        assert table[name].combine_chunks().equals(expected.dictionary_decode() if name == "kind" else expected), name


def test_columns_of_tables_and_comments_are_kept_by_word(tmp_path, tiny):
    (tmp_path / "a.csv").write_text("text,year\none two,1999\n")
    row = "\t".join(["1", "word", *"________"])
    (tmp_path / "b.conllu").write_text(f"# year = 2001\n{row}\n\n{row}\n")
    files = [tmp_path / "a.csv", tmp_path / "b.conllu"]
    table = embedded(Source(files, keep=["year"], places=True), tmp_path, EmbedConfig(tiny, level="word"))
    assert table.column_names[:4] == ["text_id", "file", "line", "year"]
    assert table["word"].to_pylist() == ["one", "two", "word", "word"]
    assert table["year"].to_pylist() == ["1999", "1999", "2001", None]
    assert table["file"].to_pylist() == [str(files[0])] * 2 + [str(files[1])] * 2
    assert table["line"].to_pylist() == [2, 2, 1, 4]


def test_a_column_that_no_record_has_is_said(lines, tmp_path, tiny):
    warned = []
    source = Source([lines({"text": "a", "year": 7})], keep=["year", "yaer"])
    table = embedded(source, tmp_path, EmbedConfig(tiny), warn=warned.append)
    assert (table["year"].to_pylist(), table["yaer"].to_pylist()) == ([7], [None])
    assert warned == ["keep: no record has a value for 'yaer': the column is empty."]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (["text"], "the output has a column 'text' of its own"),
        (["vector"], "the output has a column 'vector'"),
        (["year", "year"], "'year' is named twice"),
    ],
)
def test_columns_that_cannot_be_kept(lines, tmp_path, tiny, keep, message):
    with pytest.raises(ValueError, match=f"^keep: {message}"):
        embed_files(Source([lines({"text": "a"})], keep=keep), tmp_path / "out.parquet", EmbedConfig(tiny))
    assert embedded(Source([lines({"text": "a b"})], keep=["text"]), tmp_path, EmbedConfig(tiny, level="word"))["text"]


def test_other_columns_make_a_part_anew(lines, tmp_path, tiny, monkeypatch):
    """A run that was stopped, and goes on with other columns, is that of a run that always had them."""
    monkeypatch.setattr(shards, "MAX_TEXTS", 2)
    file = lines(*({"text": f"a {n}", "x": n} for n in range(6)))

    with pytest.raises(KeyboardInterrupt):
        embed_files(Source([file], keep=["x"]), tmp_path / "out.parquet", EmbedConfig(tiny), progress=stop_at(4))
    file.write_text(file.read_text().replace('"x": 0', '"x": 100'))
    source = Source([file], keep=["x"], places=True)
    table = embedded(source, tmp_path, EmbedConfig(tiny))
    assert table["x"].to_pylist() == [100, 1, 2, 3, 4, 5]
    embed_files(source, tmp_path / "again.parquet", EmbedConfig(tiny))
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "out.parquet").read_bytes()


# Chunks


def test_chunks(tmp_path):
    """A vector a chunk, from a model that has read the whole text: what `parts` gives."""
    text = "Berlin is the capital of Germany. It has 3.85 million inhabitants!  The city is a state."
    (tmp_path / "a.txt").write_text(f"{text}\nShort.\n")
    lens = regard.Lens()
    table = embedded(Source([tmp_path / "a.txt"]), tmp_path, EmbedConfig(chunk="sentences"))
    assert table.column_names == ["text_id", "index", "start", "end", "chunk", "truncated", "vector"]
    assert table["chunk"].to_pylist() == [
        "Berlin is the capital of Germany.", "It has 3.85 million inhabitants!", "The city is a state.", "Short."
    ]  # fmt: skip
    assert table["text_id"].to_pylist() == [0, 0, 0, 1]
    assert table["index"].to_pylist() == [0, 1, 2, 0]
    starts, ends = table["start"].to_pylist(), table["end"].to_pylist()
    assert [text[start:end] for start, end in zip(starts[:3], ends[:3], strict=True)] == table["chunk"].to_pylist()[:3]
    expected = lens.embed([text], spans=[list(zip(starts[:3], ends[:3], strict=True))]).vectors[0]
    assert np.array_equal(np.stack(table["vector"].to_numpy())[:3], expected)
    alone = lens.embed([text[starts[1] : ends[1]]]).vectors
    assert np.abs(alone - expected[1]).max() > 0.01  # it has seen what stands around it
    table = embedded(Source([tmp_path / "a.txt"]), tmp_path, EmbedConfig(chunk=8), "tokens.parquet")
    assert table["chunk"].to_pylist() == [
        "Berlin is the capital of Germany. It", "has 3.85 million inhabitants!  The", "city is a state.", "Short."
    ]  # fmt: skip


def test_chunks_of_a_text_longer_than_the_model(tmp_path, tiny):
    """None is lost: the chunks are all of the text, read in windows."""
    words = " ".join(f"the cat {n}." for n in range(200))
    (tmp_path / "a.txt").write_text(words)
    table = embedded(Source([tmp_path / "a.txt"]), tmp_path, EmbedConfig(tiny, chunk=30))
    assert " ".join(table["chunk"].to_pylist()).replace(" ", "") == words.replace(" ", "")
    assert table["truncated"].to_pylist() == [False] * len(table)


@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_no_token_is_lost_between_chunks(tmp_path, name):
    """Tokens of byte-level tokenizers begin with the space before a word."""
    lens = regard.Lens(models.saved(name, tmp_path / name))
    text = "The cat sat. The mat. 🙂🙂🙂 Time flies like an arrow"
    tokens = len(lens.embed([text], "token").vectors[0])
    for by in ("sentences", 1, 3, 10**6):
        spans = lens.chunks(text, by)
        assert "".join(text[start:stop] for start, stop in spans) == text
        starts = [start for start, _ in lens.embed([text], "token").spans[0]]
        assert all(any(start <= at < stop for at in starts) for start, stop in spans)
        assert len(lens.embed([text], spans=[spans]).vectors[0]) == len(spans)
    assert tokens >= len(lens.chunks(text, 1))


def test_the_first_word_of_a_part_belongs_to_it(tmp_path):
    """Whether or not the part begins with the space that is in the word's token."""
    lens = regard.Lens(models.saved("gpt2", tmp_path / "gpt2"))
    text = "the cat sat on"
    with_space, without = (lens.embed([text], spans=[[span]]).vectors[0] for span in ((7, 14), (8, 14)))
    assert np.array_equal(with_space, without)
    tokens = lens.embed([text], "token")
    own = [vector for vector, (start, _) in zip(tokens.vectors[0], tokens.spans[0], strict=True) if start >= 8]
    np.testing.assert_allclose(without[0], np.mean(own, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 5, "level": "word"}, "chunk: only at the level of sentences"),
        ({"chunk": 5, "truncation": "truncate"}, "chunk: the last chunks of a truncated text"),
        ({"chunk": 0}, "expected 'sentences' or a positive number of tokens. Got 0"),
        ({"chunk": "pages"}, "expected 'sentences' or a positive number of tokens. Got 'pages'"),
    ],
)
def test_chunks_that_cannot_be_had(lines, tmp_path, tiny, options, message):
    with pytest.raises(ValueError, match=message):
        embed_files(Source([lines({"text": "a"})]), tmp_path / "out.parquet", EmbedConfig(tiny, **options))
    assert not (tmp_path / "out.parquet").exists()


# Options of the vectors


def test_options_of_the_vectors(lines, tmp_path):
    texts = ["one text", "another text", "one text"]
    file = lines(*({"text": text} for text in texts))
    config = EmbedConfig(pool=["cls", "weightedmean"], dims=500, prompt_text="query: ")
    table = embedded(Source([file]), tmp_path, config)
    expected = regard.Lens().embed(texts, pool=["cls", "weightedmean"], dims=500, prompt_text="query: ").vectors
    assert np.array_equal(np.stack(table["vector"].to_numpy()), expected)
    assert expected.shape == (3, 500)
    metadata = table.schema.metadata
    assert (metadata[b"regard.pool"], metadata[b"regard.dims"]) == (b'["cls", "weightedmean"]', b"500")
    assert metadata[b"regard.prompt_text"] == b"query: "


# Vectors that are none


@pytest.fixture
def scaled(tiny, tmp_path):
    """The tiny model, with the vector of one word, "cat", times a factor in the last layer's output."""

    def changed(factor):
        folder = tmp_path / f"scaled {factor}"
        shutil.copytree(tiny, folder)
        weights = load_file(folder / "model.safetensors")
        name = next(name for name in weights if name.endswith("1.output.LayerNorm.weight"))
        weights[name] = weights[name] * factor
        weights[name.replace("weight", "bias")] = weights[name.replace("weight", "bias")] * factor
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return str(folder)

    return changed


@pytest.mark.parametrize("level", ["sentence", "word", "token"])
@pytest.mark.parametrize(
    ("factor", "output_dtype", "why"),
    [
        (torch.nan, "float32", "gives nan"),
        (torch.inf, "int8", "gives nan"),
        (1e6, "float16", "is too large for float16, which ends at 65,504."),
        (1e-12, "float16", "all numbers of its vector are too small for float16: they would be zeros."),
    ],
)
def test_vectors_that_cannot_be_stored(lines, tmp_path, scaled, level, factor, output_dtype, why):
    file, config = (
        lines({"text": "the cat"}, {"text": "an arrow"}),
        EmbedConfig(scaled(factor), level=level, output_dtype=output_dtype),
    )
    with pytest.raises(BadRecordError) as error:
        embed_files(Source([file]), tmp_path / "out.parquet", config)
    assert str(error.value).startswith(f"{file}, line 1: ")
    assert why in str(error.value)
    warned = []
    with pytest.raises(ValueError, match="There is no text in"):
        embed_files(Source([file]), tmp_path / "out.parquet", config, on_error="skip", warn=warned.append)
    assert len(warned) == 2
    assert not (tmp_path / "out.parquet").exists()


def test_one_vector_that_is_none(lines, tmp_path, tiny):
    """The word that the model has no number for costs its text, and no other."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    lens = regard.Lens(tiny)
    token = lens.model.tokenizer.token_to_id("cat")
    weights = load_file(folder / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name][token] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    file, warned = lines(*({"text": text} for text in ("the mat", "the cat", "an arrow"))), []
    for level in ("sentence", "token"):
        config = EmbedConfig(str(folder), level=level)
        table = embedded(Source([file]), tmp_path, config, f"{level}.parquet", on_error="skip", warn=warned.append)
        assert set(table["text_id"].to_pylist()) == {0, 2}
        assert np.array_equal(
            np.stack(table["vector"].to_numpy()), np.vstack(lens.embed(["the mat", "an arrow"], level).vectors)
        )
    assert len(warned) == 2
    assert all(f"{file}, line 2: " in message for message in warned)
