// OpenSeadragon, which moves and zooms the map: it is loaded when a map is first shown.

/**
 * Runs a script that defines OpenSeadragon, and returns the library.
 * @param {HTMLScriptElement} script
 * @param {string} failure what is said where the script cannot be loaded
 */
export async function libraryOf(script, failure) {
  const loaded = new Promise((resolve, reject) => {
    script.onload = resolve;
    script.onerror = () => reject(new Error(failure));
  });
  document.head.append(script);
  if (script.src) await loaded;
  script.remove();
  return /** @type {any} */ (globalThis).OpenSeadragon;
}
