"""How a page brings a model into its worker: over HTTP, from what the browser keeps, and what can go wrong."""

import gzip
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from regard.playground import tokenizers, weights
from support.browser import CHROMIUM

FRONTEND = Path(__file__).parents[1] / "frontend"
BUNDLE = """
    import { build } from "esbuild";
    const [out] = process.argv.slice(1);
    const common = { bundle: true, format: "iife", target: "es2022", absWorkingDir: process.cwd() };
    const worker = await build({ ...common, entryPoints: ["src/model/worker.js"], write: false });
    const page = ["client", "file", "gpu", "linear", "reader"]
        .map((name) => `import * as ${name} from "./src/model/${name}.js"; Object.assign(globalThis, ${name});`)
        .join("");
    const define = { WORKER_SCRIPT: JSON.stringify(worker.outputFiles[0].text) };
    await build({ ...common, stdin: { contents: page, resolveDir: "." }, outfile: out, define });
"""
OPEN = """async () => {
    const shares = [];
    globalThis.model = await openModel("encoder", (share) => shares.push(share));
    const { encoder } = await model.read("ab a");
    return { shares, name: model.name, ids: encoder.tokens.map(({ id }) => id) };
}"""
ERROR = """async () => openModel("encoder").then(() => null, (error) => error.message)"""
IN_STORE = """(act) => new Promise((resolve) => {
    const request = indexedDB.open("regard-models", 1);
    request.onsuccess = () => {
        const transaction = request.result.transaction("files", "readwrite");
        const asked = eval(act)(transaction.objectStore("files"));
        transaction.oncomplete = () => { request.result.close(); resolve(asked.result); };
    };
})"""


