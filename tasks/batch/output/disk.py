"""Files that are there whole or not at all, also after a kill and a loss of power."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tasks.batch.output.errors import read, written

PRIVATE, BY_UMASK = 0o600, 0o666
"""Permission bits of a new file, less what the umask takes."""


def temporary(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def replaced(path: Path, mode: int = BY_UMASK) -> Generator[BinaryIO, None, None]:
    """A new file that takes the place of `path` at the end, or is gone where that is not reached.

    Raises OutputError.
    """
    unfinished = temporary(path)
    try:
        with written(path):
            unfinished.unlink(missing_ok=True)  # a kill left it
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(unfinished, flags, mode), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def replace_bytes(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """A small file with this content in the place of `path`. Raises OutputError."""
    with replaced(path, mode) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Make sure that names in a folder outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """The digest (hex) of a file, which may be large. Raises OutputError."""
    with read(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
