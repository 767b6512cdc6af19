"""How tests speak to a service: requests with a token, the live feed, and waiting for what the feed tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.contract.described import assert_described
from tests.service import Service

Message = dict[str, Any]

ANSWER_SEC = 20.0
FINAL = frozenset({"completed", "failed", "cancelled", "interrupted"})
FEED = "/api/memory-dumps/ws"
CHANGES = "/api/memory-dumps/changes"
TRIGGER = "/api/memory-dumps/trigger"
RECORDS = "/api/memory-dumps/records"
JOBS = "/api/memory-dumps/jobs"
QUIET = ("alive", "room")
"""What comes whenever it likes: after silence, and when anybody writes to the disk. No part of what a test brought about."""


class Feed:
    """One subscriber of the live feed. It passes over what it is ``deaf_to``."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, deaf_to: Container[str] = QUIET) -> None:
        self.socket = socket
        self._deaf_to = deaf_to

    async def next(self) -> Message:
        """The next message, whatever it is."""
        async with asyncio.timeout(ANSWER_SEC):
            while True:
                message: Message = await self.socket.receive_json()
                if message["type"] not in self._deaf_to:
                    return message

    async def until(self, fits: Callable[[Message], bool]) -> list[Message]:
        """Every message up to the first that fits, which is the last of them."""
        heard: list[Message] = []
        while not heard or not fits(heard[-1]):
            heard.append(await self.next())
        return heard

    async def ended(self, job_ids: Iterable[str], *, snapshot: Message | None = None) -> dict[str, Message]:
        """Each of these jobs as it ended, from ``snapshot`` or from what comes after it."""
        ends: dict[str, Message] = {}
        wanted = set(job_ids)
        jobs = snapshot["jobs"] if snapshot else []
        while True:
            ends |= {job["job_id"]: job for job in jobs if job["job_id"] in wanted and job["phase"] in FINAL}
            if wanted == ends.keys():
                return ends
            message = await self.next()
            jobs = [message["job"]] if message["type"] == "job" else []


class Api:
    """A program with an API token."""

    def __init__(self, service: Service, session: aiohttp.ClientSession) -> None:
        self.service = service
        self.session = session

    @classmethod
    def of(cls, service: Service) -> Self:
        """With the token of ``service``'s first start."""
        return cls(service, aiohttp.ClientSession(service.url, headers=service.headers, cookie_jar=aiohttp.DummyCookieJar()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.session.close()

    async def get(self, path: str, status: int = 200) -> Message:
        """The JSON at ``path``, which has to be answered with ``status``."""
        return await self._ask("GET", path, status)

    async def post(self, path: str, body: object = None, status: int = 200, headers: Mapping[str, str] | None = None) -> Message:
        """The JSON that a POST is answered with."""
        return await self._ask("POST", path, status, json=body, headers=headers)

    async def trigger(self, *vm_ids: str, status: int = 202, headers: Mapping[str, str] | None = None, **more: Any) -> Message:
        """Ask for dumps of ``vm_ids``, or of whatever ``more`` says."""
        body = {"vm_ids": list(vm_ids), **more} if vm_ids else more
        return await self.post(TRIGGER, body, status, headers)

    async def dump(self, *vm_ids: str, **more: Any) -> list[Message]:
        """Trigger, and wait until every job has ended and the activity log says so; the jobs, in the order of the answer.

        However long that takes: progress is heard, too.
        """
        async with self.feed("topics=job,activity,progress") as feed:
            await feed.next()
            job_ids = [job["job_id"] for job in (await self.trigger(*vm_ids, **more))["jobs"]]
            ends: dict[str, Message] = {}
            untold = set(job_ids)
            while untold:
                message = await feed.next()
                if message["type"] == "job" and message["job"]["phase"] in FINAL:
                    ends[message["job"]["job_id"]] = message["job"]
                elif message["type"] == "activity" and message["activity"]["job_id"] in ends:
                    untold.discard(message["activity"]["job_id"])
            return [ends[job_id] for job_id in job_ids]

    async def ended(self, job_ids: Iterable[str]) -> dict[str, Message]:
        """Wait for the end of these jobs, as the feed tells it."""
        async with self.feed() as feed:
            return await feed.ended(job_ids, snapshot=await feed.next())

    async def connected(self) -> Message:
        """Wait until the service has seen the hypervisor; the first ``vms`` that has any."""
        async with self.feed("topics=vms") as feed:
            message = await feed.next()
            while not message["vms"]:
                message = await feed.next()
            return message

    @contextlib.asynccontextmanager
    async def feed(self, query: str = "", *, deaf_to: Container[str] = QUIET) -> AsyncIterator[Feed]:
        """A subscription."""
        async with self.session.ws_connect(f"{FEED}?{query}", max_msg_size=1 << 26) as socket:
            yield Feed(socket, deaf_to)

    async def _ask(self, method: str, path: str, status: int, **more: Any) -> Message:
        async with self.session.request(method, path, **more) as answer:
            text = await answer.text()
            assert answer.status == status, f"{method} {path}: {answer.status} {text}"
            expected = "application/json" if status < 400 else "application/problem+json"
            assert answer.content_type == expected
            document: Message = await answer.json(content_type=None)
            assert_described(method, answer.url.raw_path, status, expected, document)
            if status >= 400:
                assert_problem(document, status)
            return document


def assert_problem(document: Message, status: int) -> None:
    """RFC 9457, with a code that is never missing."""
    assert document["status"] == status
    assert document["type"] == "about:blank"
    for member in ("title", "detail", "code"):
        assert isinstance(document[member], str)
        assert document[member]
