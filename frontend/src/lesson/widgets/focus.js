// The keyboard's focus where parts of the page are drawn anew.

/**
 * Draws something anew. If the focus was in it, it then is on its first stop of the Tab key, and not lost.
 * @param {HTMLElement} node
 * @param {() => void} draw
 */
export function keepingFocus(node, draw) {
  const hadFocus = node.contains(document.activeElement);
  draw();
  if (hadFocus) /** @type {HTMLElement | null} */ (node.querySelector("[tabindex='0']"))?.focus();
}
