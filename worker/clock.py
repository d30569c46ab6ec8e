"""The time."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time, aware of being UTC."""
    return datetime.now(UTC)
