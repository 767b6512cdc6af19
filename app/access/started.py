"""What a service started with, as the audit trail tells it: every setting, no secret."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from app import __version__
from app.access.audit import Note, service_note
from app.access.chain import Detail
from app.config import Settings

_SECRET = re.compile(r"token|secret|password")
_USERINFO = re.compile(r"//[^/@\s]*:[^/@\s]*@")


def started_with(settings: Settings) -> Note:
    """Each setting by its name; of one that is secret, whether it is set."""
    details = {each.name: _told(each.name, getattr(settings, each.name)) for each in dataclasses.fields(settings)}
    return dataclasses.replace(service_note("settings", f"Memory Dumps {__version__}"), details=details)


def _told(name: str, value: object) -> Detail:
    if value is None or isinstance(value, bool):
        return value
    if _SECRET.search(name):
        return "set"
    if isinstance(value, int):
        return value
    if isinstance(value, (str, float, Path)):
        return _USERINFO.sub("//…@", f"{value}")
    return _USERINFO.sub("//…@", repr(value))
