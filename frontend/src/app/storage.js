// Texts too long for an address, remembered for as long as the tab lives, so that a reload can read them again.

/** @import { TextSource } from "../types.js" */

const PREFIX = "regard ";
const KEPT = 8; // texts

/**
 * Remembers what a reading was made of.
 * @param {string} id
 * @param {TextSource} source
 */
export function keepText(id, source) {
  try {
    for (const name of Object.keys(sessionStorage))
      if (name.startsWith(PREFIX) && name !== PREFIX + id && sessionStorage.length > KEPT)
        sessionStorage.removeItem(name);
    sessionStorage.setItem(PREFIX + id, JSON.stringify(source));
  } catch {
    // No room, or a frame that may not store anything: the server still has the text, for a while.
  }
}

/**
 * What a reading was made of, or null.
 * @param {string} id
 * @returns {TextSource | null}
 */
export function keptText(id) {
  try {
    const source = JSON.parse(sessionStorage.getItem(PREFIX + id) ?? "null");
    return typeof source?.text === "string" ? source : null;
  } catch {
    return null;
  }
}
