"""Files of rows in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.batch.reading import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Writes and reads files there."""
    return Files(tmp_path)
