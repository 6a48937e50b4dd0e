// The viewer in a notebook: the module that anywidget loads; regard/viewer/widget.py stands behind it.

import OpenSeadragon from "openseadragon";
import { mount } from "../app/viewer.js";
import { notebookSource } from "../source/notebook.js";
import { el } from "../ui/dom.js";

/** @import { Source } from "../types.js" */

const PAUSE = 2000; // ms between two attempts to reach Python

/**
 * Until Python answers, which may be busy with other cells, or gone: a note says so, and the picture stays.
 * @param {Source} source
 * @param {HTMLElement} box
 * @param {HTMLElement} note
 */
async function firstReply(source, box, note) {
  note.textContent = "Waiting for the kernel …";
  do {
    try {
      return await source({ type: "start" });
    } catch (error) {
      note.textContent = /** @type {Error} */ (error).message;
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  } while (box.isConnected);
  return null;
}

/**
 * The picture that stands above this output in a saved notebook is not needed where the viewer itself is shown.
 * @param {HTMLElement} box
 * @param {string} ending of the picture's address
 */
function hidePicture(box, ending) {
  /** @param {HTMLImageElement} image */
  const isAbove = (image) => image.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_FOLLOWING;
  const pictures = [...document.images].filter((image) => image.src.endsWith(ending) && isAbove(image));
  const picture = pictures[pictures.length - 1];
  if (!picture) return;
  const output = /** @type {HTMLElement | null} */ (picture.closest(".jp-OutputArea-child, .output_area"));
  (output ?? picture).style.display = "none";
}

/** @param {{model: any, el: HTMLElement}} widget */
function render({ model, el: box }) {
  const shadow = box.attachShadow({ mode: "open" }); // style and ids of its own: there may be several
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(model.get("look"));
  shadow.adoptedStyleSheets = [sheet];
  const viewer = el("div", { id: "viewer", class: "viewer widget" });
  viewer.append(...new DOMParser().parseFromString(model.get("markup"), "text/html").body.childNodes);
  const note = el("p", { id: "waiting", role: "status" });
  shadow.append(note);
  box.dataset.lmSuppressShortcuts = "true"; // what is typed here is no command to the notebook
  box.addEventListener("keydown", (event) => event.stopPropagation());
  const source = notebookSource(model);
  firstReply(source, box, note).then((reply) => {
    if (reply === null) return;
    note.replaceWith(viewer);
    if (model.get("picture")) hidePicture(box, model.get("picture"));
    const { reads, opening } = model.get("options");
    mount(shadow, source, { widget: true, reads, opening, library: async () => OpenSeadragon });
  });
}

export default { render };
