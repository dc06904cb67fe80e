"""Files of rows in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.tasks.batch.reading import Files
from tests.tasks.batch.world import Batches


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Writes and reads files there."""
    return Files(tmp_path)


@pytest.fixture
def batches(importable_prefect: None, monkeypatch: pytest.MonkeyPatch) -> Generator[Batches, None, None]:
    """Batches on a record in memory, on a clock of its own."""
    made = Batches(monkeypatch)
    yield made
    made.close()
