"""Files by URL, through fsspec: bounded as they are read, and told without what a URL keeps secret.

What a store says of a failure may repeat a URL with its user, password and signature, so its kind alone is told.
"""

from __future__ import annotations

import errno
import io
import os
import re
from typing import Any, BinaryIO
from urllib.parse import unquote

from fsspec.core import url_to_fs

from blocks.files import BoundedReader

URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
"""How a URL begins."""
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "memory": "fsspec"}
"""The schemes that are read, and the package that reads each."""
_BUFFER = 1 << 20


class _Guarded(BoundedReader):
    """A file of fsspec's that gives no more than so many bytes, fills what it is asked for, and tells no secret."""

    def __init__(self, file: Any, shown: str, max_bytes: int) -> None:
        super().__init__(self._some, max_bytes, shown)
        self._file, self._url = file, shown
        self._seekable = _can_seek(file)

    def seekable(self) -> bool:
        return self._seekable

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if not self._seekable:
            raise io.UnsupportedOperation("it can be read from its beginning only")
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _some(self, most: int) -> bytes:
        try:
            return bytes(self._file.read(most))
        except Exception as error:  # noqa: BLE001 - each store has errors of its own
            raise _told(error, self._url) from None


def open_remote(url: str, max_bytes: int) -> BinaryIO:
    """A file by its URL, open for reading. Raises OSError, whose `strerror` says what is wrong with it.

    More than `max_bytes` of it are not read; one that says that it has more is not begun.
    """
    shown = shown_url(url)
    try:
        system, path = url_to_fs(url)
        file = system.open(path, "rb")
    except Exception as error:  # noqa: BLE001 - each store has errors of its own
        raise _told(error, shown) from None
    if (getattr(file, "size", None) or 0) > max_bytes:
        file.close()
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes:,} bytes", shown)
    return io.BufferedReader(_Guarded(file, shown, max_bytes), _BUFFER)


def require_known(url: str) -> None:
    """Raises OSError, whose `strerror` says what is wrong, unless a file of this scheme can be read."""
    if "::" in url:
        raise OSError(errno.EINVAL, "a URL within another is not followed", shown_url(url))
    found = URL.match(url)
    if found is None or found["scheme"].lower() not in PACKAGES:
        raise OSError(errno.EINVAL, f"its scheme has to be one of {', '.join(PACKAGES)}", shown_url(url))


def shown_url(url: str) -> str:
    """The URL without user, password, query and fragment; without all of it where they may stand anywhere."""
    scheme, _, rest = url.partition("://")
    head = re.split("[?#]", rest, maxsplit=1)[0]
    address, slash, path = head.partition("/")
    if "@" in rest[len(address) :]:  # a password that is not quoted holds anything
        return f"{scheme}://..."
    return f"{scheme}://{address.rpartition('@')[2]}{slash}{path}"


def file_name(url: str) -> str:
    """The last part of a URL's path, by which people know the file."""
    return unquote(shown_url(url).rstrip("/").rpartition("/")[2])


def _can_seek(file: Any) -> bool:
    """Tried, since some say so and raise."""
    try:
        file.seek(1)
        file.seek(0)
    except (NotImplementedError, OSError, ValueError):
        return False
    return True


def _told(error: BaseException, shown: str) -> OSError:
    """The kind of a store's error, in words that repeat none of its own."""
    return OSError(getattr(error, "errno", None) or errno.EIO, _reason(error, shown), shown)


def _reason(error: BaseException, shown: str) -> str:
    scheme = shown.partition("://")[0].lower()
    if isinstance(error, ImportError):
        package = PACKAGES.get(scheme, scheme)
        return f"{scheme}:// needs the package {package}, which is not installed: `pip install {package}`"
    words = {
        FileNotFoundError: "there is no such file",
        PermissionError: "access is denied",
        IsADirectoryError: "it is a folder",
        TimeoutError: "it took too long",
    }
    for kind, told in words.items():
        if isinstance(error, kind):
            return told
    if isinstance(status := getattr(error, "status", None), int):
        return f"the server answered {status}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return f"it cannot be reached ({type(error).__name__})"
