import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { connect } from "../../../app/static/connection.js";
import { createStore } from "../../../app/static/store.js";

const STEP_MS = 50;
const SILENT_MS = 14_000; // after which every page has noticed
const WITHIN_MS = 5000;

/** A network that answers soon, refuses, or swallows what it is given; a page that follows a service behind it. */
function world() {
  const network = { state: "up", sockets: 0 };
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  mock.method(Math, "random", () => 0.999);
  mock.method(performance, "now", () => Date.now());
  globalThis.window = { location: { href: "http://here/memory-dumps" }, addEventListener() {} };
  globalThis.document = { addEventListener() {}, visibilityState: "visible" };
  globalThis.fetch = (_path, { signal }) =>
    new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      if (network.state === "up") setTimeout(resolve, 30, { status: 200 });
      if (network.state === "refuses") setTimeout(reject, 5, new TypeError("refused"));
    });
  globalThis.WebSocket = class extends EventTarget {
    static CONNECTING = 0;
    readyState = 0;
    constructor() {
      super();
      network.sockets += 1;
      if (network.state === "up") setTimeout(() => this.#open(), 30);
      if (network.state === "refuses") setTimeout(() => this.dispatchEvent(Object.assign(new Event("close"), { code: 1006 })), 5);
    }
    #open() {
      this.readyState = 1;
      this.dispatchEvent(new Event("open"));
      const say = () => network.state === "up" && this.dispatchEvent(Object.assign(new Event("message"), { data: '{"type": "alive"}' }));
      say();
      this.talk = setInterval(say, 5000);
    }
    close() {
      clearInterval(this.talk);
    }
  };
  const store = createStore({ hypervisor: {}, vms: [], jobs: [], stats: {}, records: [], activity: [] });
  connect(store, () => assert.fail("nobody was logged out"));
  return { network, store };
}

async function pass(milliseconds) {
  for (let passed = 0; passed < milliseconds; passed += STEP_MS) {
    mock.timers.tick(STEP_MS);
    await new Promise(setImmediate);
  }
}

for (const state of ["swallows", "refuses"]) {
  test(`live again within five seconds, whenever a network that ${state} what it is given is back`, async () => {
    const { network, store } = world();
    try {
      for (let more = 0; more < 12_000; more += 350) {
        await pass(3000);
        assert.equal(store.state.connection, "live");
        network.state = state;
        await pass(SILENT_MS);
        network.sockets = 0;
        await pass(more);
        assert.notEqual(store.state.connection, "live");
        assert.equal(network.sockets, 0, "a browser delays websockets after many that failed");
        network.state = "up";
        await pass(WITHIN_MS);
        assert.equal(store.state.connection, "live", `${more} ms later`);
      }
    } finally {
      mock.reset();
      mock.timers.reset();
    }
  });
}
