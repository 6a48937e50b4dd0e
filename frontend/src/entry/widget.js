// The viewer in a notebook: the module that anywidget loads, and view/widget.py stands behind.

import OpenSeadragon from "openseadragon";
import { el } from "../dom.js";
import { widgetSource } from "../source.js";
import { mount } from "../viewer.js";

/** Until Python answers, which may be busy with other cells, or gone: a note says so, and the picture stays. */
async function firstAnswer(source, box, note) {
  note.textContent = "Waiting for the kernel …";
  do {
    try {
      return await source({ type: "start" });
    } catch (error) {
      note.textContent = error.message;
      await new Promise((done) => setTimeout(done, 2000));
    }
  } while (box.isConnected);
  return null;
}

/** The picture that stands above this output in a saved notebook is not needed where the viewer itself is shown. */
function hidePicture(box, ending) {
  const isAbove = (image) => image.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_FOLLOWING;
  const picture = [...document.images].filter((image) => image.src.endsWith(ending) && isAbove(image)).at(-1);
  if (picture) (picture.closest(".jp-OutputArea-child, .output_area") ?? picture).style.display = "none";
}

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
  const source = widgetSource(model);
  firstAnswer(source, box, note).then((answer) => {
    if (answer === null) return;
    note.replaceWith(viewer);
    if (model.get("picture")) hidePicture(box, model.get("picture"));
    const { reads, opening } = model.get("options");
    mount(shadow, source, { widget: true, reads, opening, library: async () => OpenSeadragon });
  });
}

export default { render };
