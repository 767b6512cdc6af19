"""What somebody may do: rights, each its own, and the roles that bundle them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Right = Literal["see", "dump", "cancel", "download", "delete", "administer"]
RIGHTS: tuple[Right, ...] = ("see", "dump", "cancel", "download", "delete", "administer")

Role = Literal["viewer", "operator", "investigator", "administrator"]

ROLES: Mapping[Role, frozenset[Right]] = {
    "viewer": frozenset({"see"}),
    "operator": frozenset({"see", "dump", "cancel"}),
    "investigator": frozenset({"see", "dump", "download"}),
    "administrator": frozenset(RIGHTS),
}
