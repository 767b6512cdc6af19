"""The inventory follows libvirt's events: what somebody else does to a domain is seen without asking."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from app.errors import HypervisorNotResponding, HypervisorUnreachable
from app.hypervisor.calls import translated
from tests.contract.speech import Api, Feed, Message
from tests.libvirt.conftest import Daemon
from tests.nodes import Vm, numbered_uuid
from tests.service import running_service
from tests.thorough import thorough

LIVE_VMS = "/api/telemetry/live-vms"
NEW = Vm(name="one-7", uuid=numbered_uuid(7))


@pytest.fixture
async def watched(daemon: Daemon, tmp_path: Path) -> AsyncIterator[tuple[Api, Feed]]:
    """A service on ``daemon``, and its feed of VMs and of the hypervisor, once it is connected."""
    with running_service(tmp_path, LIBVIRT_URI=daemon.uri) as service:
        async with Api.of(service) as api:
            await api.connected()
            async with api.feed("topics=vms,hypervisor,activity") as feed:
                snapshot = await feed.next()
                assert [vm["name"] for vm in snapshot["vms"]] == ["test"]
                yield api, feed


async def vms_until(feed: Feed, fits: Callable[[dict[str, Message]], bool]) -> dict[str, Message]:
    """The VMs by name, as soon as they fit."""
    while True:
        message = await feed.next()
        if message["type"] == "vms" and fits(vms := {vm["name"]: vm for vm in message["vms"]}):
            return vms


async def link_until(feed: Feed, state: str) -> dict[str, Any]:
    """The hypervisor, as soon as it is in that state."""
    while True:
        message = await feed.next()
        if message["type"] == "hypervisor" and message["hypervisor"]["state"] == state:
            link: dict[str, Any] = message["hypervisor"]
            return link


async def told_codes(api: Api) -> list[str]:
    """Of the activity log, the newest first."""
    return [line["code"] for line in (await api.get("/api/memory-dumps/activity"))["activity"]]


async def test_suspend_and_resume_are_seen(watched: tuple[Api, Feed], daemon: Daemon) -> None:
    api, feed = watched
    with daemon.connection() as connection:
        connection.lookupByName("test").suspend()
        assert (await vms_until(feed, lambda vms: vms["test"]["state"] == "paused"))["test"]["id"] == 1
        connection.lookupByName("test").resume()
        await vms_until(feed, lambda vms: vms["test"]["state"] == "running")
    assert (await api.get(LIVE_VMS))["vms"][0]["state"] == "running"


async def test_power_off_and_start_are_seen_and_the_number_follows(watched: tuple[Api, Feed], daemon: Daemon) -> None:
    _, feed = watched
    with daemon.connection() as connection:
        connection.lookupByName("test").destroy()
        off = (await vms_until(feed, lambda vms: vms["test"]["state"] == "shutoff"))["test"]
        assert (off["id"], off["vmid"]) == (None, "")
        connection.lookupByName("test").create()
        on = (await vms_until(feed, lambda vms: vms["test"]["state"] == "running"))["test"]
        assert (on["id"], on["vmid"]) == (2, "2")


async def test_a_guests_own_shutdown_is_seen(watched: tuple[Api, Feed], daemon: Daemon) -> None:
    _, feed = watched
    with daemon.connection() as connection:
        connection.lookupByName("test").shutdown()
    await vms_until(feed, lambda vms: vms["test"]["state"] == "shutoff")


async def test_a_domain_that_is_defined_started_and_undefined_comes_and_goes(watched: tuple[Api, Feed], daemon: Daemon) -> None:
    api, feed = watched
    with daemon.connection() as connection:
        domain = connection.defineXML(NEW.xml())
        new = (await vms_until(feed, lambda vms: "one-7" in vms))["one-7"]
        assert (new["uuid"], new["vmid"], new["id"], new["state"]) == (NEW.uuid, "7", None, "shutoff")
        domain.create()
        await vms_until(feed, lambda vms: vms["one-7"]["state"] == "running")
        domain.destroy()
        domain.undefine()
        await vms_until(feed, lambda vms: "one-7" not in vms)
    assert (await api.trigger("7", status=404))["code"] == "vm-unknown"


async def test_opennebulas_id_is_seen_when_it_is_written(watched: tuple[Api, Feed], daemon: Daemon) -> None:
    _, feed = watched
    with daemon.connection() as connection:
        connection.lookupByName("test").setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            "<vm><vmid>55</vmid></vm>",
            "one",
            "http://opennebula.org/xmlns/libvirt/1.0",
            libvirt.VIR_DOMAIN_AFFECT_LIVE,
        )
    await vms_until(feed, lambda vms: vms["test"]["vmid"] == "55")


async def test_a_vm_that_was_just_started_can_be_dumped_and_one_that_was_just_stopped_cannot(
    watched: tuple[Api, Feed], daemon: Daemon
) -> None:
    api, feed = watched
    with daemon.connection() as connection:
        connection.lookupByName("test").destroy()
        await vms_until(feed, lambda vms: vms["test"]["state"] == "shutoff")
        assert (await api.trigger("test", status=409))["code"] == "vm-not-running"
        connection.lookupByName("test").create()
        await vms_until(feed, lambda vms: vms["test"]["state"] == "running")
        (job,) = await api.dump("test")
        assert job["phase"] == "completed"


async def test_a_daemon_that_was_killed_is_said_to_be_gone_and_found_again(watched: tuple[Api, Feed], daemon: Daemon) -> None:
    api, feed = watched
    daemon.lab.kill_libvirtd()
    gone = await link_until(feed, "unreachable")
    assert gone["message"]
    assert (await api.trigger("test", status=503))["code"] == "hypervisor-unreachable"
    assert [vm["name"] for vm in (await api.get(LIVE_VMS))["vms"]] == ["test"]  # what was known last
    daemon.lab.restart_libvirtd()
    assert (await link_until(feed, "connected"))["message"] is None
    with daemon.connection() as connection:  # and events are heard again
        connection.lookupByName("test").suspend()
    await vms_until(feed, lambda vms: vms["test"]["state"] == "paused")
    while (codes := await told_codes(api))[0] != "hypervisor-connected":
        await feed.until(lambda message: message["type"] == "activity")  # the log is written after the state is told
    assert "hypervisor-unreachable" in codes


def test_a_question_that_keepalive_ends_was_put_to_a_daemon_that_hangs() -> None:
    ended = libvirt.libvirtError("connection closed due to keepalive timeout")
    assert isinstance(translated("qemu:///system", ended), HypervisorNotResponding)
    assert isinstance(translated("qemu:///system", libvirt.libvirtError("no such socket")), HypervisorUnreachable)


@thorough
async def test_a_daemon_that_hangs_is_said_to_hang_while_everything_else_answers(watched: tuple[Api, Feed], daemon: Daemon) -> None:
    api, feed = watched
    os.kill(daemon.lab.libvirtd_pid, signal.SIGSTOP)
    try:
        problem = await api.trigger("test", status=503)
        assert problem["code"] == "hypervisor-not-responding"
        assert (await link_until(feed, "not-responding"))["message"]
        for path in (LIVE_VMS, "/api/memory-dumps/records", "/api/memory-dumps/status", "/healthz"):
            await api.get(path)
    finally:
        os.kill(daemon.lab.libvirtd_pid, signal.SIGCONT)
    await link_until(feed, "connected")
    (job,) = await api.dump("test")
    assert job["phase"] == "completed"
