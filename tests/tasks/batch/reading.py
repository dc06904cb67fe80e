"""Files of rows for tests, and their rows as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tasks.batch.files import opened
from tasks.batch.records import BatchFileError
from tasks.batch.rows import Columns, Row, read_rows


class Read(NamedTuple):
    """All rows of a file, how many halves of characters were replaced, and what else was seen."""

    rows: list[Row]
    replaced: int
    notes: dict[str, int]

    @property
    def tasks(self) -> list[str | None]:
        """The task of each row; None of a bad one."""
        return [row.item and row.item.task for row in self.rows]

    @property
    def ids(self) -> list[str | None]:
        """The id of each row as it is written."""
        return [row.id for row in self.rows]

    @property
    def lines(self) -> list[int]:
        """The line of each row."""
        return [row.line for row in self.rows]

    @property
    def contexts(self) -> list[dict[str, Any] | None]:
        """The context of each row; None of a bad one."""
        return [row.item and row.item.context for row in self.rows]

    @property
    def told(self) -> list[str]:
        """What is told of each bad row."""
        return [row.fault.text for row in self.rows if row.fault]

    @property
    def faults(self) -> list[tuple[int, str, str]]:
        """Line, field and reason of each bad row."""
        return [(row.line, row.fault.field, row.fault.reason) for row in self.rows if row.fault]


class Files:
    """Writes a file into a folder and reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(
        self,
        name: str,
        content: str | bytes,
        columns: Columns | None = None,
        *,
        keep: bool = False,
        **how: Any,
    ) -> Read:
        """What stands in it."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with opened(path, **how) as records:
            rows = list(read_rows(records, columns or Columns(), keep))
            return Read(rows, records.replaced, dict(records.notes))

    def refused(self, name: str, content: str | bytes, columns: Columns | None = None, **how: Any) -> str:
        """Why it is refused as a whole."""
        with pytest.raises(BatchFileError) as error:
            self.read(name, content, columns, **how)
        return str(error.value)
