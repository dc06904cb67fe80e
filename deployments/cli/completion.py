"""What the shell completes: asked of the stack that is up, with a short patience, and nothing where it is not."""

from __future__ import annotations

import re
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import typer

PATIENCE_S = 0.5
NAME = re.compile(r"[a-z0-9-]{1,100}")
"""What Prefect lets a block be called; nothing else reaches the shell."""


def council_names(incomplete: str) -> list[str]:
    """Names of councils that begin so, from the gateway."""
    from deployments.cli.gateway import client
    from tasks.council.exceptions import ConclaveError

    try:
        with redirect_stderr(StringIO()):  # a shell that completes shows no reasons
            councils = client(timeout_s=PATIENCE_S, retry=False).councils()
    except (typer.Exit, ConclaveError, ValueError):
        return []
    return [name for name in councils if NAME.fullmatch(name) and name.startswith(incomplete)]


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
