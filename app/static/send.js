// Asking the service to change something.

import { Refusal } from "./ask.js";

const LONGEST_MS = 30_000;

/** POST `body`, JSON, to `path`. Throws a `Refusal` if nobody answers, which says what to do then. */
export async function send(path, body, then, headers = {}) {
  const signal = AbortSignal.timeout(LONGEST_MS);
  try {
    return await fetch(path, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body, signal });
  } catch {
    const what = signal.aborted ? `has not answered for ${LONGEST_MS / 1000} seconds` : "cannot be reached";
    throw new Refusal(0, `The service ${what}. Whether it heard this is not known: ${then}.`);
  }
}
