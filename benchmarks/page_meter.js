// Before any script of a page: what comes over its websocket, when it is seen in a list of jobs, and what that costs. Nothing of the page
// knows about it.
{
  const arrived = new Map(); // job → moments, as bytes, of reports that are not seen yet
  let waits = [];
  let costs = [];
  let undrawn = []; // costs of messages that no frame has drawn yet
  let longest = 0;
  let shift = 0;
  const report = /^\{"type":"progress","job_id":"([^"]+)".*?"bytes_done":(\d+)/;

  const timed = (act) => {
    const since = performance.now();
    act();
    return performance.now() - since;
  };

  const { WebSocket: Socket } = window;
  window.WebSocket = class extends Socket {
    constructor(...args) {
      super(...args);
      super.addEventListener("message", ({ data }) => {
        const [, job, done] = report.exec(data) ?? [];
        if (job) arrived.set(job, [...(arrived.get(job) ?? []), Number(done)]);
      });
    }

    addEventListener(type, act, options) {
      if (type !== "message") return super.addEventListener(type, act, options);
      return super.addEventListener(type, (event) => undrawn.push(timed(() => act(event))), options);
    }
  };

  const frame = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (act) =>
    frame((now) => {
      const drawn = timed(() => act(now));
      costs.push(...undrawn.map((cost) => cost + drawn / undrawn.length));
      undrawn = [];
    });

  const watch = (list) =>
    new MutationObserver((changes) => {
      const now = performance.timeOrigin + performance.now();
      for (const { target } of changes) {
        const element = target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement;
        const job = element?.closest("[data-job-id]")?.dataset.jobId;
        for (const done of arrived.get(job) ?? []) waits.push([now, done]);
        arrived.delete(job);
      }
    }).observe(list, { subtree: true, childList: true, characterData: true, attributes: true });

  addEventListener("DOMContentLoaded", () => {
    const list = document.getElementById("jobs-list");
    if (list) watch(list);
  });

  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
  }).observe({ type: "longtask" });
  new PerformanceObserver((list) => {
    for (const { value } of list.getEntries()) shift += value;
  }).observe({ type: "layout-shift" });

  window.meter = {
    watch,
    begin() {
      arrived.clear();
      waits = [];
      costs = [];
      undrawn = [];
      longest = 0;
      shift = 0;
    },
    report(began, bytesPerMs) {
      const seen = waits.map(([now, done]) => now - (began + done / bytesPerMs));
      return { waits: seen, costs: [...costs, ...undrawn], longest, shift };
    },
  };
}
