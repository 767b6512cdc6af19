import assert from "node:assert/strict";
import { test } from "node:test";

import { parse } from "../../../app/static/address.js";
import { createList, keyOf, news } from "../../../app/static/list.js";
import { pageOf, planOf } from "../../../app/static/pages.js";

const signal = new AbortController().signal;
const record = (number) => ({ dump_id: `d${number}`, timestamp: `${1e6 + number}` });

/** A service with `count` records, d1 the oldest; what it was asked. */
function serviceWith(count) {
  const service = { count, asked: [], delays: [] };
  service.ask = async (path, stop) => {
    const query = new URL(path, "http://here").searchParams;
    service.asked.push(String(query));
    await service.delays.shift();
    stop.throwIfAborted();
    const numbers = Array.from({ length: service.count }, (_, place) => place + 1);
    if (query.get("order") !== "asc") numbers.reverse();
    const begin = query.has("cursor") ? Number(query.get("cursor")) : Number(query.get("offset") ?? 0);
    const end = begin + Number(query.get("limit"));
    return { records: numbers.slice(begin, end).map(record), count: service.count, next_cursor: end < service.count ? String(end) : null };
  };
  return service;
}

const ids = (page) => page.records.map((one) => one.dump_id);
const stateWith = (count) => ({
  records: Array.from({ length: Math.min(count, 50) }, (_, place) => record(count - place)),
  stats: { total_dumps: count },
});
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("the next page is a step from the one before, and the last one is near from the other end", () => {
  const view = parse("?q=a&limit=25");
  const known = { key: keyOf(view), page: 1, count: 1003, next: "here" };
  assert.equal(String(planOf({ ...view, page: 2 }, known).query), "q=a&cursor=here&limit=25");
  assert.equal(String(planOf({ ...view, page: 3 }, known).query), "q=a&offset=50&limit=25");
  assert.equal(String(planOf({ ...view, page: 41 }, known).query), "q=a&order=asc&offset=0&limit=3");
  assert.equal(String(planOf({ ...view, page: 40 }, known).query), "q=a&order=asc&offset=3&limit=25");
  assert.equal(String(planOf({ ...view, page: 40, q: "b" }, known).query), "q=b&offset=975&limit=25");
});

test("every page is the same from both ends, in both orders", async () => {
  for (const order of ["desc", "asc"]) {
    for (let page = 1; page <= 5; page += 1) {
      const service = serviceWith(103);
      const view = { ...parse(`?order=${order}&limit=25`), page };
      const known = { key: keyOf(view), page: 0, count: 103, next: null };
      assert.deepEqual(ids(await pageOf(view, known, service.ask, signal)), ids(await pageOf(view, null, service.ask, signal)));
    }
  }
});

test("the last page is right although there are more than was known", async () => {
  const service = serviceWith(60);
  const view = { ...parse("?limit=25"), page: 2 };
  const page = await pageOf(view, { key: keyOf(view), page: 1, count: 50, next: null }, service.ask, signal);
  assert.deepEqual(ids(page), Array.from({ length: 25 }, (_, place) => `d${35 - place}`));
});

test("a page behind the last one is the last one", async () => {
  const page = await pageOf(parse("?page=99&limit=25"), null, serviceWith(60).ask, signal);
  assert.equal(page.view.page, 3);
  assert.equal(page.records.length, 10);
});

test("of two views that are asked for one after the other, the later one is shown, whichever answer comes first", async () => {
  const service = serviceWith(500);
  const list = createList(parse(""), null, () => {}, assert.fail, service.ask);
  list.follow(stateWith(500));
  let free;
  service.delays.push(new Promise((resolve) => { free = resolve; }));
  list.show(parse("?page=2"));
  list.show(parse("?page=5"));
  await settled();
  free();
  await settled();
  assert.equal(list.view.page, 5);
  assert.equal(list.shown.records[0].dump_id, "d300");
  assert.equal(list.busy, false);
});

test("the newest records come from the feed alone", () => {
  const service = serviceWith(0);
  const list = createList(parse("?limit=25"), null, () => {}, assert.fail, service.ask);
  list.follow(stateWith(70));
  assert.equal(list.shown.records.length, 25);
  assert.equal(list.shown.count, 70);
  list.follow(stateWith(72));
  assert.equal(news(list.shown, list.latest), 2);
  list.accept();
  assert.equal(list.shown.records[0].dump_id, "d72");
  assert.deepEqual(service.asked, []);
});

