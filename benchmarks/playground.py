"""The playground in headless Chromium: from a typed sentence to its first view, the first load, what the page takes.

python benchmarks/playground.py
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from view import SUBMIT

from regard._internal.measure import machine_line
from regard.playground import site
from regard.playground.models import models

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "one", "lazy", "dog", "near", "old", "rivers"]
ROUNDS = 30


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder behind Python's own web server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


def main() -> None:
    from playwright.sync_api import sync_playwright

    print(machine_line())
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        sizes = site.write(Path(name) / "site", models())
        page_size = sum(size for file, size in sizes.items() if not file.startswith(("models/", "lesson")))
        with served(Path(name) / "site") as address:
            browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            page, hosts = browser.new_page(viewport={"width": 1280, "height": 800}), []
            page.on("request", lambda request: hosts.append(urlsplit(request.url).netloc))
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("#viewer[data-drawn]", timeout=120_000)
            print(f"first load, to the first view: {time.perf_counter() - began:.2f} s")
            took = []
            for n in range(ROUNDS + 3):
                words = WORDS[n % len(WORDS) :] + WORDS[: n % len(WORDS)]
                words[5] = f"w{n}"
                took.append(page.evaluate(SUBMIT, " ".join(words)) / 1000)
                assert len(page.locator("#from button").all()) >= len(words)
            took = took[3:]
            print(
                f"a typed sentence of {len(WORDS)} words to its first view: median of {ROUNDS} "
                f"{statistics.median(took):.2f} s, slowest {max(took):.2f} s (goal: at most 1.0 s)"
            )
            others = [host for host in hosts if host and host != urlsplit(address).netloc]
            print(f"requests to other hosts: {len(others)} (goal: 0)")
            browser.close()
        for model, goal in (("encoder", 30), ("stories", 3), ("dates", 3)):
            size = sizes.get(f"models/{model}.js")
            if size is not None:
                print(f"page with the model {model}: {(page_size + size) / 1e6:.2f} MB (goal: at most {goal} MB)")


if __name__ == "__main__":
    main()
