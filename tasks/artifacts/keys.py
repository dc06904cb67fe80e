"""Keys of Prefect artifacts, which allow only lower-case letters, digits and dashes."""

from __future__ import annotations

import hashlib
import re


def artifact_key(kind: str, deliberation_id: str) -> str:
    """`kind-<id>`; an id with other characters is spelled differently and made unique by a digest."""
    if re.fullmatch(r"[a-z0-9-]+", deliberation_id):
        return f"{kind}-{deliberation_id}"
    plain = re.sub(r"[^a-z0-9-]", "-", deliberation_id.lower())
    return f"{kind}-{plain}-{hashlib.sha256(deliberation_id.encode()).hexdigest()[:8]}"
