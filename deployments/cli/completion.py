"""What the shell completes: asked of the stack that is up, with a short patience, and nothing where it is not."""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Any

from blocks import names

PATIENCE_S = 0.5
NAME = re.compile(r"[a-z0-9-]{1,100}")
"""What Prefect lets a block be called; nothing else reaches the shell."""
UNANSWERED = (OSError, ValueError, KeyError, TypeError, RecursionError, http.client.HTTPException)
"""What asking raises where nobody answers, or where the answer is none of Prefect's."""


def council_names(incomplete: str) -> list[str]:
    """Names of councils of ours that begin so, as users type them, from Prefect's API."""
    try:
        councils = _councils()
    except UNANSWERED:
        return []
    return [name for name in councils if NAME.fullmatch(name) and name.startswith(incomplete)]


def _councils() -> list[str]:
    """Names of all councils of ours, none where no Prefect is known; raises one of `UNANSWERED`."""
    url, key = _prefect()
    if not url:
        return []
    blocks = _asked(f"{url}/block_types/slug/council/block_documents", key)
    return names.ours([str(block["name"]) for block in blocks], _prefixes_to_avoid(url, key))


def _prefect() -> tuple[str | None, str | None]:
    """Where Prefect's API is, and the header with its key; takes on the prefix that the stack was started with."""
    from deployments.settings import load_settings
    from deployments.stack.paths import StackPaths, read_key
    from deployments.stack.probes import basic, users_prefect_key

    settings = load_settings()
    paths = StackPaths.of(settings.home)
    record = paths.load_record()
    if record is None:
        return settings.prefect_api_url, users_prefect_key({})
    if record.prefix:
        os.environ.setdefault(names.VARIABLE, record.prefix)
    prefect = record.parts["prefect"]
    if prefect.external:
        return prefect.url, users_prefect_key(record.given)
    return prefect.url, basic(read_key(paths.prefect_auth))


def _prefixes_to_avoid(url: str, key: str | None) -> list[str]:
    """Prefixes that tell others' names in this Prefect from ours; none where ours carry one themselves."""
    if names.prefix():
        return []
    marked = [names.prefix_of(str(mark["name"])) for mark in _asked(f"{url}/variables/filter", key, {})]
    return [prefix for prefix in marked if prefix]


def _asked(url: str, key: str | None, body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    from deployments.stack.probes import DIRECT

    headers = {"Content-Type": "application/json", **({"Authorization": key} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    with DIRECT.open(request, timeout=PATIENCE_S) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read(1 << 22))
        return found


def rule_names(incomplete: str) -> list[tuple[str, str]]:
    """Names of tally rules that begin so, with their words."""
    from tasks.council.voting.rules.registry import RULES

    return [(rule.name, rule.words) for rule in RULES.values() if rule.name.startswith(incomplete)]


def part_names(incomplete: str) -> list[str]:
    """Names of logs that begin so."""
    from deployments.settings import load_settings
    from deployments.stack.logs import log_files

    try:
        home: Path = load_settings().home
    except ValueError:
        return []
    return [name for name in log_files(home) if name.startswith(incomplete)]
