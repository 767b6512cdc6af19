"""Somebody with a keyboard and nothing else: what has the focus is seen at every step."""

from __future__ import annotations

from playwright.async_api import Locator, Page

FOCUS_IS_ON = "(wanted) => document.activeElement?.matches(wanted)"
UNSEEN = """
() => {
  const active = document.activeElement, own = active.closest("label") ?? active, parts = [0.1, 0.3, 0.5, 0.7, 0.9];
  if (active.matches("body, main, h1, h2")) return []; // nothing that one could press
  const {x, y, width, height} = active.getBoundingClientRect();
  const seen = (at) => at && (own.contains(at) || at.contains(active) || at.closest(".toasts"));
  const at = (along, down) => document.elementFromPoint(x + width * along, y + height * down);
  const free = parts.some((down) => parts.some((along) => seen(at(along, down))));
  const inner = active.matches("[type=date]:not(:focus-visible)"); // the browser's button in the field, which has a ring of its own
  const styles = [active, own].map((one) => getComputedStyle(one));
  const ringed = styles.some(({outlineStyle, boxShadow}) => outlineStyle !== "none" || boxShadow !== "none");
  const wrong = [];
  if (!free) wrong.push(`covered at ${Math.round(y)}, ${Math.round(height)} high`);
  if (!ringed && !inner) wrong.push("without a ring");
  return wrong.map((one) => `${active.cloneNode().outerHTML} is ${one}`);
}
"""
"""A ring is round it, and nothing that stays on the screen covers it wholly (WCAG 2.4.7 and 2.4.11); a toast leaves by itself."""

AT_REST = """
() => {
  const ending = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity);
  return Promise.allSettled(ending.map((one) => one.finished)).then(() => null);
}
"""


async def tab_to(page: Page, selector: str, *, most: int = 120, back: bool = False) -> Locator:
    """Press Tab until what has the focus is one of ``selector``; it, and all on the way, is seen."""
    passed: list[str] = []
    for _ in range(most):
        await assert_seen(page)
        if await page.evaluate(FOCUS_IS_ON, selector):
            return page.locator(":focus")
        await page.keyboard.press("Shift+Tab" if back else "Tab")
        passed.append(await page.evaluate("document.activeElement.cloneNode().outerHTML.slice(0, 120)"))
    raise AssertionError("\n".join([f"{most} times Tab do not lead to {selector}, but to:", *passed]))


async def press(page: Page, *keys: str) -> None:
    for key in keys:
        await page.keyboard.press(key)


async def focus_comes_to(page: Page, selector: str) -> None:
    """It is led there by the page itself, and is seen there."""
    await page.wait_for_function(FOCUS_IS_ON, arg=selector)
    await assert_seen(page)


async def assert_seen(page: Page) -> None:
    unseen = await page.evaluate(UNSEEN)
    if unseen:  # something may be gliding past it
        await page.evaluate(AT_REST)
        unseen = await page.evaluate(UNSEEN)
    assert not unseen, unseen
