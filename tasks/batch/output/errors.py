"""What goes wrong while a batch is written, in words that name the file."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tasks.batch.records import BatchFileError
from tasks.council.plain import one_line


class OutputError(BatchFileError):
    """A file of a batch's output cannot be written or read, such as on a full disk; what was written before stands."""


class OutputInUse(BatchFileError):
    """Another batch writes the same output."""


class OutputFinished(BatchFileError):
    """There is nothing to resume: OUTPUT is there, and the parts that it was made of are gone."""


@contextmanager
def written(path: Path | str) -> Generator[None, None, None]:
    """Whatever the system says against writing there is told as OutputError, with the path."""
    with _named(path, "written"):
        yield


@contextmanager
def read(path: Path | str) -> Generator[None, None, None]:
    """The same of reading."""
    with _named(path, "read"):
        yield


@contextmanager
def _named(path: Path | str, how: str) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{one_line(str(path))} cannot be {how}: {error.strerror or one_line(str(error))}") from error
