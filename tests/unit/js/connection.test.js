import assert from "node:assert/strict";
import { test } from "node:test";

import { delayMs } from "../../../app/static/connection.js";

test("the wait grows to four seconds and no further", () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5, 50].map((attempt) => delayMs(attempt, 1)), [250, 500, 1000, 2000, 4000, 4000, 4000]);
});

test("the wait differs from page to page and is never nothing", () => {
  assert.equal(delayMs(5, 0), 2000);
  assert.equal(delayMs(0, 0), 125);
  assert.notEqual(delayMs(3, 0.2), delayMs(3, 0.8));
});
