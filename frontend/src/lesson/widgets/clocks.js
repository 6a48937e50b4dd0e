// The hands of clocks that run at different speeds: a sinusoidal position, as a picture.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";

const [SIZE, RADIUS] = [72, 30];

/**
 * @param {{label: string, names: string[], angles: number[]}} given angles in radians, clockwise from the top
 */
export function clocks({ label, names, angles: first }) {
  const hands = names.map(() => el("line", { x1: SIZE / 2, y1: SIZE / 2 }));
  const faces = names.map((name, k) =>
    el(
      "figure",
      {},
      el(
        "svg",
        { viewBox: `0 0 ${SIZE} ${SIZE}`, "aria-hidden": "true" },
        el("circle", { cx: SIZE / 2, cy: SIZE / 2, r: RADIUS }),
        hands[k],
      ),
      el("figcaption", {}, name),
    ),
  );
  const numbers = el("p", { class: "reads", role: "status" });
  /** @param {number[]} angles */
  const set = (angles) => {
    for (const [k, angle] of angles.entries()) {
      hands[k].setAttribute("x2", String(SIZE / 2 + RADIUS * Math.sin(angle)));
      hands[k].setAttribute("y2", String(SIZE / 2 - RADIUS * Math.cos(angle)));
    }
    const vector = angles.flatMap((angle) => [Math.sin(angle), Math.cos(angle)]);
    numbers.textContent = `(${vector.map((number) => format(number, 2)).join(", ")})`;
  };
  set(first);
  const row = el("div", { class: "clocks", role: "group", "aria-label": label }, ...faces);
  return { node: /** @type {HTMLElement} */ (el("div", {}, row, numbers)), set };
}
