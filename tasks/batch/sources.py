"""Where a file of rows comes from: a path, a URL, or standard input; open, and bounded."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from blocks.files import BoundedReader, open_regular
from blocks.remote_files import file_name, open_remote, require_known, shown_url
from tasks.batch.lines import MAX_FILE
from tasks.batch.places import Places, is_url, local_path
from tasks.batch.records import BatchFileError
from tasks.council.plain import one_line

STANDARD_INPUT = "-"
MAX_SPOOLED = 8_000_000_000
"""Bytes that are put into a temporary file of what cannot be read but from its beginning to its end."""
_CHUNK = 1 << 20


class Source(NamedTuple):
    """An open file: what people call it, the end of its name, and its content."""

    name: str
    ending: str
    file: BinaryIO


@contextmanager
def opened_source(named: str | Path, places: Places | None = None) -> Iterator[Source]:
    """The file of a path or URL, or standard input by `-`. Raises BatchFileError.

    With `places` it lies in one of them, and is no standard input.
    """
    source = _source(named, places)
    with closing(source.file):
        yield source


@contextmanager
def spooled(file: BinaryIO, name: str, most: int) -> Iterator[BinaryIO]:
    """The same content in a temporary file of the system, which is gone at the end. Raises BatchFileError."""
    with tempfile.TemporaryFile() as kept:
        size = 0
        try:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                if size > most:
                    told = f"has more than {most:,} bytes, which is too much for a temporary file"
                    raise BatchFileError(f"{name} {told}")
                kept.write(chunk)
            kept.flush()
        except OSError as error:
            raise BatchFileError(f"{name} cannot be read into a temporary file: {error.strerror or error}") from error
        kept.seek(0)
        yield kept  # type: ignore[misc] # a wrapper of a file, which is one


def _source(named: str | Path, places: Places | None) -> Source:
    text = str(named)
    if isinstance(named, str) and is_url(named):
        return _of_url(named, places)
    if named == STANDARD_INPUT and places is None:
        return Source("standard input", "", _standard_input())
    return _of_path(Path(text), places)


def _of_url(url: str, places: Places | None) -> Source:
    shown = one_line(shown_url(url))
    try:
        if url.lower().startswith("file://") and "::" not in url:
            return _of_path(local_path(url), places)
        require_known(url)
        allowed = url if places is None else str(places.allowed(url))
        name = one_line(file_name(url))
        return Source(name, Path(name).suffix.lower(), open_remote(allowed, MAX_FILE))
    except OSError as error:
        raise BatchFileError(f"{shown} cannot be read: {error.strerror or error}") from None


def _of_path(path: Path, places: Places | None) -> Source:
    name = one_line(path.name)
    try:
        file = open_regular(path) if places is None else places.opened(str(path))
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, BatchFileError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise BatchFileError(f"{one_line(str(path))} cannot be read: {reason}") from error
    if os.fstat(file.fileno()).st_size > MAX_FILE:
        file.close()
        raise BatchFileError(f"{name} has more than {MAX_FILE:,} bytes; split it")
    return Source(name, path.suffix.lower(), file)


def _standard_input() -> BinaryIO:
    """Raises BatchFileError where nothing can come from there."""
    stream: Any = sys.stdin
    if stream is None or stream.closed:
        raise BatchFileError("INPUT: - is standard input, which is closed")
    if stream.isatty():
        raise BatchFileError("INPUT: - is standard input, which is a terminal here; give it a file: `... - < rows.csv`")
    with suppress(OSError):  # a stream of a test has no number
        os.set_blocking(stream.fileno(), True)  # else a pause of the writer would look like the end
    # The stream itself is left open.
    return io.BufferedReader(BoundedReader(stream.buffer.read1, MAX_FILE), _CHUNK)
