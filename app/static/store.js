// What the page knows, in one place. The live feed and the person's actions change it through the named mutators below
// and through nothing else; views read it and are told, once a change, that they should look again. Touches no DOM.

export const ACTIVE_PHASES = ["queued", "preparing", "capturing", "sealing", "recording"];
const STANDING_STILL = ["paused", "pmsuspended"];
const NEWEST = { jobs: 50, records: 50, activity: 20 };

/** Whether a job in this phase has not ended. */
export function isActive(job) {
  return ACTIVE_PHASES.includes(job.phase);
}

/** A store that begins with `snapshot`, the live feed's first message. */
export function createStore(snapshot) {
  const listeners = new Set();
  const state = {
    cursor: null,
    version: null,
    updated: false, // the service is of another version than the page
    hypervisor: null,
    history: null,
    room: null,
    vms: [],
    jobs: [],
    stats: null,
    records: [],
    activity: [],
    connection: "connecting", // connecting | live | reconnecting | offline
    transport: "websocket", // websocket | requests
    retryAt: null, // by performance.now(), while a try to connect is waited for
    ahead: 0, // milliseconds by which the service's clock is before this browser's
    chosen: new Set(), // uuids of VMs that the person has picked; another set after each change
    pending: new Set(), // keys of requests that are under way: "trigger", "cancel:<job id>"
    awaited: new Map(), // job id → key: accepted by the service, not yet seen in the feed
    cancelling: new Set(), // job ids
    errors: new Map(), // key → its sentence, and the VMs at fault
    dismissed: new Set(), // ids of ended jobs that the person has put away
  };

  const changed = () => {
    for (const listener of listeners) listener(state);
  };

  const takeTime = ({ now }) => {
    if (now) state.ahead = Date.parse(now) - Date.now();
  };

  const takeSnapshot = (message) => {
    takeTime(message);
    state.version ??= message.version;
    state.updated = message.version !== state.version;
    for (const name of ["hypervisor", "history", "room", "vms", "jobs", "stats", "activity"]) state[name] = message[name] ?? state[name];
    state.records = newest(message.records ?? state.records);
    state.awaited.clear();
    forgetEnded(state);
  };

  // The feed: one function a message type.
  const receivers = {
    snapshot: takeSnapshot,
    vms: (message) => {
      state.vms = message.vms;
    },
    hypervisor: (message) => {
      state.hypervisor = message.hypervisor;
    },
    history: (message) => {
      state.history = message.history;
    },
    room: (message) => {
      state.room = message.room;
    },
    alive: takeTime,
    stats: (message) => {
      state.stats = message.stats;
    },
    job: (message) => {
      state.jobs = withJob(state.jobs, message.job);
      state.awaited.delete(message.job.job_id);
      forgetEnded(state);
    },
    record: (message) => {
      const others = state.records.filter((record) => record.dump_id !== message.record.dump_id);
      state.records = newest([message.record, ...others]);
    },
    activity: (message) => {
      state.activity = [message.activity, ...state.activity].slice(0, NEWEST.activity);
    },
    progress: (message) => {
      state.jobs = withProgress(state.jobs, message);
    },
  };

  /** One message of the live feed. A type that this version does not know is passed over. */
  function receive(message) {
    const receiver = Object.hasOwn(receivers, message.type) ? receivers[message.type] : null;
    if (message.cursor) state.cursor = message.cursor;
    if (!receiver) return;
    receiver(message);
    changed();
  }

  receive({ type: "snapshot", ...snapshot });

  return {
    state,
    receive,
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    /** `retryAt`: when the next try comes. */
    setConnection(connection, retryAt = null) {
      if (state.connection === connection && state.retryAt === retryAt) return;
      state.connection = connection;
      state.retryAt = retryAt;
      changed();
    },
    setTransport(transport) {
      if (state.transport === transport) return;
      state.transport = transport;
      changed();
    },
    /** Where the feed is, if that is further than its last message says. */
    setCursor(cursor) {
      state.cursor = cursor;
    },
    choose(uuids, on) {
      const chosen = new Set(state.chosen);
      for (const uuid of uuids) chosen[on ? "add" : "delete"](uuid);
      state.chosen = chosen;
      changed();
    },
    requestStarted(key) {
      state.pending.add(key);
      state.errors.delete(key);
      changed();
    },
    /** `jobIds`: what the service scheduled; the key stays pending until the feed has shown every one. */
    requestAccepted(key, jobIds = []) {
      state.pending.delete(key);
      for (const id of jobIds) if (!state.jobs.some((job) => job.job_id === id)) state.awaited.set(id, key);
      changed();
    },
    requestFailed(key, sentence, faults = []) {
      state.pending.delete(key);
      state.errors.set(key, { sentence, faults });
      changed();
    },
    forgetError(key) {
      state.errors.delete(key);
      changed();
    },
    cancelAccepted(jobId) {
      state.pending.delete(`cancel:${jobId}`);
      state.cancelling.add(jobId);
      forgetEnded(state);
      changed();
    },
    dismiss(jobIds) {
      for (const id of jobIds) state.dismissed.add(id);
      changed();
    },
  };
}

