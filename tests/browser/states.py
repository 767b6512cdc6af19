"""Every state that a page of the service can be in, for who looks at them: axe-core, and people by ``make screenshots``.

A state's function brings a window there from wherever it was, and returns when there is nothing more to wait for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from playwright.async_api import Locator, expect

from app.errors import DomainBusy, StateUnwritable, VmErrors
from app.model import Link, Phase, Room
from app.web.errors import REFERENCE
from tests.browser.feed import GIB, STRANGE_NAMES, Feed, ago, hypervisor, job, line, progress, record, vm
from tests.browser.visitor import HOME, Visitor
from tests.nodes import numbered_uuid

FEW = f"{HOME}?limit=25"
TOASTS = """
async () => {
  const {notify} = await import(document.querySelector("link[href$='/views/notify.js']").href);
  const kinds = ["success", "error", "warning", "info"];
  for (let one = 1; one <= 20; one++) notify(kinds[one % 4], `Sentence ${one} of a service that has much to say.`);
}
"""
LONG_WAITS_DO_NOT_END = """
() => {
  const {setTimeout} = window;
  Math.random = () => 0.9;
  window.setTimeout = (act, milliseconds, ...given) => milliseconds < 1000 ? setTimeout(act, milliseconds, ...given) : 0;
}
"""


@dataclass(frozen=True, slots=True)
class Watched:
    """A window, and what its page is told."""

    visitor: Visitor
    feed: Feed

    async def go(self, path: str = FEW) -> None:
        """Anew to a page that follows the feed."""
        await self.visitor.go(path)
        await self.visitor.live()

    async def settled(self) -> None:
        """What was told has been drawn."""
        await self.visitor.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


Bring = Callable[[Watched], Awaitable[None]]


async def idle(on: Watched) -> None:
    await on.go(HOME)


async def running(on: Watched) -> None:
    """Ten dumps in every phase; the guest of one stands still, one has fallen back, of one the pass is a later one."""
    await on.go()
    phases = [Phase.CAPTURING] * 6 + [Phase.SEALING, Phase.RECORDING, Phase.PREPARING, Phase.QUEUED]
    vms = [vm(number, last_dump=ago(number * 4000) if number % 3 else None) for number in range(1, 11)]
    on.feed.say("vms", vms)
    fell_back = ("vm-db-01 rewrites its memory faster than it can be read, so it was captured the paused way.",)
    for number, phase in enumerate(phases, 1):
        on.feed.say("job", job(number, phase, warnings=fell_back if number == 3 else ()))
    await on.settled()
    for share in (0.1, 0.16, 0.27, 0.35, 0.41):
        for number in range(1, 8):
            on.feed.send(progress(number, share + number / 20, phase=phases[number - 1]))
        on.feed.send(progress(2, share, iteration=2))
        on.feed.send(progress(3, share, mode="paused", guest_paused=True))
        await on.settled()
    await expect(on.visitor.page.locator("#jobs [data-job-id]")).to_have_count(10)


async def ended(on: Watched) -> None:
    """One that failed, one that was cancelled, and one that a restart interrupted."""
    await on.go()
    for number, phase in enumerate((Phase.FAILED, Phase.CANCELLED, Phase.INTERRUPTED), 1):
        on.feed.say("job", job(number))
        on.feed.say("job", job(number, phase))
        on.feed.say("activity", line(number))
    await expect(on.visitor.ended).to_have_count(3)


async def sealed(on: Watched) -> None:
    """Dumps that have just been sealed, one with a warning, beside one that runs; looked at, their cards stay."""
    await on.go()
    fell_back = ("vm-web-02 rewrites its memory faster than it can be read, so it was captured the paused way.",)
    for number in (1, 2, 3):
        on.feed.say("job", job(number))
    await expect(on.visitor.running).to_have_count(3)
    for number, warnings in ((1, ()), (2, fell_back)):
        made = record(number)
        on.feed.say("record", made)
        on.feed.say("job", job(number, Phase.COMPLETED, dump_id=made.dump_id, warnings=warnings))
    on.feed.send(progress(3, 0.4))
    await on.visitor.page.locator(".result a").first.focus()
    await expect(on.visitor.page.locator(".result")).to_have_count(2)


async def no_vms(on: Watched) -> None:
    await on.go()
    on.feed.say("vms", [])
    await expect(on.visitor.page.locator("#vms-empty")).to_be_visible()


async def question(on: Watched) -> None:
    await on.go()
    await on.visitor.page.locator("#dump-all").click()
    await expect(on.visitor.page.locator("#dump-all-dialog")).to_be_visible()


async def chosen(on: Watched) -> None:
    """VMs are chosen, and the options are open."""
    await on.go()
    for box in (await on.visitor.page.locator("#vms-list input:enabled").all())[:2]:
        await box.check()
    await open_all(on.visitor.page.locator("#vms details"))


async def options_wrong(on: Watched) -> None:
    """What stands in the options cannot be sent so."""
    page = on.visitor.page
    await chosen(on)
    await page.get_by_label("Longest pause").fill("soon")
    await page.get_by_label("Reason").fill("pasted\a from somewhere")
    await expect(page.locator("#dump-reason-error")).to_be_visible()


async def refused(on: Watched) -> None:
    """Two of the chosen VMs cannot be dumped now, so nothing was started."""
    page = on.visitor.page
    await chosen(on)
    on.visitor.expect_trouble("status of 409")
    picked = page.locator("#vms-list [data-vm-uuid]:has(:checked)")
    names = await picked.locator('[data-field="name"]').all_inner_texts()
    uuids = await picked.evaluate_all("(rows) => rows.map((row) => row.dataset.vmUuid)")
    busy = [DomainBusy(name, "save") for name in names]
    errors = [{"vm_id": uuid, "code": each.code, "detail": str(each)} for uuid, each in zip(uuids, busy, strict=True)]
    answer = {"detail": str(VmErrors(busy)), "code": VmErrors.code, "errors": errors}
    await page.route("**/trigger", lambda route: route.fulfill(status=409, json=answer))
    await page.locator("#dump-selected").click()
    await expect(page.locator("#vms-error")).to_be_visible()
    await page.unroute("**/trigger")


async def cancel_refused(on: Watched) -> None:
    """The card says so."""
    page = on.visitor.page
    await running(on)
    on.visitor.expect_trouble("status of 503")
    full = "/var/lib/memory-dumps/memory-dumps.sqlite3 cannot be written: database or disk is full. Make room, then try again."
    answer = {"detail": full, "code": StateUnwritable.code}
    await page.route("**/cancel", lambda route: route.fulfill(status=503, json=answer))
    await on.visitor.running.nth(1).get_by_role("button", name="Cancel").click()
    await expect(on.visitor.running.nth(1).locator('[data-field="error"]')).to_be_visible()
    await page.unroute("**/cancel")


async def waiting(on: Watched) -> None:
    """More dumps than run at once; the list of the rest is open."""
    await on.go()
    for number in range(1, 10):
        on.feed.say("job", job(number, Phase.CAPTURING if number < 3 else Phase.QUEUED))
    await open_all(on.visitor.page.locator("details#waiting"))
    await expect(on.visitor.page.locator("#waiting-list > *").first).to_be_visible()


async def news(on: Watched) -> None:
    """Somebody reads the table, and three dumps are sealed."""
    await on.go()
    await details_link(on.visitor).focus()
    for number in (1, 2, 3):
        on.feed.say("record", record(number))
    await expect(on.visitor.page.locator("#records-news")).to_have_text("3 new")


async def toasts(on: Watched) -> None:
    await on.go()
    await on.visitor.page.evaluate(TOASTS)
    await expect(on.visitor.page.locator(".toast-more")).to_be_visible()


async def trouble(on: Watched) -> None:
    """The hypervisor is away, a guest stands still since a dump, and little room is left."""
    await on.go()
    away = "libvirt does not answer at qemu:///system. Look whether libvirtd runs there."
    on.feed.say("hypervisor", hypervisor(Link.UNREACHABLE, away))
    alarm = "stands still since its dump and could not be resumed. It is tried again; virsh resume helps at once."
    on.feed.say("vms", [vm(1, state="paused", alarm=alarm), vm(2), vm(3, id=None, state="shutoff")])
    on.feed.say("room", Room(dump_dir="/var/dumps", free_bytes=9 * GIB, total_bytes=900 * GIB, message=None))
    await on.settled()


async def strange(on: Watched) -> None:
    """Names with markup, letters that turn the direction round, emoji, 200 characters."""
    await on.go()
    names = dict(enumerate(STRANGE_NAMES, 1))
    on.feed.say("vms", [vm(number, name=name, uuid=numbered_uuid(90 + number)) for number, name in names.items()])
    for number, name in names.items():
        on.feed.say("job", job(number, dom=name, uuid=numbered_uuid(90 + number)))
        on.feed.say("record", record(number, dom=name, uuid=numbered_uuid(90 + number)))
        on.feed.say("activity", line(number, message=f"\u2068{name}\u2069 was dumped.", dom=name))
    await on.settled()


async def nothing_matches(on: Watched) -> None:
    await on.go(f"{HOME}?q=nothing-is-called-so")


async def details(on: Watched) -> None:
    await on.go()
    await details_link(on.visitor).click()
    await expect(on.visitor.page.locator("#details-body .details")).to_be_visible()


async def details_refused(on: Watched) -> None:
    """The dialog is open, and the service has not given it the manifest."""
    page = on.visitor.page
    await on.go()
    on.visitor.expect_trouble("net::ERR_FAILED")
    await page.route("**/api/memory-dumps/records/0*", lambda route: route.abort())
    await details_link(on.visitor).click()
    await expect(page.locator("#details-body [role=alert]")).to_be_visible()
    await page.unroute("**/api/memory-dumps/records/0*")


async def plots(on: Watched) -> None:
    await on.go()
    await open_all(on.visitor.page.locator("details#plots"))
    await expect(on.visitor.page.locator("#plots-grid")).to_be_visible()
    await on.settled()


async def plots_refused(on: Watched) -> None:
    """They are open, and the service has not given the figures."""
    page = on.visitor.page
    await on.go()
    on.visitor.expect_trouble("net::ERR_FAILED")
    await page.route("**/api/memory-dumps/stats*", lambda route: route.abort())
    await open_all(page.locator("details#plots"))
    await expect(page.locator("#plots-error")).to_be_visible()
    await page.unroute("**/api/memory-dumps/stats*")


async def plots_as_tables(on: Watched) -> None:
    await plots(on)
    await on.visitor.page.locator("#plots-tables").check()
    await expect(on.visitor.page.locator("#plots-grid table").first).to_be_visible()


async def menu(on: Watched) -> None:
    """What the bar's buttons open."""
    await on.go()
    await on.visitor.page.locator("#signs").click()
    await expect(on.visitor.page.locator("#health")).to_be_visible()


