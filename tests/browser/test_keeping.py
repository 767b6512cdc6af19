"""The pages of accounts and tokens: what their forms ask for, what is said of it, and where it leads."""

from __future__ import annotations

import pytest
import pytest_asyncio
from playwright.async_api import Locator, expect

from tests.browser.conftest import OpenWindow
from tests.browser.test_tenant import PASSWORD, log_in, make_account
from tests.browser.visitor import Visitor
from tests.service import Service
from tests.thorough import thorough

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEW_ACCOUNT, NEW_TOKEN = "[data-deed=make-account]", "[data-deed=make-token]"


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(small_service: Service, window: OpenWindow) -> Visitor:
    return await window(small_service)


def notice_in(visitor: Visitor, form: str) -> Locator:
    return visitor.page.locator(form).get_by_role("alert")


async def test_what_is_refused_is_said_beside_the_form_until_it_is_taken(visitor: Visitor) -> None:
    page, name = visitor.page, visitor.page.locator("#new-name")
    await visitor.go("/accounts")
    await name.fill("admin")
    visitor.expect_trouble("status of 409")
    await page.get_by_role("button", name="Make the account").click()
    await expect(notice_in(visitor, NEW_ACCOUNT)).to_have_text(
        "There is an account 'admin' already. Change it, or choose another name."
    )
    await expect(page.locator("#said")).not_to_be_visible()
    await expect(name).to_have_value("admin")
    assert await visitor.axe() == []
    await name.fill("dora")
    await page.get_by_role("button", name="Make the account").click()
    await expect(page.locator("[data-account=dora]")).to_contain_text("viewer")
    await expect(page.locator("#said")).to_have_text("The account \u2068dora\u2069 is made.")
    await expect(notice_in(visitor, NEW_ACCOUNT)).to_have_count(0)
    await expect(name).to_have_value("")
    assert await visitor.axe() == []


@thorough
async def test_the_field_that_is_at_fault_is_marked(visitor: Visitor) -> None:
    page, expires = visitor.page, visitor.page.locator("#new-expires")
    await visitor.go("/tokens")
    await page.locator("#new-label").fill("late")
    await expires.fill("2001-01-01")
    visitor.expect_trouble("status of 400")
    await page.get_by_role("button", name="Make the token").click()
    await expect(notice_in(visitor, NEW_TOKEN)).to_be_visible()
    await expect(expires).to_have_attribute("aria-invalid", "true")
    await expect(expires).to_be_focused()
    await expires.fill("2999-12-31")
    await page.get_by_role("button", name="Make the token").click()
    await expect(page.locator("[data-token]").filter(has_text="late")).to_contain_text("expires 2999-12-31")
    await expect(expires).not_to_have_attribute("aria-invalid", "true")


@thorough
async def test_a_service_that_is_away_is_said_and_nothing_that_was_filled_in_is_lost(visitor: Visitor) -> None:
    page, label = visitor.page, visitor.page.locator("#new-label")
    await visitor.go("/tokens")
    await label.fill("later")
    await page.route("**/api/tokens", lambda route: route.abort())
    visitor.expect_trouble("ERR_FAILED")
    await page.get_by_role("button", name="Make the token").click()
    await expect(notice_in(visitor, NEW_TOKEN)).to_contain_text("The service cannot be reached.")
    await expect(label).to_have_value("later")
    await page.unroute("**/api/tokens")
    await page.route("**/tokens", lambda route: route.continue_() if "/api/" in route.request.url else route.abort())
    await page.get_by_role("button", name="Make the token").click()
    await expect(page.locator("#said")).to_have_text("The list could not be read again: it may be out of date.")
    await expect(page.locator("#secret")).to_contain_text("mdt_")  # which is shown once, whatever came of the list
    await page.unroute("**/tokens")


