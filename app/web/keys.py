"""Where routes find the parts of the service: typed keys of the application and of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from app.access import Access, Identity, Right
from app.access.audit import Deed, Occasion
from app.access.keeping import Keeping
from app.access.presence import Stay
from app.access.trail import AuditTrail
from app.changes import Changes
from app.config import Settings
from app.hypervisor import Hypervisor
from app.jobs.inventory import Inventory
from app.jobs.journal import Journal
from app.jobs.pool import Pool
from app.model import HistoryStatus
from app.records.index import RecordIndex
from app.state import State
from app.web.assets import Assets
from app.web.feeds import Feeds
from app.web.names import OwnNames

if TYPE_CHECKING:  # it refuses with problems, whose pages are made with these keys
    from app.web.proxy import Proxies

SETTINGS = web.AppKey("settings", Settings)
OWN_NAMES = web.AppKey("own_names", OwnNames)
ACCESS = web.AppKey("access", Access)
PROXIES: web.AppKey[Proxies] = web.AppKey("proxies")
KEEPING = web.AppKey("keeping", Keeping)
AUDIT = web.AppKey("audit", AuditTrail)
HISTORY: web.AppKey[Callable[[], HistoryStatus]] = web.AppKey("history")
HYPERVISOR = web.AppKey("hypervisor", Hypervisor)
INDEX = web.AppKey("index", RecordIndex)
STATE = web.AppKey("state", State)
JOURNAL = web.AppKey("journal", Journal)
INVENTORY = web.AppKey("inventory", Inventory)
POOL = web.AppKey("pool", Pool)
CHANGES = web.AppKey("changes", Changes)
FEEDS = web.AppKey("feeds", Feeds)
ASSETS = web.AppKey("assets", Assets)
RIGHTS: web.AppKey[Mapping[tuple[str, str], Right | None]] = web.AppKey("rights")
"""What each route takes, by its method and the pattern of its path; None: a login is enough, or not even that."""

DEEDS: web.AppKey[Mapping[tuple[str, str], Deed | None]] = web.AppKey("deeds")
"""What each route does that the audit trail has to tell of, by the same."""

OPENAPI: web.AppKey[dict[str, Any]] = web.AppKey("openapi")

STAY = web.RequestKey("stay", Stay)
"""How an answer that takes long learns that its login has ended; set by the gate for all that is let in."""

IDENTITY = web.RequestKey("identity", Identity)
"""Who asks; set by the gate for everybody who is logged in."""

OCCASION = web.RequestKey("occasion", Occasion)
"""On what occasion the entries of the audit trail are written; set for every request."""
