"""Runs over a corpus that meet another model, another run, or their own output."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from regard.corpus import EmbedConfig, OutputExistsError, Source, embed_files, shards
from support import models
from support.corpus import stop_at, write_json_lines


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random encoder, opened in no time."""
    return str(models.saved("bert", tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def lines(tmp_path):
    return partial(write_json_lines, tmp_path)


# Runs


@pytest.mark.parametrize(
    "change", ["config.json", "tokenizer.json", "modules.json", "sentence_bert_config.json", "model.safetensors"]
)
def test_a_run_does_not_go_on_with_another_model(lines, tmp_path, tiny, monkeypatch, change):
    monkeypatch.setattr(shards, "MAX_TEXTS", 2)
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    paths = {"": "Transformer", "1_Pooling": "Pooling"}
    kind = "sentence_transformers.models."
    modules = [{"name": path, "path": path, "type": kind + name} for path, name in paths.items()]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 24, "pooling_mode": "mean"}')
    (folder / "modules.json").write_text(json.dumps(modules))
    file = lines(*({"text": f"the cat {n}"} for n in range(6)))

    with pytest.raises(KeyboardInterrupt):
        embed_files(Source([file]), tmp_path / "out.parquet", EmbedConfig(str(folder)), progress=stop_at(4))
    if change == "modules.json":
        normalize = {"name": "2", "path": "2_Normalize", "type": f"{kind}Normalize"}
        (folder / change).write_text(json.dumps([*modules, normalize]))
    elif change == "sentence_bert_config.json":
        (folder / change).write_text('{"max_seq_length": 5, "do_lower_case": false}')
    elif change == "model.safetensors":
        weights = {name: weight * 1.5 for name, weight in load_file(folder / change).items()}
        save_file(weights, folder / change, {"format": "pt"})
    else:
        content = json.loads((folder / change).read_text())
        if change == "config.json":
            content["layer_norm_eps"] = 1e-5
        else:
            content["normalizer"]["lowercase"] = False
        (folder / change).write_text(json.dumps(content))
    with pytest.raises(OutputExistsError, match=r"out\.parquet\.parts was begun by another run \("):
        embed_files(Source([file]), tmp_path / "out.parquet", EmbedConfig(str(folder)))
    embed_files(Source([file]), tmp_path / "out.parquet", EmbedConfig(str(folder)), overwrite=True)
    embed_files(Source([file]), tmp_path / "again.parquet", EmbedConfig(str(folder)))
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_an_output_that_is_an_input(lines, tmp_path, tiny):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one"]}), file)
    content = file.read_bytes()
    for source in (file, tmp_path / "link.parquet"):
        if not source.exists():
            source.symlink_to(file)
        with pytest.raises(ValueError, match="would be read, and replaced by what is written"):
            embed_files(Source([source]), file, EmbedConfig(tiny), overwrite=True)
    assert file.read_bytes() == content
    embed_files(Source([file]), tmp_path / "out", EmbedConfig(tiny))
    with pytest.raises(ValueError, match="would be read, and replaced by what is written"):
        embed_files(
            Source([tmp_path / "out" / "part-000000.parquet"]), tmp_path / "out", EmbedConfig(tiny), overwrite=True
        )
    assert os.listdir(tmp_path / "out") == ["part-000000.parquet"]


def test_an_output_in_the_folder_that_is_read(lines, tmp_path, tiny):
    """An earlier output is not read again, and neither is that of the run itself."""
    lines({"text": "one"}, {"text": "two"})
    left_out = []
    for out in ("first.parquet", "second", "third.parquet"):
        source = Source([tmp_path])
        counts = embed_files(
            source, tmp_path / out, EmbedConfig(tiny), skipped=lambda path, reason: left_out.append(path.name)
        )
        assert counts["texts"] == 2
    assert left_out == ["first.parquet", "part-000000.parquet", "first.parquet"] or left_out == [
        "first.parquet", "first.parquet", "part-000000.parquet"
    ]  # fmt: skip


def test_an_empty_folder_may_be_the_output(lines, tmp_path, tiny):
    (tmp_path / "out").mkdir()
    embed_files(Source([lines({"text": "one"})]), tmp_path / "out", EmbedConfig(tiny))
    assert os.listdir(tmp_path / "out") == ["part-000000.parquet"]


def test_a_folder_of_nothing_but_parquet_is_read_by_polars(lines, tmp_path, tiny):
    polars = pytest.importorskip("polars")
    embed_files(Source([lines({"text": "one"})]), tmp_path / "out", EmbedConfig(tiny))
    assert polars.read_parquet(tmp_path / "out")["text"].to_list() == ["one"]


RUN_WHEN_TOLD = """
import sys
from pathlib import Path
from regard.corpus import EmbedConfig, Source, embed_files
file, out, model = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
try:
    print(embed_files(Source([Path(file)]), out, EmbedConfig(model))["texts"])
except OSError as error:
    print(error)
"""


def test_runs_at_the_same_time_do_not_mix(lines, tmp_path, tiny):
    """One of them wins; what is there in the end is whole."""
    file = lines(*({"text": f"the cat {n}"} for n in range(300)))
    command = [sys.executable, "-c", RUN_WHEN_TOLD, file, tmp_path / "out.parquet", tiny]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        for _ in range(3)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=100)[0].strip() for process in processes]
    assert "300" in printed
    assert all(
        line == "300" or "another run is using this folder" in line or "is there already" in line for line in printed
    ), printed
    assert pq.read_table(tmp_path / "out.parquet")["text"].to_pylist() == [f"the cat {n}" for n in range(300)]
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "out.parquet"]
