// The live feed: opened, kept open, resumed where it broke off; by a websocket or, where none comes through, by long requests.

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 4000;
const OFFLINE_AFTER_MS = 4000;
const BLOCKED_AFTER = 2;
const TOO_SLOW = 4008;
const STEADY_MS = 2000;
const SPEAKS_WITHIN_MS = 4000;
const ANSWERS_WITHIN_MS = 4000; // in a network that swallows everything; the wait for the next try goes on meanwhile
const SILENT_MS = 12_000; // the service says something every five seconds
const SUSPICIOUS_MS = 7000;
const TICK_MS = 1000;

/** The wait before attempt `attempt` (0 is the first): growing, and never the same for two pages. `random` is in [0, 1). */
export function delayMs(attempt, random) {
  const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return longest / 2 + (random * longest) / 2;
}

/**
 * Feed `store` for as long as the page lives. `leave` is called when the service does not know the person any more. `topics` are those
 * that the page wants to hear of, all if none are named.
 *
 * While nobody answers, ordinary requests look for the service, and a websocket is tried when one was answered: a browser delays
 * websockets by seconds after many that failed. A try takes its four seconds whether it is refused or unanswered, so a network
 * that is back is noticed within them.
 */
export async function connect(store, leave, topics = "") {
  const alarm = wakers();
  let failures = 0;
  let blocked = 0;
  let lostAt = null;
  const show = (retryAt) => store.setConnection(performance.now() - lostAt >= OFFLINE_AFTER_MS ? "offline" : "reconnecting", retryAt);
  const rest = async (since) => {
    const until = since + delayMs(failures, Math.random());
    failures += 1;
    show(until);
    await alarm.sleep(Math.max(0, until - performance.now()));
  };
  for (;;) {
    const begun = performance.now();
    const { heard, steady, code } = await overSocket(store, alarm, topics);
    if (steady) failures = 0; // one that breaks at once counts as a failure, or a service that closes every one would get no rest
    if (steady && code === TOO_SLOW) continue; // we were behind, which a snapshot mends and no wait
    if (steady) lostAt = null;
    lostAt ??= performance.now();
    if (blocked < BLOCKED_AFTER) show();
    let since = heard ? performance.now() : begun;
    let status = await statusNow();
    blocked = !heard && status === 200 ? blocked + 1 : 0;
    if (blocked >= BLOCKED_AFTER) {
      const requests = await import("./requests.js").catch(() => null); // the service may be away at this very moment
      status = (await requests?.follow(store, alarm, () => new WebSocket(address(null, "room")))) ?? 0; // until it fails, or a websocket speaks
      if (status === 200) continue; // and if that fails, too, we are back here at once
      blocked = BLOCKED_AFTER - 1;
      failures = 0;
      lostAt = performance.now();
    }
    if (status !== 0 && status !== 401) await rest(since);
    while (status === 0) {
      await rest(since);
      since = performance.now();
      status = await statusNow();
    }
    if (status === 401) return leave();
  }
}

/** One websocket, to its end: whether it ever said anything, whether it stood for a while, and the code that it was closed with. */
function overSocket(store, alarm, topics) {
  return new Promise((resolve) => {
    const socket = new WebSocket(address(store.state.cursor, topics));
    let heard = false;
    let last = clock();
    let heardAt = Infinity;
    const end = (code) => {
      ears.abort();
      unwatch();
      socket.close();
      resolve({ heard, steady: performance.now() - heardAt > STEADY_MS, code });
    };
    const ears = new AbortController();
    const listen = (event, act) => socket.addEventListener(event, act, { signal: ears.signal });
    const silence = () => Math.max(...clock().map((now, which) => now - last[which]));

    // A connection that a laptop slept through, or that a proxy forgot, looks open and says nothing.
    const unwatch = alarm.watch((woken) => {
      const longest = !heard ? SPEAKS_WITHIN_MS : woken ? SUSPICIOUS_MS : SILENT_MS;
      if (silence() > longest) end(null);
    });
    listen("message", (event) => {
      heard = true; // only now it is live: a proxy may open one that nothing comes through
      heardAt = Math.min(heardAt, performance.now());
      last = clock();
      store.setTransport("websocket");
      store.setConnection("live");
      store.receive(JSON.parse(event.data));
    });
    listen("close", (event) => end(event.code));
  });
}

/** Two clocks: the one does not stand still in a laptop's sleep, the other is not set by anybody. */
function clock() {
  return [Date.now(), performance.now()];
}

/** What ends a wait early, and looks whether a connection still lives: once a second, and whenever the page comes back to life. */
function wakers() {
  const watchers = new Set();
  let wake = () => {};
  const look = (woken) => {
    for (const watcher of watchers) watcher(woken);
  };
  const woken = () => {
    if (document.visibilityState !== "visible") return;
    wake();
    look(true);
  };
  setInterval(() => look(false), TICK_MS);
  for (const event of ["online", "pageshow", "focus"]) window.addEventListener(event, woken);
  document.addEventListener("visibilitychange", woken);
  return {
    watch(watcher) {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    sleep(milliseconds) {
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    },
  };
}

function address(cursor, topics) {
  const url = new URL("/api/memory-dumps/ws", window.location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (cursor) url.searchParams.set("since", cursor);
  if (topics) url.searchParams.set("topics", topics);
  return url;
}

/** How an ordinary request fares: its HTTP status, or 0. A refused upgrade does not tell its status to a script. */
async function statusNow() {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), ANSWERS_WITHIN_MS);
  try {
    const { status } = await fetch("/api/memory-dumps/status", { cache: "no-store", headers: { "X-Unattended": "1" }, signal: late.signal });
    return status < 500 ? status : 0; // what a proxy says of a service that is away
  } catch {
    return 0; // the service is away, which says nothing about the session
  } finally {
    clearTimeout(timer);
  }
}
