// The live feed: opened, kept open, resumed where it broke off.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 10_000;
const OFFLINE_AFTER = 4;
const TOO_SLOW = 4008;
const STEADY_MS = 2000;

/** The wait before attempt `attempt` (0 is the first): growing, and never the same for two pages. `random` is in [0, 1). */
export function delayMs(attempt, random) {
  const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return FIRST_DELAY_MS / 2 + random * (longest - FIRST_DELAY_MS / 2);
}

/** Feed `store` for as long as the page lives. `leave` is called when the service does not know the person any more. */
export function connect(store, leave) {
  let failures = 0;
  let timer = null;

  const open = () => {
    timer = null;
    let openedAt = null;
    const socket = new WebSocket(address(store.state.cursor));
    socket.addEventListener("message", (event) => store.receive(JSON.parse(event.data)));
    socket.addEventListener("open", () => {
      openedAt = performance.now();
      store.setConnection("live");
    });
    socket.addEventListener("close", (event) => closed(event.code, openedAt !== null && performance.now() - openedAt > STEADY_MS));
  };

  // A connection that broke at once counts as a failure too, or a service that closes every one would be asked without a pause.
  const closed = async (code, wasSteady) => {
    if (wasSteady) failures = 0;
    if (wasSteady && code === TOO_SLOW) {
      open();
      return;
    }
    failures += 1;
    store.setConnection(failures >= OFFLINE_AFTER ? "offline" : "reconnecting");
    timer = setTimeout(open, delayMs(failures - 1, Math.random()));
    if (await isLoggedOut()) leave();
  };

  const now = () => {
    if (timer === null) return;
    clearTimeout(timer);
    open();
  };

  window.addEventListener("online", now);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") now();
  });
  open();
}

function address(cursor) {
  const url = new URL("/api/memory-dumps/ws", window.location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (cursor) url.searchParams.set("since", cursor);
  return url;
}

/** A refused upgrade does not tell its status to a script; an ordinary request does. */
async function isLoggedOut() {
  try {
    const response = await fetch("/api/memory-dumps/status", { cache: "no-store" });
    return response.status === 401;
  } catch {
    return false; // the service is away, which says nothing about the session
  }
}
