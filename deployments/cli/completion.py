"""What the shell completes: asked of the stack that is up, with a short patience, and nothing where it is not."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

PATIENCE_S = 0.5


def council_names(incomplete: str) -> list[str]:
    """Names of councils that begin so, from Prefect's API."""
    from deployments.settings import load_settings
    from deployments.stack.places import Places, read_key
    from deployments.stack.probes import basic, users_prefect_key

    try:
        settings = load_settings()
        places = Places.of(settings.home)
        record = places.load_record()
        ours = record is not None and not record.parts["prefect"].external
        url = record.parts["prefect"].url if record is not None else settings.prefect_api_url
        if not url:
            return []
        key = basic(read_key(places.prefect_auth)) if ours else users_prefect_key()
        request = urllib.request.Request(
            f"{url}/block_types/slug/council/block_documents", headers={"Authorization": key} if key else {}
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=PATIENCE_S) as answer:
            names = [str(block["name"]) for block in json.loads(answer.read(1 << 22))]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def part_names(incomplete: str) -> list[str]:
    """Names of logs that begin so."""
    from deployments.settings import load_settings
    from deployments.stack.logs import log_files

    try:
        home: Path = load_settings().home
    except ValueError:
        return []
    return [name for name in log_files(home) if name.startswith(incomplete)]
