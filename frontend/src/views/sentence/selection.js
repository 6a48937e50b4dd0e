// Which heads are shown after a click or a double click on one of them.

/**
 * The heads shown once one of them is switched.
 * @param {number[]} shown
 * @param {number} h
 */
export function toggledHeads(shown, h) {
  const heads = new Set(shown);
  if (!heads.delete(h)) heads.add(h);
  return [...heads].sort((a, b) => a - b);
}

/**
 * A head alone, or all heads where it was alone already.
 * @param {number[] | null} heads
 * @param {number} h
 */
export const headAlone = (heads, h) =>
  heads?.length === 1 && heads[0] === h ? { heads: null } : { heads: [h], head: h };
