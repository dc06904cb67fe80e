"""What the shell completes: asked of the stack that is up, with a short patience, and nothing where it is not."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

PATIENCE_S = 0.5


def council_names(incomplete: str) -> list[str]:
    """Names of councils that begin so, from Prefect's API."""
    from deployments.settings import load_settings
    from deployments.stack.places import Places

    try:
        settings = load_settings()
        record = Places.of(settings.home).load_record()
        url = settings.prefect_api_url or (record and record.parts["prefect"].url)
        if not url:
            return []
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{url}/block_types/slug/council/block_documents", timeout=PATIENCE_S) as answer:
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
