"""URLs as they may be shown."""

from __future__ import annotations

import re

_NEXT = re.compile(r",(?=[a-z][a-z0-9+.-]*://)")


def without_credentials(url: str) -> str:
    """The URL, or the comma-separated URLs, without user and password."""
    return ",".join(_shown(one) for one in _NEXT.split(url))


def _shown(url: str) -> str:
    """Without all that stands before the last `@`, since a password that is not quoted may hold anything."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]