@thorough
async def test_a_press_before_the_script_has_come_is_not_taken_for_one(visitor: Visitor) -> None:
    async with visitor.held_back("**/keeping_page.js"):
        await visitor.page.goto(f"{visitor.service.url}/tokens", wait_until="commit")
        await expect(visitor.page.get_by_role("button", name="Make the token")).to_be_disabled()
    await expect(visitor.page.get_by_role("button", name="Make the token")).to_be_enabled()


async def test_people_who_change_their_password_log_in_with_it(
    small_service: Service, visitor: Visitor, window: OpenWindow
) -> None:
    await make_account(visitor, "eva", "operator")
    eva = await window(small_service, log_in=False)
    await log_in(eva, "eva")
    await eva.go("/tokens")
    await eva.page.get_by_label("Current password").fill("not the password")
    await eva.page.get_by_label("New password").fill("a longer password")
    eva.expect_trouble("status of 400")
    await eva.page.get_by_role("button", name="Change your password").click()
    await expect(notice_in(eva, "[data-deed=own-password]")).to_contain_text("password")
    await eva.page.get_by_label("Current password").fill(PASSWORD)
    await eva.page.get_by_role("button", name="Change your password").click()
    await expect(eva.page.locator("h1")).to_have_text("Log in")


@thorough
async def test_who_ends_sessions_is_told_how_many_and_logs_in_again_after_ending_their_own(
    small_service: Service, visitor: Visitor, window: OpenWindow
) -> None:
    page, name = visitor.page, visitor.page.locator("#sessions-name")
    await make_account(visitor, "finn", "viewer")
    finn = await window(small_service, log_in=False)
    await log_in(finn, "finn")
    finn.expect_trouble("status of 401")
    for said in ("1 session of \u2068finn\u2069 ended.", "Nobody was logged in as \u2068finn\u2069."):
        await name.fill("finn")
        await page.get_by_role("button", name="End all sessions").click()
        await expect(page.locator("#said")).to_have_text(said)
    await expect(finn.page.locator("h1")).to_have_text("Log in")
    await name.fill("admin")
    await page.get_by_role("button", name="End all sessions").click()
    await expect(page).to_have_url(f"{small_service.url}/login?next=%2Faccounts")


@thorough
async def test_who_is_logged_in_no_more_comes_back_by_the_login(visitor: Visitor) -> None:
    await visitor.go("/tokens")
    await visitor.context.clear_cookies()
    await visitor.page.locator("#new-label").fill("late")
    visitor.expect_trouble("status of 401")
    await visitor.page.get_by_role("button", name="Make the token").click()
    await expect(visitor.page).to_have_url(f"{visitor.service.url}/login?next=%2Ftokens")


@thorough
async def test_what_is_being_filled_in_elsewhere_stays(visitor: Visitor) -> None:
    page, account = visitor.page, visitor.page.locator("[data-account=gus]")
    await make_account(visitor, "gus", "viewer")
    await account.locator("summary").click()
    await account.locator("[name=password]").fill("half of a pass")
    await account.locator("[name=role]").select_option("operator")
    await account.get_by_role("button", name="Save role and limits").click()
    await expect(account.locator("> p")).to_contain_text("operator")
    await expect(account.locator("[name=password]")).to_have_value("half of a pass")
    await account.locator("[name=vms]").fill("shop-*")
    await account.get_by_role("button", name="Set password").click()
    await expect(page.locator("#said")).to_contain_text("The new password is set.")
    await expect(account.locator("[name=vms]")).to_have_value("shop-*")


async def test_who_could_not_be_logged_out_is_told(visitor: Visitor) -> None:
    await visitor.go("/tokens")
    await visitor.page.route("**/logout", lambda route: route.fulfill(status=503))
    visitor.expect_trouble("status of 503")
    await visitor.page.locator("#log-out").click()
    await expect(visitor.page.locator("#log-out")).to_have_text("Not logged out: try again")
    await visitor.page.unroute("**/logout")
    await visitor.page.locator("#log-out").click()
    await expect(visitor.page.locator("h1")).to_have_text("Log in")
