"""A real OpenID provider for the tests that log in at one: the npm package ``oidc-provider``, fetched by ``setup/setup.sh dev``."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import playwright

from tests.service import ROOT

NODE = Path(playwright.__file__).parent / "driver" / "node"
TREE = ROOT / "var" / "tests" / "provider"
PROGRAM = Path(__file__).parent / "provider.mjs"


def is_there() -> bool:
    """Whether the set-up could fetch it: that takes npm."""
    return (TREE / "node_modules" / "oidc-provider").is_dir()


@contextlib.contextmanager
def running_provider() -> Iterator[str]:
    """One on loopback; its issuer. Ends with the block, and if this process dies."""
    process = subprocess.Popen(
        [NODE, PROGRAM, TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(20)


async def log_in(browser: aiohttp.ClientSession, address: str, person: str) -> str:
    """Go through the provider's pages as ``person`` (``anna+soc``: who is in the group soc); the address that it leads back to."""
    for _ in range(10):
        address = address.replace("//localhost:", "//127.0.0.1:")  # the same, and no thread is needed to look the name up
        async with browser.get(address, allow_redirects=False) as answer:
            page = await answer.text()
            if answer.status in (302, 303):
                address = urljoin(address, answer.headers["Location"])
                if "/login/oidc/back" in address:
                    return address
                continue
            assert answer.status == 200, page
        action = re.search(r'<form[^>]*action="([^"]+)"', page)
        assert action, page
        form = {"prompt": "login", "login": person, "password": "any"} if 'name="login"' in page else {"prompt": "consent"}
        async with browser.post(urljoin(address, action[1]), data=form, allow_redirects=False) as answer:
            address = urljoin(address, answer.headers["Location"])
    raise AssertionError(f"The provider leads to {address}, and not back")
