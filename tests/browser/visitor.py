"""Somebody in front of a real browser: one window of it, and whatever in it went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qs, urlencode, urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Locator, Page, Request, Route, expect

from app.config import Settings
from app.foundation import make_login_url
from demo import Guest
from tests.browser import axe
from tests.contract.speech import Api, Message
from tests.faults.processes import Process
from tests.faults.scene import capture_process
from tests.service import Service

HOME = "/memory-dumps"
WAIT_MS = 15_000
"""How long a page may take to show what it must show."""

SERVICE_IS_AWAY = "net::ERR_"
"""What a browser says by itself about requests that nobody answers."""

_BEFORE_ANY_SCRIPT = """
window.violations = [];
document.addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) => {
  window.violations.push(`${violatedDirective} ${blockedURI}`);
});
"""

_TOO_WIDE = """
() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const wide = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > root.clientWidth + 0.5);
  return [`${root.scrollWidth - root.clientWidth} px`, ...wide.slice(0, 8).map((one) => one.cloneNode().outerHTML.slice(0, 120))];
}
"""


class Visitor:
    """A browser window (with cookies of its own) at a service. ``page`` is Playwright's; here is what our page adds to it.

    ``troubles`` are errors on the console, uncaught exceptions, and requests that went to anybody but the service.
    """

    def __init__(self, service: Service, context: BrowserContext, page: Page) -> None:
        self.service = service
        self.context = context
        self.page = page
        self.troubles: list[str] = []
        self._expected: list[str] = []
        self._hosts = {urlsplit(service.url).netloc}
        context.on("request", self._asked)
        context.on("weberror", lambda error: self.troubles.append(f"exception: {error.error}"))
        context.on("console", self._said)

    async def prepare(self) -> None:
        """Before the first page: what breaks the content security policy is noted."""
        await self.context.add_init_script(_BEFORE_ANY_SCRIPT)

    async def go(self, path: str = HOME) -> None:
        """Open a page of the service."""
        await self.page.goto(self.service.url + path)

    async def log_in(self) -> None:
        """By a fresh login URL, to the page; what a person presses on the way there is in ``test_journey.py``."""
        form: dict[str, str | float | bool] = {"code": login_code(self.service)}
        headers = {"Origin": self.service.url}
        answer = await self.context.request.post(f"{self.service.url}/login", form=form, headers=headers, max_redirects=0)
        assert answer.status == HTTPStatus.SEE_OTHER, await answer.text()
        await self.go()

    async def live(self) -> None:
        """Wait until the page follows the service."""
        await expect(self.page.locator("#connection")).to_have_attribute("data-connection", "live")

    async def reads_page(self, where: str | re.Pattern[str]) -> None:
        """Wait until the list of records says where one is (at once) and shows its rows (when they have come)."""
        await expect(self.page.locator("#records-where")).to_have_text(where)
        await expect(self.page.locator("#records-area")).not_to_have_attribute("aria-busy", "true")

    async def close(self) -> None:
        """Before its service ends, which would be a trouble. Nothing may have gone wrong."""
        await self.assert_untroubled()
        await self.context.close()

    def expect_trouble(self, *pieces: str) -> None:
        """What a browser says of a refusal or an outage that the test is about: a piece of each line."""
        self._expected += pieces

    async def assert_untroubled(self) -> None:
        """Nothing went wrong in the window so far."""
        await self.page.evaluate("0")  # what the page said before this has arrived by now
        troubles = [text for text in self.troubles if not any(piece in text for piece in self._expected)]
        troubles += await self.page.evaluate("window.violations ?? []")
        assert not troubles, troubles

    async def axe(self) -> list[str]:
        """What shuts people out of the page as it is now; nothing, one hopes."""
        return await axe.violations(self.page)

    async def too_wide(self) -> list[str]:
        """What makes the page scroll sideways, the outermost first; nothing, one hopes."""
        found: list[str] = await self.page.evaluate(_TOO_WIDE)
        return found

    async def width_of_overflow(self) -> int:
        """By how many pixels the page would scroll sideways."""
        found: int = await self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return found

    async def until(self, expression: str, argument: str) -> None:
        """Look once a frame until the function ``expression`` of ``argument`` holds: for what is over in a moment."""
        await self.page.wait_for_function(expression, arg=argument)

    @contextlib.asynccontextmanager
    async def held_back(self, pattern: str) -> AsyncIterator[None]:
        """What is asked for at such an address comes when this is over."""
        over = asyncio.Event()

        async def hold(route: Route) -> None:
            await over.wait()
            await route.continue_()

        await self.page.route(pattern, hold)
        try:
            yield
        finally:
            over.set()

    @contextlib.asynccontextmanager
    async def held_while_the_guest_stands_still(
        self, guest: Guest, ask: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[Process]:
        """A dump, asked for by ``ask`` or as ``dump`` does, whose capture process is stopped as soon as it has said that the
        guest stands still.

        The page can say so before: libvirt tells that the VM is paused.
        """
        async with Api.of(self.service) as api, api.feed() as feed:
            await feed.next()
            await (ask() if ask else self.dump(guest))
            with capture_process(self.service, guest) as process:
                await feed.until(lambda message: _stands_still(message, guest))
                process.stop()
                await self.until("(uuid) => document.querySelector(`[data-job-uuid='${uuid}'][data-guest='paused']`)", guest.uuid)
                yield process

    # --- the page's parts

    def vm(self, guest: Guest | str) -> Locator:
        """The row of a VM in the control panel, by its guest or its uuid."""
        return self.page.locator(f'#vms-list > [data-vm-uuid="{guest if isinstance(guest, str) else guest.uuid}"]')

    def choice(self, guest: Guest | str) -> Locator:
        """What one ticks to choose a VM; off while it cannot be dumped."""
        return self.vm(guest).get_by_role("checkbox")

    @property
    def dump_button(self) -> Locator:
        """It dumps the VMs that are chosen."""
        return self.page.locator("#dump-selected")

    async def dump(self, *guests: Guest | str) -> None:
        """As a person does: choose the VMs, then press the button."""
        for guest in guests:
            await self.choice(guest).check()
        await self.dump_button.click()

    @property
    def running(self) -> Locator:
        """The dumps that run."""
        return self.page.locator("#jobs-list > [data-job-id]")

    @property
    def ended(self) -> Locator:
        """The dumps that ended without one."""
        return self.page.locator("#ended-list > [data-job-id]")

    @property
    def records(self) -> Locator:
        return self.page.locator("#records-rows > tr")

    @property
    def activity(self) -> Locator:
        return self.page.locator("#activity-list > li")

    def _asked(self, request: Request) -> None:
        if request.url.startswith("http") and urlsplit(request.url).netloc not in self._hosts:
            self.troubles.append(f"request to {request.url}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.troubles.append(f"console: {message.text}")


def _stands_still(message: Message, guest: Guest) -> bool:
    """Whether the capture of ``guest`` says here that the guest stands still."""
    if message["type"] == "job":
        return message["job"]["uuid"] == guest.uuid and bool((message["job"]["progress"] or {}).get("guest_paused"))
    return message["type"] == "progress" and bool(message["guest_paused"])


def field(part: Locator, name: str) -> Locator:
    """The field ``name`` of a part of the page."""
    return part.locator(f'[data-field="{name}"]')


def isolated(name: str) -> str:
    """A VM's name as it stands in a sentence: its letters do not turn round those beside it."""
    return f"\u2068{name}\u2069"


def login_code(service: Service) -> str:
    """What a fresh login URL carries; ``python -m app login-url`` makes it, but here no Python starts for it."""
    url = make_login_url(Settings.from_environment(service.environment))
    return parse_qs(urlsplit(url).query)["code"][0]


def login_path(service: Service) -> str:
    """A fresh login URL's path and query."""
    return f"/login?{urlencode({'code': login_code(service)})}"
