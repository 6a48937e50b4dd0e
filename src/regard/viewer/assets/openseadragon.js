// OpenSeadragon, in a file that stands alone: carried deflated, and made a script when the map is first opened, which
// the file's policy allows to exactly this text. On a server's page and in a notebook, view/html.py puts the library
// itself in the place of this module.

import { fromBase64 } from "./frozen.js";

let made = null;

/** The library, once it is loaded. */
export const openSeadragon = () => made;

export async function loadSeadragon() {
  if (made) return;
  const carried = fromBase64(document.getElementById("library").textContent);
  const inflated = new Blob([carried]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const script = document.createElement("script");
  script.textContent = await new Response(inflated).text();
  document.head.append(script);
  script.remove();
  made = globalThis.OpenSeadragon;
}
