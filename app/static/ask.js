// Asking the service for something to read. Whatever goes wrong ends in a sentence for a person; what is behind it is on the console.

const LONGEST_MS = 20_000;

/**
 * What was refused or not answered; the message is a sentence for a person. `status` is 0 when nobody answered; `place` is the field of
 * the request that the service does not take, such as `$.name`, and `faults` say what is wrong with several.
 */
export class Refusal extends Error {
  constructor(status, sentence, { errors = [], place } = {}) {
    super(sentence);
    this.status = status;
    this.faults = errors;
    this.place = place;
  }
}

/** What to say of an answer that says nothing. */
export function unexplained(status) {
  return `The service answered with HTTP status ${status} and no explanation. Try again; its log may tell more.`;
}

/** The JSON at `path`. Throws a `Refusal`, or what `signal` was aborted with. */
export async function askJson(path, signal) {
  const response = await answered(path, signal);
  const answer = await response.json().catch(() => null);
  signal.throwIfAborted();
  if (response.ok && answer !== null) return answer;
  console.warn(path, response.status, answer);
  throw new Refusal(response.status, answer?.detail ?? unexplained(response.status));
}

async function answered(path, signal) {
  const late = AbortSignal.timeout(LONGEST_MS);
  try {
    const headers = { Accept: "application/json" };
    if (navigator.userActivation?.isActive === false) headers["X-Unattended"] = "1"; // the page asks by itself, and keeps no session alive
    return await fetch(path, { cache: "no-store", headers, signal: AbortSignal.any([signal, late]) });
  } catch (error) {
    signal.throwIfAborted();
    console.warn(path, error);
    const sentence = late.aborted
      ? `The service has not answered for ${LONGEST_MS / 1000} seconds. It may be busy; try again in a moment.`
      : "The service cannot be reached. Look whether it runs and whether the network is up, then try again.";
    throw new Refusal(0, sentence);
  }
}
