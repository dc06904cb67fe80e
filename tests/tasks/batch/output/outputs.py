"""Opens outputs in a folder, on a clock that stands until it is moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.batch.output.folder import Limits, OutputFolder, open_output
from tasks.batch.output.rows import RowResult
from tasks.batch.records import BatchFileError

ASKED = {"council": "dev", "digest": "c" * 8, "columns": {"task": "task"}}


class Outputs:
    """One folder, and the outputs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0

    def open(self, name: str = "a.parquet", asked: Any = ASKED, **how: Any) -> OutputFolder:
        """The output of that name."""
        return open_output(self.folder / name, asked, clock=lambda: self.now, **how)

    def refused(self, name: str = "a.parquet", asked: Any = ASKED, **how: Any) -> str:
        """Why it cannot be had."""
        with pytest.raises(BatchFileError) as error:
            self.open(name, asked, **how).__exit__(None, None, None)
        return str(error.value)

    def written(self, *rows: RowResult, name: str = "a.parquet", limits: Limits | None = None, **how: Any) -> None:
        """A batch that ended before it was finished, with these rows in its parts."""
        with self.open(name, limits=limits or Limits(), **how) as output:
            for one in rows:
                output.write(one)

    def parts(self, name: str = "a.parquet") -> Path:
        """The folder of its parts."""
        return self.folder / f"{name}.parts"

    def part_names(self, name: str = "a.parquet") -> list[str]:
        """Files of parts, in their order."""
        return sorted(path.name for path in self.parts(name).glob("part-*"))

    def manifest(self, name: str = "a.parquet") -> dict[str, Any]:
        """What stands in it."""
        return json.loads((self.parts(name) / "manifest.json").read_text())

    def rows(self, name: str = "a.parquet") -> list[dict[str, Any]]:
        """The finished rows, of Parquet."""
        return pq.read_table(self.folder / name).to_pylist()

    def column(self, column: str, name: str = "a.parquet") -> list[Any]:
        """One column of them."""
        return pq.read_table(self.folder / name).column(column).to_pylist()
