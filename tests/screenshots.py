"""``make screenshots``: every state of the page at four widths, light and dark, into ``var/screenshots``; a part of a name picks.

    .venv/bin/python -m tests.screenshots details 360

Nothing is compared: somebody has to look. With ``--readme`` it takes the two pictures of the README instead.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, async_playwright, expect

from app.model import Phase
from tests.browser.conftest import CHROMIUM, FLAGS
from tests.browser.feed import Feed, ago, hypervisor, job, progress, vm
from tests.browser.showcase import fill, showcase
from tests.browser.states import STATES, Bring, Watched, details, idle, online_again
from tests.browser.visitor import WAIT_MS, Visitor
from tests.service import ROOT, Service

FOLDER = ROOT / "var" / "screenshots"
PICTURES = ROOT / "docs" / "pictures"
WIDTHS = (1280, 900, 600, 360)
_REPORTS, _REPORT_EVERY_MS = 40, 220
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


def main(arguments: Sequence[str]) -> None:
    """Take those whose name has all ``arguments`` in it."""
    with tempfile.TemporaryDirectory(prefix="memdump-screenshots-") as folder, showcase(Path(folder), records=0) as service:
        asyncio.run(_readme(service) if "--readme" in arguments else _all(service, arguments))


async def _all(service: Service, pieces: Sequence[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with _browser() as browser:
        await _take(browser, service, {"empty": idle}, pieces)
        await fill(service)
        await _take(browser, service, STATES, pieces)
        await _without_scripts(browser, service, pieces)


async def _take(browser: Browser, service: Service, states: dict[str, Bring], pieces: Sequence[str]) -> None:
    chosen = {name: bring for name, bring in states.items() if _names(name, pieces)}
    if not chosen:
        return
    async with _window(browser, service) as on:
        for name, bring in chosen.items():
            await bring(on)
            for width, scheme in _names(name, pieces):
                await _shoot(on, f"{name}-{width}-{scheme}", width, scheme)
            await on.visitor.page.set_viewport_size({"width": WIDTHS[0], "height": 900})
            await on.visitor.page.emulate_media(color_scheme="light")
            await online_again(on)


def _names(state: str, pieces: Sequence[str]) -> list[tuple[int, Scheme]]:
    every = [(width, scheme) for width in WIDTHS for scheme in SCHEMES]
    return [(width, scheme) for width, scheme in every if all(piece in f"{state}-{width}-{scheme}" for piece in pieces)]


async def _shoot(on: Watched, name: str, width: int, scheme: Scheme) -> None:
    """The whole page; what lies over it covers what one sees of it without scrolling."""
    await on.visitor.page.set_viewport_size({"width": width, "height": 900 if width > 500 else 780})
    await on.visitor.page.emulate_media(color_scheme=scheme)
    await on.visitor.page.evaluate("scrollTo(0, 0)")
    await on.settled()
    whole = not await on.visitor.page.locator("dialog:modal").count()
    await on.visitor.page.screenshot(path=FOLDER / f"{name}.png", full_page=whole, animations="disabled")
    print(name, flush=True)


async def _without_scripts(browser: Browser, service: Service, pieces: Sequence[str]) -> None:
    for width, scheme in _names("without-scripts", pieces):
        context = await browser.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=False, color_scheme=scheme
        )
        visitor = Visitor(service, context, await context.new_page())
        await visitor.log_in()
        await visitor.page.screenshot(path=FOLDER / f"without-scripts-{width}-{scheme}.png", full_page=True)
        await context.close()


async def _readme(service: Service) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    await fill(service)
    async with _browser() as browser, _window(browser, service) as on:
        for name, bring, scheme in (("dashboard", _busy, SCHEMES[0]), ("details", details, SCHEMES[1])):
            await on.visitor.page.emulate_media(color_scheme=scheme)
            await bring(on)
            await on.settled()
            await on.visitor.page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


async def _busy(on: Watched) -> None:
    """Two dumps in the middle, one of them with its guest standing still, and two that have just begun."""
    await idle(on)
    on.feed.say("hypervisor", hypervisor())
    on.feed.say("vms", [vm(number, last_dump=ago(number * 40_000)) for number in range(1, 9)])
    for number, phase in enumerate((Phase.CAPTURING, Phase.CAPTURING, Phase.PREPARING, Phase.QUEUED), 1):
        on.feed.say("job", job(number, phase))
    for step in range(_REPORTS):
        share = 0.25 + step / _REPORTS / 2
        on.feed.send(progress(1, share))
        on.feed.send(progress(2, share * 0.8, mode="paused", guest_paused=step > _REPORTS - 5))
        await on.visitor.page.wait_for_timeout(_REPORT_EVERY_MS)


@asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), env={**os.environ})
        yield started
        await started.close()


@asynccontextmanager
async def _window(browser: Browser, service: Service) -> AsyncIterator[Watched]:
    context = await browser.new_context(viewport={"width": WIDTHS[0], "height": 900})
    context.set_default_timeout(WAIT_MS)
    on = Watched(Visitor(service, context, await context.new_page()), Feed())
    await on.visitor.log_in()
    await on.feed.take(on.visitor.page)
    yield on
    await context.close()


if __name__ == "__main__":
    main(sys.argv[1:])