async def reconnecting(on: Watched) -> None:
    """The next try comes in a second or two, and never does: longer waits do not end."""
    await on.go()
    await on.visitor.page.evaluate(LONG_WAITS_DO_NOT_END)
    await lose(on)
    await expect(on.visitor.page.locator("#connection")).to_contain_text("reconnecting · again in")


async def offline(on: Watched) -> None:
    await on.go()
    await lose(on)
    await expect(on.visitor.page.locator("#connection")).to_have_attribute("data-connection", "offline")


async def lose(on: Watched) -> None:
    on.feed.refusing = True
    on.visitor.expect_trouble("net::ERR_INTERNET_DISCONNECTED", "net::ERR_FAILED")
    await on.visitor.context.set_offline(True)
    await on.feed.hang_up()


async def by_requests(on: Watched) -> None:
    """Something on the way lets no websocket through; what the bar's signs open says so."""
    await on.go()
    on.feed.refusing = True
    await on.feed.hang_up()
    await expect(on.visitor.page.locator("#connection")).to_have_text("live by requests")
    await on.visitor.page.locator("#signs").click()
    await expect(on.visitor.page.locator("#health")).to_contain_text("blocks websockets")


async def online_again(on: Watched) -> None:
    """No state: the way back from those without a connection."""
    on.feed.refusing = False
    await on.visitor.context.set_offline(False)


