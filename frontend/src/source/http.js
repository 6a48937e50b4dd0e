// Replies over HTTP, from `regard serve`.

import { replyOf } from "./reply.js";

/** @import { Source } from "../types.js" */

/** @type {Source} */
export async function httpSource(request, signal) {
  let response;
  try {
    const keepalive = request.type === "stop"; // which a page sends as it closes
    response = await fetch("api", { method: "POST", body: JSON.stringify(request), signal, keepalive });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("The server does not answer: is “regard serve” still running?");
  }
  if (!response.ok) {
    const { error, code } = await response.json().catch(() => ({}));
    const message = error ?? `The server answered ${response.status}.`;
    throw Object.assign(new Error(message), { status: response.status, code });
  }
  return replyOf(await response.arrayBuffer());
}
