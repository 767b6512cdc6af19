// What a person can ask the service for. Each request has a key in the store: pending already, no more when it has ended, and an error
// if it was refused.

import { Refusal, unexplained } from "./ask.js";
import { isolated } from "./format.js";
import { send } from "./send.js";

const KEPT_MS = 60_000;

/** The actions over `store`; `notify` says a result aloud, `leave` goes to the login page. */
export function createActions(store, notify, leave) {
  const unanswered = new Map(); // what was sent and not answered → its key, so that trying again cannot start it twice

  const ask = async (key, path, body, accepted) => {
    try {
      accepted(await post(path, JSON.stringify(body), unanswered));
    } catch (refusal) {
      console.warn(path, refusal);
      if (refusal.status === 401) {
        leave();
        return null;
      }
      store.requestFailed(key, refusal.message, refusal.faults);
      notify("error", refusal.faults?.length > 1 ? `${refusal.message} The control panel says which, and why.` : refusal.message);
      return refusal;
    }
    return null;
  };

  return {
    /** Start dumps. Gives the field of the request that the service does not take, and its words about it. */
    async trigger(body) {
      const refusal = await ask("trigger", "/api/memory-dumps/trigger", body, ({ jobs }) => {
        store.requestAccepted("trigger", jobs.map((job) => job.job_id));
        store.choose(body.vm_ids ?? [], false);
        notify("info", jobs.length === 1 ? `The dump of ${isolated(jobs[0].dom)} is scheduled.` : `${jobs.length} dumps are scheduled.`);
      });
      return refusal?.place?.startsWith("$.") ? [refusal.place.slice(2), refusal.message] : null;
    },
    cancel(jobId) {
      const path = `/api/memory-dumps/jobs/${encodeURIComponent(jobId)}/cancel`;
      return ask(`cancel:${jobId}`, path, {}, () => store.cancelAccepted(jobId));
    },
  };
}

async function post(path, body, unanswered) {
  const sent = `${path} ${body}`;
  const key = unanswered.get(sent) ?? randomId();
  unanswered.set(sent, key);
  // Who asks for the same later means another dump.
  setTimeout(() => unanswered.get(sent) === key && unanswered.delete(sent), KEPT_MS);
  const response = await send(path, body, "look here when the page is live again, and try again if nothing began", { "Idempotency-Key": key });
  const answer = await response.json().catch(() => null);
  // What a proxy says, or an answer that was cut off, does not tell whether the service took it: to try again is the same request.
  if (answer !== null) unanswered.delete(sent);
  if (response.ok && answer !== null) return answer;
  throw new Refusal(response.status, refused(answer, JSON.parse(body)) || unexplained(response.status), answer ?? {});
}

/** All is started or nothing, which the service's words about one VM do not say. */
function refused(answer, { vm_ids: asked = [] }) {
  const faults = answer?.errors?.length ?? 0;
  if (faults > 1) return `Nothing was started, because ${faults} VMs cannot be dumped now. Leave them out, or try again later.`;
  return faults === 1 && asked.length > 1 ? `Nothing was started: ${answer.detail}` : answer?.detail;
}

/** `crypto.randomUUID` exists only where the page came by https or from this machine. */
function randomId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
