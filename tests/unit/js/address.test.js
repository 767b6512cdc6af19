import assert from "node:assert/strict";
import { test } from "node:test";

import { createHistory, filtersOf, format, isNewest, parse, withoutFilters } from "../../../app/static/address.js";

/** A browser's address bar and history: `at` is where it is, `back` steps. */
function browserAt(address) {
  const entries = [address];
  let place = 0;
  let heard;
  const arrive = () => {
    const url = new URL(entries[place], "http://here");
    globalThis.location = { search: url.search, pathname: url.pathname };
  };
  globalThis.history = {
    state: null,
    pushState(_state, _title, url) {
      place += 1;
      entries.splice(place, Infinity, url);
      arrive();
    },
    replaceState(_state, _title, url) {
      entries[place] = url;
      arrive();
    },
  };
  globalThis.addEventListener = (_event, act) => {
    heard = act;
  };
  arrive();
  return {
    entries,
    go(steps) {
      place += steps;
      arrive();
      heard();
    },
  };
}

test("an address without anything is the newest records", () => {
  const view = parse("");
  assert.ok(isNewest(view));
  assert.equal(format(view), "/memory-dumps");
  assert.equal(String(filtersOf(view)), "");
});

test("what is said comes back, whatever it is", () => {
  const view = { ...parse(""), q: "100% & <b>ü 🦊", vm: "a=b&c", from: "2026-11-01", to: "2026-11-23T10:30:00+02:00", order: "asc", page: 7, limit: 250, sizes: "stored" };
  assert.deepEqual(parse(new URL(format(view), "http://here").search), view);
});

test("what cannot be is left out, and the rest counts", () => {
  const view = parse("?q=web&date=2026-02-30&page=0&limit=51&order=up&sizes=&foo=1&q=twice");
  assert.deepEqual(view, { ...parse(""), q: "web" });
});

test("the API is asked for a VM by its name, and not for pages or sizes", () => {
  assert.equal(String(filtersOf(parse("?vm=web-01&page=3&sizes=stored&order=asc"))), "dom=web-01&order=asc");
});

test("without filters one is at the first page, in the same order and size", () => {
  assert.equal(format(withoutFilters(parse("?q=a&vm=b&date=2026-01-01&page=4&order=asc&limit=25"))), "/memory-dumps?order=asc&limit=25");
});

test("one step back leads from what was typed to what was there before, not through its letters", () => {
  const browser = browserAt("/memory-dumps?vm=web");
  const gone = [];
  const bar = createHistory((view) => gone.push(format(view)));
  for (const q of ["a", "ab", "abc"]) bar.replace({ ...bar.view(), q });
  assert.deepEqual(browser.entries, ["/memory-dumps?q=abc&vm=web"]);
  bar.push(bar.view());
  assert.deepEqual(browser.entries, ["/memory-dumps?vm=web", "/memory-dumps?q=abc&vm=web"]);
  bar.push(bar.view());
  assert.equal(browser.entries.length, 2);
  browser.go(-1);
  browser.go(1);
  assert.deepEqual(gone, ["/memory-dumps?vm=web", "/memory-dumps?q=abc&vm=web"]);
});

test("who takes back what was typed has made no step", () => {
  const browser = browserAt("/memory-dumps");
  const bar = createHistory(() => {});
  bar.replace({ ...bar.view(), q: "a" });
  bar.replace({ ...bar.view(), q: "" });
  bar.push(bar.view());
  assert.deepEqual(browser.entries, ["/memory-dumps"]);
});

test("the address of the details keeps its path when the list below corrects its page", () => {
  const browser = browserAt("/memory-dumps/some-id?page=99");
  const bar = createHistory(() => assert.fail());
  bar.correct({ ...bar.view(), page: 3 });
  assert.deepEqual(browser.entries, ["/memory-dumps/some-id?page=3"]);
});
