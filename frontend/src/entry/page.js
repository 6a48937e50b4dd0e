// The page, as a server sends it, or as a file that stands alone: the file carries its data, and has no server to ask.

import { fromBase64, frozenSource, reopening } from "../frozen.js";
import { httpSource } from "../source.js";
import { mount } from "../viewer.js";

/** Runs a script that defines OpenSeadragon, and returns the library. */
async function run(script) {
  document.head.append(script);
  if (script.src)
    await new Promise((resolve, reject) => {
      script.onload = resolve;
      script.onerror = () => reject(new Error("The map could not be loaded: is “regard serve” still running?"));
    });
  script.remove();
  return globalThis.OpenSeadragon;
}

/** From the server. */
const fetched = () => run(Object.assign(document.createElement("script"), { src: "assets/openseadragon.js" }));

/** From the file, which carries it deflated; the file's policy allows exactly this text as a script. */
async function carried() {
  const deflated = fromBase64(document.getElementById("library").textContent);
  const inflated = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return run(Object.assign(document.createElement("script"), { textContent: await new Response(inflated).text() }));
}

const held = document.getElementById("data");
if (held) {
  const file = `<!doctype html>\n${document.documentElement.outerHTML}`; // as it came, to be saved again
  const data = JSON.parse(held.textContent);
  const frozen = (link) => reopening(file, data.open, link);
  mount(document, frozenSource(data), { address: true, reads: false, frozen, opening: data.open, library: carried });
} else mount(document, httpSource(), { address: true, reads: true, library: fetched });
