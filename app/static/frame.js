// What stands around every page. A classic script in the head: no page is ever painted in another theme than the chosen one first, and
// no press is lost.

// Light or dark, as the person chose.
{
  const root = document.documentElement;
  const KEY = "memory-dumps-theme";
  let chosen = null; // for a browser that keeps nothing

  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return chosen;
    }
  };

  const apply = () => {
    const theme = read();
    const known = theme === "light" || theme === "dark";
    if (known) root.dataset.theme = theme;
    else delete root.dataset.theme;
    const select = document.getElementById("theme");
    if (select) select.value = known ? theme : "system";
  };

  apply();
  addEventListener("storage", apply); // chosen in another tab
  addEventListener("pageshow", apply); // a browser fills fields with what stood there before
  document.addEventListener("DOMContentLoaded", apply);
  document.addEventListener("change", ({ target }) => {
    if (target.id !== "theme") return;
    chosen = target.value;
    try {
      localStorage.setItem(KEY, chosen);
    } catch {} // then the choice lives as long as the page
    apply();
  });
}

document.addEventListener("click", async ({ target }) => {
  if (target.id !== "log-out") return;
  const asked = { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}", signal: AbortSignal.timeout(8000) };
  const answer = await fetch("/logout", asked).catch(() => null);
  if (answer?.ok || answer?.status === 401) location.assign("/login");
  else target.textContent = "Not logged out: try again";
});
