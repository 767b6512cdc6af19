// What is loaded when somebody opens it, and not before: the details of a dump, which have an address of their own, and the plots.

import { load } from "./load.js";

const DETAILS = /^\/memory-dumps\/([^/]+)$/;

/** The view that keeps up to date what lies behind the doors, once they are open. */
export function doorsView(store, notify, leave) {
  const opened = {}; // promises of what is loaded, by name
  const ready = {}; // what they gave
  const plots = document.getElementById("plots");

  const open = (name, create) => {
    opened[name] ??= create().then(
      (view) => {
        ready[name] = view;
        return view;
      },
      (error) => {
        delete opened[name];
        console.warn(error);
        notify("error", `The ${name} could not be loaded. Look whether the service can be reached, then try again.`);
        return null;
      },
    );
    return opened[name];
  };

  const followAddress = async () => {
    const id = DETAILS.exec(location.pathname)?.[1];
    if (!id && !opened.details) return;
    const details = await open("details", async () => (await load("details", "dialog details", document.body)).createDetails(store, notify, leave));
    if (details) details.show(DETAILS.exec(location.pathname)?.[1]);
    else if (id) history.back();
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (!link || link.target || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const url = new URL(link.href);
    if (url.origin !== location.origin || !DETAILS.test(url.pathname)) return;
    event.preventDefault();
    // Whoever came by "Skip to the content" would be led there again, away from this link, on the way back.
    if (location.hash) history.replaceState(history.state, "", location.pathname + location.search);
    history.pushState({ details: true }, "", url.pathname + (url.search || location.search));
    followAddress();
  });
  addEventListener("popstate", followAddress);

  const showPlots = async () => {
    if (!plots.open) return;
    const view = await open("plots", async () => (await load("plots", "charts", plots)).createPlots(store, leave));
    if (view) view(store.state);
    else plots.open = false;
  };
  plots.addEventListener("toggle", showPlots);
  showPlots(); // if it was opened before this was here

  return (state) => {
    ready.details?.freshen(state);
    if (plots.open) ready.plots?.(state);
  };
}
