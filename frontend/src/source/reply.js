// Replies as Python sends them: see regard/viewer/protocol.

/**
 * The dictionary of a reply, with its arrays in it by name: {shape, data}.
 * @param {ArrayBuffer} buffer
 */
export function replyOf(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const { arrays, ...reply } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  for (const [name, shape] of /** @type {[string, number[]][]} */ (arrays)) {
    const size = shape.reduce((product, extent) => product * extent, 1);
    reply[name] = { shape, data: new Float32Array(buffer, offset, size) };
    offset += 4 * size;
  }
  return reply;
}
