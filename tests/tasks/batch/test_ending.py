"""How the run of a file ends in Prefect."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from tasks.batch.output.folder import Finished
from tasks.batch.output.summary import Summing

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("importable_prefect")]


async def test_a_report_that_cannot_be_shown_fails_no_run_that_has_made_its_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another try would find OUTPUT there, and, told to replace it, ask all rows again."""
    from tasks.artifacts import optional
    from tasks.batch import ending
    from tasks.batch.running import CANCELLED

    async def away(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(ending, "acreate_markdown_artifact", away)
    log = Mock()
    monkeypatch.setattr(optional, "get_run_logger", lambda: log)
    finished = Finished("out.parquet", 0, Summing().summary(1.0))
    state = await ending.file_state("run", (finished, "# Report", CANCELLED))
    assert state.name == "Cancelled"
    told, *given = log.warning.call_args.args
    assert told % tuple(given) == "the report cannot be shown: no server"
