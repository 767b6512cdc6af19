// The polite live region: results in words, for those who do not see the page change.

/** A function that says a sentence; the same one twice is said twice. */
export function announcer(region) {
  return (sentence) => {
    region.textContent = "";
    requestAnimationFrame(() => {
      region.textContent = sentence;
    });
  };
}
