"""The viewer's figures: the first view, tiles of a reading, tiles at 100,000 tokens, frames, page weight, file, memory.

python benchmarks/view.py [first|reading|tiles|frames|weight|file|memory …]
"""

import gzip
import http.client
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import torch

WORDS = 96
TILE = {"type": "tile", "layer": 0, "head": 1, "reduce": "mean", "hide": False}


# Submits a text, and waits until its first view is drawn: milliseconds.
SUBMIT = """(text) => new Promise((done) => {
  const viewer = document.getElementById("viewer");
  document.getElementById("text").value = text;
  delete viewer.dataset.drawn;
  const began = performance.now();
  new MutationObserver((_, watch) => {
    if (!viewer.dataset.drawn) return;
    watch.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
  }).observe(viewer, { attributes: true });
  document.getElementById("ask").requestSubmit();
})"""


@contextmanager
def serving(*arguments):
    command = [
        sys.executable,
        "-c",
        "import regard.cli; regard.cli.main()",
        "serve",
        "--port",
        "0",
        *map(str, arguments),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait()


def ask(address, question):
    """The answer, asked for again until it is there, and the seconds that it took."""
    where, began = urlsplit(address), time.perf_counter()
    connection = http.client.HTTPConnection(where.hostname, where.port)
    while True:
        connection.request("POST", "/api", json.dumps(question))
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        (length,) = struct.unpack_from("<I", content)
        answer = json.loads(content[4 : 4 + length])
        if "progress" not in answer:
            connection.close()
            return answer, time.perf_counter() - began


def model(folder, *, positions, layers, heads=12, dim=384):
    """A random model of BERT's family, of the embedded one's shape but for its layers, that takes long texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(names), hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * dim, max_position_embeddings=positions, initializer_range=0.1,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)


def text_of(words, seed=0):
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(WORDS)}" for _ in range(words))


@contextmanager
def far():
    """A server with a reading of 100,000 tokens, and that reading's id."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model(folder, positions=100_000, layers=1)
        with serving("--model", folder, text_of(10)) as (address, _):
            card, took = ask(address, {"type": "read", "text": text_of(99_998)})
            print(f"reading {len(card['tokens']):,} tokens, 1 layer × {card['heads']} heads: {took:.0f} s")
            yield address, card["reading"]


@contextmanager
def browser(width=1280, height=800):
    import shutil

    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started.new_page(viewport={"width": width, "height": height})
        started.close()


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def first():
    """From Enter to the first view, drawn, in milliseconds."""
    with serving() as (address, _), browser() as page:
        page.goto(address)
        page.wait_for_selector("#viewer[data-drawn]")
        took = []
        for n in range(33):
            text = f"{'Time flies like an arrow; fruit flies like a banana'.replace('arrow', text_of(1, n))} {n}."
            took.append(page.evaluate(SUBMIT, text))
        took = took[3:]
        print(f"Enter to the first view: median {statistics.median(took):.0f} ms, slowest of 30 {max(took):.0f} ms")


def reading():
    """A tile of 1,024 × 1,024 weights of 10,000 tokens: from a reading, and from attention() on the same tensors."""
    import regard

    with tempfile.TemporaryDirectory() as name:
        model(Path(name), positions=10_000, layers=1)
        attended = regard.Lens(name).read(text_of(9_998)).attention[0]
    scores = attended.weights.scores
    with torch.no_grad():
        weights = regard.attention(scores.query[0], scores.key[0], attended.value, scale=scores.scale).weights
    matrices = {"a reading": attended.weights, "attention()": weights}
    took = {source: [] for source in matrices}
    for n in range(60):
        at = slice(149 * n, 149 * n + 1024)
        for source in (list(matrices), list(matrices)[::-1])[n % 2]:  # the second finds query and key in the cache
            began = time.perf_counter()
            matrices[source][1, at, at]
            took[source].append(1e3 * (time.perf_counter() - began))
    medians = {source: statistics.median(times) for source, times in took.items()}
    print(
        f"a tile of 1,024 × 1,024 at {weights.shape[-1]:,} tokens, by the {attended.weights.backend} backend: ", end=""
    )
    print(", ".join(f"{median:.1f} ms from {source}" for source, median in medians.items()), end="; ")
    print(f"{medians['a reading'] / medians['attention()']:.2f} ×")


def tiles():
    """Tiles of 256 × 256 cells of 100,000 × 100,000 weights, by level."""
    with far() as (address, key):
        tile = {**TILE, "reading": key}
        _, took = ask(address, {**tile, "level": 9, "row": 0, "column": 0})
        print(f"overview of the whole matrix, once: {took:.1f} s")
        draw, all_times = random.Random(0), []
        for level in range(10):
            tiles_across = -(-100_000 // (256 << level))
            times = []
            for _ in range(20):
                row, column = draw.randrange(tiles_across), draw.randrange(tiles_across)
                times.append(1e3 * ask(address, {**tile, "level": level, "row": row, "column": column})[1])
            all_times += times
            cell = f"level {level}, a cell of {2**level:>3} × {2**level:<3}"
            print(f"{cell}: median {statistics.median(times):4.0f} ms, slowest {max(times):4.0f} ms")
        print(f"all levels: median {statistics.median(all_times):.0f} ms, p95 {percentile(all_times, 0.95):.0f} ms")
        largest = [
            1e3 * ask(address, {**tile, "reduce": "max", "level": 4, "row": n, "column": 3})[1] for n in range(9)
        ]
        print(f"level 4, the largest instead of the mean: median {statistics.median(largest):.0f} ms")


def frames():
    """Frames a second while the map of 100,000 tokens is dragged and zoomed, by software rendering."""
    count = """() => {
      const counted = window.counted = { frames: 0, slowest: 0, began: performance.now(), last: performance.now() };
      const tick = (now) => {
        counted.frames++;
        counted.slowest = Math.max(counted.slowest, now - counted.last);
        counted.last = now;
        if (!counted.done) requestAnimationFrame(tick);
      };
      requestAnimationFrame(tick);
    }"""
    stop = "() => { counted.done = true; return [counted.frames, performance.now() - counted.began, counted.slowest]; }"
    with far() as (address, key), browser() as page:
        page.goto(f"{address}#view=map&head=1&reading={key}")
        page.wait_for_selector("#viewer[data-drawn]", timeout=120_000)
        page.locator("#deep").scroll_into_view_if_needed()
        box = page.locator("#deep").bounding_box()
        x, y = box["x"] + box["width"] / 2, min(box["y"] + box["height"] / 2, 700)
        page.mouse.move(x, y)

        def drag():
            page.mouse.down()
            for step in range(60):
                page.mouse.move(x - 4 * step, y - 2 * step)
                page.wait_for_timeout(16)
            page.mouse.up()
            page.mouse.move(x, y)

        def zoom(by):
            for _ in range(30):
                page.mouse.wheel(0, by)
                page.wait_for_timeout(50)

        for name, action in (
            ("still", lambda: page.wait_for_timeout(2000)),
            ("zooming in", lambda: zoom(-100)),
            ("dragging", drag),
            ("zooming out", lambda: zoom(100)),
            ("dragging from afar", drag),
        ):
            page.evaluate(count)
            action()
            number, took, slowest = page.evaluate(stop)
            print(f"{name}: {1e3 * number / took:.0f} frames a second, slowest {slowest:.0f} ms")
            page.wait_for_timeout(500)


def weight():
    """What the first load of the page takes."""
    from regard.viewer.bundle import served_page

    page, assets = served_page()
    total = len(gzip.compress(page.encode(), 9))
    for name in ("viewer.js", "viewer.css"):
        total += len(gzip.compress(assets[name][0], 9))
    print(f"first load: {total / 1e3:.0f} kB compressed")


def file():
    """A file of 512 tokens × 6 × 12, and one of 2,048."""
    import regard

    sentences = [
        "The quick brown fox jumps over the lazy dog.",
        "Meanwhile, unbelievably, seven wizards recounted gold;",
    ]
    with tempfile.TemporaryDirectory() as name, browser() as page:
        for tokens in (512, 2048):
            lens, text = regard.Lens(), " ".join(f"{sentences[n % 2]} {n}" for n in range(60))
            if tokens > 512:
                model(Path(name), positions=tokens, layers=6)
                lens, text = regard.Lens(name), text_of(tokens)
            reading = lens.read(text)
            path = Path(name) / f"{tokens}.html"
            began = time.perf_counter()
            reading.save(path)
            wrote = time.perf_counter() - began
            opened = []
            for _ in range(5):
                began = time.perf_counter()
                page.goto(path.as_uri())
                page.wait_for_selector("#viewer[data-drawn]")
                opened.append(time.perf_counter() - began)
                page.goto("about:blank")
            size, opens = path.stat().st_size / 1e6, statistics.median(opened)
            sizes = f"{len(reading.tokens)} tokens × {reading.layers} × {reading.heads}"
            print(f"{sizes}: {size:.1f} MB, written in {wrote:.1f} s, opens in {opens:.2f} s")


def memory():
    """The server's memory with ten readings of 10,000 tokens, and over 1,000 requests."""

    def resident(pid):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model(folder, positions=10_000, layers=6)
        with serving("--model", folder, text_of(10)) as (address, pid):
            ask(address, {"type": "read", "text": text_of(10)})
            print(f"begun: {resident(pid):.0f} MiB")
            keys = []
            for n in range(10):
                card, took = ask(address, {"type": "read", "text": text_of(9_998, n)})
                keys.append(card["reading"])
                held = card["memory"]
                print(
                    f"reading {n + 1}, {took:.1f} s: resident {resident(pid):.0f} MiB; {held['readings']} kept in "
                    f"{held['used'] / 2**20:.0f} of {held['limit'] / 2**20:.0f} MiB, each {held['reading'] / 2**20:.0f}"
                )
            draw, peak = random.Random(0), 0.0
            for n in range(1000):
                key = keys[-1 - draw.randrange(3)] if n % 50 else draw.choice(keys)
                where = {"row": draw.randrange(10), "column": draw.randrange(10)}
                ask(address, {**TILE, "reading": key, "layer": draw.randrange(6), "level": 2, **where})
                peak = max(peak, resident(pid))
            print(f"over 1,000 requests: at most {peak:.0f} MiB, at the end {resident(pid):.0f} MiB")


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    figures = {figure.__name__: figure for figure in (first, reading, tiles, frames, weight, file, memory)}
    for name in sys.argv[1:] or figures:
        figures[name]()
