"""Runs over a corpus that are stopped, killed, and resumed; a Ray cluster."""

import os
import random
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from regard.corpus import EmbedConfig, Source, embed_files, shards
from support import models
from support.corpus import write_lines


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random encoder, opened in no time."""
    return str(models.saved("bert", tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def lines(tmp_path):
    return write_lines(tmp_path / "lines.txt")


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
            until, limit = have + chance.randint(6, 16), time.monotonic() + 100
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
