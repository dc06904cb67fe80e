"""What a token looks like, for whoever makes or finds one without the record."""

from __future__ import annotations

import re
import secrets

PREFIX = "cnc_"
TEXT = re.compile(rf"{PREFIX}([a-z0-9]{{12}})_([A-Za-z0-9_-]{{43}})")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_text() -> str:
    """A token that is nowhere kept yet; its secret has 256 random bits."""
    token_id = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    return f"{PREFIX}{token_id}_{secrets.token_urlsafe(32)}"


def parts_of(text: str) -> tuple[str, str] | None:
    """The id and the secret of a token; None of what is none."""
    found = TEXT.fullmatch(text)
    return None if found is None else (found[1], found[2])
