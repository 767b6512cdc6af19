"""What the contract's tests share: a hypervisor with VMs of every kind, a service on it, and how one speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.contract.speech import Api
from tests.nodes import PAUSED, SHUTOFF, Vm, node, numbered_uuid
from tests.service import Service, running_service

ALPHA = Vm(name="alpha", uuid=numbered_uuid(1))  # libvirt ID 1
BETA = Vm(name="beta", uuid=numbered_uuid(2), state=PAUSED, memory_mib=96, vcpus=2)  # libvirt ID 2
ONE = Vm(name="one-42", uuid=numbered_uuid(3))  # libvirt ID 3, vmid 42
NEBULA = Vm(name="one-43", uuid=numbered_uuid(4), opennebula="777", group="blue")  # libvirt ID 4, vmid 777
TWIN_A = Vm(name="twin-a", uuid=numbered_uuid(5), opennebula="500")  # libvirt ID 5, vmid 500
TWIN_B = Vm(name="twin-b", uuid=numbered_uuid(6), opennebula="500")  # libvirt ID 6, vmid 500
OFF = Vm(name="off", uuid=numbered_uuid(7), state=SHUTOFF)  # no libvirt ID, no vmid
OFF_ONE = Vm(name="one-99", uuid=numbered_uuid(8), state=SHUTOFF)  # vmid 99
NAMED_1 = Vm(name="1", uuid=numbered_uuid(9))  # called as alpha is numbered; libvirt ID 7
NAMED_UUID = Vm(name=ALPHA.uuid, uuid=numbered_uuid(10), state=SHUTOFF)  # called as alpha's uuid is
VMS = (ALPHA, BETA, ONE, NEBULA, TWIN_A, TWIN_B, OFF, OFF_ONE, NAMED_1, NAMED_UUID)
ACTIVE = tuple(vm for vm in VMS if vm.state != SHUTOFF)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on ``VMS`` that the tests of a module share: they leave it as able as they found it."""
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, LIBVIRT_URI=node(folder / "node.xml", VMS)) as started:
        yield started


@pytest.fixture
async def api(service: Service) -> AsyncIterator[Api]:
    """A program that speaks to ``service`` with its API token, once the inventory is there."""
    async with Api.of(service) as speaker:
        await speaker.connected()
        yield speaker


@pytest.fixture
async def nobody(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody without any login, who keeps no cookies and follows no redirects by themselves."""
    async with aiohttp.ClientSession(service.url, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session
