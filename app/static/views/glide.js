// When something comes or goes, what stands beside it moves. It glides to where it belongs instead of leaping there.

const GLIDE_MS = 180;
const REST_MS = 50; // some frames: a browser takes for a leap what sets out anew before it has come to rest
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

/** `change` the page; what can be seen of what `elements` gives is then where it was, and moves on from there. The motions. */
export function glide(elements, change) {
  const before = [...elements()].map((element) => [element, element.getBoundingClientRect()]);
  change();
  const after = before.filter(([element]) => element.isConnected).map(([element, was]) => [element, was, element.getBoundingClientRect()]);
  const moved = after.filter(([, was, is]) => (was.left !== is.left || was.top !== is.top) && (isInSight(was) || isInSight(is)));
  return moved.map(([element, was, is]) => {
    const away = [{ transform: `translate(${was.left - is.left}px, ${was.top - is.top}px)` }, { transform: "none" }];
    return element.animate(away, { duration: calm.matches ? 1 : GLIDE_MS, easing: "ease-out", composite: "add" }); // to what is on its way already
  });
}

/**
 * Motions one after the other: `rests.now` says whether those before have ended, and `over` is called when they do. What comes in
 * between waits, and comes together. `glide` has motions of its own; `wait` is for others.
 */
export function createRests(over) {
  const rests = { now: true, glide: (elements, change) => wait(glide(elements, change)), wait };

  async function wait(motions) {
    if (motions.length === 0) return;
    rests.now = false;
    await Promise.allSettled(motions.map((motion) => motion.finished));
    setTimeout(() => {
      rests.now = true;
      over();
    }, REST_MS);
  }

  return rests;
}

function isInSight({ top, bottom }) {
  return bottom > 0 && top < innerHeight;
}
