// Answers over HTTP, from `regard serve`.

import { answerOf } from "./answer.js";

/** @import { Source } from "../types.js" */

/** @type {Source} */
export async function httpSource(question, signal) {
  let response;
  try {
    response = await fetch("ask", { method: "POST", body: JSON.stringify(question), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("The server does not answer: is “regard serve” still running?");
  }
  if (!response.ok) {
    const { error, code } = await response.json().catch(() => ({}));
    const message = error ?? `The server answered ${response.status}.`;
    throw Object.assign(new Error(message), { status: response.status, code });
  }
  return answerOf(await response.arrayBuffer());
}
