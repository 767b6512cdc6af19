// What a running dump leaves behind as it goes, and no message tells: how its rate went, and how long its guest has stood still so far.
// What is told here is what was heard of: where the page came late or heard nothing for a while, it is "over" that. Touches no DOM.

const SAMPLES = 60;
const SAMPLE_EVERY_MS = 200;

/** `note(jobs)` after each change; `gap()` when nothing more is heard for now. `now` is a clock in milliseconds. */
export function createTraces(now = () => performance.now()) {
  const traces = new Map(); // job id → its trace

  const noteOne = ({ job_id: id, progress }, whole) => {
    const at = now();
    // Where the first that is heard of it is in its middle, the guest may have stood still before.
    if (!traces.has(id)) traces.set(id, { progress: null, heardAt: at, rates: [], sampledAt: -Infinity, whole: whole && progress === null, sum: 0, since: null });
    const trace = traces.get(id);
    if (trace.progress === progress) return;
    trace.progress = progress;
    trace.heardAt = at;
    if (progress?.guest_paused) trace.since ??= at;
    else stop(trace, at);
    if (!progress || at - trace.sampledAt < SAMPLE_EVERY_MS) return;
    trace.sampledAt = at;
    trace.rates = [...trace.rates, progress.rate_bytes_per_sec].slice(-SAMPLES);
  };

  return {
    /** `whole`: whether nothing that began before can have been missed. */
    note(jobs, whole = true) {
      for (const job of jobs) noteOne(job, whole);
      if (traces.size === jobs.length) return;
      const known = new Set(jobs.map((job) => job.job_id));
      for (const id of traces.keys()) if (!known.has(id)) traces.delete(id);
    },
    gap() {
      for (const trace of traces.values()) {
        stop(trace, trace.heardAt);
        trace.whole = false;
      }
    },
    rates: (id) => traces.get(id)?.rates ?? [],
    /** In milliseconds: in all, and this time (null while the guest runs); `whole` if there cannot have been more. Null where nothing is known. */
    stood(id) {
      const trace = traces.get(id);
      if (!trace) return null;
      const current = trace.since === null ? null : now() - trace.since;
      return { sum: trace.sum + (current ?? 0), current, whole: trace.whole };
    },
  };
}

function stop(trace, at) {
  if (trace.since !== null) trace.sum += at - trace.since;
  trace.since = null;
}

/** The points of a curve through `rates`, the newest at the right: 59 wide, 20 high, from nothing to the highest. */
export function curve(rates) {
  const highest = Math.max(...rates, 1);
  const left = SAMPLES - rates.length;
  return rates.map((rate, place) => `${left + place},${(19 - (18 * rate) / highest).toFixed(1)}`).join(" ");
}
