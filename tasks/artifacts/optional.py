"""Artifacts that may fail: what is decided stays so, whether it can be shown or not."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import httpx
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger


@contextmanager
def optional_artifact(what: str) -> Generator[None, None, None]:
    """Show something in Prefect; where its server does not take it, that is told in the log, and the run goes on."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("%s cannot be shown: %s", what, error)
