// The playground: the viewer, answered by a model that runs in the page, without Python.

import { libraryOf } from "../app/library.js";
import { mount } from "../app/viewer.js";
import { openModel } from "../model/client.js";
import { playgroundSource } from "../offline/playground.js";
import { el } from "../ui/dom.js";

/** @import { ModelOffer } from "../types.js" */

/** The models of the site, which `regard playground` writes into the page. @type {Record<string, Omit<ModelOffer, "name">>} */
const manifest = JSON.parse(document.getElementById("models")?.textContent ?? "{}");
/** @type {ModelOffer[]} */
const offers = Object.entries(manifest).map(([name, offer]) => ({ name, ...offer }));

const library = () =>
  libraryOf(
    el("script", { src: "openseadragon.js" }),
    "The map could not be loaded: the file openseadragon.js is missing beside this page.",
  );

/**
 * The address that opens an example, in the view and the colours of the address that is shown.
 * @param {ModelOffer} offer
 * @param {{text: string, pair: string | null}} example
 */
function addressOf({ name }, { text, pair }) {
  const shown = new URLSearchParams(location.hash.slice(1));
  const parameters = new URLSearchParams({ text });
  for (const kept of ["view", "theme"]) if (shown.has(kept)) parameters.set(kept, shown.get(kept) ?? "");
  if (pair) parameters.set("pair", pair);
  if (name !== offers[0].name) parameters.set("model", name);
  return `#${parameters}`;
}

/** Links to the examples, in the form: they go where it goes. */
function drawExamples() {
  const links = offers.flatMap((offer) =>
    offer.examples.map((example) => {
      const link = el("a", { href: addressOf(offer, example) }, example.text);
      link.addEventListener("click", () => {
        link.href = addressOf(offer, example); // as the page is now
      });
      return link;
    }),
  );
  document.getElementById("ask")?.append(el("p", { class: "examples" }, "Examples: ", ...links));
}

/** Whoever chooses another model while an example stands in the form gets an example for that model. */
function changeExamples() {
  const [form, model, text, pair] = /** @type {any[]} */ (
    ["ask", "model", "text", "pair"].map((id) => document.getElementById(id))
  );
  const examples = offers.flatMap((offer) => offer.examples.map((example) => example.text));
  form.addEventListener(
    "change",
    (/** @type {Event} */ event) => {
      if (event.target !== model || (text.value.trim() && !examples.includes(text.value))) return;
      const example = offers.find(({ name }) => name === model.value)?.examples[0];
      [text.value, pair.value] = [example?.text ?? "", example?.pair ?? ""];
    },
    { capture: true }, // before the form itself hears of it
  );
}

/** Whether the browser lets the page keep the weights that it fetched. */
function canKeep() {
  try {
    return Boolean(globalThis.indexedDB);
  } catch {
    return false;
  }
}

if (location.protocol !== "file:" && !canKeep())
  document
    .querySelector(".site-about")
    ?.append(" This browser keeps nothing for the page, so the model is fetched anew at each visit.");
drawExamples();
changeExamples();
const { text, pair } = offers[0].examples[0];
mount(document, playgroundSource(offers, openModel, { text, pair }), {
  address: true,
  reads: true,
  models: offers,
  library,
});
for (const button of document.querySelectorAll("[data-kind=html]")) button.remove(); // which Python writes
