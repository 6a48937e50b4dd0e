// What docs/plain.py and docs/plain_decoder.py have of each idea: their functions, by name, in the words of a link. The
// numbers of their lines are read from the files when the page is built (build.js), so that none is written by hand.

/** @type {Record<string, string>} */
export const PLAIN = {
  dot: "the dot product",
  product: "the matrix product, which also is the weighted average of rows",
  softmax: "scores become weights",
  one_head: "one head of attention",
  attention: "all heads",
  split: "a part of each vector for each head",
  linear: "query, key and value by learned matrices",
  embed: "a vector for each token, and one for its place",
  feed_forward: "up, through a function, and down again",
  layer_norm: "mean zero and variance one",
  add_and_norm: "the sum with what went in, normalised",
  encoder_layer: "attention, then the feed-forward network",
  encoder: "layer after layer",
  causal: "a word sees none that come after it",
  next_word: "a score for each word of the vocabulary",
  decoder_layer: "attention to what is written, then to the source",
  write: "word by word, the likeliest each time",
};

/** @type {Record<string, string>} by function, its place, as “plain.html#L12”; build.js writes it */
const PLACES = typeof PLAIN_PLACES === "undefined" ? {} : PLAIN_PLACES;

/**
 * Where a page shows a function; null where this page was built without the file.
 * @param {string} name
 */
export function plainLink(name) {
  if (!PLAIN[name]) throw new Error(`lesson: plain: ${name} is not in plain-lines.js`);
  return PLACES[name] ? { href: PLACES[name], name, says: PLAIN[name] } : null;
}