/** Now by the service's clock, in milliseconds: a browser's may be wrong by days. */
export function serviceNow(state) {
  return Date.now() + state.ahead;
}

/** Whether a request with this key is under way, or accepted and not yet seen in the feed. */
export function isPending(state, key) {
  return state.pending.has(key) || [...state.awaited.values()].includes(key);
}

/** The running job of each VM, by uuid. */
export function activeJobs(state) {
  return new Map(state.jobs.filter(isActive).map((job) => [job.uuid, job]));
}

/** The VMs that `all` means: with memory to read, and not being dumped. */
export function dumpableVms(state) {
  const active = activeJobs(state);
  return state.vms.filter((vm) => vm.id !== null && !active.has(vm.uuid));
}

/** Whether the job's guest stands still now: stopped by its capture, or by somebody else (it stays so through the dump). */
export function guestStandsStill(state, job) {
  return Boolean(job.progress?.guest_paused) || state.vms.some((vm) => vm.uuid === job.uuid && STANDING_STILL.includes(vm.state));
}

/** Jobs that ended without a dump, were not put away, and are the last word about their VM. */
export function endedBadly(state) {
  const active = activeJobs(state);
  const seen = new Set();
  return state.jobs.filter((job) => {
    if (isActive(job) || seen.has(job.uuid)) return false;
    seen.add(job.uuid);
    return job.phase !== "completed" && !active.has(job.uuid) && !state.dismissed.has(job.job_id);
  });
}

function withJob(jobs, job) {
  const known = jobs.findIndex((other) => other.job_id === job.job_id);
  const all = known === -1 ? [job, ...jobs] : jobs.with(known, job);
  return all.filter((other, place) => isActive(other) || place < NEWEST.jobs);
}

function withProgress(jobs, message) {
  const place = jobs.findIndex((job) => job.job_id === message.job_id);
  if (place === -1 || !isActive(jobs[place])) return jobs;
  const { type: _type, job_id: _id, phase, ...progress } = message;
  const job = jobs[place];
  const later = ACTIVE_PHASES.indexOf(phase) > ACTIVE_PHASES.indexOf(job.phase);
  return jobs.with(place, { ...job, phase: later ? phase : job.phase, progress });
}

/** By the start of the capture, which is not the order in which records come: a small guest overtakes a large one. */
function newest(records) {
  const key = (record) => `${record.timestamp} ${record.dump_id}`;
  const newestFirst = (one, other) => (key(one) < key(other) ? 1 : key(one) > key(other) ? -1 : 0);
  return records.toSorted(newestFirst).slice(0, NEWEST.records);
}

function forgetEnded(state) {
  for (const id of state.cancelling) {
    if (!state.jobs.some((job) => job.job_id === id && isActive(job))) state.cancelling.delete(id);
  }
}
