// The loop that keeps the live feed, with a service whose answers are written down: what it tries, and in which order.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { connect } from "../../../app/static/connection.js";
import { createStore } from "../../../app/static/store.js";

const ALIVE = JSON.stringify({ type: "alive", now: "2026-11-23T10:30:00Z" });

/** A page at a service: `sockets` says what each websocket does, one after the other; `status` what plain requests get. */
function page({ sockets, status = 200 }) {
  mock.reset();
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  mock.method(performance, "now", () => Date.now());
  const seen = { opened: 0, left: false, asked: [], states: [] };
  const store = createStore({ cursor: "c1", hypervisor: {}, vms: [], jobs: [], stats: {}, records: [], activity: [] });
  store.subscribe(({ connection, transport }) => {
    const state = transport === "requests" ? `${connection} by requests` : connection;
    if (seen.states.at(-1) !== state) seen.states.push(state);
  });
  globalThis.window = { location: { href: "http://here/memory-dumps" }, addEventListener: () => {} };
  globalThis.document = { visibilityState: "visible", addEventListener: () => {} };
  globalThis.fetch = async (url) => {
    const path = String(url);
    seen.asked.push(path.includes("/changes") ? "changes" : "status");
    if (status === 0) throw new TypeError("nobody there");
    if (seen.asked.filter((one) => one === "changes").length > 2) return new Promise(() => {}); // a long request waits
    return Response.json({ cursor: "c2", messages: [] }, { status });
  };
  globalThis.WebSocket = class extends EventTarget {
    static CONNECTING = 0;
    readyState = 0;
    constructor() {
      super();
      seen.opened += 1;
      const behaviour = sockets.shift() ?? (() => {});
      queueMicrotask(() => behaviour(this));
    }
    close() {}
    say(type, more = {}) {
      if (type === "open") this.readyState = 1;
      this.dispatchEvent(Object.assign(new Event(type), more));
    }
  };
  connect(store, () => { seen.left = true; });
  return { store, seen };
}

const refused = (socket) => socket.say("close", { code: 1006 });
const speaks = (socket) => {
  socket.say("open");
  socket.say("message", { data: ALIVE });
};

/** Let what is ready happen, and the time go on. */
async function pass(milliseconds) {
  for (let gone = 0; gone <= milliseconds; gone += 250) {
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    mock.timers.tick(250);
  }
}

test("a websocket that never opens while plain requests are answered gives way to long requests", async () => {
  const { store, seen } = page({ sockets: [refused, refused] });
  await pass(3000);
  assert.equal(store.state.connection, "live");
  assert.equal(store.state.transport, "requests");
  assert.equal(seen.opened, 2);
});

test("a service that is away is no proxy that blocks", async () => {
  const { store, seen } = page({ sockets: [refused], status: 0 });
  await pass(8000);
  assert.equal(store.state.transport, "websocket");
  assert.equal(store.state.connection, "offline");
  assert.ok(seen.asked.length >= 5, `${seen.asked.length} tries in eight seconds`);
  assert.ok(!seen.asked.includes("changes"));
  assert.equal(seen.opened, 1); // before one is worth it
});

test("a websocket that comes at the second try is live, and nothing else is asked for", async () => {
  const { store, seen } = page({ sockets: [refused, speaks] });
  await pass(1000);
  assert.equal(store.state.connection, "live");
  assert.equal(store.state.transport, "websocket");
  assert.deepEqual(seen.asked, ["status"]);
});

test("who is logged out leaves, and tries no more", async () => {
  const { seen } = page({ sockets: [refused], status: 401 });
  await pass(5000);
  assert.ok(seen.left);
  assert.equal(seen.opened, 1);
});
