import assert from "node:assert/strict";
import { test } from "node:test";

import { createStore, dumpableVms, endedBadly, guestStandsStill, isPending, serviceNow } from "../../../app/static/store.js";

const vm = (uuid, more = {}) => ({ uuid, id: 1, name: uuid, memory_bytes: 1024, last_dump: null, ...more });
const job = (job_id, uuid, phase, more = {}) => ({ job_id, uuid, phase, progress: null, error: null, warnings: [], ...more });
const record = (dump_id, uuid, timestamp) => ({ dump_id, uuid, timestamp });

function storeWith(parts = {}) {
  return createStore({ cursor: "c1", hypervisor: {}, vms: [], jobs: [], stats: {}, records: [], activity: [], ...parts });
}

const progress = (job_id, phase, bytes_done) => ({
  type: "progress", job_id, phase, bytes_done, bytes_total: 100, rate_bytes_per_sec: 1, eta_sec: 1, guest_paused: true,
});

test("the cursor is that of the last change, and progress has none", () => {
  const store = storeWith({ jobs: [job("j1", "a", "capturing")] });
  store.receive({ type: "stats", cursor: "c2", stats: {} });
  store.receive(progress("j1", "capturing", 10));
  assert.equal(store.state.cursor, "c2");
});

test("a message of an unknown type moves the cursor and nothing else", () => {
  const store = storeWith();
  let told = 0;
  store.subscribe(() => { told += 1; });
  store.receive({ type: "toString", cursor: "c2" });
  assert.equal(store.state.cursor, "c2");
  assert.equal(told, 0);
});

test("a snapshot replaces everything", () => {
  const store = storeWith({ vms: [vm("a")], records: [record("d1", "a", "1")] });
  store.receive({ type: "snapshot", cursor: "c9", hypervisor: {}, vms: [vm("b")], jobs: [], stats: {}, records: [], activity: [] });
  assert.deepEqual(store.state.vms.map((one) => one.uuid), ["b"]);
  assert.deepEqual(store.state.records, []);
});

test("a job's progress is kept with it, and moves its phase forward only", () => {
  const store = storeWith({ jobs: [job("j1", "a", "capturing")] });
  store.receive(progress("j1", "sealing", 40));
  assert.equal(store.state.jobs[0].phase, "sealing");
  store.receive(progress("j1", "capturing", 30));
  assert.equal(store.state.jobs[0].phase, "sealing");
  assert.equal(store.state.jobs[0].progress.bytes_done, 30);
  assert.equal(store.state.jobs[0].progress.guest_paused, true);
});

test("progress of a job that has ended, or is not known, changes nothing", () => {
  const store = storeWith({ jobs: [job("j1", "a", "failed")] });
  store.receive(progress("j1", "capturing", 10));
  store.receive(progress("j2", "capturing", 10));
  assert.deepEqual(store.state.jobs, [job("j1", "a", "failed")]);
});

test("a job keeps its place when it changes, and a new one comes first", () => {
  const store = storeWith({ jobs: [job("j2", "b", "queued"), job("j1", "a", "capturing")] });
  store.receive({ type: "job", cursor: "c2", job: job("j1", "a", "sealing") });
  store.receive({ type: "job", cursor: "c3", job: job("j3", "c", "queued") });
  assert.deepEqual(store.state.jobs.map((one) => `${one.job_id} ${one.phase}`), ["j3 queued", "j2 queued", "j1 sealing"]);
});

test("of the jobs that have ended only the newest are kept, of the running ones all", () => {
  const running = Array.from({ length: 60 }, (_, place) => job(`r${place}`, `vm${place}`, "queued"));
  const store = storeWith({ jobs: [...running, job("old", "x", "failed")] });
  store.receive({ type: "job", cursor: "c2", job: job("new", "y", "queued") });
  assert.equal(store.state.jobs.length, 61);
  assert.ok(!store.state.jobs.some((one) => one.job_id === "old"));
});

test("a record stands where its timestamp says, whenever it comes, and only once", () => {
  const store = storeWith({ records: [record("d2", "b", "3")] });
  for (const [id, timestamp] of [["d4", "4"], ["d1", "2"], ["d3", "3"], ["d4", "4"]]) {
    store.receive({ type: "record", cursor: id, record: record(id, "a", timestamp) });
  }
  assert.deepEqual(store.state.records.map((one) => one.dump_id), ["d4", "d3", "d2", "d1"]);
});

test("a guest stands still when its capture stopped it, or when it was paused anyway", () => {
  const running = job("j1", "a", "capturing", { progress: { guest_paused: true } });
  const store = storeWith({ vms: [vm("a", { state: "running" }), vm("b", { state: "paused" }), vm("c", { state: "running" })] });
  assert.deepEqual([running, job("j2", "b", "queued"), job("j3", "c", "sealing")].map((one) => guestStandsStill(store.state, one)), [true, true, false]);
});