async def details_page(on: Watched) -> None:
    await on.go()
    await on.visitor.go(await details_link(on.visitor).get_attribute("href") or "no link")
    await expect(on.visitor.page.locator(".details")).to_be_visible()


async def reference(on: Watched) -> None:
    """Of each group of operations the first: all others are made by the same lines."""
    await on.visitor.go(REFERENCE)
    await on.visitor.page.evaluate("document.querySelectorAll('.operation ~ .operation').forEach((one) => one.remove())")


async def problem(on: Watched) -> None:
    on.visitor.expect_trouble("status of 404")
    await on.visitor.go("/nothing")


async def login(on: Watched) -> None:
    await on.visitor.go("/login?code=never-made")


async def login_refused(on: Watched) -> None:
    """A link that was used already."""
    on.visitor.expect_trouble("status of 401", "status of 403")
    await login(on)
    await on.visitor.page.get_by_role("button", name="Log in").click()
    await expect(on.visitor.page.get_by_role("alert")).to_be_visible()


async def logout(on: Watched) -> None:
    await on.visitor.go("/logout")
    await expect(on.visitor.page.get_by_role("heading", name="Log out")).to_be_visible()


async def accounts(on: Watched) -> None:
    """Every form is open."""
    await on.visitor.go("/accounts")
    await on.visitor.page.evaluate("document.querySelectorAll('details').forEach((one) => one.setAttribute('open', ''))")


