"""axe-core, which looks for what shuts people out (``tests/vendor/axe-core``), over a page as it is right now."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from playwright.async_api import Page

_SOURCE = Path(__file__).resolve().parent.parent / "vendor" / "axe-core" / "axe.min.js"
_TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
"""WCAG 2.2, levels A and AA. What axe's authors merely recommend is not asked for."""

_NAME = "axe-core.js"  # what the browser calls it in its errors
_RUN = """
async (tags) => {
  for (const animation of document.getAnimations()) if (animation.effect?.getTiming().iterations !== Infinity) animation.finish();
  const {violations} = await axe.run(document, {runOnly: tags, resultTypes: ["violations"]});
  const places = (nodes) => nodes.map(({target, failureSummary}) => [String(target), failureSummary]);
  return violations.map(({id, help, nodes}) => ({id, help, nodes: places(nodes)}));
}
"""
"""What slides in has arrived first: half transparent it has less contrast than anybody will see."""


async def violations(page: Page) -> list[str]:
    """What axe finds wrong: a line each, with where it is and what would mend it."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(f"{_source()}\n//# sourceURL={_NAME}")  # this way the page's content security policy has no say
    found: list[dict[str, Any]] = await page.evaluate(_RUN, list(_TAGS))
    return [
        f"{one['id']} ({one['help']}) at {target}: {' '.join(summary.split())}" for one in found for target, summary in one["nodes"]
    ]


@functools.cache
def _source() -> str:
    return _SOURCE.read_text()
