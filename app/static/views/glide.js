// When something comes or goes, what stands beside it moves. It glides to where it belongs instead of leaping there.

const MOST = 40;
const GLIDE_MS = 180;
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

/** `change` the page; what `elements` gives is then where it was, and moves on from there. */
export function glide(elements, change) {
  const before = new Map([...elements()].slice(0, MOST).map((element) => [element, element.getBoundingClientRect()]));
  change();
  for (const [element, { left, top }] of before) {
    if (!element.isConnected) continue;
    const now = element.getBoundingClientRect();
    const [x, y] = [left - now.left, top - now.top];
    if (x || y) element.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], { duration: calm.matches ? 1 : GLIDE_MS, easing: "ease-out" });
  }
}
