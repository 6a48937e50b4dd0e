"""regard embed on a corpus: its speed compared with Lens.embed, its memory, kill -9, and two Ray workers.

python benchmarks/corpus.py rate | read [--lines 1_000_000] | memory [--lines 1_000_000] | kills [--kills 100] | ray
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import regard
from regard._internal.measure import interleaved, machine_line
from regard.bench.embed import sample_texts
from regard.corpus import EmbedConfig, Source, embed_files
from regard.corpus.shards import shards

REGARD = [sys.executable, "-c", "from regard.cli import main; main()"]


def command(texts, out, *options):
    return [*REGARD, "embed", str(texts), "--out", str(out), "--overwrite", *options]


def rate(folder, arguments):
    """The whole command, from the start of the process to the file, and Lens.embed with the model open."""
    texts = sample_texts(6000)
    file, lens = folder / "texts.txt", regard.Lens()
    file.write_text("\n".join(texts), encoding="utf-8")
    lens.embed(texts[:100])
    runs = {
        "Lens.embed": lambda: lens.embed(texts),
        "regard embed": lambda: subprocess.run(
            command(file, folder / "out.parquet"), check=True, stdout=subprocess.DEVNULL
        ),
    }
    taken = interleaved(runs, 3, warm=True)
    ratio = taken["Lens.embed"] / taken["regard embed"]
    print(f"  {len(texts):,} texts: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in taken.items()))
    print(f"  the command has {ratio:.2f} of the rate (goal: 0.9 at least)")


def short_lines(folder, count):
    """A file with this many lines of two words."""
    file = folder / "lines.txt"
    chance, words = random.Random(0), " ".join(sample_texts(300)).split()
    with open(file, "w", encoding="utf-8") as lines:
        for _ in range(count):
            lines.write(" ".join(chance.choices(words, k=2)) + "\n")
    return file


def read(folder, arguments):
    """Processor time to read all shards, which is what a worker of a cluster does to reach its own."""
    source = Source([short_lines(folder, arguments.lines)])
    start = time.process_time()
    count = sum(1 for _ in shards(source, source.files))
    seconds = time.process_time() - start
    print(f"  {arguments.lines:,} lines, {count:,} shards: {seconds:.1f} s of processor time")


def memory(folder, arguments):
    """Resident memory while a million short lines are embedded, sampled ten times a second."""
    file = short_lines(folder, arguments.lines)
    used, start = [], time.perf_counter()
    with subprocess.Popen(command(file, folder / "out.parquet"), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            fields = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").split("VmRSS:")
            used.append((time.perf_counter() - start, int(fields[1].split()[0]) * 1024 if len(fields) > 1 else 0))
            if len(fields) > 1:
                peak = int(fields[0].split("VmHWM:")[1].split()[0]) * 1024
            time.sleep(0.1)
    assert process.returncode == 0
    sizes = [size for when, size in used if when > 5]  # the model is open
    tenth = len(sizes) // 10
    first, last = statistics.mean(sizes[:tenth]), statistics.mean(sizes[-tenth:])
    seconds = used[-1][0]
    print(f"  {arguments.lines:,} lines in {seconds:,.0f} s: {arguments.lines / seconds:,.0f} texts/s")
    print(
        f"  at most {peak / 1e6:,.0f} MB (goal: 700); the last tenth {last / first - 1:+.1%} of the first (goal: ± 3 %)"
    )


def kills(folder, arguments):
    """kill -9 at random moments and the same command again: the file must be that of an undisturbed run."""
    file, out, whole = folder / "texts.txt", folder / "out.parquet", folder / "whole.parquet"
    words = " ".join(sample_texts(3000)).split()[:36_000]
    file.write_text("\n".join(map(" ".join, zip(*[iter(words)] * 3, strict=True))), encoding="utf-8")
    subprocess.run(command(file, whole, "--level", "word"), check=True, stdout=subprocess.DEVNULL)
    again = [word for word in command(file, out, "--level", "word") if word != "--overwrite"]
    chance, killed, finished, same = random.Random(0), 0, 0, 0
    while killed < arguments.kills or finished == 0:
        with subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                process.wait(chance.uniform(0.5, 8) if killed < arguments.kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
            else:
                assert process.returncode == 0, process.stderr.read()
        if out.exists():  # a run can be killed after its last step
            finished += 1
            same += out.read_bytes() == whole.read_bytes()
            out.unlink()
            shutil.rmtree(out.with_name(out.name + ".parts"), ignore_errors=True)
    print(f"  killed {killed} times on the way to {finished} files: {same} of them the same, byte for byte")
    assert same == finished


def ray(folder, arguments):
    """Two workers of one thread each on two processors, and one process with two threads."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    file = folder / "texts.txt"
    file.write_text("\n".join(sample_texts(8192)), encoding="utf-8")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def run(on):
        """Texts per second from the first 2,048 on, when all workers have opened the model."""
        calls = []
        embed_files(
            Source([file]), folder / "out.parquet", EmbedConfig(), on=on, overwrite=True,
            progress=lambda texts, tokens, share: calls.append((time.perf_counter(), texts)),
        )  # fmt: skip
        totals = list(accumulate(texts for _, texts in calls))
        first = next(n for n, total in enumerate(totals) if total >= 2048)
        return (totals[-1] - totals[first]) / (calls[-1][0] - calls[first][0])

    rates = {"local": [], f"ray={cluster.address}": []}
    for _ in range(arguments.rounds):
        for on, samples in rates.items():
            samples.append(run(on))
    alone, two = (statistics.median(samples) for samples in rates.values())
    cluster.shutdown()
    print(f"  one process {alone:,.0f} texts/s, two Ray workers {two:,.0f}: {two / alone:.2f} × (goal: 0.85 at least)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rate", "read", "memory", "kills", "ray"))
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="of ray")
    arguments = parser.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        globals()[arguments.what](Path(folder), arguments)


if __name__ == "__main__":
    main()