test("only what has memory and is not being dumped can be dumped", () => {
  const store = storeWith({ vms: [vm("a"), vm("b"), vm("off", { id: null })], jobs: [job("j1", "b", "queued"), job("j0", "a", "failed")] });
  assert.deepEqual(dumpableVms(store.state).map((one) => one.uuid), ["a"]);
});

test("a bad end is shown until the VM has a newer job, or the person puts it away", () => {
  const store = storeWith({
    jobs: [job("j5", "d", "interrupted"), job("j4", "c", "queued"), job("j3", "a", "failed"), job("j2", "a", "failed"), job("j1", "c", "failed"), job("j0", "d", "completed")],
  });
  const shown = () => endedBadly(store.state).map((one) => one.job_id);
  assert.deepEqual(shown(), ["j5", "j3"]);
  store.dismiss(["j5"]);
  assert.deepEqual(shown(), ["j3"]);
  store.receive({ type: "job", cursor: "c2", job: job("j6", "a", "queued") });
  assert.deepEqual(shown(), []);
  store.receive({ type: "job", cursor: "c3", job: job("j6", "a", "completed") });
  assert.deepEqual(shown(), []);
});

test("a request is pending until the feed shows what it scheduled", () => {
  const store = storeWith({ vms: [vm("a")] });
  store.requestStarted("trigger");
  store.requestAccepted("trigger", ["j1"]);
  assert.ok(isPending(store.state, "trigger"));
  store.receive({ type: "job", cursor: "c2", job: job("j1", "a", "queued") });
  assert.ok(!isPending(store.state, "trigger"));
});

test("a request is not pending when the feed was faster than its answer", () => {
  const store = storeWith({ vms: [vm("a")] });
  store.requestStarted("trigger");
  store.receive({ type: "job", cursor: "c2", job: job("j1", "a", "queued") });
  store.requestAccepted("trigger", ["j1"]);
  assert.ok(!isPending(store.state, "trigger"));
});

test("an error stays until the request is made again, or is forgotten", () => {
  const store = storeWith();
  const fail = () => store.requestFailed("trigger", "It is busy.", [{ vm_id: "a" }]);
  fail();
  assert.deepEqual(store.state.errors.get("trigger"), { sentence: "It is busy.", faults: [{ vm_id: "a" }] });
  store.requestStarted("trigger");
  assert.ok(!store.state.errors.has("trigger"));
  fail();
  store.forgetError("trigger");
  assert.ok(!store.state.errors.has("trigger"));
});

test("what is chosen stays chosen whatever is pushed, in a set of its own after each change", () => {
  const store = storeWith({ vms: [vm("a"), vm("b")] });
  store.choose(["a", "b"], true);
  const before = store.state.chosen;
  store.receive({ type: "vms", cursor: "c2", vms: [vm("a")] });
  store.choose(["b"], false);
  assert.deepEqual([...store.state.chosen], ["a"]);
  assert.deepEqual([...before], ["a", "b"]);
});

test("a cancellation is on its way until the job has ended", () => {
  const store = storeWith({ jobs: [job("j1", "a", "capturing")] });
  store.cancelAccepted("j1");
  assert.ok(store.state.cancelling.has("j1"));
  store.receive({ type: "job", cursor: "c2", job: job("j1", "a", "cancelled") });
  assert.ok(!store.state.cancelling.has("j1"));
});

test("listeners hear of each change until they leave", () => {
  const store = storeWith();
  let told = 0;
  const leave = store.subscribe(() => { told += 1; });
  store.setConnection("live");
  store.setConnection("live");
  leave();
  store.setConnection("offline");
  assert.equal(told, 1);
});

test("the time is the service's, whatever this browser's clock says", () => {
  const store = storeWith({ now: new Date(Date.now() + 86_400_000).toISOString() });
  assert.ok(Math.abs(serviceNow(store.state) - Date.now() - 86_400_000) < 1000);
  store.receive({ type: "alive", now: new Date(Date.now() - 60_000).toISOString() });
  assert.ok(Math.abs(serviceNow(store.state) - Date.now() + 60_000) < 1000);
});

test("a sign of life moves no cursor", () => {
  const store = storeWith();
  store.receive({ type: "alive", now: new Date().toISOString() });
  assert.equal(store.state.cursor, "c1");
});

test("what room is left comes with the snapshot and by itself", () => {
  const store = storeWith({ room: { free_bytes: 1 } });
  assert.equal(store.state.room.free_bytes, 1);
  store.receive({ type: "room", cursor: "c2", room: { free_bytes: 2 } });
  assert.equal(store.state.room.free_bytes, 2);
});

test("when the next try comes is forgotten as soon as the page is live", () => {
  const store = storeWith();
  store.setConnection("reconnecting", 1234);
  assert.equal(store.state.retryAt, 1234);
  store.setConnection("live");
  assert.equal(store.state.retryAt, null);
});