test("a page that the server wrote is not asked for again, and goes on from there", async () => {
  const service = serviceWith(70);
  const written = await pageOf(parse("?order=asc&limit=25"), null, service.ask, signal);
  service.asked.length = 0;
  const list = createList(parse("?order=asc&limit=25"), written, () => {}, assert.fail, service.ask);
  list.follow(stateWith(70));
  await settled();
  assert.equal(list.shown.records, written.records);
  assert.deepEqual(service.asked, []);
  list.show({ ...list.view, page: 2 });
  await settled();
  assert.equal(list.shown.records[0].dump_id, "d26");
  assert.match(service.asked.at(-1), /cursor=/);
});

test("on another page only the count follows", async () => {
  const service = serviceWith(70);
  const list = createList(parse("?page=2"), null, () => {}, assert.fail, service.ask);
  list.follow(stateWith(70));
  await settled();
  const before = list.shown.records;
  list.follow(stateWith(71));
  assert.equal(list.latest.count, 71);
  assert.equal(list.latest.records, before);
  assert.equal(service.asked.length, 1);
});

test("with filters the service is asked whether a new record fits, never twice at once", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const service = serviceWith(3);
  const list = createList(parse("?q=a"), null, () => {}, assert.fail, service.ask);
  list.follow(stateWith(3));
  await settled();
  for (const count of [4, 5, 6]) list.follow(stateWith(count));
  assert.equal(service.asked.length, 1);
  let free;
  service.delays.push(new Promise((resolve) => { free = resolve; }));
  service.count = 5;
  t.mock.timers.tick(300);
  assert.equal(service.asked.length, 2);
  list.follow(stateWith(7));
  t.mock.timers.tick(3000);
  assert.equal(service.asked.length, 2);
  free();
  await settled();
  assert.equal(news(list.shown, list.latest), 2);
  t.mock.timers.tick(300);
  await settled();
  assert.equal(service.asked.length, 3);
});

test("on the last page of the oldest first, which new records belong to, the service is asked for them", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  for (const address of ["?order=asc&page=3&limit=25", "?q=a&order=asc&page=3&limit=25"]) {
    const service = serviceWith(70);
    const list = createList(parse(address), null, () => {}, assert.fail, service.ask);
    list.follow(stateWith(70));
    await settled();
    assert.equal(list.shown.records.length, 20);
    service.count = 72;
    list.follow(stateWith(71));
    list.follow(stateWith(72));
    t.mock.timers.tick(300);
    await settled();
    assert.equal(news(list.shown, list.latest), 2);
    assert.equal(list.latest.records.at(-1).dump_id, "d72");
    list.accept();

    service.count = 80; // more than there is room for
    list.follow(stateWith(80));
    t.mock.timers.tick(300);
    await settled();
    assert.equal(list.latest.records.length, 25);
    assert.equal(list.latest.count, 80);
    assert.equal(news(list.shown, list.latest), 8);
    list.accept();
    assert.equal(list.view.page, 3);
  }
});

test("on an earlier page of the oldest first only the count follows", async () => {
  const service = serviceWith(70);
  const list = createList(parse("?order=asc&limit=25"), null, () => {}, assert.fail, service.ask);
  list.follow(stateWith(70));
  await settled();
  list.follow(stateWith(71));
  await settled();
  assert.equal(list.latest.count, 71);
  assert.equal(service.asked.length, 1);
});

test("a record that comes while a page is asked for is not overlooked", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const service = serviceWith(3);
  const list = createList(parse("?q=a"), null, () => {}, assert.fail, service.ask);
  list.follow(stateWith(3));
  list.follow(stateWith(4));
  await settled();
  service.count = 4;
  t.mock.timers.tick(300);
  await settled();
  assert.equal(list.latest.count, 4);
});

test("a refusal is a sentence, and what was shown can be asked for again", async () => {
  const service = serviceWith(100);
  const list = createList(parse("?page=2"), null, () => {}, assert.fail, async (...asked) => {
    if (service.fails) throw Object.assign(new Error("The state is in use."), { status: 503 });
    return service.ask(...asked);
  });
  service.fails = true;
  list.follow(stateWith(100));
  await settled();
  assert.equal(list.error, "The state is in use.");
  service.fails = false;
  list.load();
  await settled();
  assert.equal(list.error, null);
  assert.equal(list.shown.records.length, 50);
});

test("a login that is over leads away", async () => {
  let left = false;
  const list = createList(parse("?page=2"), null, () => {}, () => { left = true; }, async () => {
    throw Object.assign(new Error("Log in."), { status: 401 });
  });
  list.follow(stateWith(100));
  await settled();
  assert.ok(left);
});
