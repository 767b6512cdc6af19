import assert from "node:assert/strict";
import { test } from "node:test";

import { everyDay, lastDays, queryOf, wrongWith } from "../../../app/static/days.js";

test("the last days end with today, by the clock that is given, in UTC", () => {
  assert.deepEqual(lastDays(7, Date.parse("2026-03-01T00:30:00+02:00")), { from: "2026-02-22", to: "2026-02-28" });
  assert.deepEqual(lastDays(1, Date.parse("2026-03-01T00:00:00Z")), { from: "2026-03-01", to: "2026-03-01" });
});

test("days without a dump are zero", () => {
  const rows = everyDay({ from: "2024-02-28", to: "2024-03-01" }, [{ day: "2024-02-29", total_dumps: 3, total_size_bytes: 5 }]);
  assert.deepEqual(rows.map((row) => [row.day, row.total_dumps, row.total_size_bytes]), [["2024-02-28", 0, 0], ["2024-02-29", 3, 5], ["2024-03-01", 0, 0]]);
});

test("the last day of a range is asked for, too", () => {
  assert.equal(String(queryOf({ from: "2026-12-01", to: "2026-12-31" }, "day")), "by=day&from=2026-12-01&to=2027-01-01");
});

test("a range that is none is said in words", () => {
  assert.equal(wrongWith({ from: "2026-01-01", to: "2026-01-01" }), null);
  assert.match(wrongWith({ from: "", to: "2026-01-01" }), /both days/);
  assert.match(wrongWith({ from: "2026-01-02", to: "2026-01-01" }), /before/);
  assert.match(wrongWith({ from: "1900-01-01", to: "2026-01-01" }), /at most/);
});
