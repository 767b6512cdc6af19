import assert from "node:assert/strict";
import { test } from "node:test";

import { follow } from "../../../app/static/requests.js";
import { createStore } from "../../../app/static/store.js";

const nobody = { watch: () => () => {} };

function storeWith(cursor) {
  return createStore({ cursor, hypervisor: {}, vms: [], jobs: [], stats: {}, records: [], activity: [] });
}

/** Follow a service that gives these answers, one after the other; what it was asked, and the status at the end. */
async function followed(store, answers) {
  const asked = [];
  globalThis.window = { location: { href: "http://here/memory-dumps" } };
  globalThis.fetch = async (url) => {
    asked.push(`${url.searchParams.get("since")} ${url.searchParams.get("wait")}`);
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return Response.json(answer, { status: answer.status ?? 200 });
  };
  return { asked, status: await follow(store, nobody) };
}

test("each request goes on from where the last one ended, also where no message said so", async () => {
  const store = storeWith("c1");
  const { asked, status } = await followed(store, [
    { cursor: "c2", messages: [] },
    { cursor: "c4", messages: [{ type: "stats", cursor: "c3", stats: { total_dumps: 7 } }] },
    new Error("gone"),
  ]);
  assert.deepEqual(asked, ["c1 0", "c2 25", "c4 25"]);
  assert.equal(store.state.stats.total_dumps, 7);
  assert.equal(status, 0);
});

test("the page is live by requests after the first answer, which does not wait", async () => {
  const store = storeWith("c1");
  await followed(store, [{ cursor: "c1", messages: [] }, { status: 503 }]);
  assert.equal(store.state.connection, "live");
  assert.equal(store.state.transport, "requests");
});

test("a login that is over ends it with that status", async () => {
  const { status } = await followed(storeWith("c1"), [{ status: 401 }]);
  assert.equal(status, 401);
});

test("beside it a websocket is tried each minute, and only one that speaks ends it", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const sockets = [];
  const open = () => {
    const socket = Object.assign(new EventTarget(), { closed: false, close: () => { socket.closed = true; } });
    sockets.push(socket);
    return socket;
  };
  let ended = null;
  globalThis.window = { location: { href: "http://here/memory-dumps" } };
  globalThis.fetch = async () => {
    await new Promise(setImmediate);
    return Response.json({ cursor: "c1", messages: [] });
  };
  const following = follow(storeWith("c1"), nobody, open).then((status) => { ended = status; });
  t.mock.timers.tick(60_000);
  t.mock.timers.tick(4000);
  await new Promise(setImmediate);
  assert.deepEqual(sockets.map(({ closed }) => closed), [true]);
  assert.equal(ended, null);
  t.mock.timers.tick(56_000);
  sockets[1].dispatchEvent(new Event("message"));
  await following;
  assert.equal(ended, 200);
  assert.equal(sockets[1].closed, true);
});
