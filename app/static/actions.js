// What a person can ask the service for. Each request has a key in the store: pending while it runs, an error if refused.

/** The actions over `store`; `notify` says a result aloud, `leave` goes to the login page. */
export function createActions(store, notify, leave) {
  const ask = async (key, path, body, accepted) => {
    store.requestStarted(key);
    try {
      accepted(await post(path, body));
    } catch (refusal) {
      if (refusal.status === 401) {
        leave();
        return;
      }
      store.requestFailed(key, refusal.message);
      notify("error", refusal.message);
    }
  };

  const scheduled = (key) => (answer) => {
    store.requestAccepted(key, answer.jobs.map((job) => job.job_id));
    notify("info", answer.message);
  };

  return {
    dump(uuid) {
      const key = `dump:${uuid}`;
      return ask(key, "/api/memory-dumps/trigger", { vm_ids: [uuid] }, scheduled(key));
    },
    dumpAll() {
      return ask("dump-all", "/api/memory-dumps/trigger", { all: true }, scheduled("dump-all"));
    },
    cancel(jobId) {
      const path = `/api/memory-dumps/jobs/${encodeURIComponent(jobId)}/cancel`;
      return ask(`cancel:${jobId}`, path, {}, () => store.cancelAccepted(jobId));
    },
  };
}

/** A refused or failed request; the message is a sentence for a person. `status` is 0 when nobody answered. */
class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function post(path, body) {
  const response = await send(path, body);
  const answer = await response.json().catch(() => null);
  if (!response.ok || answer === null) {
    throw new Refusal(response.status, answer?.detail ?? `The service answered with HTTP status ${response.status} and no explanation.`);
  }
  return answer;
}

async function send(path, body) {
  try {
    return await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": randomId() },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Refusal(0, "The service cannot be reached. Nothing is known to have been started; try again when the page is live.");
  }
}

/** `crypto.randomUUID` exists only where the page came by https or from this machine. */
function randomId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