async def account_refused(on: Watched) -> None:
    """A form says why."""
    page = on.visitor.page
    on.visitor.expect_trouble("status of 409")
    await on.visitor.go("/accounts")
    await page.locator("#new-name").fill("admin")
    await page.get_by_role("button", name="Make the account").click()
    await expect(page.get_by_role("alert")).to_be_visible()


async def removal(on: Watched) -> None:
    """What asks before an account goes."""
    await accounts(on)
    await on.visitor.page.get_by_role("button", name="Remove admin").click()
    await expect(on.visitor.page.get_by_role("dialog")).to_be_visible()


async def tokens(on: Watched) -> None:
    """One was just made: its secret is shown."""
    await on.visitor.go("/tokens")
    await on.visitor.page.get_by_label("What for").fill("nightly")
    await on.visitor.page.get_by_role("button", name="Make the token").click()
    await expect(on.visitor.page.locator("#secret")).to_be_visible()


async def audit(on: Watched) -> None:
    await on.visitor.go("/audit")


STATES: dict[str, Bring] = {
    "idle": idle,
    "running": running,
    "sealed": sealed,
    "ended": ended,
    "waiting": waiting,
    "cancel-refused": cancel_refused,
    "news": news,
    "question": question,
    "chosen": chosen,
    "options-wrong": options_wrong,
    "refused": refused,
    "toasts": toasts,
    "trouble": trouble,
    "strange-names": strange,
    "no-vms": no_vms,
    "nothing-matches": nothing_matches,
    "details": details,
    "details-refused": details_refused,
    "plots": plots,
    "plots-as-tables": plots_as_tables,
    "plots-refused": plots_refused,
    "health": menu,
    "details-page": details_page,
    "reference": reference,
    "problem": problem,
    "accounts": accounts,
    "account-refused": account_refused,
    "removal": removal,
    "tokens": tokens,
    "audit": audit,
    "login": login,
    "login-refused": login_refused,
    "logout": logout,
    "by-requests": by_requests,
    "reconnecting": reconnecting,
    "offline": offline,
}
"""After each of them ``online_again``, without which some leave a window that sees nothing more."""


def details_link(visitor: Visitor) -> Locator:
    """The first record's way to its details."""
    return visitor.records.first.locator('a[data-field="view"]').first


async def open_all(doors: Locator) -> None:
    """Each ``<details>`` among them."""
    for door in await doors.all():
        if await door.get_attribute("open") is None:
            await door.locator("summary").first.click()
    for door in await doors.all():
        await expect(door).to_have_js_property("open", True)
