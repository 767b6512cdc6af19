"""Access: who may come in, and as whom."""

from app.access.access import SCHEMA, SESSION_SEC, Access, Identity

__all__ = ["SCHEMA", "SESSION_SEC", "Access", "Identity"]
