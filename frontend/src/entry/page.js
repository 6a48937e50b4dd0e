// The page, as a server sends it, or as a file that stands alone: the file carries its data, and has no server to ask.

import { mount } from "../app/viewer.js";
import { inflated } from "../offline/codec.js";
import { reopened } from "../offline/reopen.js";
import { offlineSource } from "../offline/source.js";
import { httpSource } from "../source/http.js";
import { el } from "../ui/dom.js";

/**
 * Runs a script that defines OpenSeadragon, and returns the library.
 * @param {HTMLScriptElement} script
 */
async function run(script) {
  const loaded = new Promise((resolve, reject) => {
    script.onload = resolve;
    script.onerror = () => reject(new Error("The map could not be loaded: is “regard serve” still running?"));
  });
  document.head.append(script);
  if (script.src) await loaded;
  script.remove();
  return /** @type {any} */ (globalThis).OpenSeadragon;
}

/** OpenSeadragon from the server. */
const fetchLibrary = () => run(el("script", { src: "assets/openseadragon.js" }));

/** OpenSeadragon from the file, which carries it deflated; the file's policy allows exactly this text as a script. */
async function unpackLibrary() {
  const bytes = await inflated(document.getElementById("library")?.textContent ?? "");
  return run(el("script", {}, new TextDecoder().decode(bytes)));
}

const carried = document.getElementById("data");
if (carried) {
  const file = `<!doctype html>\n${document.documentElement.outerHTML}`; // as it came, to be saved again
  const data = JSON.parse(carried.textContent ?? "");
  mount(document, offlineSource(data), {
    address: true,
    reads: false,
    opening: data.open,
    reopened: (link) => reopened(file, data.open, link),
    library: unpackLibrary,
  });
} else mount(document, httpSource, { address: true, reads: true, library: fetchLibrary });
