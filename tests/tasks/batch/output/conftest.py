"""An output in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.batch.output.outputs import Outputs


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    """Opens outputs there."""
    return Outputs(tmp_path)
