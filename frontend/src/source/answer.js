// Answers as Python sends them: see regard/viewer/protocol.py.

/**
 * The dictionary of an answer, with its arrays in it by name: {shape, data}.
 * @param {ArrayBuffer} buffer
 */
export function answerOf(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const { arrays, ...answer } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  for (const [name, shape] of /** @type {[string, number[]][]} */ (arrays)) {
    const size = shape.reduce((product, extent) => product * extent, 1);
    answer[name] = { shape, data: new Float32Array(buffer, offset, size) };
    offset += 4 * size;
  }
  return answer;
}
