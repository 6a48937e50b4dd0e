// The page, as a server sends it, or as a file that stands alone: the file carries its data, and has no server to ask.

import { libraryOf } from "../app/library.js";
import { mount } from "../app/viewer.js";
import { inflated } from "../model/inflate.js";
import { reopened } from "../offline/reopen.js";
import { offlineSource } from "../offline/source.js";
import { httpSource } from "../source/http.js";
import { el } from "../ui/dom.js";

const FAILURE = "The map could not be loaded: is “regard serve” still running?";

/** OpenSeadragon from the server. */
const fetchLibrary = () => libraryOf(el("script", { src: "assets/openseadragon.js" }), FAILURE);

/** OpenSeadragon from the file, which carries it deflated; the file's policy allows exactly this text as a script. */
async function unpackLibrary() {
  const bytes = await inflated(document.getElementById("library")?.textContent ?? "");
  return libraryOf(el("script", {}, new TextDecoder().decode(bytes)), FAILURE);
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