def model(seed=1):
    """An encoder of single characters, of two layers; so long that reading 400 of them takes a while."""
    generator = torch.Generator().manual_seed(seed)
    dim, shapes = 32, {"embeddings.tokens.weight": (3, 32), "embeddings.positions.weight": (400, 32)}
    for n in range(2):
        for name in ("query", "key", "value", "output"):
            shapes[f"layers.{n}.attention.{name}.weight"] = (dim, dim)
        shapes |= {f"layers.{n}.feed_forward.fc1.weight": (64, dim), f"layers.{n}.feed_forward.fc2.weight": (dim, 64)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors |= {name.replace("weight", "bias"): torch.zeros(shape[0]) for name, shape in shapes.items()}
    for name in (
        "embeddings.norm",
        *(f"layers.{n}.{kind}_norm" for n in (0, 1) for kind in ("attention", "feed_forward")),
    ):
        tensors |= {f"{name}.weight": torch.ones(dim), f"{name}.bias": torch.zeros(dim)}
    config = {"layers": 2, "heads": 4, "groups": 4, "dim": dim, "positions": 400, "epsilon": 1e-5, "activation": "gelu"}
    spec = tokenizers.character_spec(["a", "b", " "], [("A", 0)])
    return weights.ModelFile("small", "encoder", config, spec, tensors)


class Host(BaseHTTPRequestHandler):
    """Serves what its server holds: {path: (headers, body)}, or a list of these, one for each request."""

    def do_GET(self):
        self.server.requested.append(self.path)
        served = self.server.files.get(self.path)
        if isinstance(served, list):
            served = served.pop(0)
        headers, body = served or ({}, b"")
        self.send_response(200 if served else 404)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """The script of a page that has nothing but the models."""
    if not (FRONTEND / "node_modules" / "esbuild").is_dir():
        pytest.skip("npm ci in frontend/ installs what builds the page")
    script = tmp_path_factory.mktemp("page") / "page.js"
    command = ["node", "--input-type=module", "-e", BUNDLE, str(script)]
    subprocess.run(command, cwd=FRONTEND, check=True, capture_output=True)
    return script.read_bytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The file of the model, and its digest."""
    file = tmp_path_factory.mktemp("model") / "encoder.js"
    digest = weights.write(model(), file)
    return file.read_bytes(), digest


def page_of(digest, size):
    listed = json.dumps({"encoder": {"file": "models/encoder.js", "digest": digest, "bytes": size}})
    policy = "default-src 'none'; script-src 'self' 'unsafe-eval'; connect-src 'self'; worker-src blob:"
    text = (
        f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<script type="application/json" id="models">{listed}</script><script src="page.js"></script>'
    )
    return {"Content-Type": "text/html"}, text.encode()


@pytest.fixture
def host(bundled, written):
    """A web server with the page; its `files` can be changed, and `requested` lists the paths that were asked for."""
    content, digest = written
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.requested = []
    server.files = {
        "/": page_of(digest, len(content)),
        "/page.js": ({"Content-Type": "text/javascript"}, bundled),
        "/models/encoder.js": ({"Content-Length": str(len(content))}, content),
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def opened(browser, host):
    """Opens the page in a browser that has kept nothing."""
    context = browser.new_context()

    def open_page(before=""):
        page = context.new_page()
        page.add_init_script(before)
        page.goto(f"http://127.0.0.1:{host.server_port}/")
        return page

    yield open_page
    context.close()


def fetched(host):
    return host.requested.count("/models/encoder.js")


def test_the_share_that_is_there(opened, host, written):
    content, _ = written
    page = opened()
    told = page.evaluate(OPEN)
    assert (told["name"], told["ids"]) == ("small", [0, 1, 2, 0])
    assert told["shares"][0] == 0
    assert told["shares"] == sorted(told["shares"])
    assert told["shares"][-1] == 1
    unknown = page_of("", None)
    for listed, headers, body, expected in (
        (unknown, {"Content-Length": str(len(content))}, content, 1),
        (unknown, {}, content, None),  # the connection ends with the file
        (unknown, {"Content-Encoding": "gzip"}, gzip.compress(content), None),
        (page_of("", len(content)), {"Content-Encoding": "gzip"}, gzip.compress(content), 1),
    ):
        host.files["/"], host.files["/models/encoder.js"] = listed, (headers, body)
        shares = opened().evaluate(OPEN)["shares"]
        assert shares[-1] == expected
        assert expected or set(shares) == {None}


def test_a_file_is_fetched_once_and_kept_until_there_is_a_newer_one(opened, host, tmp_path):
    first, second = opened(), opened()
    assert first.evaluate(OPEN)["ids"] == [0, 1, 2, 0]
    told = second.evaluate(OPEN)
    assert told["ids"] == [0, 1, 2, 0]
    assert told["shares"] == []
    assert fetched(host) == 1
    digest = weights.write(model(seed=2), tmp_path / "newer.js")
    content = (tmp_path / "newer.js").read_bytes()
    host.files |= {"/": page_of(digest, len(content)), "/models/encoder.js": ({}, content)}
    newer = opened()
    assert newer.evaluate(OPEN)["ids"] == [0, 1, 2, 0]
    assert fetched(host) == 2
    assert newer.evaluate(IN_STORE, "(store) => store.getAllKeys()") == [digest]


@pytest.mark.parametrize(
    "kept",
    ["{}", "null", "5", "{tensors: [{name: 'x', shape: [9], type: 'float32', offset: 0}], bytes: new ArrayBuffer(3)}"],
)
def test_what_was_kept_and_is_not_whole_is_fetched_again(opened, host, written, kept):
    opened().evaluate(OPEN)
    page = opened()
    page.evaluate(IN_STORE, f"(store) => store.put({kept}, '{written[1]}')")
    assert page.evaluate(OPEN)["ids"] == [0, 1, 2, 0]
    assert fetched(host) == 2
    assert opened().evaluate(OPEN)["shares"] == []


def test_two_pages_at_once(opened, host):
    first, second = opened(), opened()
    start = """() => { globalThis.opening = openModel("encoder").then((model) => model.read("ab")); }"""
    for page in (first, second):
        page.evaluate(start)
    for page in (first, second):
        assert page.evaluate("async () => (await opening).encoder.tokens.length") == 2


def test_a_full_disk_keeps_nothing(opened, host):
    full = "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); };"
    page = opened(f"""
        const Whole = Blob;
        globalThis.Blob = class extends Whole {{
            // before the script of the worker
            constructor(parts, options) {{ super([{json.dumps(full)}, ...parts], options); }}
        }};
    """)
    for count in (1, 2):
        assert page.evaluate(OPEN)["ids"] == [0, 1, 2, 0]
        assert fetched(host) == count


def test_another_file_than_the_pages_is_fetched_afresh_and_then_refused(opened, host, written, tmp_path):
    weights.write(model(seed=3), tmp_path / "other.js")
    other = ({}, (tmp_path / "other.js").read_bytes())
    host.files["/models/encoder.js"] = [other, ({}, written[0])]  # an old copy on the way, then the right one
    assert opened().evaluate(OPEN)["ids"] == [0, 1, 2, 0]
    host.files |= {"/": page_of("0" * 64, 5), "/models/encoder.js": other}
    assert "is not the file that this page was made with" in opened().evaluate(ERROR)
    del host.files["/models/encoder.js"]
    assert opened().evaluate(ERROR).endswith("/models/encoder.js cannot be loaded: the server answers 404.")


def test_questions_at_once_cancelled_and_after_the_end(opened, host):
    told = opened().evaluate("""async () => {
        const model = await openModel("encoder");
        const long = "ab ".repeat(130);
        const stop = new AbortController();
        const reason = (error) => error.name === "Error" ? error.message : error.name;
        const cancelled = model.read(long, {}, stop.signal).catch(reason);
        const lengthOf = async (text) => (await model.read(text)).encoder.tokens.length;
        const lengths = Promise.all(["a", "ab", "ab a"].map(lengthOf));
        stop.abort();
        const said = { cancelled: await cancelled, lengths: await lengths };
        said.before = await model.read("a", {}, AbortSignal.abort()).catch(reason);
        said.blank = await model.read(" ").catch(reason);
        const { id, encoder } = await model.read("ab");
        said.kept = encoder.hidden.data.length === 3 * 2 * 32 && encoder.layers[1].key.data.length === 2 * 32;
        said.predicted = await model.predict(id, null, 0, 1, 2).catch(reason);
        said.old = await model.predict(12345, null, 0, 1, 2).catch(reason);
        said.written = await model.write("ab", 3).catch(reason);
        const waiting = model.read(long).catch(reason);
        model.close();
        said.closed = await waiting;
        return said;
    }""")
    assert told == {
        "cancelled": "AbortError",
        "lengths": [1, 2, 4],
        "before": "AbortError",
        "blank": "The text is empty.",
        "kept": True,
        "predicted": "small predicts no tokens.",
        "old": "The text of these predictions is no longer there: read it again.",
        "written": "small writes no text.",
        "closed": "The model was closed.",
    }


GPU = """async (url) => {
    const requestDevice = GPUAdapter.prototype.requestDevice;
    let device;
    GPUAdapter.prototype.requestDevice = async function (...options) {
        return (device = await requestDevice.apply(this, options));
    };
    const product = await gpuProduct();
    if (!product) return null;
    const numbers = (count, seed) => Float32Array.from({ length: count }, (_, n) => Math.sin(n * n * seed + seed));
    const distance = (a, b) => a.reduce((most, number, n) => Math.max(most, Math.abs(number - b[n])), 0);
    const products = async () => {
        const distances = [];
        for (const [n, inputs, outputs] of [[1, 1, 1], [3, 17, 5], [40, 32, 64], [96, 384, 100]]) {
            const sizes = [numbers(n * inputs, 1), numbers(inputs * outputs, 1.7), numbers(outputs, 0.3), n];
            distances.push(distance(await product(...sizes), linear(...sizes)));
        }
        return Math.max(...distances);
    };
    const file = await unpack(parse(await (await fetch(url)).text()));
    let [asked, calls] = [0, 0];
    const counted = (...sizes) => { calls += 1; return product(...sizes); };
    const readers = [openReader(file), openReader(file, async () => { asked += 1; return counted; })];
    const passes = async (text) => {
        const [here, there] = await Promise.all(readers.map((reader) => reader.read(text)));
        return distance(here.hidden.data, there.hidden.data);
    };
    const said = { short: await passes("ab a"), askedForShort: asked, products: await products() };
    said.long = await passes("ab ".repeat(60));
    said.calls = calls;
    device.destroy();
    await device.lost;
    said.lost = await products();
    said.fastest = typeof (await fastestProduct());
    return said;
}"""


def test_the_same_numbers_from_the_graphics_processor(browser, host):
    flags = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
    started = browser.browser_type.launch(executable_path=CHROMIUM, args=flags)
    try:
        page = started.new_page()
        page.goto(f"http://127.0.0.1:{host.server_port}/")
        if not page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this Chromium has no adapter for WebGPU")
        told = page.evaluate(GPU, "models/encoder.js")
    finally:
        started.close()
    assert told["short"] == told["askedForShort"] == 0
    assert 0 < told["products"] < 1e-4  # float32 against sums in double precision: never quite the same
    assert 0 < told["long"] < 1e-4
    assert told["calls"] == 2 * 6  # four matrices of the attention and two of the feed-forward network, in two layers
    assert told["lost"] == 0
    assert told["fastest"] == "function"
