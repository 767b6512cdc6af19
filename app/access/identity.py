"""Who asks, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.rights import ROLES, Right, Role
from app.scope import WHOLE, Scope

Via = Literal["token", "session", "open", "proxy"]

VOUCHED_FOR = "oidc"
"""How log and audit trail call the session of somebody who has no account here."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and what showed it: an API token, a session's cookie, a proxy's word, or nothing because
    the service is open.

    ``account`` is theirs here; None for who has none (an open service, somebody whom another service vouches for). ``token`` is
    the number of theirs that was shown. Neither makes anybody somebody else.
    """

    name: str
    via: Via
    role: Role = "administrator"
    scope: Scope = WHOLE
    account: str | None = field(default=None, compare=False)
    token: int | None = field(default=None, compare=False)

    @property
    def shown_by(self) -> str:
        """What showed it, for log and audit trail: people at a provider are not to be taken for accounts of the same name."""
        return VOUCHED_FOR if self.via == "session" and self.account is None else self.via

    def may(self, right: Right) -> bool:
        """Whether that is among the rights of the role. On what, the scope says."""
        return right in ROLES[self.role]
