"""Access: who may come in, as whom, and what they did."""

from app.access.access import SESSION_SEC, Access
from app.access.audit import SCHEMA as _AUDIT_SCHEMA
from app.access.identity import Identity
from app.access.schema import SCHEMA as _ACCESS_SCHEMA
from app.access.schema import upgrade
from app.rights import RIGHTS, ROLES, Right, Role

SCHEMA = f"{_ACCESS_SCHEMA}{_AUDIT_SCHEMA}"

__all__ = ["RIGHTS", "ROLES", "SCHEMA", "SESSION_SEC", "Access", "Identity", "Right", "Role", "upgrade"]
