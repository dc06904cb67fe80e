"""Files that a parameter, a block or a setting names: regular ones only, and no more of them than a bound.

A FIFO or a device may never end, or block whoever opens it, and with it everything on the same event loop.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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


def require_regular(path: Path) -> None:
    """Raises OSError, whose `strerror` says what is wrong, unless there is a regular file."""
    _require_regular(path.stat(), path)


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind} and no regular file", str(path))
