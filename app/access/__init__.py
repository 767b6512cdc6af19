"""Access: who may come in, and as whom."""

from app.access.access import SCHEMA, SESSION_SEC, Access, Identity
from app.access.rights import RIGHTS, ROLES, Right, Role

__all__ = ["RIGHTS", "ROLES", "SCHEMA", "SESSION_SEC", "Access", "Identity", "Right", "Role"]
