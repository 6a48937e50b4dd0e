// The weights between words that have been asked for, remembered until they take too much room.

export const ALL = 64; // units up to which all weights of a layer are had at once, as in view/desk.py
const KEEP = 24e6; // numbers that are remembered: 96 MB

export function weightMemory(app) {
  const known = new Map(); // "reading layer unit side" → weights (H,U), the latest used last
  let remembered = 0;

  async function remember(key, get) {
    const weights = known.get(key) ?? (await get());
    if (!known.delete(key)) remembered += weights.length;
    known.set(key, weights);
    while (remembered > KEEP && known.size > 1) {
      const [oldest, numbers] = known.entries().next().value;
      known.delete(oldest);
      remembered -= numbers.length;
    }
    return weights;
  }

  /** All weights (H,U,U) of a layer, of a short text. */
  const every = (l) =>
    remember(`${app.reading.id} ${l}`, async () => (await app.ask({ type: "layer_weights", layer: l })).weights.data);

  /** The weights (H,U) from or to a unit in a layer. */
  async function look(l, u, side) {
    const { H, U, id } = app.reading;
    if (U <= ALL && side === "from") {
      const all = await every(l);
      return Float32Array.from({ length: H * U }, (_, n) => all[(Math.floor(n / U) * U + u) * U + (n % U)]);
    }
    return remember(`${id} ${l} ${u} ${side}`, async () =>
      (await app.ask({ type: "word_weights", layer: l, word: u, side })).weights.data,
    );
  }

  return { look, every };
}
