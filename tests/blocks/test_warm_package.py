"""The task runner is a package of its own: what import-linter does not see."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "blocks" / "warm"


def test_no_source_file_of_the_task_runner_names_this_project() -> None:
    """Neither in code nor in words."""
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 5
    assert [file.name for file in files if "conclave" in file.read_text().lower()] == []
