"""Files that a parameter, a block or a setting names: regular ones only, and no more of them than a bound.

A FIFO or a device may never end, or block whoever opens it, and with it everything on the same event loop.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class BoundedReader(io.RawIOBase):
    """What a function reads: it fills what it is asked for, and raises OSError behind `max_bytes` bytes in all."""

    def __init__(self, read: Callable[[int], bytes], max_bytes: int, shown: str | None = None) -> None:
        self._read, self._max, self._left, self._shown = read, max_bytes, max_bytes, shown

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer, or as much of it as there is."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and (found := self._read(len(view) - filled)):
            view[filled : filled + len(found)] = found
            filled += len(found)
        self._left -= filled
        if self._left < 0:
            raise OSError(errno.EFBIG, f"it is larger than {self._max:,} bytes", self._shown)
        return filled


def read_regular(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises OSError, whose `strerror` says what is wrong with it."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > max_bytes else file.read(max_bytes + 1) or b""
    if max(size, len(content)) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes:,} bytes", str(path))
    return content


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading. Raises OSError, whose `strerror` says what is wrong with it."""
    require_regular(path)  # not even opened: some devices act on that
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY), "rb")
    try:
        _require_regular(os.fstat(file.fileno()), path)  # it may be another one by now
    except OSError:
        file.close()
        raise
    return file


def open_below(folder: Path, parts: Sequence[str]) -> BinaryIO:
    """A regular file on the way from a folder, open for reading; no symbolic link of the way is followed.

    Each part is opened in the folder before it, so that nobody can put a link there meanwhile. Raises OSError, whose
    `strerror` says what is wrong.
    """
    here = os.open(folder, _FOLDER)
    try:
        for part in parts[:-1]:
            here, before = _opened_in(here, part, _FOLDER), here
            os.close(before)
        path = folder.joinpath(*parts)
        _require_regular(os.stat(parts[-1], dir_fd=here, follow_symlinks=False), path)  # not even opened
        file = os.fdopen(_opened_in(here, parts[-1], _FILE), "rb")
    finally:
        os.close(here)
    try:
        _require_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def _opened_in(folder: int, part: str, flags: int) -> int:
    try:
        return os.open(part, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):  # by system, of a link
            raise OSError(error.errno, "a symbolic link, or no folder, stands on the way to it", part) from error
        raise


def require_regular(path: Path) -> None:
    """Raises OSError, whose `strerror` says what is wrong, unless there is a regular file."""
    _require_regular(path.stat(), path)


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind} and no regular file", str(path))
