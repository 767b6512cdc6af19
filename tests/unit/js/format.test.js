import assert from "node:assert/strict";
import { test } from "node:test";

import { bytes, far, pause, percent, rate, remaining, short, vmCount, when } from "../../../app/static/format.js";

test("what is not known is a dash", () => {
  for (const figure of [bytes, pause, remaining, rate, when]) assert.equal(figure(null), "–");
  assert.equal(remaining(undefined), "–");
});

test("a guest pause is in milliseconds until it is a second long", () => {
  assert.equal(pause(0), "0 ms");
  assert.equal(pause(8.24), "8.2 ms");
  assert.equal(pause(14.2), "14 ms");
  assert.equal(pause(999.4), "999 ms");
  assert.equal(pause(1250), "1.25 s");
});

test("the remaining time does not promise fractions of a second", () => {
  assert.equal(remaining(0.3), "under 1 s");
  assert.equal(remaining(12.1), "13 s");
  assert.equal(remaining(245), "4 min 05 s");
});

test("a rate of nothing is not a rate", () => {
  assert.equal(rate(0), "–");
  assert.equal(rate(812 * 2 ** 20), "812 MiB/s");
});

test("per cent are whole, never over a hundred, and unknown without a total", () => {
  assert.equal(percent(null), null);
  assert.equal(percent({ bytes_done: 5, bytes_total: 0 }), null);
  assert.equal(percent({ bytes_done: 999, bytes_total: 1000 }), 99);
  assert.equal(percent({ bytes_done: 1001, bytes_total: 1000 }), 100);
});

test("how far a live capture is says its pass once it reads again", () => {
  const progress = { bytes_done: 45, bytes_total: 100, iteration: 1 };
  assert.equal(far(progress), "45 %");
  assert.equal(far({ ...progress, iteration: 3 }), "pass 3");
  assert.equal(far({ ...progress, bytes_total: 0 }), "–");
  assert.equal(far(null), "–");
});

test("one VM is not plural", () => {
  assert.equal(vmCount(1), "1 VM");
  assert.equal(vmCount(3), "3 VMs");
});

test("a hash is shortened to its head", () => {
  assert.equal(short("0123456789abcdef"), "0123456789ab");
});
