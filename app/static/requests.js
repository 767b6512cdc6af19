// The live feed as long requests, one after the other, for where websockets do not come through. Loaded when it is needed.

const WAIT_SEC = 25;
const TRY_SOCKET_MS = 60_000;
const SPEAKS_WITHIN_MS = 4000;
const LATE_MS = 10_000;

/**
 * Feed `store` until that fails or a websocket speaks, of which `open` opens one beside it each minute; gives the last HTTP status, 0 if
 * there was no answer.
 */
export async function follow(store, alarm, open) {
  let spoken = false;
  const tries = setInterval(async () => {
    spoken ||= await speaks(open());
  }, TRY_SOCKET_MS);
  try {
    store.setTransport("requests");
    // The first one asks for what is there and does not wait: so one knows at once that this way works.
    for (let wait = 0; !spoken; wait = WAIT_SEC) {
      const answer = await ask(store.state.cursor, wait, alarm);
      if (answer.status !== 200) return answer.status;
      store.setConnection("live");
      for (const message of answer.messages) store.receive(message);
      store.setCursor(answer.cursor);
    }
    return 200;
  } finally {
    clearInterval(tries);
  }
}

/** Whether anything comes through `socket`, which is closed then. */
function speaks(socket) {
  return new Promise((resolve) => {
    const end = (spoken) => {
      resolve(spoken);
      socket.close();
    };
    socket.addEventListener("message", () => end(true));
    socket.addEventListener("close", () => end(false));
    setTimeout(end, SPEAKS_WITHIN_MS, false);
  });
}

async function ask(cursor, wait, alarm) {
  const url = new URL("/api/memory-dumps/changes", window.location.href);
  url.searchParams.set("wait", wait);
  if (cursor) url.searchParams.set("since", cursor);
  const abort = new AbortController();
  const asked = Date.now();
  const unwatch = alarm.watch(() => {
    if (Date.now() - asked > wait * 1000 + LATE_MS) abort.abort(); // slept through, most likely
  });
  try {
    const response = await fetch(url, { cache: "no-store", signal: abort.signal });
    return response.ok ? { status: response.status, ...(await response.json()) } : { status: response.status };
  } catch {
    return { status: 0 };
  } finally {
    unwatch();
  }
}
