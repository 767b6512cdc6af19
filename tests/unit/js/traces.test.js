import assert from "node:assert/strict";
import test from "node:test";

import { createTraces, curve } from "../../../app/static/traces.js";

/** Traces by a clock that the test turns. */
function traced() {
  const clock = { now: 0 };
  return { clock, traces: createTraces(() => clock.now) };
}

const job = (id, progress = null) => ({ job_id: id, progress });
const still = (paused, rate = 100) => ({ guest_paused: paused, rate_bytes_per_sec: rate });

test("how long a guest stands still goes on between messages, and is added up over several times", () => {
  const { clock, traces } = traced();
  traces.note([job("a")]);
  assert.deepEqual(traces.stood("a"), { sum: 0, current: null, whole: true });
  traces.note([job("a", still(true))]);
  clock.now = 300;
  assert.deepEqual(traces.stood("a"), { sum: 300, current: 300, whole: true });
  traces.note([job("a", still(true))]);
  clock.now = 500;
  traces.note([job("a", still(false))]);
  clock.now = 900;
  traces.note([job("a", still(true))]);
  clock.now = 1000;
  assert.deepEqual(traces.stood("a"), { sum: 600, current: 100, whole: true });
});

test("of a dump that was found in its middle nobody knows how long its guest stood still before", () => {
  const { clock, traces } = traced();
  traces.note([job("a", still(true)), job("b", still(false))]);
  clock.now = 40;
  assert.deepEqual(traces.stood("a"), { sum: 40, current: 40, whole: false });
  assert.deepEqual(traces.stood("b"), { sum: 0, current: null, whole: false });
});

test("while nothing is heard no time is counted", () => {
  const { clock, traces } = traced();
  traces.note([job("a")]);
  traces.note([job("a", still(true))]);
  clock.now = 100;
  traces.note([job("a", still(true))]);
  clock.now = 5000;
  traces.gap();
  clock.now = 9000;
  assert.deepEqual(traces.stood("a"), { sum: 100, current: null, whole: false });
  traces.note([job("a", still(true))]);
  clock.now = 9050;
  assert.deepEqual(traces.stood("a"), { sum: 150, current: 50, whole: false });
});

test("a connection that is still away when the same is seen again starts no clock", () => {
  const { clock, traces } = traced();
  const standing = [job("a", still(true))];
  traces.note(standing);
  clock.now = 70;
  traces.gap();
  traces.note(standing, false);
  clock.now = 700;
  assert.equal(traces.stood("a").current, null);
});

test("the rate is kept for a while: one in a fifth of a second, sixty in all", () => {
  const { clock, traces } = traced();
  for (let step = 0; step < 1000; step += 1) {
    clock.now = step * 100;
    traces.note([job("a", still(false, step))]);
  }
  const rates = traces.rates("a");
  assert.equal(rates.length, 60);
  assert.deepEqual(rates.slice(-2), [996, 998]);
});

test("of jobs that are gone nothing is kept", () => {
  const { traces } = traced();
  traces.note([job("a"), job("b")]);
  traces.note([job("b")]);
  assert.equal(traces.stood("a"), null);
  assert.deepEqual(traces.rates("a"), []);
});

test("a curve ends at the right, reaches the top with its highest rate and lies at the bottom without any", () => {
  assert.equal(curve([]), "");
  assert.equal(curve([0, 0]), "58,19.0 59,19.0");
  assert.equal(curve([50, 100]), "58,10.0 59,1.0");
});
